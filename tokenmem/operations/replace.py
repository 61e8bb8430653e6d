"""Replace: take away what stands behind a position and store other messages instead, as one change."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.errors import InvalidArgument, PositionConflict
from tokenmem.messages.message import Message
from tokenmem.models import Appended
from tokenmem.operations import insert
from tokenmem.operations.append import CounterMismatch
from tokenmem.operations.removal import clear_behind
from tokenmem.operations.rows import lock_conversation

_TAKE = Statement("""
UPDATE {conversations} AS c SET
    last_position = c.last_position + :count,
    message_count = c.message_count + :count - :removed,
    total_tokens = c.total_tokens + :tokens - :removed_tokens,
    revision = c.revision + 1,
    {touched}
WHERE c.id = :id
{returning_taken}
""")


def replace(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    messages: Sequence[Message],
    token_counts: Sequence[int],
    token_counter: str,
    after: int,
    expected_position: int | None,
) -> Appended | CounterMismatch:
    """Put checked and counted messages in the place of all that stand behind `after`.

    Positions are not given again: the new messages come behind the last one that ever was.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        InvalidArgument: `after` is behind its last position.
        PositionConflict: the conversation is not at the expected position.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    last_position = conversation.last_position
    if expected_position is not None and expected_position != last_position:
        raise PositionConflict(
            conversation_id, expected_position=expected_position, last_position=last_position
        )
    if after > last_position:
        raise InvalidArgument(
            f"conversation {conversation_id!r} ends at position {last_position}; it has no {after} after "
            f"which to replace: read where it ends, or append"
        )
    if conversation.token_counter != token_counter:
        return CounterMismatch(conversation.token_counter)
    removed, removed_tokens = clear_behind(connection, scope, conversation, after)
    tokens = sum(token_counts)
    if not removed and not messages:
        return Appended(last_position + 1, last_position, 0, conversation.total_tokens)
    change = {
        "id": conversation_id,
        "count": len(messages),
        "tokens": tokens,
        "removed": removed,
        "removed_tokens": removed_tokens,
    }
    last_position, total_tokens, _, moment, _ = _TAKE.fetch(connection, scope, change)[0]
    first_position = last_position - len(messages) + 1
    if messages:
        bulk = insert.bulk_rows(
            conversation_id,
            messages,
            token_counts,
            first_position=first_position,
            tokens_before=total_tokens - tokens,
            moment=moment,
        )
        insert.in_bulk(connection, scope, bulk)
    return Appended(first_position, last_position, tokens, total_tokens)
