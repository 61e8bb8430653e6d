"""Restore: what an exported line tells of a conversation beside what an append could have stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.line_records import RECORDS
from tokenmem.messages.values import JSONObject, JSONValue, dump_json, moment_of
from tokenmem.operations.rows import as_stored, first_revision, utc

# As a conversation that has not changed since it was made, or as one that has (`recent_at`).
_RESTORE = Statement("""
UPDATE {conversations} SET created_at = :created_at, updated_at = :updated_at, recent_at = :recent_at,
    archived_at = :archived_at, parent_id = :parent_id, forked_at = :forked_at, keep = :keep,
    last_position = :last_position, last_call = :last_call, revision = :revision
WHERE id = :id
""")
_TABLES = {"versions": "message_versions", "calls": "llm_calls", "call_prompts": "call_prompts"}
_NAMES = {name: ", ".join(("conversation_id", *RECORDS[name][0])) for name in _TABLES}
_INSERT = {
    name: Statement(
        "INSERT INTO {table} ({names}) VALUES ({places})",
        table=f"{{{table}}}",
        names=_NAMES[name],
        places=", ".join("?" * (len(RECORDS[name][0]) + 1)),
    )
    for name, table in _TABLES.items()
}
_COPY = {
    name: Statement("COPY {table} ({names}) FROM STDIN", table=f"{{{table}}}", names=_NAMES[name])
    for name, table in _TABLES.items()
}


def restore(
    connection: sa.Connection, scope: Scope, new: Sequence[tuple[ConversationLine, datetime | str]]
) -> None:
    """Give conversations that have just been stored what their lines tell besides.

    Args:
        connection: in the transaction that has stored them.
        scope: the schema.
        new: the lines, each with the time at which it was stored, as the driver tells it.
    """
    for line, stored_at in new:
        _RESTORE.run(connection, scope, _conversation(line, stored_at, connection.dialect.name))
    for name in _TABLES:
        rows = list(_rows(name, (line for line, _ in new), connection.dialect.name))
        if not rows:
            continue
        if connection.dialect.name == "postgresql":
            _COPY[name].copy(connection, scope, rows)
        else:
            _INSERT[name].run_many(connection, scope, rows)


def _conversation(line: ConversationLine, stored_at: datetime | str, dialect: str) -> dict[str, object]:
    now = utc(stored_at) if isinstance(stored_at, str) else stored_at
    created = line.created_at or now
    called = [moment for call in line.calls if (moment := moment_of(call.get("created_at"), "created_at"))]
    updated = max([line.updated_at or now, *called])  # as a call touches its conversation; usage relies on it
    last = line.position_of(len(line.messages) - 1) if line.messages else 0
    calls = [call["number"] for call in line.calls]
    return {
        "id": line.id,
        "created_at": as_stored(created, dialect),
        "updated_at": as_stored(updated, dialect),
        "recent_at": None if updated == created else as_stored(updated, dialect),
        "archived_at": None if line.archived_at is None else as_stored(line.archived_at, dialect),
        "parent_id": line.parent_id,
        "forked_at": line.forked_at,
        "keep": line.keep,
        "last_position": max(last, line.last_position or 0),
        "last_call": max([0, line.last_call or 0, *calls]),
        "revision": max(first_revision(), _newest_revision(line) + 1),
    }


def _newest_revision(line: ConversationLine) -> int:
    """What versions and calls tell of revisions stays true: the conversation's own is behind all of them."""
    told = [version["replaced_at_revision"] for version in line.versions]
    newest: int = max([0, *told, *(call.get("revision") or 0 for call in line.calls)])
    return newest


def _rows(name: str, lines: Iterator[ConversationLine], dialect: str) -> Iterator[Row]:
    columns = RECORDS[name][0]
    for line in lines:
        for record in getattr(line, name):
            yield (line.id, *(_value(record, column, kind, dialect) for column, kind in columns.items()))


def _value(record: JSONObject, column: str, kind: str, dialect: str) -> JSONValue:
    value = record.get(column)
    if value is None:
        return None
    if kind == "json":
        return dump_json(value)
    if kind == "time":
        moment = moment_of(value, column)
        return None if moment is None else as_stored(moment, dialect)
    return value
