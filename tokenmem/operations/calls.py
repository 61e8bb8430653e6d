"""A model's call around a conversation: what is stored before it, while it runs, and when it has ended.

Before: the user's messages, the window they end, and a row in `llm_calls` that says "cancelled, not ended" in
case nobody comes back. While it runs no connection is held. When it ends: the reply and what it cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from tokenmem.errors import WindowTooSmall
from tokenmem.models import Appended, LLMCall, Message, StartOn, Window
from tokenmem.operations import append, insert, read
from tokenmem.operations.append import Draft, OtherCounter
from tokenmem.operations.rows import (
    MESSAGE_COLUMNS,
    OWNED,
    lock_conversation,
    messages_of,
    no_conversation,
    utc,
)
from tokenmem.schema import Scope
from tokenmem.statements import Statement

UNFINISHED = "not ended: the call is running, or its process died"
"""What stands as the error of a call until it ends."""

DIED = "not ended: its process died"
"""The same when a repeated request has found it dead and calls again."""

LEASE = 15
"""Seconds after which a call whose process has not said that it runs counts as dead: three beats missed."""

_COLUMNS = """l.number, l.model, l.first_position, l.last_position, l.window_tokens, l.input_tokens,
    l.cached_tokens, l.output_tokens, l.reasoning_tokens, l.reply_position, l.reply_messages, l.latency_ms,
    l.first_token_ms, l.finish_reason, l.status, l.error, l.request_id, l.created_at{in_utc}"""

_FITTING = 5
"""Windows that are tried before a prompt whose repair does not fit is given up."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a call begins with.

    Attributes:
        conversation_id: the conversation.
        model: the model that is asked.
        token_limit: what the window may cost, in tokens.
        start_on: where it may start.
        stride: in what steps, in tokens.
        measure: what a window costs as it is sent, in tokens.
        extra: what is sent besides the window, in tokens.
        check: raises where the window is not what the caller expects; nothing is stored then. It is also
            told where the newest reply begins, 0 where there is none.
        instructions: what the model is told before the messages.
        tools: the tools' schemas as JSON text.
        digest: tells these instructions and tools from others; None where there are none.
        key: the idempotency key, or None.
    """

    conversation_id: str
    model: str
    token_limit: int
    start_on: StartOn
    stride: int | None
    measure: Callable[[Window], int]
    extra: int
    check: Callable[[Window, int], None] | None = None
    instructions: str | None = None
    tools: str | None = None
    digest: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """A call that has begun: its number, and the window to send."""

    number: int
    window: Window


@dataclass(frozen=True, slots=True)
class Answered:
    """The key's call has been answered before: the record, the window that it saw, and the reply."""

    call: LLMCall
    window: Window
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Running:
    """The key's call is running elsewhere."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The key's messages are stored without a reply: the call failed, its process died, or none began."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended; see LLMCall."""

    status: str
    error: str | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    latency_ms: int | None = None
    first_token_ms: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None


_KEEP_PROMPT = """
INSERT INTO {call_prompts} (conversation_id, digest, instructions, tools)
VALUES (:id, :digest, :instructions, CAST(:tools AS {json}))
ON CONFLICT (conversation_id, digest) DO NOTHING
"""
_NUMBER_CALL = """
INSERT INTO {llm_calls} (conversation_id, number, model, first_position, last_position, window_tokens,
    status, error, prompt_digest, alive_at)
VALUES (:id, COALESCE((SELECT max(number) FROM {llm_calls} WHERE conversation_id = :id), 0) + 1, :model,
    CAST(:first AS bigint), CAST(:last AS bigint), :tokens, 'cancelled', :error, CAST(:digest AS text), {now})
RETURNING number
"""
_NUMBER_CALLS = Statement(_NUMBER_CALL)
_KEEP_AND_NUMBER = {  # in one round trip where a round trip costs
    "postgresql": [Statement(f"WITH kept AS ({_KEEP_PROMPT}) {_NUMBER_CALL}")],
    "sqlite": [Statement(_KEEP_PROMPT), _NUMBER_CALLS],
}
_SET_KEY = Statement("""
UPDATE {append_keys} SET call_number = :number WHERE conversation_id = :id AND key = :key
""")
# Calls that overlap end in any order; more than a few do not.
_NEWEST_REPLY = Statement("""
SELECT max(newest.reply_position) FROM (
    SELECT l.reply_position FROM {llm_calls} l WHERE l.conversation_id = :id ORDER BY l.number DESC LIMIT 8
) newest
""")
_REMEMBER = Statement("""
INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest)
SELECT id, :key, last_position + 1, last_position, '' FROM {conversations} WHERE id = :id
""")
_BURY = Statement("""
UPDATE {llm_calls} SET alive_at = NULL, error = :error
WHERE conversation_id = :id AND alive_at IS NOT NULL
    AND number = (SELECT call_number FROM {append_keys} WHERE conversation_id = :id AND key = :key)
""")
_OF_KEY = Statement(f"""
SELECT k.call_number, l.alive_at IS NOT NULL, l.alive_at > {{ago}}, {_COLUMNS}
FROM {{conversations}} c JOIN {{append_keys}} k ON k.conversation_id = c.id AND k.key = :key
LEFT JOIN {{llm_calls}} l ON l.conversation_id = c.id AND l.number = k.call_number
WHERE c.id = :id AND {OWNED}
""")


