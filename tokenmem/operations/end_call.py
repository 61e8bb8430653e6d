"""What is stored when a call has ended: the reply, or the part of it that arrived, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from tokenmem.database.statements import Parameters, Scope, Statement, with_pieces
from tokenmem.models import LLMCall
from tokenmem.operations import append
from tokenmem.operations.append import CounterMismatch, PendingAppend
from tokenmem.operations.calls import StartedCall, call_of, key_of
from tokenmem.operations.rows import no_conversation
from tokenmem.operations.together import Change, take_and_change


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended; see LLMCall.

    Attributes:
        changes: as JSON text, in place of what was put on record when the call began; None leaves that. The
            position "reply" stands for that of the reply's message number `reply_number`.
        first_position: likewise, where what was sent begins.
        window_tokens: likewise, what it costs by our count, in tokens.
        reply_number: from 1; 0 where `changes` names none.
    """

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
    cache_write_tokens: int | None = None
    changes: str | None = None
    first_position: int | None = None
    window_tokens: int | None = None
    reply_number: int = 0


_OUTCOME = """status = :status, error = :error, finish_reason = :finish_reason, request_id = :request_id,
    latency_ms = :latency_ms, first_token_ms = :first_token_ms, input_tokens = :input_tokens,
    cached_tokens = :cached_tokens, output_tokens = :output_tokens, reasoning_tokens = :reasoning_tokens,
    cache_write_tokens = :cache_write_tokens,
    first_position = COALESCE(CAST(:first_position AS bigint), first_position),
    window_tokens = COALESCE(CAST(:window_tokens AS bigint), window_tokens),
    changes = COALESCE(CAST({changes} AS {json}), changes), alive_at = NULL"""
_END = Statement(
    """
UPDATE {llm_calls} SET {outcome}
WHERE conversation_id = :id AND number = :number AND created_at = :begun AND alive_at IS NOT NULL
RETURNING {returned_call_columns}
""",
    outcome=with_pieces(_OUTCOME, changes=":changes"),
)
# PostgreSQL takes the call's row first: if somebody has ended it, nothing is stored.
OPEN = """open AS (
    SELECT 1 FROM {llm_calls}
    WHERE conversation_id = :id AND number = :number AND created_at = :begun AND alive_at IS NOT NULL
    FOR UPDATE
),"""
TAKE_IF_OPEN = with_pieces(append.TAKE_EXISTING, condition="AND EXISTS (SELECT 1 FROM open)")
# Where the reply is stored is known here.
_WITH_REPLY = """replace(CAST(:changes AS text), '"reply"',
        CAST(taken_position - :count + :reply_number AS text))"""
_TAKE = with_pieces(append.TAKE_EXISTING, condition="")
_END_WITH_REPLY = Change(
    "ended",
    with_pieces(
        """
UPDATE {llm_calls} AS l SET {outcome}, reply_position = taken_position - :count + 1, reply_messages = :count
FROM taken
WHERE l.conversation_id = :id AND l.number = :number AND l.created_at = :begun AND l.alive_at IS NOT NULL
RETURNING {returned_call_columns}
""",
        outcome=with_pieces(_OUTCOME, changes=_WITH_REPLY),
    ),
    answers=True,
)
# A repeated request is answered where nothing stands behind its messages but parts of its own.
_KEEP_PART = Change(
    "part_of_key",
    """
UPDATE {append_keys} AS k SET last_part = taken_position
FROM taken WHERE k.conversation_id = :id AND k.key = :part_of
    AND COALESCE(k.last_part, k.last_position) = taken_position - :count
""",
)
_IS_OPEN = Statement("""
SELECT alive_at IS NOT NULL FROM {llm_calls}
WHERE conversation_id = :id AND number = :number AND created_at = :begun
""")


CHANGES = (_END_WITH_REPLY, _KEEP_PART)
"""What the end of a call with a part of a keyed request's reply changes beside the conversation's row."""


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that has ended.

    Attributes:
        call: its record.
        first_position: where its reply, or the part of it that arrived, begins; 0 where nothing was stored.
        moment: when that was stored; None where nothing was.
    """

    call: LLMCall
    first_position: int = 0
    moment: datetime | None = None


class AlreadyEnded(Exception):
    """Somebody has ended this call: an earlier try whose commit arrived, or who took it for dead."""


def end(
    connection: sa.Connection,
    scope: Scope,
    started: StartedCall,
    pending: PendingAppend,
    outcome: Outcome,
    part_of: str | None,
) -> EndedCall | CounterMismatch:
    """Store the reply and how the call ended.

    Args:
        connection: on SQLite in a transaction.
        scope: the schema and the owner.
        started: the call.
        pending: the reply, or the part of it that arrived; it may hold no message.
        outcome: how the call ended.
        part_of: the key of the request that the stored part belongs to; None for a whole reply.

    Raises:
        AlreadyEnded: it has ended; nothing is stored.
        ConversationNotFound: it was deleted while the model thought; nothing is stored.
    """
    parameters = {name: getattr(outcome, name) for name in Outcome.__slots__}
    parameters |= append.head_of(pending, sum(pending.token_counts)) | {"part_of": part_of}
    parameters |= key_of(connection, pending.conversation_id, started)
    if not pending.messages:
        rows = _END.fetch(connection, scope, parameters)
        if not rows:
            return _why_not(connection, scope, pending, parameters)
        return EndedCall(call_of(pending.conversation_id, rows[0]))
    is_postgresql = connection.dialect.name == "postgresql"
    taken = take_and_change(
        connection,
        scope,
        TAKE_IF_OPEN if is_postgresql else _TAKE,
        parameters,
        messages=pending.messages,
        token_counts=pending.token_counts,
        changes=(_END_WITH_REPLY, *((_KEEP_PART,) if part_of is not None else ())),
        guard=OPEN,
    )
    if taken is None:
        return _why_not(connection, scope, pending, parameters)
    if taken.answer is None:  # on SQLite, where what has been stored is rolled back
        if not _IS_OPEN.fetch(connection, scope, parameters):
            raise no_conversation(pending.conversation_id, scope)
        raise AlreadyEnded
    first_position = taken.last_position - len(pending.messages) + 1
    return EndedCall(call_of(pending.conversation_id, taken.answer), first_position, taken.moment)


def _why_not(
    connection: sa.Connection, scope: Scope, pending: PendingAppend, parameters: Parameters
) -> CounterMismatch:
    """Why the conversation's row could not be taken. Raises as `end` does."""
    is_open = _IS_OPEN.fetch(connection, scope, parameters)
    if not is_open:
        raise no_conversation(pending.conversation_id, scope)
    why_not = append.why_not(connection, scope, pending) if is_open[0][0] else None
    if isinstance(why_not, CounterMismatch):
        return why_not
    raise AlreadyEnded
