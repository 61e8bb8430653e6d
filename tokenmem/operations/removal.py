"""What removes messages: one, the newest, a range, or all behind a position.

The conversation's row is locked first, so that appends wait. With a message go the versions of it that edits
have replaced. Idempotency keys stay: a request that is repeated later must not store its messages again.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.errors import MessageNotFound, PositionConflict
from tokenmem.messages.message import Message
from tokenmem.models import Conversation
from tokenmem.operations.rows import lock_conversation, messages_of
from tokenmem.operations.stored import between, message_at, move_totals, shift_behind

_NEWEST = Statement("""
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id AND m.position > 0 AND m.position <= :newest
ORDER BY m.position DESC LIMIT 1
""")
_IS_ANY_BETWEEN = Statement("""
SELECT position FROM {messages}
WHERE conversation_id = :id AND position > :after AND position < :before ORDER BY position LIMIT 1
""")
_DELETE_VERSIONS = Statement("""
DELETE FROM {message_versions} WHERE conversation_id = :id AND position > :after AND position <= :last
""")
_DELETE = Statement("""
DELETE FROM {messages} WHERE conversation_id = :id AND position > :after AND position <= :last
""")
_TOKENS_FROM = Statement("""
SELECT tokens_before FROM {messages}
WHERE conversation_id = :id AND position > :after AND position <= :last ORDER BY position LIMIT 1
""")


def delete_message(connection: sa.Connection, scope: Scope, conversation_id: str, position: int) -> None:
    """Remove one message; its position is not given again.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        MessageNotFound: there is no message at the position.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    _take_out(connection, scope, conversation, [message_at(connection, scope, conversation, position)])


def pop(
    connection: sa.Connection, scope: Scope, conversation_id: str, expected_position: int | None
) -> Message:
    """Remove the newest message and return it.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        MessageNotFound: it holds no message.
        PositionConflict: its newest message is not the one at the expected position.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    request = {"id": conversation_id, "newest": conversation.last_position}
    rows = _NEWEST.fetch(connection, scope, request)
    if not rows:
        raise MessageNotFound(
            f"conversation {conversation_id!r} holds no message that could be popped; append one first"
        )
    newest = messages_of(rows, conversation_id)[0]
    if expected_position not in (None, newest.position):
        raise PositionConflict(
            conversation_id,
            expected_position=expected_position or 0,
            last_position=newest.position,
            detail=f"its newest message is at position {newest.position}, not at {expected_position}; "
            f"read what is there and decide again",
        )
    _take_out(connection, scope, conversation, [newest])
    return newest


def delete_messages(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    after: int | None,
    before: int | None,
    limit: int | None,
) -> list[Message]:
    """Remove the messages with after < position < before, the oldest `limit` of them, and return them.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    last = conversation.last_position if before is None else min(before - 1, conversation.last_position)
    found = between(connection, scope, conversation_id, after or 0, last, limit)
    if found:
        _take_out(connection, scope, conversation, found)
    return found


def truncate(connection: sa.Connection, scope: Scope, conversation_id: str, after: int) -> int:
    """Remove the messages behind a position and return how many; their positions are not given again.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    removed, tokens = clear_behind(connection, scope, conversation, after)
    if removed:
        move_totals(connection, scope, conversation_id, tokens=-tokens, messages=-removed)
    return removed


def clear_behind(
    connection: sa.Connection, scope: Scope, conversation: Conversation, after: int
) -> tuple[int, int]:
    """Remove the messages behind a position, and return how many and what they cost, in tokens.

    To move the conversation's totals is left to the caller.
    """
    request = {"id": conversation.id, "after": after, "last": conversation.last_position}
    first = _TOKENS_FROM.fetch(connection, scope, request)
    if not first:
        return 0, 0
    _DELETE_VERSIONS.run(connection, scope, request)
    removed = _DELETE.run(connection, scope, request)
    return removed, conversation.total_tokens - first[0][0]


def _take_out(
    connection: sa.Connection, scope: Scope, conversation: Conversation, removed: Sequence[Message]
) -> None:
    """Remove messages that stand side by side.

    The running totals of those behind are closed up. Only where the oldest go they stay as they are, as after
    a purge: only differences count, and a long conversation need not be written anew.
    """
    first, last = removed[0].position, removed[-1].position
    request = {"id": conversation.id, "after": first - 1, "last": last}
    _DELETE_VERSIONS.run(connection, scope, request)
    _DELETE.run(connection, scope, request)
    tokens = -sum(message.token_count for message in removed)
    if _is_any_between(connection, scope, conversation, last, conversation.last_position + 1):
        if _is_any_between(connection, scope, conversation, 0, first):
            shift_behind(connection, scope, conversation, last, tokens)
        else:
            tokens = 0
    move_totals(connection, scope, conversation.id, tokens=tokens, messages=-len(removed))


def _is_any_between(
    connection: sa.Connection, scope: Scope, conversation: Conversation, after: int, before: int
) -> bool:
    request = {"id": conversation.id, "after": after, "before": before}
    return bool(_IS_ANY_BETWEEN.fetch(connection, scope, request))