def begin(
    connection: sa.Connection, scope: Scope, draft: Draft | None, opening: Opening
) -> Begun | Answered | Running | OtherCounter:
    """Store the draft's messages, load the window that ends with them, and number the call.

    With an idempotency key that is known, nothing is stored: the reply comes back, or the call begins again
    where it has failed.

    Args:
        connection: in a transaction.
        scope: the schema and the owner.
        draft: what to store; None asks the model with what is there.
        opening: what to send.

    Raises:
        What `append` and `window` raise, and what `opening.check` does; nothing is stored then.
    """
    appended = None if draft is None else append.append(connection, scope, draft)
    if isinstance(appended, OtherCounter):
        return appended
    if appended is None or appended.replayed:
        lock_conversation(connection, scope, opening.conversation_id)
        if opening.key is not None:
            known = of_key(connection, scope, opening.conversation_id, opening.key)
            if isinstance(known, (Answered, Running)):
                return known
            if known is None:
                _remember(connection, scope, opening)
            _BURY.run(connection, scope, {"id": opening.conversation_id, "key": opening.key, "error": DIED})
    window, tokens = _fitting_window(connection, scope, opening)
    if opening.check is not None and not (appended and appended.replayed):  # then it was checked before
        opening.check(window, _newest_reply(connection, scope, opening.conversation_id))
    number = _number_call(connection, scope, opening, window, tokens)
    return Begun(number, window)


def _newest_reply(connection: sa.Connection, scope: Scope, conversation_id: str) -> int:
    return int(_NEWEST_REPLY.fetch(connection, scope, {"id": conversation_id})[0][0] or 0)


def _remember(connection: sa.Connection, scope: Scope, opening: Opening) -> None:
    """Keep the key of a request that stores no message, so that it is known when it comes again."""
    _REMEMBER.run(connection, scope, {"id": opening.conversation_id, "key": opening.key})


def _fitting_window(connection: sa.Connection, scope: Scope, opening: Opening) -> tuple[Window, int]:
    """The window that fits as it will be sent: what closes an open call, or an image, may cost more."""
    limit, cost = opening.token_limit, 0
    for _ in range(_FITTING):
        window = read.window(
            connection, scope, opening.conversation_id, limit, opening.start_on, opening.stride
        )
        cost = opening.measure(window)
        if cost <= opening.token_limit:
            return window, cost + opening.extra
        limit = max(min(limit, window.token_count) - (cost - opening.token_limit), 0)
    raise WindowTooSmall(
        opening.conversation_id,
        position=window.first_position,
        token_count=cost,
        token_limit=opening.token_limit,
        detail=f"the messages from {window.first_position} on cost {cost} tokens as they are sent, "
        f"and the limit is {opening.token_limit}; raise token_limit",
    )


def _number_call(
    connection: sa.Connection, scope: Scope, opening: Opening, window: Window, tokens: int
) -> int:
    parameters = {
        "id": opening.conversation_id,
        "model": opening.model,
        "first": window.first_position or None,
        "last": window.last_position or None,
        "tokens": tokens,
        "error": UNFINISHED,
        "digest": opening.digest,
        "instructions": opening.instructions,
        "tools": opening.tools,
    }
    with_prompt = opening.digest is not None
    statements = _KEEP_AND_NUMBER[connection.dialect.name] if with_prompt else [_NUMBER_CALLS]
    for statement in statements[:-1]:
        statement.run(connection, scope, parameters)
    number = int(statements[-1].fetch(connection, scope, parameters)[0][0])
    if opening.key is not None:
        key = {"id": opening.conversation_id, "key": opening.key, "number": number}
        _SET_KEY.run(connection, scope, key)
    return number


