"""Purge: drop the oldest messages of every conversation, a few conversations a transaction."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from tokenmem.database.statements import Parameters, Scope, Statement
from tokenmem.errors import ConversationNotFound
from tokenmem.models import Conversation, Purged
from tokenmem.operations import versions
from tokenmem.operations.change import delete
from tokenmem.operations.rows import lock_conversation, read_conversation

BATCH = 100
"""Conversations a transaction: short enough that appends to them hardly wait."""

# A fork is younger than the messages in it.
_AGED = Statement("""
SELECT c.id FROM {conversations} c
WHERE c.id > :after AND {owned} AND (c.created_at < {ago} OR {ago} > (
    SELECT m.created_at FROM {messages} m WHERE m.conversation_id = c.id ORDER BY m.position LIMIT 1))
ORDER BY c.id LIMIT :limit
""")
# Timestamps order nothing: what goes is what lies before the first message that is young enough.
_OLD = Statement("""
SELECT count(*), COALESCE(max(position), 0) FROM {messages}
WHERE conversation_id = :id AND position < COALESCE((
    SELECT min(position) FROM {messages} WHERE conversation_id = :id AND created_at >= {ago}
), :behind_all)
""")
_UNTOUCHED = Statement("SELECT 1 FROM {conversations} WHERE id = :id AND updated_at < {ago}")
# Only differences of running totals count, so the rows that stay are left as they are.
_DELETE_UP_TO = [
    versions.DELETE_UP_TO,
    Statement("DELETE FROM {messages} WHERE conversation_id = :id AND position <= :position"),
    # A key whose reply stays, or is being made, is still known.
    Statement("""
DELETE FROM {append_keys} WHERE conversation_id = :id AND last_position <= :position AND NOT EXISTS (
    SELECT 1 FROM {llm_calls} l WHERE l.conversation_id = :id AND l.number = call_number
        AND (l.reply_position > :position OR l.alive_at IS NOT NULL))
"""),
    Statement("""
UPDATE {conversations} SET message_count = message_count - :removed, revision = revision + 1 WHERE id = :id
"""),
]


@dataclass(frozen=True, slots=True)
class PurgeStep:
    """What one transaction of a purge did; `last_id` is where the next one goes on, None at the end."""

    purged: Purged
    last_id: str | None


def purge(
    connection: sa.Connection, scope: Scope, older_than: timedelta, after: str, dry_run: bool
) -> PurgeStep:
    """Purge the next few conversations behind the id `after`."""
    request = {"owner": scope.owner, "after": after, "limit": BATCH, "seconds": older_than.total_seconds()}
    ids = [row[0] for row in _AGED.fetch(connection, scope, request)]
    done = [_purge_one(connection, scope, conversation_id, older_than, dry_run) for conversation_id in ids]
    purged = Purged(sum(one.conversations for one in done), sum(one.messages for one in done))
    return PurgeStep(purged, ids[-1] if len(ids) == BATCH else None)


def _purge_one(
    connection: sa.Connection, scope: Scope, conversation_id: str, older_than: timedelta, dry_run: bool
) -> Purged:
    """Look without the lock first: most conversations have nothing to purge, and appends need not wait."""
    request = {"id": conversation_id, "seconds": older_than.total_seconds(), "behind_all": 2**62}
    with suppress(ConversationNotFound):  # another process has removed it meanwhile
        conversation = read_conversation(connection, scope, conversation_id)
        found, _ = _aged(connection, scope, conversation, request)
        if dry_run or found == Purged(0, 0):
            return found
        conversation = lock_conversation(connection, scope, conversation_id)
        found, position = _aged(connection, scope, conversation, request)
        if found.conversations:
            delete(connection, scope, conversation_id)
        else:
            change = {"id": conversation_id, "position": position, "removed": found.messages}
            for statement in _DELETE_UP_TO:
                statement.run(connection, scope, change)
        return found
    return Purged(0, 0)


def _aged(
    connection: sa.Connection, scope: Scope, conversation: Conversation, request: Parameters
) -> tuple[Purged, int]:
    """What there is to purge in a conversation, and up to which position."""
    old, position = _OLD.fetch(connection, scope, request)[0]
    untouched = bool(_UNTOUCHED.fetch(connection, scope, request))
    return Purged(int(old == conversation.message_count and untouched), old), position
