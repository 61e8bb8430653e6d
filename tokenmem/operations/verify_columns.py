"""The part of verify that finds damaged columns: those that hold what tokenmem never stores there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

from tokenmem.database.statements import Parameters, Row, Scope, Statement
from tokenmem.messages.message import KINDS, ROLES
from tokenmem.models import Problem
from tokenmem.operations.damage import is_integer


def _one_of(names: tuple[str, ...]) -> str:
    return "{{column}} NOT IN ({})".format(", ".join(f"'{name}'" for name in names))


_SQLITE_TIME = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:[0-9][0-9]:[0-9][0-9]*Z"
_JSON_ON_SQLITE = """CASE WHEN {{column}} IS NULL THEN false WHEN typeof({{column}}) <> 'text' THEN true
    WHEN NOT json_valid({{column}}) THEN true ELSE {} END"""
_JSON_ON_POSTGRESQL = "CASE WHEN {{column}} IS NULL THEN false ELSE json_typeof({{column}}) <> '{}' END"
# SQLite's columns take every type. json_type fails where there is no JSON, so a CASE has to come before it.
# A date that the calendar does not have, as 30 February, SQLite takes for another one.
_DAMAGED = {
    "integer": ("typeof({column}) <> 'integer'", "false"),
    "count": ("typeof({column}) NOT IN ('integer', 'null')", "false"),
    "text": ("typeof({column}) <> 'text'", "false"),
    "name": ("typeof({column}) NOT IN ('text', 'null')", "false"),
    "flag": ("typeof({column}) <> 'integer' OR {column} NOT IN (0, 1)", "false"),
    "time": (
        f"""CASE WHEN {{column}} IS NULL THEN false WHEN typeof({{column}}) <> 'text' THEN true
    WHEN {{column}} NOT GLOB '{_SQLITE_TIME}' OR rtrim(substr({{column}}, 20), '0123456789Z') NOT IN ('', '.')
    THEN true WHEN time(substr({{column}}, 12, 8)) IS NULL THEN true
    ELSE date(substr({{column}}, 1, 10)) IS NOT substr({{column}}, 1, 10) END""",
        "COALESCE({column} NOT BETWEEN timestamptz '0001-01-01 00:00:00+00' "
        "AND timestamptz '9999-12-31 23:59:59.999999+00', false)",
    ),
    "role": (_one_of(ROLES), _one_of(ROLES)),
    "kind": (_one_of(KINDS), _one_of(KINDS)),
    "object": (
        _JSON_ON_SQLITE.format("json_type({column}) <> 'object'"),
        _JSON_ON_POSTGRESQL.format("object"),
    ),
    "list": (
        _JSON_ON_SQLITE.format("json_type({column}) <> 'array'"),
        _JSON_ON_POSTGRESQL.format("array"),
    ),
    "json": (_JSON_ON_SQLITE.format("false"), "false"),
}
"""By what a column holds: how on SQLite and on PostgreSQL it is found that it does not."""

_WHAT = {
    "count": "integer",
    "name": "text",
    "flag": "true or false",
    "role": f"role: {', '.join(ROLES)}",
    "kind": f"kind: {', '.join(KINDS)}",
    "object": "JSON object",
    "list": "JSON list",
    "json": "JSON",
}
"""What it should hold, in words, where its kind is no word for that."""

_MESSAGE = {"role": "role", "kind": "kind", "content": "name", "payload": "object", "token_count": "integer"}
_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "conversations": {
        **dict.fromkeys(("id", "token_counter"), "text"),
        **dict.fromkeys(("owner", "title", "parent_id"), "name"),
        **dict.fromkeys(("last_position", "message_count", "total_tokens", "revision"), "integer"),
        "last_call": "integer",
        "forked_at": "count",
        "metadata": "object",
        "keep": "flag",
        **dict.fromkeys(("created_at", "updated_at", "recent_at", "archived_at"), "time"),
    },
    "messages": {
        **_MESSAGE,
        "position": "integer",
        "tokens_before": "integer",
        "pinned": "flag",
        "metadata": "object",
        "created_at": "time",
        "stored_at": "time",
    },
    "message_versions": {
        **_MESSAGE,
        **dict.fromkeys(("position", "version", "part"), "integer"),
        "since_revision": "integer",
        "replaced_at_revision": "integer",
        "replaced_at": "time",
    },
    "llm_calls": {
        "number": "integer",
        "model": "text",
        "status": "text",
        **dict.fromkeys(("first_position", "last_position", "reply_position", "reply_messages"), "count"),
        **dict.fromkeys(("window_tokens", "input_tokens", "cached_tokens", "output_tokens"), "count"),
        **dict.fromkeys(("reasoning_tokens", "cache_write_tokens", "latency_ms", "first_token_ms"), "count"),
        **dict.fromkeys(("revision", "token_limit"), "count"),
        **dict.fromkeys(("finish_reason", "error", "request_id", "prompt_digest", "api"), "name"),
        "created_at": "time",
        "alive_at": "time",
        "options": "object",
        "metadata": "object",
        "pinned": "list",
        "changes": "list",
    },
    "append_keys": {
        "key": "text",
        "digest": "text",
        "first_position": "integer",
        "last_position": "integer",
        "call_number": "count",
        "last_part": "count",
        "created_at": "time",
    },
    "call_prompts": {"digest": "text", "instructions": "name", "tools": "json", "created_at": "time"},
}
_NONE = "CAST(NULL AS bigint)"
_PLACES = {
    "conversations": (_NONE, _NONE),
    "messages": ("t.position", _NONE),
    "message_versions": ("t.position", "t.version"),
    "llm_calls": (_NONE, "t.number"),
    "append_keys": (_NONE, _NONE),
    "call_prompts": (_NONE, _NONE),
}
"""The columns that tell a row of a conversation's from the others: the message, and a further number."""