def of_key(
    connection: sa.Connection, scope: Scope, conversation_id: str, key: str
) -> Answered | Running | Unanswered | None:
    """How the call stands that an append with this key led to; None where the key is not known."""
    request = {"id": conversation_id, "owner": scope.owner, "key": key, "seconds": LEASE}
    rows = _OF_KEY.fetch(connection, scope, request)
    if not rows:
        return None
    number, unfinished, alive, *columns = rows[0]
    if number is None:
        return Unanswered()
    if unfinished:
        return Running() if alive else Unanswered()
    call = _call_of(conversation_id, columns)
    if call.status != "ok" or call.reply_position is None:
        return Unanswered()
    return Answered(call, *_reply_of(connection, scope, call))


_BETWEEN = Statement(f"""
SELECT {MESSAGE_COLUMNS} FROM {{messages}} m
WHERE m.conversation_id = :id AND m.position BETWEEN :first AND :last ORDER BY m.position
""")


def _reply_of(connection: sa.Connection, scope: Scope, call: LLMCall) -> tuple[Window, list[Message]]:
    """The window that a call saw, as it stands now, and the reply."""
    first, last = call.first_position or 0, call.last_position or 0
    reply_first = call.reply_position or 0
    reply_last = reply_first + (call.reply_messages or 1) - 1
    request = {"id": call.conversation_id, "first": first, "last": last}
    sent = messages_of(_BETWEEN.fetch(connection, scope, request))
    reply = messages_of(
        _BETWEEN.fetch(connection, scope, request | {"first": reply_first, "last": reply_last})
    )
    tokens = sum(message.token_count for message in sent)
    return Window(tuple(sent), tokens, tokens, first, last, 0), reply


_OUTCOME = """status = :status, error = :error, finish_reason = :finish_reason, request_id = :request_id,
    latency_ms = :latency_ms, first_token_ms = :first_token_ms, input_tokens = :input_tokens,
    cached_tokens = :cached_tokens, output_tokens = :output_tokens, reasoning_tokens = :reasoning_tokens,
    alive_at = NULL"""
