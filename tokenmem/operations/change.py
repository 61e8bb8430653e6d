"""What changes or removes stored messages. The conversation's row is locked first, so that appends wait."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.errors import ConversationNotFound, InvalidArgument, InvalidMessage
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, dump_json
from tokenmem.models import Conversation
from tokenmem.operations import versions
from tokenmem.operations.append import CounterMismatch
from tokenmem.operations.rows import (
    first_revision,
    lock_conversation,
    messages_of,
    read_conversation,
    values_of,
)

_AT = Statement("""
SELECT {message_columns} FROM {messages} m WHERE m.conversation_id = :id AND m.position = :position
""")
_REPLACE = Statement("""
UPDATE {messages} SET role = :role, kind = :kind, content = :content, payload = :payload,
    token_count = :token_count, pinned = :pinned
WHERE conversation_id = :id AND position = :position
""")
_DELETE_AT = Statement("DELETE FROM {messages} WHERE conversation_id = :id AND position = :position")
_SHIFT = Statement("""
UPDATE {messages} SET tokens_before = tokens_before + :tokens
WHERE conversation_id = :id AND position > :position
""")
_MOVE_TOTALS = Statement("""
UPDATE {conversations} AS c SET message_count = c.message_count + :messages,
    total_tokens = c.total_tokens + :tokens, revision = c.revision + 1, {touched}
WHERE id = :id
""")


def edit(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    position: int,
    message: Message,
    token_count: int,
    token_counter: str,
    pinned: bool | None,
    *,
    keep_version: bool,
) -> Message | CounterMismatch:
    """Put a checked message in the place of another, and move the totals behind it.

    Where it says something else and `keep_version` is true, what it replaces stays as a version.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        InvalidArgument: there is no message at the position.
        InvalidMessage: the message would be pinned and is not a plain one.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    if conversation.token_counter != token_counter:
        return CounterMismatch(conversation.token_counter)
    old = _message_at(connection, scope, conversation, position)
    pinned = (old.pinned or message.pinned) if pinned is None else pinned
    if pinned and message.kind != "message":
        raise InvalidMessage(
            f"message {position} is pinned and would become a {message.kind}; unpin it first"
        )
    if keep_version:
        versions.keep(connection, scope, conversation_id, old, message)
    new = {"id": conversation_id, "position": position}
    _REPLACE.run(connection, scope, new | values_of(message, token_count) | {"pinned": pinned})
    _move(connection, scope, conversation_id, position, token_count - old.token_count, messages=0)
    return _message_at(connection, scope, conversation, position)


def delete_message(connection: sa.Connection, scope: Scope, conversation_id: str, position: int) -> None:
    """Remove one message; its position is not given again.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        InvalidArgument: there is no message at the position.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    old = _message_at(connection, scope, conversation, position)
    for statement in (versions.DELETE_AT, _DELETE_AT):
        statement.run(connection, scope, {"id": conversation_id, "position": position})
    _move(connection, scope, conversation_id, position, -old.token_count, messages=-1)


def _message_at(
    connection: sa.Connection, scope: Scope, conversation: Conversation, position: int
) -> Message:
    rows = _AT.fetch(connection, scope, {"id": conversation.id, "position": position})
    if not rows:
        raise InvalidArgument(
            f"conversation {conversation.id!r} has no message at position {position}; "
            f"its last position is {conversation.last_position}"
        )
    return messages_of(rows)[0]


def _move(
    connection: sa.Connection, scope: Scope, conversation_id: str, position: int, tokens: int, messages: int
) -> None:
    change = {"id": conversation_id, "position": position, "tokens": tokens, "messages": messages}
    if tokens:
        _SHIFT.run(connection, scope, change)
    _MOVE_TOTALS.run(connection, scope, change)


_DELETE_BEHIND = Statement("DELETE FROM {messages} WHERE conversation_id = :id AND position > :after")
_TOKENS_FROM = Statement("""
SELECT tokens_before FROM {messages} WHERE conversation_id = :id AND position > :after
ORDER BY position LIMIT 1
""")


def truncate(connection: sa.Connection, scope: Scope, conversation_id: str, after: int) -> int:
    """Remove the messages behind a position and return how many; their positions are not given again.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    request = {"id": conversation_id, "after": after}
    first = _TOKENS_FROM.fetch(connection, scope, request)
    if not first:
        return 0
    versions.DELETE_BEHIND.run(connection, scope, request)
    removed = _DELETE_BEHIND.run(connection, scope, request)
    change = {"id": conversation_id, "tokens": first[0][0] - conversation.total_tokens, "messages": -removed}
    _MOVE_TOTALS.run(connection, scope, change)
    return removed


