"""How new messages reach their table: as values of one statement, in one JSON text, or in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement, with_pieces
from tokenmem.messages.message import Message
from tokenmem.messages.values import dump_json
from tokenmem.operations.rows import payload_text, values_of

FEW = 4
"""Messages up to which each value is a parameter of its own. A user's message and a reply are few.

A quarter of what an append of two takes is saved: psycopg writes arrays in Python, and JSON is read twice.
"""

MANY = 200
"""Messages above which PostgreSQL is sent them by COPY: faster for each, but three more round trips."""

_COLUMNS = """conversation_id, position, role, kind, content, payload, token_count, tokens_before, pinned"""

_INSERT = Statement("INSERT INTO {messages} ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", columns=_COLUMNS)
_INSERT_AT = Statement(
    "INSERT INTO {messages} ({columns}, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", columns=_COLUMNS
)
_COPY = Statement("COPY {messages} ({columns}) FROM STDIN", columns=_COLUMNS)

_FROM_TAKEN = """
    INSERT INTO {messages} ({columns}, created_at)
    SELECT :id, taken_position - :count + m.number, m.role, m.kind, m.content, CAST(m.payload AS json),
        m.token_count, taken_tokens - :tokens + m.tokens_before, m.pinned, taken_at
    FROM taken, {rows} AS m (role, kind, content, payload, token_count, tokens_before, pinned, number)
"""
_ROW = """(CAST(:role_{n} AS text), CAST(:kind_{n} AS text), CAST(:content_{n} AS text),
        CAST(:payload_{n} AS text), CAST(:token_count_{n} AS int), CAST(:tokens_before_{n} AS bigint),
        CAST(:pinned_{n} AS boolean), {n})"""
_ROWS = """ROWS FROM (json_to_recordset(CAST(:rows AS json)) AS (
        role text, kind text, content text, payload text, token_count int, tokens_before bigint,
        pinned boolean)) WITH ORDINALITY"""


def from_taken(count: int) -> str:
    """PostgreSQL's statement that stores so many messages, whose parameters are `values`; see `together`."""
    rows = _ROWS
    if count <= FEW:
        rows = f"(VALUES {', '.join(with_pieces(_ROW, n=str(n)) for n in range(1, count + 1))})"
    return with_pieces(_FROM_TAKEN, columns=_COLUMNS, rows=rows)


def values(messages: Sequence[Message], token_counts: Sequence[int]) -> dict[str, object]:
    """The parameters of `from_taken` for these messages."""
    rows, before = [], 0
    for message, tokens in zip(messages, token_counts, strict=True):
        rows.append(values_of(message, tokens) | {"tokens_before": before})
        before += tokens
    if len(rows) > FEW:
        return {"rows": dump_json(rows)}
    return {f"{name}_{number}": value for number, row in enumerate(rows, 1) for name, value in row.items()}


def in_bulk(connection: sa.Connection, scope: Scope, rows: Iterable[Row]) -> None:
    """Store rows of `bulk_rows`, whose conversations' rows have been taken before."""
    if connection.dialect.name == "postgresql":
        _COPY.copy(connection, scope, rows)
    else:
        _INSERT.run_many(connection, scope, rows)


def at_moment(connection: sa.Connection, scope: Scope, rows: Iterable[Row], moment: str) -> None:
    """Store rows of `bulk_rows` on SQLite, as stored at this moment."""
    _INSERT_AT.run_many(connection, scope, ((*row, moment) for row in rows))


def bulk_rows(
    conversation_id: str,
    messages: Sequence[Message],
    token_counts: Sequence[int],
    *,
    first_position: int,
    tokens_before: int,
) -> Iterator[Row]:
    """One tuple a message, for `in_bulk`."""
    for position, message in enumerate(messages, first_position):
        tokens = token_counts[position - first_position]
        yield (
            conversation_id,
            position,
            message.role,
            message.kind,
            message.content,
            payload_text(message),
            tokens,
            tokens_before,
            message.pinned,
        )
        tokens_before += tokens
