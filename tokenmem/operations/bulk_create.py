"""Create: store many new conversations at once, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement
from tokenmem.messages.values import dump_json
from tokenmem.models import Appended
from tokenmem.operations import insert, restore
from tokenmem.operations.append import PendingAppend
from tokenmem.operations.rows import first_revision

# In the order of their ids: two processes that import the same ones wait for each other, and not in a circle.
_TAKE = """
INSERT INTO {conversations}
    (id, owner, title, metadata, token_counter, last_position, message_count, total_tokens, revision)
SELECT {id}, {owner}, {title}, CAST({metadata} AS {json}), {token_counter}, {count}, {count}, {tokens},
    CAST(:first_revision AS bigint)
FROM {rows}
WHERE true ORDER BY 1
ON CONFLICT (id) DO NOTHING
RETURNING id, created_at
"""
_STORE_KEYS = """
INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest, created_at)
SELECT {id}, {key}, {first_position}, {last_position}, {digest}, {now}
FROM {rows}
WHERE {key} IS NOT NULL
"""
_COLUMNS = {
    "id": "text",
    "owner": "text",
    "title": "text",
    "metadata": "text",
    "token_counter": "text",
    "count": "bigint",
    "tokens": "bigint",
    "key": "text",
    "digest": "text",
    "first_position": "bigint",
    "last_position": "bigint",
}


def _from_json(text: str) -> dict[str, Statement]:
    """The statement for each engine; its rows come in one JSON text."""
    typed = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    fields = {
        "postgresql": {name: f"n.{name}" for name in _COLUMNS},
        "sqlite": {name: f"(n.value ->> '$.{name}')" for name in _COLUMNS},
    }
    rows = {
        "postgresql": f"json_to_recordset(CAST(:rows AS json)) AS n ({typed})",
        "sqlite": "json_each(:rows) AS n",
    }
    return {dialect: Statement(text, rows=rows[dialect], **fields[dialect]) for dialect in rows}


_TAKES, _STORES_KEYS = _from_json(_TAKE), _from_json(_STORE_KEYS)


def bulk_create(
    connection: sa.Connection, scope: Scope, conversations: Sequence[PendingAppend]
) -> list[Appended | None]:
    """Store the conversations whose ids are new, and return None for each of the others.

    Raises:
        WriteConflict: another process stored the same conversations meanwhile.
    """
    dialect = connection.dialect.name
    first = {
        each.conversation_id: each for each in reversed(conversations)
    }  # of several with one id the first
    rows = dump_json([_row(pending) for pending in first.values()])
    taken: dict[str, datetime | str] = dict(
        _TAKES[dialect].fetch(connection, scope, {"rows": rows, "first_revision": first_revision()})
    )
    new = [pending for pending in first.values() if pending.conversation_id in taken]
    if new:
        bulk = (_message_rows(pending, taken[pending.conversation_id]) for pending in new)
        insert.in_bulk(connection, scope, chain.from_iterable(bulk))
        keys = dump_json([_row(pending) for pending in new])
        _STORES_KEYS[dialect].run(connection, scope, {"rows": keys})
        told = [(pending.line, taken[pending.conversation_id]) for pending in new if pending.line is not None]
        restore.restore(connection, scope, told)
    stored = set(map(id, new))
    return [_appended(pending) if id(pending) in stored else None for pending in conversations]


def _row(pending: PendingAppend) -> dict[str, object]:
    positions = None if pending.line is None else pending.line.positions
    return {
        "id": pending.conversation_id,
        "owner": pending.owner,
        "title": pending.title,
        "metadata": dump_json(pending.metadata) if pending.metadata else None,
        "token_counter": pending.token_counter,
        "count": len(pending.messages),
        "tokens": sum(pending.token_counts),
        "key": pending.key,
        "digest": pending.digest,
        "first_position": positions[0] if positions else 1,
        "last_position": positions[-1] if positions else len(pending.messages),
    }


def _message_rows(pending: PendingAppend, moment: datetime | str) -> Iterator[Row]:
    return insert.bulk_rows(
        pending.conversation_id,
        pending.messages,
        pending.token_counts,
        first_position=1,
        tokens_before=0,
        moment=moment,
        positions=None if pending.line is None else pending.line.positions,
    )


def _appended(pending: PendingAppend) -> Appended:
    tokens = sum(pending.token_counts)
    positions = None if pending.line is None else pending.line.positions
    if not positions:
        return Appended(1, len(pending.messages), tokens, tokens)
    return Appended(positions[0], positions[-1], tokens, tokens, _positions=tuple(positions))
