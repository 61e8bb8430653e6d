"""Whole conversations, several at a time: locked in one order, and removed by one statement a table."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.values import dump_json
from tokenmem.operations import usage

CHILDREN = ("append_keys", "llm_calls", "call_prompts", "message_versions", "messages")
"""The tables whose rows belong to a conversation, children of others first."""

# By their ids, as everybody does who takes several: so that no two wait for each other.
_LOCK = Statement("""
SELECT c.id FROM {conversations} c WHERE c.id {one_of_ids} AND {owned} ORDER BY c.id FOR UPDATE
""")
_FIND = Statement("SELECT c.id FROM {conversations} c WHERE c.id {one_of_ids} AND {owned} ORDER BY c.id")
# On SQLite a write, though it changes nothing: a transaction that has only read could not be upgraded.
_BEGIN_ON_SQLITE = Statement("UPDATE {conversations} AS c SET updated_at = updated_at WHERE c.id = ''")

# Children first, and by hand: SQLite cascades only where the connection has foreign keys switched on.
_DELETE = [
    *(Statement(f"DELETE FROM {{{table}}} WHERE conversation_id {{one_of_ids}}") for table in CHILDREN),
    Statement("DELETE FROM {conversations} WHERE id {one_of_ids}"),
]


def ids_of(connection: sa.Connection, ids: Sequence[str]) -> list[str] | str:
    """The parameter `:ids` of `{one_of_ids}`, as this engine takes it."""
    return list(ids) if connection.dialect.name == "postgresql" else dump_json(list(ids))


def begin_on_sqlite(connection: sa.Connection, scope: Scope) -> None:
    """Take SQLite's write lock before anything is read; on PostgreSQL rows are locked instead."""
    if connection.dialect.name == "sqlite":
        _BEGIN_ON_SQLITE.run(connection, scope, {})


def lock(connection: sa.Connection, scope: Scope, ids: Sequence[str]) -> list[str]:
    """Lock those of these conversations that are there and the scope's, and return their ids."""
    begin_on_sqlite(connection, scope)
    statement = _LOCK if connection.dialect.name == "postgresql" else _FIND
    request = {"ids": ids_of(connection, ids), "owner": scope.owner}
    return [row[0] for row in statement.fetch(connection, scope, request)]


def remove(connection: sa.Connection, scope: Scope, ids: Sequence[str]) -> None:
    """Remove locked conversations and all that belongs to them, but for what their calls cost."""
    usage.fold(connection, scope, ids_of(connection, ids))
    erase(connection, scope, ids)


def erase(connection: sa.Connection, scope: Scope, ids: Sequence[str]) -> None:
    """Remove locked conversations, and what their calls cost too."""
    request = {"ids": ids_of(connection, ids)}
    for statement in _DELETE:
        statement.run(connection, scope, request)
