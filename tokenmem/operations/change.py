"""What changes stored messages and conversations, whose rows are locked first, so that appends wait."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from tokenmem.arguments import KEEP, Keep
from tokenmem.database.statements import Scope, Statement
from tokenmem.errors import ConversationExists, InvalidArgument, InvalidMessage
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, dump_json
from tokenmem.models import Conversation
from tokenmem.operations import several, versions
from tokenmem.operations.append import CounterMismatch
from tokenmem.operations.rows import (
    first_revision,
    lock_conversation,
    metadata_text,
    read_conversation,
    values_of,
)
from tokenmem.operations.stored import message_at, move_totals, shift_behind

_REPLACE = Statement("""
UPDATE {messages} SET role = :role, kind = :kind, content = :content, payload = :payload,
    token_count = :token_count, pinned = :pinned, metadata = COALESCE(CAST(:metadata AS {json}), metadata)
WHERE conversation_id = :id AND position = :position
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

    The data beside the place stays, unless the message comes with its own.
    Where it says something else and `keep_version` is true, what it replaces stays as a version.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        MessageNotFound: there is no message at the position.
        InvalidMessage: the message would be pinned and is not a plain one.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    if conversation.token_counter != token_counter:
        return CounterMismatch(conversation.token_counter)
    old = message_at(connection, scope, conversation, position)
    pinned = (old.pinned or message.pinned) if pinned is None else pinned
    if pinned and message.kind != "message":
        raise InvalidMessage(
            f"message {position} would be a {message.kind} and pinned; pass pinned=False, or a plain message"
        )
    if keep_version:
        versions.keep(connection, scope, conversation_id, old, message)
    place = {"id": conversation_id, "position": position}
    new = values_of(message, token_count) | {"pinned": pinned, "metadata": metadata_text(message)}
    _REPLACE.run(connection, scope, place | new)
    tokens = token_count - old.token_count
    shift_behind(connection, scope, conversation, position, tokens)
    move_totals(connection, scope, conversation_id, tokens=tokens, messages=0)
    return message_at(connection, scope, conversation, position)


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
        InvalidArgument: the position is behind its last.
        ConversationExists: the new id is taken.
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
        raise ConversationExists(f"conversation {new_id!r} exists already; fork under another id")
    _FORK_MESSAGES.run(connection, scope, copy)
    return read_conversation(connection, scope, new_id)


_UPDATE = Statement("""
UPDATE {conversations} AS c SET title = :title, metadata = :metadata, keep = :keep,
    revision = c.revision + 1, {touched}
WHERE id = :id
""")


def update(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    title: str | Keep | None,
    metadata: JSONObject | Keep,
    merge: bool,
    keep: bool | None,
) -> Conversation:
    """Set the title, the metadata and the flag that are given.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    old = lock_conversation(connection, scope, conversation_id)
    if metadata is KEEP:
        metadata = old.metadata
    elif merge:
        metadata = old.metadata | metadata
    new: Mapping[str, object] = {
        "id": conversation_id,
        "title": old.title if title is KEEP else title,
        "metadata": dump_json(metadata),
        "keep": old.keep if keep is None else keep,
    }
    _UPDATE.run(connection, scope, new)
    return read_conversation(connection, scope, conversation_id)


def delete(connection: sa.Connection, scope: Scope, conversation_id: str) -> None:
    """Remove a conversation and all that belongs to it, but for what its calls cost.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    lock_conversation(connection, scope, conversation_id)
    several.remove(connection, scope, [conversation_id])
