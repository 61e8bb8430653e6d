"""Purge: what is older than a time goes, a few conversations a transaction.

Of each conversation its oldest messages (`purge`), or all of it where nobody has used it (`purge_idle`), or
the idempotency keys whose time is over (`purge_keys`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from tokenmem.database.statements import Parameters, Scope, Statement, with_pieces
from tokenmem.errors import ConversationNotFound
from tokenmem.models import Conversation, Purged
from tokenmem.operations import several, usage, versions
from tokenmem.operations.calls import LEASE
from tokenmem.operations.rows import lock_conversation, read_conversation

BATCH = 100
"""Conversations a transaction: short enough that appends to them hardly wait."""

TIMES = {"stored": "COALESCE(m.stored_at, m.created_at)", "created": "m.created_at"}
"""By which time a message is old: when it was stored, or when it was said."""

# A fork is younger than the messages in it.
_AGED = """
SELECT c.id FROM {conversations} c
WHERE c.id > :after AND {whose} AND NOT c.keep AND (c.created_at < {ago} OR {ago} > (
    SELECT {time} FROM {messages} m WHERE m.conversation_id = c.id ORDER BY m.position LIMIT 1))
ORDER BY c.id LIMIT :limit
"""
# Timestamps order nothing: what goes is what lies before the first message that is young enough.
_OLD = """
SELECT count(*), COALESCE(max(position), 0) FROM {messages}
WHERE conversation_id = :id AND position < COALESCE((
    SELECT min(m.position) FROM {messages} m WHERE m.conversation_id = :id AND {time} >= {ago}
), :behind_all)
"""
_WHOSE = {False: "true", True: "c.owner = :owner"}
"""Which conversations, by whether the scope has an owner: with an OR PostgreSQL would read all owners'."""

