"""What is on record of the calls of a model: read, kept alive, and listed. See start_call and end_call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tokenmem.database.statements import Parameters, Row, Scope, Statement
from tokenmem.messages.message import Message
from tokenmem.messages.values import dump_json, load_json
from tokenmem.models import LLMCall, Window
from tokenmem.operations import damage
from tokenmem.operations.rows import NO_BOUND, as_stored, messages_of, no_conversation, utc

UNFINISHED = "not ended: the call is running, or its process died"
"""What stands as the error of a call until it ends."""

DIED = "not ended: its process died"
"""What stands as the error of a call that a repeated request has found dead, and replaced by its own."""

LEASE = 15
"""Seconds after which a call whose process has not said that it runs counts as dead: three beats missed."""


@dataclass(frozen=True, slots=True)
class StartedCall:
    """A call that has begun.

    Attributes:
        number: its number in the conversation.
        moment: when; it tells the call from one of a conversation that was deleted and made anew.
        revision: the conversation's revision that it read.
    """

    number: int
    moment: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class FinishedCall:
    """The key's call has been answered before: the record, the window that it saw, and the reply."""

    call: LLMCall
    window: Window
    messages: list[Message]


def call_of(conversation_id: str, columns: Row) -> LLMCall:
    """A call from `{call_columns}`.

    Raises:
        DatabaseError: the row is damaged.
    """
    number = f"call {columns[0]}" if damage.is_integer(columns[0]) else "a call"
    if (error := damage.find(conversation_id, number, damage.CALL, columns)) is not None:
        raise error
    *told, created_at, revision, api, token_limit, options, metadata, cache_write_tokens, pinned, changes = (
        columns
    )
    loaded = (None if text is None else load_json(text) for text in (options, metadata, pinned, changes))
    options, metadata, pinned, changes = loaded
    beside = [revision, api, token_limit, options, metadata, cache_write_tokens]
    values: list[Any] = [conversation_id, *told, utc(created_at), False, *beside]
    values += [None if pinned is None else tuple(pinned), changes or None]
    return LLMCall(*values)


_BETWEEN = Statement("""
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id AND m.position BETWEEN :first AND :last ORDER BY m.position
""")

_SENT = Statement("""
SELECT {message_columns} FROM {messages} m {by_pinned}
WHERE m.conversation_id = :id AND m.pinned AND m.position < :first
UNION ALL
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id AND m.position BETWEEN :first AND :last ORDER BY 1
""")


_LISTED = """
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id AND m.position IN ({positions})
UNION ALL
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id AND m.position BETWEEN :first AND :last
"""
_SENT_LISTED = {
    "postgresql": Statement(
        _LISTED,
        positions="SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:pinned AS json))",
    ),
    "sqlite": Statement(_LISTED, positions="SELECT value FROM json_each(:pinned)"),
}


def reply_of(connection: sa.Connection, scope: Scope, call: LLMCall) -> tuple[Window, list[Message]]:
    """The window that a call saw, as it stands now, and the reply."""
    first, last = call.first_position or 0, call.last_position or 0
    reply_first = call.reply_position or 0
    reply_last = reply_first + (call.reply_messages or 1) - 1
    request = {"id": call.conversation_id, "first": first, "last": last}
    sent = messages_of(_sent(connection, scope, call, request), call.conversation_id)
    reply = messages_of(
        _BETWEEN.fetch(connection, scope, request | {"first": reply_first, "last": reply_last}),
        call.conversation_id,
    )
    tokens = sum(message.token_count for message in sent)
    return Window(tuple(sent), tokens, tokens, first, last, 0), reply


def _sent(connection: sa.Connection, scope: Scope, call: LLMCall, request: Parameters) -> list[Row]:
    """The rows of what a call sent, where they are still there: the pinned ones, then the others."""
    if call.pinned is None:
        return _SENT.fetch(connection, scope, request)
    if not call.pinned:
        return _BETWEEN.fetch(connection, scope, request)
    listed = {**request, "pinned": dump_json(call.pinned)}
    rows = _SENT_LISTED[connection.dialect.name].fetch(connection, scope, listed)
    order = {position: place for place, position in enumerate(call.pinned)}
    return sorted(rows, key=lambda row: (order.get(row[0], len(order)), row[0]))