_END = Statement(f"""
UPDATE {{llm_calls}} SET {_OUTCOME}, reply_position = :reply_position, reply_messages = :reply_messages
WHERE conversation_id = :id AND number = :number AND alive_at IS NOT NULL
RETURNING {_COLUMNS.replace("l.", "")}
""")
# PostgreSQL stores the reply and ends the call in one statement, the call's row taken first: if somebody has
# ended it, nothing is stored.
_OPEN = """open AS (
    SELECT 1 FROM {llm_calls} WHERE conversation_id = :id AND number = :number AND alive_at IS NOT NULL
    FOR UPDATE
),"""
_TAKE_IF_OPEN = append.TAKE_EXISTING.replace("RETURNING", "AND EXISTS (SELECT 1 FROM open) RETURNING")
_ENDED = f""", ended AS (
    UPDATE {{llm_calls}} AS l SET {_OUTCOME}, reply_position = taken.last_position - :count + 1,
        reply_messages = :count
    FROM taken WHERE l.conversation_id = :id AND l.number = :number
    RETURNING {_COLUMNS}
)"""
_SELECT_ENDED = "SELECT taken.last_position, taken.total_tokens, ended.* FROM taken, ended"
_IS_OPEN = Statement("""
SELECT alive_at IS NOT NULL FROM {llm_calls} WHERE conversation_id = :id AND number = :number
""")
_READ = Statement(f"""
SELECT {_COLUMNS} FROM {{llm_calls}} l WHERE l.conversation_id = :id AND l.number = :number
""")


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that has ended: its record, and where its reply is; None where nothing was to be stored."""

    call: LLMCall
    appended: Appended | None


class AlreadyEnded(Exception):
    """Somebody has ended this call: an earlier try whose commit arrived, or who took it for dead."""


def end(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    number: int,
    draft: Draft | None,
    outcome: Outcome,
) -> Ended | OtherCounter:
    """Store the reply and how the call ended.

    Raises:
        AlreadyEnded: it has ended; nothing is stored.
        ConversationNotFound: it was deleted while the model thought; nothing is stored.
    """
    parameters: dict[str, Any] = {name: getattr(outcome, name) for name in Outcome.__slots__}
    parameters |= {"id": conversation_id, "number": number, "reply_position": None, "reply_messages": None}
    if draft is not None and connection.dialect.name == "postgresql" and is_one_statement(draft):
        return _end_at_once(connection, scope, draft, parameters)
    appended = None
    if draft is not None:
        stored = append.append(connection, scope, draft)
        if isinstance(stored, OtherCounter):
            return stored
        appended = stored
        parameters["reply_position"] = appended.first_position
        parameters["reply_messages"] = appended.last_position - appended.first_position + 1
    rows = _END.fetch(connection, scope, parameters)
    if not rows:
        raise AlreadyEnded
    return Ended(_call_of(conversation_id, rows[0]), appended)


def is_one_statement(draft: Draft | None) -> bool:
    """Whether PostgreSQL needs no transaction around `end`."""
    return draft is None or len(draft.messages) <= insert.MANY


def _end_at_once(
    connection: sa.Connection, scope: Scope, draft: Draft, parameters: dict[str, Any]
) -> Ended | OtherCounter:
    count, tokens = len(draft.messages), sum(draft.token_counts)
    statement = insert.all_at_once(_TAKE_IF_OPEN, count, _OPEN, _ENDED, _SELECT_ENDED)
    parameters |= append.head_of(draft, tokens) | insert.values(draft.messages, draft.token_counts)
    rows = statement.fetch(connection, scope, parameters)
    if not rows:
        is_open = _IS_OPEN.fetch(connection, scope, parameters)
        if not is_open:
            raise no_conversation(draft.conversation_id, scope)
        why_not = append.why_not(connection, scope, draft) if is_open[0][0] else None
        if isinstance(why_not, OtherCounter):
            return why_not
        raise AlreadyEnded
    last_position, total_tokens, *call = rows[0]
    appended = Appended(last_position - count + 1, last_position, tokens, total_tokens)
    return Ended(_call_of(draft.conversation_id, call), appended)


def ended(connection: sa.Connection, scope: Scope, conversation_id: str, number: int) -> Answered | None:
    """What an earlier try to end this call has stored; None where there is no reply of it.

    Raises:
        ConversationNotFound: it is not there any more.
    """
    rows = _READ.fetch(connection, scope, {"id": conversation_id, "number": number})
    if not rows:
        raise no_conversation(conversation_id, scope)
    call = _call_of(conversation_id, rows[0])
    if call.reply_position is None:
        return None
    return Answered(call, *_reply_of(connection, scope, call))


def _call_of(conversation_id: str, columns: Any) -> LLMCall:
    values: list[Any] = [conversation_id, *columns]
    values[-1] = utc(values[-1])
    return LLMCall(*values)


_BEAT = Statement("""
UPDATE {llm_calls} SET alive_at = {now}
WHERE conversation_id = :id AND number = :number AND alive_at IS NOT NULL
""")


def beat(connection: sa.Connection, scope: Scope, conversation_id: str, number: int) -> None:
    """Say that the call is still running, for a repeated request that waits for it."""
    _BEAT.run(connection, scope, {"id": conversation_id, "number": number})


_PAGE = f"""
SELECT {_COLUMNS}, COALESCE(l.alive_at > {{ago}}, false)
FROM {{conversations}} c LEFT JOIN (
    SELECT * FROM {{llm_calls}} WHERE conversation_id = :id AND number > :after
    ORDER BY number $order LIMIT :limit
) l ON true
WHERE c.id = :id AND {OWNED} ORDER BY l.number $order
"""
_PAGES = {False: Statement(_PAGE.replace("$order", "ASC")), True: Statement(_PAGE.replace("$order", "DESC"))}


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
        "limit": 2**62 if limit is None else limit,
        "seconds": LEASE,
    }
    rows = _PAGES[newest_first].fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    found = [(_call_of(conversation_id, row[:-1]), row[-1]) for row in rows if row[0] is not None]
    return [replace(call, running=True) if running else call for call, running in found]
