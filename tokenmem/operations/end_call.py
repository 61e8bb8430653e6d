"""What is stored when a call has ended: the reply, or the part of it that arrived, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.models import Appended, LLMCall
from tokenmem.operations import append, insert
from tokenmem.operations.append import CounterMismatch, PendingAppend
from tokenmem.operations.calls import CALL_COLUMNS, FinishedCall, call_of, reply_of
from tokenmem.operations.rows import no_conversation


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


_OUTCOME = """status = :status, error = :error, finish_reason = :finish_reason, request_id = :request_id,
    latency_ms = :latency_ms, first_token_ms = :first_token_ms, input_tokens = :input_tokens,
    cached_tokens = :cached_tokens, output_tokens = :output_tokens, reasoning_tokens = :reasoning_tokens,
    alive_at = NULL"""
_END = Statement(f"""
UPDATE {{llm_calls}} SET {_OUTCOME}, reply_position = :reply_position, reply_messages = :reply_messages
WHERE conversation_id = :id AND number = :number AND alive_at IS NOT NULL
RETURNING {CALL_COLUMNS.replace("l.", "")}
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
    RETURNING {CALL_COLUMNS}
)"""
_SELECT_ENDED = "SELECT taken.last_position, taken.total_tokens, ended.* FROM taken, ended"
_IS_OPEN = Statement("""
SELECT alive_at IS NOT NULL FROM {llm_calls} WHERE conversation_id = :id AND number = :number
""")
_READ = Statement(f"""
SELECT {CALL_COLUMNS} FROM {{llm_calls}} l WHERE l.conversation_id = :id AND l.number = :number
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
    pending: PendingAppend | None,
    outcome: Outcome,
) -> Ended | CounterMismatch:
    """Store the reply and how the call ended.

    Raises:
        AlreadyEnded: it has ended; nothing is stored.
        ConversationNotFound: it was deleted while the model thought; nothing is stored.
    """
    parameters: dict[str, Any] = {name: getattr(outcome, name) for name in Outcome.__slots__}
    parameters |= {"id": conversation_id, "number": number, "reply_position": None, "reply_messages": None}
    if pending is not None and connection.dialect.name == "postgresql" and is_one_statement(pending):
        return _end_at_once(connection, scope, pending, parameters)
    appended = None
    if pending is not None:
        stored = append.append(connection, scope, pending)
        if isinstance(stored, CounterMismatch):
            return stored
        appended = stored
        parameters["reply_position"] = appended.first_position
        parameters["reply_messages"] = appended.last_position - appended.first_position + 1
    rows = _END.fetch(connection, scope, parameters)
    if not rows:
        raise AlreadyEnded
    return Ended(call_of(conversation_id, rows[0]), appended)


def is_one_statement(pending: PendingAppend | None) -> bool:
    """Whether PostgreSQL needs no transaction around `end`."""
    return pending is None or len(pending.messages) <= insert.MANY


def _end_at_once(
    connection: sa.Connection, scope: Scope, pending: PendingAppend, parameters: dict[str, Any]
) -> Ended | CounterMismatch:
    count, tokens = len(pending.messages), sum(pending.token_counts)
    statement = insert.all_at_once(_TAKE_IF_OPEN, count, _OPEN, _ENDED, _SELECT_ENDED)
    parameters |= append.head_of(pending, tokens) | insert.values(pending.messages, pending.token_counts)
    rows = statement.fetch(connection, scope, parameters)
    if not rows:
        is_open = _IS_OPEN.fetch(connection, scope, parameters)
        if not is_open:
            raise no_conversation(pending.conversation_id, scope)
        why_not = append.why_not(connection, scope, pending) if is_open[0][0] else None
        if isinstance(why_not, CounterMismatch):
            return why_not
        raise AlreadyEnded
    last_position, total_tokens, *call = rows[0]
    appended = Appended(last_position - count + 1, last_position, tokens, total_tokens)
    return Ended(call_of(pending.conversation_id, call), appended)


def ended(connection: sa.Connection, scope: Scope, conversation_id: str, number: int) -> FinishedCall | None:
    """What an earlier try to end this call has stored; None where there is no reply of it.

    Raises:
        ConversationNotFound: it is not there any more.
    """
    rows = _READ.fetch(connection, scope, {"id": conversation_id, "number": number})
    if not rows:
        raise no_conversation(conversation_id, scope)
    call = call_of(conversation_id, rows[0])
    if call.reply_position is None:
        return None
    return FinishedCall(call, *reply_of(connection, scope, call))