_FORK = Statement("""
INSERT INTO {conversations}
    (id, owner, title, metadata, token_counter, last_position, message_count, total_tokens, revision,
    parent_id, forked_at)
SELECT CAST(:new_id AS text), c.owner, c.title, c.metadata, c.token_counter,
    CAST(:at AS bigint), count(m.position), COALESCE(max(m.tokens_before + m.token_count), 0),
    CAST(:first_revision AS bigint), c.id, CAST(:at AS bigint)
FROM {conversations} c LEFT JOIN {messages} m ON m.conversation_id = c.id AND m.position <= :at
WHERE c.id = :id AND {owned}
GROUP BY c.id
ON CONFLICT (id) DO NOTHING
""")
_FORK_MESSAGES = Statement("""
INSERT INTO {messages} (conversation_id, position, role, kind, content, payload, token_count, tokens_before,
    pinned, created_at, metadata, stored_at)
SELECT CAST(:new_id AS text), position, role, kind, content, payload, token_count, tokens_before,
    pinned, created_at, metadata, stored_at
FROM {messages} WHERE conversation_id = :id AND position <= :at
""")


def fork(
    connection: sa.Connection, scope: Scope, conversation_id: str, new_id: str, at: int | None
) -> Conversation:
    """Copy a conversation up to a position, that included, under a new id.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        InvalidArgument: the position is behind its last, or the new id is taken.
    """
    source = lock_conversation(connection, scope, conversation_id)
    at = source.last_position if at is None else at
    if at > source.last_position:
        raise InvalidArgument(
            f"conversation {conversation_id!r} ends at position {source.last_position}; it has no {at}"
        )
    copy = {"id": conversation_id, "new_id": new_id, "at": at, "owner": scope.owner}
    copy["first_revision"] = first_revision()
    if not _FORK.run(connection, scope, copy):
        raise InvalidArgument(f"conversation {new_id!r} exists already; fork under another id")
    _FORK_MESSAGES.run(connection, scope, copy)
    return read_conversation(connection, scope, new_id)


_UPDATE = Statement("""
UPDATE {conversations} AS c SET title = :title, metadata = :metadata, revision = c.revision + 1, {touched}
WHERE id = :id
""")


def update(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    title: str | None,
    metadata: JSONObject | None,
) -> Conversation:
    """Set the title, the metadata, or both; what is None stays.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    old = lock_conversation(connection, scope, conversation_id)
    new: Mapping[str, object] = {
        "id": conversation_id,
        "title": old.title if title is None else title,
        "metadata": dump_json(old.metadata if metadata is None else metadata),
    }
    _UPDATE.run(connection, scope, new)
    return read_conversation(connection, scope, conversation_id)


# Children first, and by hand: SQLite cascades only where the connection has foreign keys switched on.
_DELETE = [
    Statement("DELETE FROM {append_keys} WHERE conversation_id = :id"),
    Statement("DELETE FROM {llm_calls} WHERE conversation_id = :id"),
    Statement("DELETE FROM {call_prompts} WHERE conversation_id = :id"),
    versions.DELETE_ALL,
    Statement("DELETE FROM {messages} WHERE conversation_id = :id"),
    Statement("DELETE FROM {conversations} WHERE id = :id"),
]
_OWNERS = Statement("SELECT id FROM {conversations} WHERE owner = :owner ORDER BY id")


def delete(connection: sa.Connection, scope: Scope, conversation_id: str) -> None:
    """Remove a conversation and all that belongs to it.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    lock_conversation(connection, scope, conversation_id)
    for statement in _DELETE:
        statement.run(connection, scope, {"id": conversation_id})


def delete_owner(connection: sa.Connection, scope: Scope) -> int:
    """Remove the conversations of the scope's owner, in one transaction, and return how many there were."""
    ids = [row[0] for row in _OWNERS.fetch(connection, scope, {"owner": scope.owner})]
    removed = 0
    for conversation_id in ids:
        # Meanwhile another process may have removed it, or another owner may have made it anew.
        with suppress(ConversationNotFound):
            delete(connection, scope, conversation_id)
            removed += 1
    return removed
