"""What is stored before a model is asked: the messages, the window they end, and the call's number.

The call's row says "cancelled, not ended" in case nobody comes back (docs/adr/0011).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.edges import StartOn
from tokenmem.errors import InvalidArgument, WindowTooSmall
from tokenmem.models import Window
from tokenmem.operations import append, read
from tokenmem.operations.append import CounterMismatch, PendingAppend
from tokenmem.operations.calls import CALL_COLUMNS, DIED, LEASE, UNFINISHED, FinishedCall, call_of, reply_of
from tokenmem.operations.rows import OWNED, lock_conversation

_FITTING = 14
"""Windows that are tried where what is sent costs more than what is stored: a bisection of the limit."""

_FULL = 0.8
"""How full of the limit such a window must be to be taken at once."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent of a window.

    Attributes:
        sent: the messages, as the model's API takes them.
        token_count: what they cost by the model's bill, in tokens.
    """

    sent: Sequence[Any]
    token_count: int


@dataclass(frozen=True, slots=True)
class Opening:
    """What a call begins with.

    Attributes:
        conversation_id: the conversation.
        model: the model that is asked.
        token_limit: what the window may cost, in tokens.
        start_on: where it may start.
        stride: in what steps, in tokens.
        prompt_of: makes the prompt of a window, given the name of its counter; raises where nothing in it
            can be sent.
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
    prompt_of: Callable[[Window, str], Prompt]
    extra: int
    check: Callable[[Window, int], None] | None = None
    instructions: str | None = None
    tools: str | None = None
    digest: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class StartedCall:
    """A call that has begun: its number, the window, and what is sent of it."""

    number: int
    window: Window
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Running:
    """The key's call is running elsewhere."""


@dataclass(frozen=True, slots=True)
class NoReply:
    """The key's messages are stored without a reply: the call failed, its process died, or none began."""


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
SELECT k.call_number, l.alive_at IS NOT NULL, l.alive_at > {{ago}}, {CALL_COLUMNS}
FROM {{conversations}} c JOIN {{append_keys}} k ON k.conversation_id = c.id AND k.key = :key
LEFT JOIN {{llm_calls}} l ON l.conversation_id = c.id AND l.number = k.call_number
WHERE c.id = :id AND {OWNED}
""")


def begin(
    connection: sa.Connection, scope: Scope, pending: PendingAppend | None, opening: Opening
) -> StartedCall | FinishedCall | Running | CounterMismatch:
    """Store the pending's messages, load the window that ends with them, and number the call.

    With an idempotency key that is known, nothing is stored: the reply comes back, or the call begins again
    where it has failed.

    Args:
        connection: in a transaction.
        scope: the schema and the owner.
        pending: what to store; None asks the model with what is there.
        opening: what to send.

    Raises:
        What `append` and `window` raise, and what `opening.check` does; nothing is stored then.
    """
    appended = None if pending is None else append.append(connection, scope, pending)
    if isinstance(appended, CounterMismatch):
        return appended
    counter = "" if pending is None else pending.token_counter
    if appended is None or appended.replayed:
        counter = lock_conversation(connection, scope, opening.conversation_id).token_counter
        if opening.key is not None:
            known = of_key(connection, scope, opening.conversation_id, opening.key)
            if isinstance(known, (FinishedCall, Running)):
                return known
            if known is None:
                _remember(connection, scope, opening)
            _BURY.run(connection, scope, {"id": opening.conversation_id, "key": opening.key, "error": DIED})
    window, prompt = _fitting_window(connection, scope, opening, counter)
    if opening.check is not None and not (appended and appended.replayed):  # then it was checked before
        opening.check(window, _newest_reply(connection, scope, opening.conversation_id))
    number = _number_call(connection, scope, opening, window, prompt.token_count + opening.extra)
    return StartedCall(number, window, prompt)


def _newest_reply(connection: sa.Connection, scope: Scope, conversation_id: str) -> int:
    return int(_NEWEST_REPLY.fetch(connection, scope, {"id": conversation_id})[0][0] or 0)


def _remember(connection: sa.Connection, scope: Scope, opening: Opening) -> None:
    """Keep the key of a request that stores no message, so that it is known when it comes again."""
    _REMEMBER.run(connection, scope, {"id": opening.conversation_id, "key": opening.key})


def _fitting_window(
    connection: sa.Connection, scope: Scope, opening: Opening, counter: str
) -> tuple[Window, Prompt]:
    """The window that fits as it will be sent: what closes an open call, or an image, may cost more."""
    limit = high = opening.token_limit
    low, position, cost = 0, 0, 0
    found: tuple[Window, Prompt] | None = None
    for _ in range(_FITTING):
        try:
            window = read.window(
                connection, scope, opening.conversation_id, limit, opening.start_on, opening.stride
            )
            prompt = opening.prompt_of(window, counter)
        except (WindowTooSmall, InvalidArgument):
            if limit == opening.token_limit:
                raise
            low, excess = limit, 0
        else:
            excess = prompt.token_count - opening.token_limit
            if excess > 0:
                high = min(limit, window.token_count)
                position, cost = window.first_position, prompt.token_count
            else:
                low, found = limit, (window, prompt)
                if prompt.token_count >= opening.token_limit * _FULL or limit == opening.token_limit:
                    return found
        if high - low < 2:
            break
        limit = max(high - excess if excess > 0 else 0, (low + high) // 2)
    if found is not None:
        return found
    raise WindowTooSmall(
        opening.conversation_id,
        position=position,
        token_count=cost,
        token_limit=opening.token_limit,
        detail=f"the messages from {position} on cost {cost} tokens as they are sent, "
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
) -> FinishedCall | Running | NoReply | None:
    """How the call stands that an append with this key led to; None where the key is not known."""
    request = {"id": conversation_id, "owner": scope.owner, "key": key, "seconds": LEASE}
    rows = _OF_KEY.fetch(connection, scope, request)
    if not rows:
        return None
    number, unfinished, alive, *columns = rows[0]
    if number is None:
        return NoReply()
    if unfinished:
        return Running() if alive else NoReply()
    call = call_of(conversation_id, columns)
    if call.status != "ok" or call.reply_position is None:
        return NoReply()
    answered = FinishedCall(call, *reply_of(connection, scope, call))
    return answered if answered.messages else NoReply()  # removed since
