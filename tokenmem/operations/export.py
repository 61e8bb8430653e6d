"""Export: what a line of JSON Lines is made of, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.line_records import RECORDS, Kind
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, load_json, moment_text
from tokenmem.operations import damage
from tokenmem.operations.rows import conversation_of, no_conversation, utc
from tokenmem.operations.stored import between

PAGE = 1000
"""Messages, or other rows, in memory at a time."""

_ALL_IDS = Statement("SELECT c.id FROM {conversations} c WHERE c.id > :after ORDER BY c.id LIMIT :limit")
_IDS_OF_OWNER = Statement("""
SELECT c.id FROM {conversations} c WHERE c.owner = :owner AND c.id > :after ORDER BY c.id LIMIT :limit
""")


def next_ids(connection: sa.Connection, scope: Scope, after: str) -> list[str]:
    """The ids of conversations, archived and empty ones too, from behind one, in their order."""
    statement = _ALL_IDS if scope.owner is None else _IDS_OF_OWNER
    request = {"owner": scope.owner, "after": after, "limit": PAGE}
    return [row[0] for row in statement.fetch(connection, scope, request)]


@dataclass(frozen=True, slots=True)
class Exported:
    """A conversation's own row.

    Attributes:
        line: as a line tells it, without its messages.
        last_position: the highest position ever given.
        last_call: the highest number ever given to a model call.
    """

    line: ConversationLine
    last_position: int
    last_call: int


_CONVERSATION = Statement("""
SELECT c.last_call, {conversation_columns} FROM {conversations} c WHERE c.id = :id AND {owned}
""")


def conversation(connection: sa.Connection, scope: Scope, conversation_id: str) -> Exported:
    """The conversation's row.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    rows = _CONVERSATION.fetch(connection, scope, {"id": conversation_id, "owner": scope.owner})
    if not rows:
        raise no_conversation(conversation_id, scope)
    last_call, *columns = rows[0]
    found = conversation_of(tuple(columns))
    line = ConversationLine(
        found.id,
        [],
        found.owner,
        found.title,
        found.token_counter,
        found.metadata,
        created_at=found.created_at,
        updated_at=found.updated_at,
        archived_at=found.archived_at,
        parent_id=found.parent_id,
        forked_at=found.forked_at,
        keep=found.keep,
    )
    return Exported(line, found.last_position, last_call)


def messages(
    connection: sa.Connection, scope: Scope, conversation_id: str, after: int, last: int
) -> list[Message]:
    """A page of messages with after < position <= last."""
    return between(connection, scope, conversation_id, after, last, PAGE)


_TABLES = {"versions": "message_versions", "calls": "llm_calls", "call_prompts": "call_prompts"}


def _page_of(name: str) -> Statement:
    columns, _, keys = RECORDS[name]
    suffix: Mapping[Kind, str] = {"time": "{in_utc}", "json": "{as_text}"}
    names = tuple(columns)[:keys]
    given = ", ".join(f":after_{number}" for number in range(keys))
    order = ", ".join(f"t.{each}" for each in names)
    return Statement(
        """
SELECT {listed} FROM {table} t WHERE t.conversation_id = :id AND {behind}
ORDER BY {order} LIMIT :limit
""",
        listed=", ".join(f"t.{column}{suffix.get(kind, '')}" for column, kind in columns.items()),
        table=f"{{{_TABLES[name]}}}",
        behind=f"({order}) > ({given})",
        order=order,
    )


_PAGES = {name: _page_of(name) for name in _TABLES}


def records(
    connection: sa.Connection, scope: Scope, conversation_id: str, name: str, after: Sequence[object]
) -> list[JSONObject]:
    """A page of one of the lists of a line.

    Args:
        connection: to read by.
        scope: the schema; whose conversation it is has been asked before.
        conversation_id: the conversation.
        name: which list, of `line_records.RECORDS`.
        after: the key of the row behind which the page begins.
    """
    request = {"id": conversation_id, "limit": PAGE}
    request |= {f"after_{number}": value for number, value in enumerate(after)}
    columns = RECORDS[name][0]
    keys = RECORDS[name][2]
    rows = _PAGES[name].fetch(connection, scope, request)
    return [_record(columns, row, conversation_id, _place(name, row[:keys])) for row in rows]


def _place(name: str, key: Row) -> str:
    return name if not all(map(damage.is_integer, key)) else f"{name} {', '.join(map(str, key))}"


_CHECKS: Mapping[Kind, tuple[Callable[[object], bool], str]] = {
    "number": (damage.is_integer, "integer"),
    "count": (damage.is_integer, "integer"),
    "time": (damage.is_moment, "time"),
    "text": (damage.is_text, "text"),
    "json": (damage.is_json, "JSON"),
}


def _record(columns: Mapping[str, Kind], row: Row, conversation_id: str, place: str) -> JSONObject:
    record: JSONObject = {}
    for (column, kind), value in zip(columns.items(), row, strict=True):
        if value is None:
            continue
        check, what = _CHECKS[kind]
        if not check(value):
            raise damage.damaged(conversation_id, place, column, what)
        record[column] = _READERS[kind](value) if kind in _READERS else value
    return record


_READERS = {"time": lambda value: moment_text(utc(value)), "json": load_json}


def key_of(name: str, record: JSONObject | None) -> tuple[object, ...]:
    """The key of a list's row; before all of them without one."""
    columns, _, keys = RECORDS[name]
    if record is not None:
        return tuple(record[each] for each in tuple(columns)[:keys])
    return tuple("" if kind == "text" else -1 for kind in tuple(columns.values())[:keys])