_FIND_AGED = {
    (by, of_owner): Statement(_AGED, time=time, whose=whose)
    for by, time in TIMES.items()
    for of_owner, whose in _WHOSE.items()
}
_COUNT_OLD = {by: Statement(_OLD, time=time) for by, time in TIMES.items()}
_UNTOUCHED = Statement("SELECT 1 FROM {conversations} WHERE id = :id AND updated_at < {ago}")
# Only differences of running totals count, so the rows that stay are left as they are.
_DELETE_UP_TO = [
    versions.DELETE_UP_TO,
    Statement("DELETE FROM {messages} WHERE conversation_id = :id AND position <= :position"),
    # A key whose reply stays, or is being made, is still known.
    Statement("""
DELETE FROM {append_keys} WHERE conversation_id = :id AND last_position <= :position AND NOT EXISTS (
    SELECT 1 FROM {llm_calls} l WHERE l.conversation_id = :id AND l.number = call_number
        AND (l.reply_position > :position OR l.alive_at > {lease_ago}))
"""),
    # A call of which nothing stays, and then what no call has sent that does: the instructions and tools.
    Statement(
        "DELETE FROM {llm_calls} AS l WHERE l.conversation_id = :id AND {all_gone}",
        all_gone=with_pieces(usage.ALL_GONE, up_to=":position"),
    ),
    Statement("""
DELETE FROM {call_prompts} AS p WHERE p.conversation_id = :id AND NOT EXISTS (
    SELECT 1 FROM {llm_calls} l WHERE l.conversation_id = :id AND l.prompt_digest = p.digest)
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
    connection: sa.Connection, scope: Scope, after: str, dry_run: bool, older_than: timedelta, by: str
) -> PurgeStep:
    """Purge old messages of the next few conversations behind the id `after`; `by` is one of TIMES."""
    several.begin_on_sqlite(connection, scope)
    request = _request(scope, after, older_than)
    statement = _FIND_AGED[by, scope.owner is not None]
    ids = [row[0] for row in statement.fetch(connection, scope, request)]
    found = {each: _old_of(connection, scope, each, older_than, by, dry_run) for each in ids}
    old = {each: found[each] for each in ids if found[each].messages or found[each].whole}
    if old and not dry_run:
        _remove(connection, scope, old)
    purged = Purged(sum(each.whole for each in old.values()), sum(each.messages for each in old.values()))
    return PurgeStep(purged, ids[-1] if len(ids) == BATCH else None)


@dataclass(frozen=True, slots=True)
class _Old:
    """What is old in a conversation.

    Attributes:
        messages: how many messages.
        position: up to which position they stand.
        whole: whether that is all of it, and nobody has changed it since.
    """

    messages: int = 0
    position: int = 0
    whole: bool = False


def _remove(connection: sa.Connection, scope: Scope, old: Mapping[str, _Old]) -> None:
    """Remove what is old of locked conversations; what calls cost is kept first, by one statement."""
    up_to = {each: usage.EVERYTHING if found.whole else found.position for each, found in old.items()}
    usage.fold_up_to(connection, scope, up_to, LEASE)
    for conversation_id, found in old.items():
        if not found.whole:
            change = {"id": conversation_id, "position": found.position, "removed": found.messages}
            for statement in _DELETE_UP_TO:
                statement.run(connection, scope, change | {"lease": LEASE})
    if whole := [each for each, found in old.items() if found.whole]:
        several.erase(connection, scope, whole)


def _request(scope: Scope, after: str, age: timedelta) -> dict[str, object]:
    return {
        "owner": scope.owner,
        "after": after,
        "limit": BATCH,
        "seconds": age.total_seconds(),
        "lease": LEASE,
    }


def _old_of(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    older_than: timedelta,
    by: str,
    dry_run: bool,
) -> _Old:
    """What is old in a conversation, which is then locked.

    Look without the lock first: most conversations have nothing to purge, and appends need not wait.
    """
    request = {"id": conversation_id, "seconds": older_than.total_seconds(), "behind_all": 2**62}
    with suppress(ConversationNotFound):  # another process has removed it meanwhile
        conversation = read_conversation(connection, scope, conversation_id)
        found = _aged(connection, scope, conversation, by, request)
        if dry_run or found == _Old():
            return found
        conversation = lock_conversation(connection, scope, conversation_id)
        return _aged(connection, scope, conversation, by, request)
    return _Old()


def _aged(
    connection: sa.Connection, scope: Scope, conversation: Conversation, by: str, request: Parameters
) -> _Old:
    """What there is to purge in a conversation."""
    if conversation.keep:
        return _Old()
    old, position = _COUNT_OLD[by].fetch(connection, scope, request)[0]
    untouched = bool(_UNTOUCHED.fetch(connection, scope, request))
    return _Old(old, position, old == conversation.message_count and untouched)


# A call whose process lives may take its time: its reply still has to find the conversation.
_IDLE = """
SELECT c.id, c.message_count FROM {conversations} c
WHERE {which} AND {whose} AND c.updated_at < {ago} AND NOT c.keep AND NOT EXISTS (
    SELECT 1 FROM {llm_calls} l WHERE l.conversation_id = c.id AND l.alive_at > {lease_ago})
ORDER BY c.id {end}
"""
_FIND_IDLE = {
    of_owner: Statement(_IDLE, which="c.id > :after", whose=whose, end="LIMIT :limit")
    for of_owner, whose in _WHOSE.items()
}
_LOCK_IDLE = {
    "postgresql": Statement(_IDLE, which="c.id {one_of_ids}", whose="{owned}", end="FOR UPDATE"),
    "sqlite": Statement(_IDLE, which="c.id {one_of_ids}", whose="{owned}", end=""),
}


def purge_idle(
    connection: sa.Connection, scope: Scope, after: str, dry_run: bool, idle_for: timedelta
) -> PurgeStep:
    """Remove the next few conversations behind the id `after` that have not changed for a time."""
    several.begin_on_sqlite(connection, scope)
    request = _request(scope, after, idle_for)
    found = _FIND_IDLE[scope.owner is not None].fetch(connection, scope, request)
    last_id = found[-1][0] if len(found) == BATCH else None
    if found and not dry_run:
        chosen = several.ids_of(connection, [row[0] for row in found])
        statement = _LOCK_IDLE[connection.dialect.name]
        found = statement.fetch(connection, scope, request | {"ids": chosen})
        several.remove(connection, scope, [row[0] for row in found])
    return PurgeStep(Purged(len(found), sum(row[1] for row in found)), last_id)


# Keys that were stored before their time was noted are as old as their conversation.
_EXPIRED = """COALESCE(k.created_at, (
        SELECT c.created_at FROM {conversations} c WHERE c.id = k.conversation_id)) < {ago}
    AND NOT EXISTS (SELECT 1 FROM {llm_calls} l WHERE l.conversation_id = k.conversation_id
        AND l.number = k.call_number AND l.alive_at > {lease_ago})"""
_FIND_EXPIRED = {
    of_owner: Statement(
        """
SELECT c.id FROM {conversations} c WHERE c.id > :after AND {whose} AND EXISTS (
    SELECT 1 FROM {append_keys} k WHERE k.conversation_id = c.id AND {expired})
ORDER BY c.id LIMIT :limit
""",
        whose=whose,
        expired=_EXPIRED,
    )
    for of_owner, whose in _WHOSE.items()
}
_COUNT_EXPIRED = Statement(
    "SELECT count(*) FROM {append_keys} k WHERE k.conversation_id {one_of_ids} AND {expired}",
    expired=_EXPIRED,
)
_DELETE_EXPIRED = Statement(
    "DELETE FROM {append_keys} AS k WHERE k.conversation_id {one_of_ids} AND {expired}", expired=_EXPIRED
)


def purge_keys(
    connection: sa.Connection, scope: Scope, after: str, dry_run: bool, older_than: timedelta
) -> PurgeStep:
    """Forget the old keys of the next few conversations behind the id `after`."""
    several.begin_on_sqlite(connection, scope)
    request = _request(scope, after, older_than)
    found = [row[0] for row in _FIND_EXPIRED[scope.owner is not None].fetch(connection, scope, request)]
    last_id = found[-1] if len(found) == BATCH else None
    if dry_run:
        chosen = several.ids_of(connection, found)
        keys = int(_COUNT_EXPIRED.fetch(connection, scope, request | {"ids": chosen})[0][0])
    else:
        # With the conversations locked nobody begins a call for one of the keys.
        chosen = several.ids_of(connection, several.lock(connection, scope, found))
        keys = _DELETE_EXPIRED.run(connection, scope, request | {"ids": chosen})
    return PurgeStep(Purged(0, 0, keys), last_id)
