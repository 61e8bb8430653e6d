"""What is stored before a model is asked: the messages, and the call with its number.

The call's row says "cancelled, not ended" in case nobody comes back (docs/adr/0011).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tokenmem.database.statements import Scope, with_pieces
from tokenmem.operations.append import UNIQUE_VIOLATION, PendingAppend, head_of
from tokenmem.operations.calls import DIED, UNFINISHED, StartedCall
from tokenmem.operations.together import Change, take_and_change


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A call of a model, ready to begin.

    Attributes:
        model: the model that is asked.
        first_position: where the newest messages that are sent begin; None where there are none.
        last_position: where they end.
        window_tokens: what all that is sent costs by our count, in tokens.
        instructions: what the model is told before the messages.
        tools: the tools' schemas as JSON text.
        prompt_digest: tells these instructions and tools from others; None where there are none.
        read_revision: the conversation's revision that the prompt was made of; 0 where there was none.
        anyway: begin the call whatever has changed since.
        api: by what name the API is on record.
        token_limit: as the caller gave it, in tokens.
        options: the request's named scalars as JSON text, or None.
        metadata: what the caller gave with the call as JSON text, or None.
        pinned: the positions of the pinned messages that are sent from outside the window's, as JSON text.
        changes: what is sent otherwise than it is stored as JSON text, or None.
        claims: the beginning alone changes the conversation: no other call begins as it was read.
        repeats: the request's key is known: what it has stored stays, and its newest call is this one, unless
            another process has begun one meanwhile.
        known_call: the number of the key's newest call until now, or None.
        dead_call: the number of the key's call whose process has died, or None.
    """

    model: str
    first_position: int | None
    last_position: int | None
    window_tokens: int
    instructions: str | None = None
    tools: str | None = None
    prompt_digest: str | None = None
    read_revision: int = 0
    anyway: bool = False
    api: str | None = None
    token_limit: int | None = None
    options: str | None = None
    metadata: str | None = None
    pinned: str = "[]"
    changes: str | None = None
    claims: bool = False
    repeats: bool = False
    known_call: int | None = None
    dead_call: int | None = None


_TAKE_NEW = """
INSERT INTO {conversations}
    (id, owner, token_counter, last_position, message_count, total_tokens, last_call, revision)
VALUES (:id, :owner, :token_counter, :count, :count, :tokens, 1, :first_revision)
ON CONFLICT (id) DO NOTHING
{returning_taken}
"""
_TAKE_AS_READ = """
UPDATE {conversations} AS c SET
    last_position = c.last_position + :count,
    message_count = c.message_count + :count,
    total_tokens = c.total_tokens + :tokens,
    revision = c.revision + :changes,
    last_call = c.last_call + 1,
    {touched_by_take}
WHERE c.id = :id AND {owned}
    AND (CAST(:revision AS bigint) IS NULL OR c.revision = :revision)
    AND (CAST(:expected AS bigint) IS NULL OR c.last_position = :expected)
    {condition}
{returning_taken}
"""
TAKE_UNCHANGED = with_pieces(_TAKE_AS_READ, condition="")
# PostgreSQL locks the key's row first: of two processes that repeat a request one begins its call.
_OF_KEY = """SELECT 1 FROM {append_keys} WHERE conversation_id = :id AND key = :key
        AND (call_number = :known_call OR (call_number IS NULL AND CAST(:known_call AS bigint) IS NULL))"""
