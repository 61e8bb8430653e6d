"""How new messages reach their table: as values of one statement, in one JSON text, or in bulk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement, with_pieces
from tokenmem.messages.message import Message
from tokenmem.messages.values import dump_json
from tokenmem.operations.rows import as_stored, metadata_text, payload_text, values_of

FEW = 4
"""Messages up to which each value is a parameter of its own. A user's message and a reply are few.

A quarter of what an append of two takes is saved: psycopg writes arrays in Python, and JSON is read twice.
"""

MANY = 200
"""Messages above which PostgreSQL is sent them by COPY: faster for each, but three more round trips."""

_COLUMNS = """conversation_id, position, role, kind, content, payload, token_count, tokens_before, pinned,
    created_at"""
_BESIDE = ", metadata, stored_at"

_INSERT = Statement(
    "INSERT INTO {messages} ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    columns=_COLUMNS + _BESIDE,
)
_COPY = Statement("COPY {messages} ({columns}) FROM STDIN", columns=_COLUMNS + _BESIDE)

_FROM_TAKEN = """
    INSERT INTO {messages} ({columns})
    SELECT :id, taken_position - :count + m.number, m.role, m.kind, m.content, CAST(m.payload AS json),
        m.token_count, taken_tokens - :tokens + m.tokens_before, m.pinned, {beside_values}
    FROM taken, {rows} AS m (role, kind, content, payload, token_count, tokens_before, pinned{names}, number)
"""
_ROW = """(CAST(:role_{n} AS text), CAST(:kind_{n} AS text), CAST(:content_{n} AS text),
        CAST(:payload_{n} AS text), CAST(:token_count_{n} AS int), CAST(:tokens_before_{n} AS bigint),
        CAST(:pinned_{n} AS boolean){beside_row}, {n})"""
_ROWS = """ROWS FROM (json_to_recordset(CAST(:rows AS json)) AS (
        role text, kind text, content text, payload text, token_count int, tokens_before bigint,
        pinned boolean{beside_types})) WITH ORDINALITY"""

_WITH_BESIDE = {
    "columns": _COLUMNS + _BESIDE,
    "beside_values": """COALESCE(m.created_at, taken_at), CAST(m.metadata AS json),
        CASE WHEN m.created_at IS NOT NULL THEN taken_at END""",
    "names": ", created_at, metadata",
    "beside_row": ", CAST(:created_at_{n} AS timestamptz), CAST(:metadata_{n} AS text)",
    "beside_types": ", created_at timestamptz, metadata text",
}
_WITHOUT = {
    "columns": _COLUMNS,
    "beside_values": "taken_at",
    "names": "",
    "beside_row": "",
    "beside_types": "",
}


def have_data_beside(messages: Sequence[Message]) -> bool:
    """Whether any of the messages comes with metadata or a time of its own, as few do."""
    return any(message.metadata is not None or message.created_at is not None for message in messages)


def from_taken(count: int, *, beside: bool) -> str:
    """PostgreSQL's statement that stores so many messages, whose parameters are `values`; see `together`.

    Args:
        count: how many.
        beside: whether they come with metadata or times of their own.
    """
    pieces = _WITH_BESIDE if beside else _WITHOUT
    rows = with_pieces(_ROWS, beside_types=pieces["beside_types"])
    if count <= FEW:
        row = with_pieces(_ROW, beside_row=pieces["beside_row"])
        rows = f"(VALUES {', '.join(with_pieces(row, n=str(n)) for n in range(1, count + 1))})"
    return with_pieces(_FROM_TAKEN, rows=rows, **pieces)


def values(messages: Sequence[Message], token_counts: Sequence[int], *, beside: bool) -> dict[str, object]:
    """The parameters of `from_taken` for these messages."""
    rows, before = [], 0
    for message, tokens in zip(messages, token_counts, strict=True):
        row = values_of(message, tokens) | {"tokens_before": before}
        if beside:
            given = message.created_at
            row |= {"created_at": given and given.isoformat(), "metadata": metadata_text(message)}
        rows.append(row)
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


def bulk_rows(
    conversation_id: str,
    messages: Sequence[Message],
    token_counts: Sequence[int],
    *,
    first_position: int,
    tokens_before: int,
    moment: datetime | str,
    positions: Sequence[int] | None = None,
) -> Iterator[Row]:
    """One tuple a message, for `in_bulk`; `moment`, when they are stored, is as the driver tells it.

    They stand side by side, unless there are `positions`.
    """
    dialect = "sqlite" if isinstance(moment, str) else "postgresql"
    places = positions or range(first_position, first_position + len(messages))
    for position, message, tokens in zip(places, messages, token_counts, strict=True):
        given = message.created_at
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
            moment if given is None else as_stored(given, dialect),
            metadata_text(message),
            None if given is None else moment,
        )
        tokens_before += tokens