_NAMED = {
    "message_versions": "version",
    "llm_calls": "call",
    "append_keys": "an idempotency key",
    "call_prompts": "instructions and tools of calls",
}


def _text(dialect: int) -> str:
    selects = []
    for table, columns in _COLUMNS.items():
        checks = {
            column: "({})".format(_DAMAGED[kind][dialect].replace("{column}", f"t.{column}"))
            for column, kind in columns.items()
        }
        wrong = {column: check for column, check in checks.items() if check != "(false)"}
        listed = " || ".join(
            f"CASE WHEN {check} THEN ' {column}' ELSE '' END" for column, check in wrong.items()
        )
        position, number = _PLACES[table]
        conversation = "t.id" if table == "conversations" else "t.conversation_id"
        chosen = f"{conversation} > :after AND {conversation} <= :last"
        selects.append(
            f"SELECT '{table}', {conversation}, {position}, {number},\n    {listed}\n"
            f"FROM {{{table}}} t WHERE {chosen} AND {conversation} IN (\n"
            f"    SELECT c.id FROM {{conversations}} c WHERE c.id > :after AND c.id <= :last AND {{owned}})\n"
            f"AND ({' OR '.join(wrong.values())})"
        )
    return "\nUNION ALL\n".join(selects)


_TEXTS = {"sqlite": _text(0), "postgresql": _text(1)}
_FIND = {dialect: Statement(text) for dialect, text in _TEXTS.items()}
_FIND_IN_REST = {
    dialect: Statement(re.sub(r"AND \w+\.(conversation_)?id <= :last", "", text))
    for dialect, text in _TEXTS.items()
}


def damaged_columns(connection: sa.Connection, scope: Scope, request: Parameters) -> Iterator[Problem]:
    """A problem for each damaged column of the conversations in a range of ids, without what it holds."""
    statements = _FIND_IN_REST if request["last"] is None else _FIND
    for row in statements[connection.dialect.name].fetch(connection, scope, request):
        yield from _problems(row)


def _problems(row: Row) -> Iterator[Problem]:
    table, conversation_id, position, number, columns = row
    place = _NAMED.get(table, "")
    if place and _PLACES[table][1] != _NONE:
        place += f" {number}" if is_integer(number) else " of no number"
    for column in columns.split():
        kind = _COLUMNS[table][column]
        yield Problem(
            conversation_id if isinstance(conversation_id, str) else repr(conversation_id)[:80],
            position if is_integer(position) else None,
            f"{place + ': ' if place else ''}the column {column} is damaged: it holds no "
            f"{_WHAT.get(kind, kind)}",
        )
