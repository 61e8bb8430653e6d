"""Create: store many new conversations at once, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.values import dump_json
from tokenmem.models import Appended
from tokenmem.operations import insert
from tokenmem.operations.append import Draft

# In the order of their ids: two processes that import the same ones wait for each other, and not in a circle.
_TAKE = """
INSERT INTO {conversations}
    (id, owner, title, metadata, token_counter, last_position, message_count, total_tokens)
SELECT $id, $owner, $title, CAST($metadata AS {json}), $token_counter, $count, $count, $tokens
FROM $rows
WHERE true ORDER BY 1
ON CONFLICT (id) DO NOTHING
RETURNING id
"""
_STORE_KEYS = """
INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest)
SELECT $id, $key, 1, $count, $digest
FROM $rows
WHERE $key IS NOT NULL
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
}


def _from_json(text: str) -> dict[str, Statement]:
    """The statement for each engine; its rows come in one JSON text."""
    postgresql, sqlite = text, text
    for name in _COLUMNS:
        postgresql = postgresql.replace(f"${name}", f"n.{name}")
        sqlite = sqlite.replace(f"${name}", f"(n.value ->> '$.{name}')")
    typed = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    return {
        "postgresql": Statement(
            postgresql.replace("$rows", f"json_to_recordset(CAST(:rows AS json)) AS n ({typed})")
        ),
        "sqlite": Statement(sqlite.replace("$rows", "json_each(:rows) AS n")),
    }


_TAKES, _STORES_KEYS = _from_json(_TAKE), _from_json(_STORE_KEYS)


def bulk_create(connection: sa.Connection, scope: Scope, drafts: Sequence[Draft]) -> list[Appended | None]:
    """Store the drafts whose ids are new, and return None for each of the others.

    Raises:
        TryAgain: another process stored the same conversations meanwhile.
    """
    dialect = connection.dialect.name
    first = {draft.conversation_id: draft for draft in reversed(drafts)}  # of several with one id the first
    rows = dump_json([_row(draft) for draft in first.values()])
    taken = {row[0] for row in _TAKES[dialect].fetch(connection, scope, {"rows": rows})}
    new = [draft for draft in first.values() if draft.conversation_id in taken]
    if new:
        insert.in_bulk(connection, scope, chain.from_iterable(map(_message_rows, new)))
        keys = dump_json([_row(draft) for draft in new])
        _STORES_KEYS[dialect].run(connection, scope, {"rows": keys})
    stored = set(map(id, new))
    return [_appended(draft) if id(draft) in stored else None for draft in drafts]


def _row(draft: Draft) -> dict[str, Any]:
    return {
        "id": draft.conversation_id,
        "owner": draft.owner,
        "title": draft.title,
        "metadata": dump_json(draft.metadata) if draft.metadata else None,
        "token_counter": draft.token_counter,
        "count": len(draft.messages),
        "tokens": sum(draft.token_counts),
        "key": draft.key,
        "digest": draft.digest,
    }


def _message_rows(draft: Draft) -> Iterator[tuple[Any, ...]]:
    return insert.bulk_rows(
        draft.conversation_id, draft.messages, draft.token_counts, first_position=1, tokens_before=0
    )


def _appended(draft: Draft) -> Appended:
    tokens = sum(draft.token_counts)
    return Appended(1, len(draft.messages), tokens, tokens)
