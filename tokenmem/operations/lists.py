"""Lists of conversations: by their ids, the newest first, the archive, and the forks of one.

What has changed last is indexed by a coarse stamp (docs/adr/0016): `recent_at <= updated_at`, and less than
half a minute lies between. The list by recency is exact all the same, at the price of looking at those too
that were active in the half minute before its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from tokenmem.cursors import Cursor
from tokenmem.database.statements import Scope, Statement
from tokenmem.models import Conversation
from tokenmem.operations.rows import NO_BOUND, as_stored, conversation_of, read_conversation

_EARLIEST = datetime.min.replace(tzinfo=UTC)
_LATEST = datetime.max.replace(tzinfo=UTC)

_HIGHEST = chr(0x10FFFF)
_BEHIND_ALL = _HIGHEST * 256
"""Behind every id: one has 255 characters at most."""

_BELOW_SURROGATES, _ABOVE_SURROGATES = 0xD7FF, 0xE000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which conversations a list shows.

    Attributes:
        prefix: what their ids begin with; "" for all.
        archived: the archived ones only, or the others only; None for both.
        limit: at most so many; None for all.
    """

    prefix: str
    archived: bool | None
    limit: int | None


def behind_prefix(prefix: str) -> str:
    """A text behind every text that begins with the prefix and before every other one that follows it.

    By code points, as both databases compare ids; half of a surrogate pair is no character of theirs.
    """
    kept = prefix.rstrip(_HIGHEST)
    if not kept:
        return _BEHIND_ALL
    last = ord(kept[-1])
    return kept[:-1] + chr(_ABOVE_SURROGATES if last == _BELOW_SURROGATES else last + 1)


_BY_ID = """
SELECT {conversation_columns} FROM {conversations} c
WHERE {whose} AND c.id {from} :first {to} {shown}
ORDER BY c.id LIMIT :limit
"""
_WHOSE = {False: "true", True: "c.owner = :owner"}
_TO = {False: "", True: "AND c.id < :behind"}
_SHOWN = {None: "", False: "AND c.archived_at IS NULL", True: "AND c.archived_at IS NOT NULL"}
_LISTED_BY_ID = {
    (owned, archived, named, comparison): Statement(
        _BY_ID, whose=whose, shown=shown, to=to, **{"from": comparison}
    )
    for owned, whose in _WHOSE.items()
    for archived, shown in _SHOWN.items()
    for named, to in _TO.items()
    for comparison in (">", ">=")
}


def by_id(
    connection: sa.Connection, scope: Scope, selection: Selection, after: str | None
) -> list[Conversation]:
    """Conversations in the order of their ids, from behind `after`."""
    begins_behind = after is not None and after >= selection.prefix
    request = {
        "owner": scope.owner,
        "first": after if begins_behind else selection.prefix,
        "behind": behind_prefix(selection.prefix),
        "limit": NO_BOUND if selection.limit is None else selection.limit,
    }
    comparison = ">" if begins_behind else ">="
    named = bool(selection.prefix)
    statement = _LISTED_BY_ID[scope.owner is not None, selection.archived, named, comparison]
    return [conversation_of(row) for row in statement.fetch(connection, scope, request)]


# Of those that nothing has changed, and of those that something has, each by its index, as many as the page
# holds: the page's end lies no earlier than the last of these. Whatever changed since then is stamped no more
# than half a minute before it; so the page's are among the first ones and among what is stamped since.
# Both ends of that range are subqueries: PostgreSQL would take a range with one known end for a third of all.
_RECENT = """
WITH made AS MATERIALIZED (
    SELECT c.* FROM {conversations} AS c {by_made}
    WHERE {whose} AND c.recent_at IS NULL AND c.archived_at IS NULL
        AND (c.created_at, c.id) < (:moment, :before_id) {named}
    ORDER BY c.created_at DESC, c.id DESC LIMIT :limit
), changed AS MATERIALIZED (
    SELECT c.updated_at FROM {conversations} AS c {by_changed}
    WHERE {whose} AND c.recent_at <= :moment AND c.archived_at IS NULL
        AND (c.updated_at, c.id) < (:moment, :before_id) {named}
    ORDER BY c.recent_at DESC LIMIT :limit
), bound AS MATERIALIZED (
    SELECT newest.updated_at AS moment
    FROM (SELECT updated_at FROM made UNION ALL SELECT updated_at FROM changed) AS newest
    ORDER BY newest.updated_at DESC LIMIT 1 OFFSET :limit - 1
)
SELECT {conversation_columns} FROM (
    SELECT * FROM made
    UNION ALL
    SELECT c.* FROM {conversations} AS c {by_changed}
    WHERE {whose} AND c.archived_at IS NULL
        AND c.recent_at > COALESCE((SELECT {short_of_bound} FROM bound), :earliest)
        AND c.recent_at <= (SELECT CAST(:moment AS {timestamp}))
        AND (c.updated_at, c.id) < (:moment, :before_id) {named}
) AS c
ORDER BY c.updated_at DESC, c.id DESC LIMIT :limit
"""
_ARCHIVE = """
SELECT {conversation_columns} FROM {conversations} AS c {by_archived}
WHERE {whose} AND c.archived_at IS NOT NULL AND (c.archived_at, c.id) < (:moment, :before_id) {named}
ORDER BY c.archived_at DESC, c.id DESC LIMIT :limit
"""
_NAMED = {False: "", True: "AND c.id >= :first AND c.id < :behind"}


def _newest_first(text: str, *, owned: bool, named: bool) -> Statement:
    suffix = "_by_owner" if owned else ""
    hints = {f"by_{name}": f"{{by_{name}{suffix}}}" for name in ("made", "changed", "archived")}
    return Statement(text, whose=_WHOSE[owned], named=_NAMED[named], **hints)


_LISTED_NEWEST_FIRST = {
    (archived, owned, named): _newest_first(text, owned=owned, named=named)
    for archived, text in ((False, _RECENT), (True, _ARCHIVE))
    for owned in (False, True)
    for named in (False, True)
}


def newest_first(
    connection: sa.Connection, scope: Scope, selection: Selection, before: Cursor | None
) -> list[Conversation]:
    """Conversations that changed last first; of the archive, those that were put there last."""
    dialect = connection.dialect.name
    request = {
        "owner": scope.owner,
        "moment": as_stored(before.moment if before else _LATEST, dialect),
        "before_id": before.id if before else "",
        "earliest": as_stored(_EARLIEST, dialect),
        "first": selection.prefix,
        "behind": behind_prefix(selection.prefix),
        "limit": NO_BOUND if selection.limit is None else selection.limit,
    }
    owned, named = scope.owner is not None, bool(selection.prefix)
    statement = _LISTED_NEWEST_FIRST[bool(selection.archived), owned, named]
    return [conversation_of(row) for row in statement.fetch(connection, scope, request)]


_FORKS = Statement("""
SELECT {conversation_columns} FROM {conversations} c WHERE c.parent_id = :id AND {owned} ORDER BY c.id
""")


def branches(connection: sa.Connection, scope: Scope, conversation_id: str) -> list[Conversation]:
    """The conversations that were forked from this one, in the order of their ids.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    read_conversation(connection, scope, conversation_id)
    request = {"id": conversation_id, "owner": scope.owner}
    return [conversation_of(row) for row in _FORKS.fetch(connection, scope, request)]
