"""Put a call on record that the application has made itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tokenmem.database.statements import Scope, with_pieces
from tokenmem.errors import InvalidArgument
from tokenmem.messages.values import dump_json
from tokenmem.models import LLMCall
from tokenmem.operations.calls import call_of
from tokenmem.operations.rows import read_conversation
from tokenmem.operations.start_call import KEEP_PROMPT, prompt_digest
from tokenmem.operations.together import Change, take_and_change


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A call that has ended, checked; see LLMCall.

    Attributes:
        options: as JSON text, like `metadata`, `changes` and `tools`.
        highest: the highest of the positions that it names; the conversation must have got so far.
    """

    conversation_id: str
    model: str
    first_position: int | None
    last_position: int | None
    window_tokens: int | None
    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    reply_position: int | None
    reply_messages: int | None
    latency_ms: int | None
    first_token_ms: int | None
    finish_reason: str | None
    status: str
    error: str | None
    request_id: str | None
    api: str | None
    token_limit: int | None
    options: str | None
    metadata: str | None
    pinned: Sequence[int] | None
    changes: str | None
    instructions: str | None
    tools: str | None
    highest: int


# The conversation's revision stays: nothing that a turn reads has changed.
TAKE = """
UPDATE {conversations} AS c SET last_call = c.last_call + 1, {touched}
WHERE c.id = :id AND {owned} AND c.last_position >= :highest
{returning_taken}
"""
# By the running totals: what the last message of the window ends with less what its first begins with.
_WINDOW_TOKENS = """(SELECT CASE WHEN sum(counted.tokens) <= 2147483647 THEN sum(counted.tokens) END FROM (
        SELECT (SELECT m.tokens_before + m.token_count FROM {messages} m
            WHERE m.conversation_id = :id AND m.position BETWEEN :first_position AND :last_position
            ORDER BY m.position DESC LIMIT 1)
        - (SELECT m.tokens_before FROM {messages} m
            WHERE m.conversation_id = :id AND m.position BETWEEN :first_position AND :last_position
            ORDER BY m.position LIMIT 1) AS tokens
        UNION ALL
        SELECT m.token_count FROM {messages} m
        WHERE m.conversation_id = :id AND m.position IN ({listed})) counted)"""
_RECORD = """
INSERT INTO {llm_calls} (conversation_id, number, model, first_position, last_position, window_tokens,
    input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, reply_position,
    reply_messages, latency_ms, first_token_ms, finish_reason, status, error, request_id, prompt_digest,
    created_at, revision, api, token_limit, options, metadata, pinned, changes)
SELECT :id, taken_call, :model, CAST(:first_position AS bigint), CAST(:last_position AS bigint),
    COALESCE(CAST(:window_tokens AS bigint), {counted}), CAST(:input_tokens AS int),
    CAST(:cached_tokens AS int), CAST(:cache_write_tokens AS int), CAST(:output_tokens AS int),
    CAST(:reasoning_tokens AS int), CAST(:reply_position AS bigint), CAST(:reply_messages AS int),
    CAST(:latency_ms AS int), CAST(:first_token_ms AS int), CAST(:finish_reason AS text), :status,
    CAST(:error AS text), CAST(:request_id AS text), CAST(:prompt_digest AS text), taken_at,
    (SELECT revision FROM {conversations} WHERE id = :id), CAST(:api AS text), CAST(:token_limit AS bigint),
    CAST(:options AS {json}), CAST(:call_metadata AS {json}), CAST(:pinned AS {json}),
    CAST(:changed AS {json})
FROM taken WHERE true
RETURNING {returned_call_columns}
"""
_LISTED = {
    "postgresql": "SELECT CAST(value AS bigint) FROM json_array_elements_text(CAST(:pinned AS json))",
    "sqlite": "SELECT value FROM json_each(:pinned)",
}
RECORD = {
    dialect: Change(
        "recorded", with_pieces(_RECORD, counted=with_pieces(_WINDOW_TOKENS, listed=listed)), answers=True
    )
    for dialect, listed in _LISTED.items()
}


def record_call(connection: sa.Connection, scope: Scope, call: RecordedCall) -> LLMCall:
    """Store the call under the next number, with the revision that the conversation has.

    One statement on PostgreSQL.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        InvalidArgument: the conversation has not got so far as a position that the call names.
    """
    digest = prompt_digest(call.instructions, call.tools)
    parameters: dict[str, object] = {name: getattr(call, name) for name in RecordedCall.__slots__}
    parameters |= {
        "id": call.conversation_id,
        "owner": scope.owner,
        "prompt_digest": digest,
        "call_metadata": call.metadata,
        "changed": call.changes,
        "pinned": None if call.pinned is None else dump_json(call.pinned),
    }
    keeps = (KEEP_PROMPT,) if digest is not None else ()
    record = RECORD[connection.dialect.name]
    taken = take_and_change(connection, scope, TAKE, parameters, changes=(*keeps, record))
    if taken is None or taken.answer is None:
        conversation = read_conversation(connection, scope, call.conversation_id)
        raise InvalidArgument(
            f"conversation {call.conversation_id!r} has no position {call.highest}; "
            f"its last position is {conversation.last_position}"
        )
    return call_of(call.conversation_id, taken.answer)
