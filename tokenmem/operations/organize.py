"""What changes a conversation's place and not what it holds: create, archive, restore, move.

None of these sets `updated_at`, by which lists are ordered: who restores or moves a conversation has said
nothing in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.errors import ConversationExists
from tokenmem.messages.values import JSONObject, dump_json
from tokenmem.models import Conversation
from tokenmem.operations import usage
from tokenmem.operations.rows import first_revision, lock_conversation, read_conversation

BATCH = 500
"""Conversations a transaction: short enough that appends to them hardly wait."""

_CREATE = Statement("""
INSERT INTO {conversations} (id, owner, title, metadata, token_counter, last_position, message_count,
    total_tokens, created_at, updated_at, revision, keep)
VALUES (:id, :owner, :title, :metadata, :token_counter, 0, 0, 0, {now}, {now}, :first_revision, :keep)
ON CONFLICT (id) DO NOTHING
""")


@dataclass(frozen=True, slots=True)
class PendingConversation:
    """A conversation without messages that is to be made; its fields are `Conversation`'s."""

    id: str
    owner: str | None
    title: str | None
    metadata: JSONObject | None
    token_counter: str
    keep: bool


def create(connection: sa.Connection, scope: Scope, pending: PendingConversation) -> Conversation:
    """Make a conversation without messages.

    Raises:
        ConversationExists: the id is taken, be it by another owner.
    """
    new = {
        "id": pending.id,
        "owner": pending.owner,
        "title": pending.title,
        "metadata": dump_json(pending.metadata) if pending.metadata else None,
        "token_counter": pending.token_counter,
        "first_revision": first_revision(),
        "keep": pending.keep,
    }
    if not _CREATE.run(connection, scope, new):
        raise ConversationExists(f"conversation {pending.id!r} exists already; use another id")
    return read_conversation(connection, scope, pending.id)


_ARCHIVE = Statement("""
UPDATE {conversations} AS c SET archived_at = {now}, revision = c.revision + 1
WHERE c.id = :id AND {owned} AND c.archived_at IS NULL
""")
_RESTORE = Statement("""
UPDATE {conversations} AS c SET archived_at = NULL, revision = c.revision + 1
WHERE c.id = :id AND {owned} AND c.archived_at IS NOT NULL
""")


def archive(connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    """Put a conversation away from the lists; one that is stays as it is.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    _ARCHIVE.run(connection, scope, {"id": conversation_id, "owner": scope.owner})
    return read_conversation(connection, scope, conversation_id)


def restore(connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    """Put a conversation back where it stood in the lists; one that is there stays as it is.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    _RESTORE.run(connection, scope, {"id": conversation_id, "owner": scope.owner})
    return read_conversation(connection, scope, conversation_id)


_MOVE = Statement("""
UPDATE {conversations} AS c SET owner = :new_owner, revision = c.revision + 1 WHERE c.id = :id
""")


def move(
    connection: sa.Connection, scope: Scope, conversation_id: str, new_owner: str | None
) -> Conversation:
    """Give a conversation to another owner, or to nobody.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    if lock_conversation(connection, scope, conversation_id).owner != new_owner:
        _MOVE.run(connection, scope, {"id": conversation_id, "new_owner": new_owner})
    return read_conversation(connection, scope, conversation_id)


# In the order of their ids, so that two who move the same ones wait for each other, and not in a circle.
# Rows that another process has moved meanwhile are passed by when their lock is had.
_LOCK_NEXT = Statement("""
SELECT c.id FROM {conversations} c WHERE c.owner = :owner AND c.id > :after
ORDER BY c.id LIMIT :limit FOR UPDATE
""")
_MOVE_NEXT = Statement("""
UPDATE {conversations} AS c SET owner = :new_owner, revision = c.revision + 1
WHERE c.owner = :owner AND c.id > :after AND c.id <= :last
""")
# SQLite's writers take turns; its first statement has to be the one that writes.
_MOVE_NEXT_ON_SQLITE = Statement("""
UPDATE {conversations} AS c SET owner = :new_owner, revision = c.revision + 1
WHERE c.id IN (SELECT o.id FROM {conversations} o WHERE o.owner = :owner AND o.id > :after
    ORDER BY o.id LIMIT :limit)
RETURNING id
""")


@dataclass(frozen=True, slots=True)
class MoveStep:
    """What one transaction of a move did; `last_id` is where the next one goes on, None at the end."""

    moved: int
    last_id: str | None


def move_owner(
    connection: sa.Connection, scope: Scope, old_owner: str, new_owner: str, after: str
) -> MoveStep:
    """Give an owner's next conversations, behind the id `after`, to another; with the last the kept usage."""
    request = {"owner": old_owner, "new_owner": new_owner, "after": after, "limit": BATCH}
    if connection.dialect.name == "postgresql":
        ids = [row[0] for row in _LOCK_NEXT.fetch(connection, scope, request)]
        moved = _MOVE_NEXT.run(connection, scope, request | {"last": ids[-1]}) if ids else 0
    else:
        ids = sorted(row[0] for row in _MOVE_NEXT_ON_SQLITE.fetch(connection, scope, request))
        moved = len(ids)
    if len(ids) == BATCH:
        return MoveStep(moved, ids[-1])
    usage.give_away(connection, scope, old_owner, new_owner)
    return MoveStep(moved, None)
