"""One stored message, and the totals around it."""

from __future__ import annotations

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.errors import MessageNotFound
from tokenmem.messages.message import Message
from tokenmem.models import Conversation
from tokenmem.operations.rows import NO_BOUND, messages_of, no_conversation

_AT = Statement("""
SELECT {message_columns} FROM {messages} m WHERE m.conversation_id = :id AND m.position = :position
""")
_MESSAGE = Statement("""
SELECT {message_columns}, c.last_position
FROM {conversations} c LEFT JOIN {messages} m ON m.conversation_id = c.id AND m.position = :position
WHERE c.id = :id AND {owned}
""")
_BETWEEN = Statement("""
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id AND m.position > :after AND m.position <= :last ORDER BY m.position LIMIT :limit
""")
_SHIFT = Statement("""
UPDATE {messages} SET tokens_before = tokens_before + :tokens
WHERE conversation_id = :id AND position > :position AND position <= :newest
""")
_MOVE_TOTALS = Statement("""
UPDATE {conversations} AS c SET message_count = c.message_count + :messages,
    total_tokens = c.total_tokens + :tokens, revision = c.revision + 1, {touched}
WHERE id = :id
""")


def message(connection: sa.Connection, scope: Scope, conversation_id: str, position: int) -> Message:
    """The message at a position.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        MessageNotFound: there is no message at the position.
    """
    request = {"id": conversation_id, "owner": scope.owner, "position": position}
    rows = _MESSAGE.fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    *columns, last_position = rows[0]
    if columns[0] is None:
        raise no_message(conversation_id, position, last_position)
    return messages_of([tuple(columns)], conversation_id)[0]


def message_at(connection: sa.Connection, scope: Scope, conversation: Conversation, position: int) -> Message:
    """The message at a position of a conversation that is locked.

    Raises:
        MessageNotFound: there is none.
    """
    rows = _AT.fetch(connection, scope, {"id": conversation.id, "position": position})
    if not rows:
        raise no_message(conversation.id, position, conversation.last_position)
    return messages_of(rows, conversation.id)[0]


def between(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    after: int,
    last: int,
    limit: int | None = None,
) -> list[Message]:
    """The messages with after < position <= last, the oldest `limit` of them; the owner is known."""
    request = {"id": conversation_id, "after": after, "last": last}
    request["limit"] = NO_BOUND if limit is None else limit
    return messages_of(_BETWEEN.fetch(connection, scope, request), conversation_id)


def no_message(conversation_id: str, position: int, last_position: int) -> MessageNotFound:
    """The error for a position at which nothing stands."""
    return MessageNotFound(
        f"conversation {conversation_id!r} has no message at position {position}; "
        f"its last position is {last_position}"
    )


def shift_behind(
    connection: sa.Connection, scope: Scope, conversation: Conversation, position: int, tokens: int
) -> None:
    """Add tokens to the running total of each message behind a position."""
    if tokens:
        change = {"id": conversation.id, "position": position, "tokens": tokens}
        _SHIFT.run(connection, scope, change | {"newest": conversation.last_position})


def move_totals(
    connection: sa.Connection, scope: Scope, conversation_id: str, *, tokens: int, messages: int
) -> None:
    """Say that the conversation has changed, and by how many tokens and messages."""
    _MOVE_TOTALS.run(connection, scope, {"id": conversation_id, "tokens": tokens, "messages": messages})