_OF_NUMBER = Statement("""
SELECT {call_columns} FROM {conversations} c JOIN {llm_calls} l ON l.conversation_id = c.id
WHERE c.id = :id AND l.number = :number AND {owned}
""")


def finished(
    connection: sa.Connection, scope: Scope, conversation_id: str, number: int
) -> FinishedCall | None:
    """A call that has ended, with its reply; None where it left none, or not all of it is there any more.

    Raises:
        ConversationNotFound: there is no such call, or the conversation is another owner's.
    """
    request = {"id": conversation_id, "owner": scope.owner, "number": number}
    rows = _OF_NUMBER.fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    call = call_of(conversation_id, rows[0])
    if call.reply_position is None:
        return None
    sent, reply = reply_of(connection, scope, call)
    return FinishedCall(call, sent, reply) if len(reply) == (call.reply_messages or 1) else None


_NUMBER_OF_KEY = Statement("""
SELECT call_number FROM {append_keys} WHERE conversation_id = :id AND key = :key AND call_number IS NOT NULL
""")


def finished_of_key(
    connection: sa.Connection, scope: Scope, conversation_id: str, key: str
) -> FinishedCall | None:
    """The newest call of the request with this key. Returns and raises as `finished` does."""
    rows = _NUMBER_OF_KEY.fetch(connection, scope, {"id": conversation_id, "key": key})
    return finished(connection, scope, conversation_id, rows[0][0]) if rows else None


_KNOWS = Statement("SELECT 1 FROM {append_keys} WHERE conversation_id = :id AND key = :key")


def knows(connection: sa.Connection, scope: Scope, conversation_id: str, key: str) -> bool:
    """Whether a request with this key has stored anything."""
    return bool(_KNOWS.fetch(connection, scope, {"id": conversation_id, "key": key}))


_IS_RUNNING = Statement("""
SELECT l.number FROM {append_keys} k
JOIN {llm_calls} l ON l.conversation_id = k.conversation_id AND l.number = k.call_number
WHERE k.conversation_id = :id AND k.key = :key AND l.alive_at > {ago}
""")


def is_running(connection: sa.Connection, scope: Scope, conversation_id: str, key: str) -> bool:
    """Whether the newest call of the request with this key has not ended, and its process lives."""
    request = {"id": conversation_id, "key": key, "seconds": LEASE}
    return bool(_IS_RUNNING.fetch(connection, scope, request))


_BEAT = Statement("""
UPDATE {llm_calls} SET alive_at = {now}
WHERE conversation_id = :id AND number = :number AND created_at = :begun AND alive_at IS NOT NULL
""")


def beat(connection: sa.Connection, scope: Scope, conversation_id: str, started: StartedCall) -> None:
    """Say that the call is still running, for a repeated request that waits for it."""
    _BEAT.run(connection, scope, key_of(connection, conversation_id, started))


def key_of(connection: sa.Connection, conversation_id: str, started: StartedCall) -> dict[str, object]:
    """The parameters by which statements find a call that has begun."""
    begun = as_stored(started.moment, connection.dialect.name)
    return {"id": conversation_id, "number": started.number, "begun": begun}


_PAGE = """
SELECT {call_columns}, COALESCE(l.alive_at > {ago}, false)
FROM {conversations} c LEFT JOIN (
    SELECT * FROM {llm_calls} WHERE conversation_id = :id AND number > :after
    ORDER BY number {order} LIMIT :limit
) l ON true
WHERE c.id = :id AND {owned} ORDER BY l.number {order}
"""
_PAGES = {False: Statement(_PAGE, order="ASC"), True: Statement(_PAGE, order="DESC")}


def page(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    after: int | None,
    limit: int | None,
    newest_first: bool,
) -> list[LLMCall]:
    """Calls with a number above `after`.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    request = {
        "id": conversation_id,
        "owner": scope.owner,
        "after": after or 0,
        "limit": NO_BOUND if limit is None else limit,
        "seconds": LEASE,
    }
    rows = _PAGES[newest_first].fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    found = [(call_of(conversation_id, row[:-1]), row[-1]) for row in rows if row[0] is not None]
    return [replace(call, running=True) if running else call for call, running in found]