_KEY = f"key_row AS ({_OF_KEY} FOR UPDATE),"
_TAKE_FOR_KEY = {
    "postgresql": with_pieces(_TAKE_AS_READ, condition="AND EXISTS (SELECT 1 FROM key_row)"),
    "sqlite": with_pieces(_TAKE_AS_READ, condition=f"AND EXISTS ({_OF_KEY})"),
}
_STORE_KEY = Change(
    "keyed",
    """
INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest, call_number,
    created_at)
SELECT :id, :key, taken_position - :count + 1, taken_position, :digest, taken_call, taken_at FROM taken
""",
)
_SET_KEY = Change(
    "keyed",
    """
UPDATE {append_keys} AS k SET call_number = taken_call
FROM taken WHERE k.conversation_id = :id AND k.key = :key
""",
)
_MARK_DEAD = Change(
    "died",
    """
UPDATE {llm_calls} AS l SET alive_at = NULL, error = :died
FROM taken WHERE l.conversation_id = :id AND l.number = :dead_call AND l.alive_at IS NOT NULL
""",
)
KEEP_PROMPT = Change(
    "kept",
    """
INSERT INTO {call_prompts} (conversation_id, digest, instructions, tools)
SELECT :id, :prompt_digest, CAST(:instructions AS text), CAST(:tools AS {json}) FROM taken WHERE true
ON CONFLICT (conversation_id, digest) DO NOTHING
""",
)
_RECORD_CALL = Change(
    "recorded",
    """
INSERT INTO {llm_calls} (conversation_id, number, model, first_position, last_position, window_tokens,
    status, error, prompt_digest, alive_at, created_at, revision, api, token_limit, options, metadata, pinned,
    changes)
SELECT :id, taken_call, :model, CAST(:first AS bigint), CAST(:last AS bigint), :window_tokens,
    'cancelled', :unfinished, CAST(:prompt_digest AS text), taken_at, taken_at, CAST(:read AS bigint),
    CAST(:api AS text), CAST(:token_limit AS bigint), CAST(:options AS {json}),
    CAST(:call_metadata AS {json}), CAST(:pinned AS {json}), CAST(:changed AS {json})
FROM taken
""",
)


CHANGES = (_STORE_KEY, KEEP_PROMPT, _RECORD_CALL)
"""What a first call of a keyed request changes beside the conversation's row and its messages."""


def prompt_digest(instructions: str | None, tools: str | None) -> str | None:
    """What tells instructions and tools, as JSON text, from others; None where there are neither."""
    if instructions is None and tools is None:
        return None
    return hashlib.sha256(f"{instructions!r}\0{tools}".encode()).hexdigest()


def start(
    connection: sa.Connection, scope: Scope, pending: PendingAppend, call: PendingCall, *, is_new: bool
) -> StartedCall | None:
    """Store the messages and the call, if the conversation is still as it was read.

    One statement on PostgreSQL, without a volatile function or a subquery where a distributed server takes
    none.

    Args:
        connection: on SQLite in a transaction.
        scope: the schema and the owner.
        pending: the messages, which may be none, and the request's key.
        call: the call.
        is_new: whether there was no such conversation.

    Returns:
        None where the conversation has changed since, or another process has begun to answer the same
        request; nothing is stored then.
    """
    tokens, stores = sum(pending.token_counts), int(bool(pending.messages) or call.claims)
    keeps_key = pending.key is not None and not call.repeats
    head = head_of(pending, tokens)
    revision = cast("int", head["first_revision"]) if is_new else call.read_revision + stores
    parameters = head | {
        "changes": stores,
        "revision": None if call.anyway else call.read_revision,
        "read": revision,
        "known_call": call.known_call,
        "dead_call": call.dead_call,
        "died": DIED,
        "unfinished": UNFINISHED,
        "model": call.model,
        "first": call.first_position,
        "last": call.last_position,
        "window_tokens": call.window_tokens,
        "instructions": call.instructions,
        "tools": call.tools,
        "prompt_digest": call.prompt_digest,
        "api": call.api,
        "token_limit": call.token_limit,
        "options": call.options,
        "call_metadata": call.metadata,
        "pinned": call.pinned,
        "changed": call.changes,
    }
    changes = (
        *((_STORE_KEY,) if keeps_key else ()),
        *((_SET_KEY,) if call.repeats else ()),
        *((_MARK_DEAD,) if call.dead_call is not None else ()),
        *((KEEP_PROMPT,) if call.prompt_digest is not None else ()),
        _RECORD_CALL,
    )
    take = _TAKE_NEW if is_new else TAKE_UNCHANGED
    if call.repeats:
        take = _TAKE_FOR_KEY[connection.dialect.name]
    try:
        taken = take_and_change(
            connection,
            scope,
            take,
            parameters,
            messages=pending.messages,
            token_counts=pending.token_counts,
            changes=changes,
            guard=_KEY if call.repeats else "",
        )
    except IntegrityError as error:
        if not keeps_key or getattr(error.orig, "sqlstate", None) != UNIQUE_VIOLATION:
            raise
        return None  # another process has stored the same key
    return None if taken is None else StartedCall(taken.last_call, taken.moment, revision)
