"""What model calls cost: those on record, and what is kept of those that have been removed.

What removes calls adds them, in the same transaction, to sums by owner, day and model. So a query of both
together, one statement, finds each call once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta

import sqlalchemy as sa

from tokenmem.database.statements import RECENT, Scope, Statement, with_pieces
from tokenmem.errors import DatabaseError
from tokenmem.messages.values import dump_json
from tokenmem.models import Usage
from tokenmem.operations.damage import REMEDY, is_day, is_integer

COUNTS = (
    *("calls", "failed_calls", "estimated_calls", "input_tokens", "cached_tokens", "cache_write_tokens"),
    *("output_tokens", "reasoning_tokens"),
)
KEYS = ("day", "model", "owner")
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(9000, 12, 31)
"""Before and behind every call; some days within what both databases' calendars hold."""

# A call without a bill is taken for what we have counted: the prompt that was sent, the part that is stored.
_OF_CALL = """1 AS calls,
    CASE l.status WHEN 'ok' THEN 0 ELSE 1 END AS failed_calls,
    CASE WHEN l.input_tokens IS NULL THEN 1 ELSE 0 END AS estimated_calls,
    COALESCE(l.input_tokens, l.window_tokens, 0) AS input_tokens,
    COALESCE(l.cached_tokens, 0) AS cached_tokens,
    COALESCE(l.cache_write_tokens, 0) AS cache_write_tokens,
    CASE WHEN l.input_tokens IS NOT NULL THEN COALESCE(l.output_tokens, 0)
        ELSE COALESCE(l.output_tokens, (
            SELECT sum(m.token_count) FROM {messages} m
            WHERE m.conversation_id = l.conversation_id AND m.position >= l.reply_position
                AND m.position < l.reply_position + COALESCE(l.reply_messages, 1)
        ), 0) END AS output_tokens,
    COALESCE(l.reasoning_tokens, 0) AS reasoning_tokens"""
_NAMES = ", ".join(COUNTS)
_SUMS = ", ".join(f"CAST(sum({name}) AS bigint)" for name in COUNTS)
_ADD = ",\n    ".join(f"{name} = u.{name} + excluded.{name}" for name in COUNTS)

# In the order of the key, so that of two processes that fold neither waits for the other in turn.
_FOLD_TEXT = """
INSERT INTO {usage_kept} AS u (owner, day, model, {names})
SELECT owner, day, model, {sums} FROM (
    SELECT COALESCE(c.owner, '') AS owner, {call_day} AS day, l.model AS model, {of_call}
    {from_calls}
) AS used
WHERE true GROUP BY owner, day, model ORDER BY owner, day, model
ON CONFLICT (owner, day, model) DO UPDATE SET {add}
"""


def _fold_statement(from_calls: str, **pieces: str) -> Statement:
    text = with_pieces(_FOLD_TEXT, from_calls=with_pieces(from_calls, **pieces))
    return Statement(text, of_call=_OF_CALL, names=_NAMES, sums=_SUMS, add=_ADD)


_FOLD = _fold_statement("""FROM {conversations} c CROSS JOIN {llm_calls} l
    WHERE c.id {one_of_ids} AND l.conversation_id = c.id""")

ALL_GONE = """(l.alive_at IS NULL OR l.alive_at <= {lease_ago})
    AND COALESCE(l.last_position, l.reply_position) IS NOT NULL
    AND COALESCE(l.last_position, 0) <= {up_to}
    AND COALESCE(l.reply_position + COALESCE(l.reply_messages, 1) - 1, 0) <= {up_to}"""
"""Of a call `l` nothing stays behind a position: neither what it sent nor its reply; and it does not run."""

EVERYTHING = 2**62
"""Above every position: up to here all calls go, whatever they sent."""

_FOLD_UP_TO_TEXT = """FROM {removed} JOIN {conversations} c ON c.id = r.id CROSS JOIN {llm_calls} l
    WHERE l.conversation_id = c.id AND (r.position = {everything} OR {all_gone})"""
_FOLD_UP_TO = {
    dialect: _fold_statement(
        _FOLD_UP_TO_TEXT,
        removed=removed,
        everything=str(EVERYTHING),
        all_gone=with_pieces(ALL_GONE, up_to="r.position"),
    )
    for dialect, removed in (
        ("postgresql", "unnest(CAST(:ids AS text[]), CAST(:positions AS bigint[])) AS r (id, position)"),
        (
            "sqlite",
            "(SELECT i.value AS id, p.value AS position FROM json_each(:ids) i "
            "JOIN json_each(:positions) p ON p.key = i.key) AS r",
        ),
    )
}


def fold(connection: sa.Connection, scope: Scope, ids: list[str] | str) -> None:
    """Keep what the calls of locked conversations cost that are about to be removed.

    Args:
        connection: in the transaction that removes them, which folds once and with all its other locks taken.
        scope: the schema.
        ids: the conversations, by `several.ids_of`.
    """
    _FOLD.run(connection, scope, {"ids": ids})


def fold_up_to(connection: sa.Connection, scope: Scope, removed: Mapping[str, int], lease: int) -> None:
    """Keep what those calls cost that go with the messages up to a position; like `fold`, and instead of it.

    Args:
        connection: in the transaction that removes them, before it has removed any message.
        scope: the schema.
        removed: up to which position, for each of these locked conversations; EVERYTHING for all calls.
        lease: seconds after which a call without a sign of life counts as dead.
    """
    ids, positions = list(removed), list(removed.values())
    given: tuple[object, object] = (ids, positions)
    if connection.dialect.name == "sqlite":
        given = (dump_json(ids), dump_json(positions))
    request = {"ids": given[0], "positions": given[1], "lease": lease}
    _FOLD_UP_TO[connection.dialect.name].run(connection, scope, request)


_ERASE = "DELETE FROM {usage_kept} WHERE owner = :owner"
_GIVE = """
INSERT INTO {usage_kept} AS u (owner, day, model, {names})
SELECT CAST(:to AS text), day, model, {names} FROM {old} WHERE owner = :owner ORDER BY day, model
ON CONFLICT (owner, day, model) DO UPDATE SET {add}
"""
# One statement where another process may add to the old owner's meanwhile: what is removed is what is added.
_GIVE_AWAY = {
    "postgresql": [
        Statement(f"WITH removed AS ({_ERASE} RETURNING *) {_GIVE}", old="removed", names=_NAMES, add=_ADD)
    ],
    "sqlite": [Statement(_GIVE, old="{usage_kept}", names=_NAMES, add=_ADD), Statement(_ERASE)],
}
_ERASE_KEPT = Statement(_ERASE)


def erase(connection: sa.Connection, scope: Scope, owner: str) -> None:
    """Forget what removed conversations of an owner's have cost."""
    _ERASE_KEPT.run(connection, scope, {"owner": owner})


def give_away(connection: sa.Connection, scope: Scope, owner: str, to: str) -> None:
    """Put what removed conversations of an owner's have cost under another name."""
    for statement in _GIVE_AWAY[connection.dialect.name]:
        statement.run(connection, scope, {"owner": owner, "to": to})


LARGEST = 2**63 - 1
"""Of a column; what is greater is text, which SQLite takes for more than every number."""

_NEGATIVE = Statement(
    """
SELECT owner, day, model, {names} FROM {usage_kept}
WHERE (CAST(:owner AS text) IS NULL OR owner = :owner) AND ({any_negative})
ORDER BY owner, day, model
""",
    names=_NAMES,
    any_negative=" OR ".join(f"{name} < 0 OR {name} > {LARGEST}" for name in COUNTS),
)


def damage(connection: sa.Connection, scope: Scope) -> list[str]:
    """What cannot be in the sums that are kept, in words."""
    return [
        f"usage kept of owner {owner!r:.300}, {day if is_day(day) else 'no day'}, {model!r:.80}: {name} is "
        f"{count if is_integer(count) else 'no integer'}"
        for owner, day, model, *counts in _NEGATIVE.fetch(connection, scope, {"owner": scope.owner})
        for name, count in zip(COUNTS, counts, strict=True)
        if not is_integer(count) or count < 0
    ]


# A call touches its conversation: only one that has changed since can have calls since. Each of its four
# states has an index; both ends of a range, so that the planner does not take it for a third of all.
_ACTIVE = """(
        SELECT c.id, c.owner FROM {conversations} c
        WHERE {whose} c.archived_at IS NULL AND c.recent_at >= :recent_since AND c.recent_at < :end_of_time
        UNION ALL
        SELECT c.id, c.owner FROM {conversations} c
        WHERE {whose} c.archived_at IS NULL AND c.recent_at IS NULL
            AND c.created_at >= :since AND c.created_at < :end_of_time
        UNION ALL
        SELECT c.id, c.owner FROM {conversations} c
        WHERE {whose} c.archived_at IS NOT NULL
            AND c.recent_at >= :recent_since AND c.recent_at < :end_of_time
        UNION ALL
        SELECT c.id, c.owner FROM {conversations} c
        WHERE {whose} c.archived_at IS NOT NULL AND c.recent_at IS NULL
            AND c.created_at >= :since AND c.created_at < :end_of_time
    )"""
_ALL = "(SELECT c.id, c.owner FROM {conversations} c WHERE {whose} true)"
_USAGE = """
SELECT {key}, {sums} FROM (
    SELECT COALESCE(c.owner, '') AS owner, {call_day} AS day, l.model AS model, {of_call}
    FROM {callers} AS c CROSS JOIN {llm_calls} l
    WHERE l.conversation_id = c.id AND l.created_at >= :since AND l.created_at < :until
    UNION ALL
    SELECT owner, day, model, {names} FROM {usage_kept}
    WHERE {kept_whose} day >= :first_day AND day <= :last_day
) AS used
GROUP BY {key} ORDER BY {key}
"""


def _usage_statement(key: str, *, of_owner: bool, since: bool) -> Statement:
    callers = with_pieces(_ACTIVE if since else _ALL, whose="c.owner = :owner AND" if of_owner else "")
    kept_whose = "owner = :owner AND" if of_owner else ""
    return Statement(
        _USAGE, key=key, callers=callers, kept_whose=kept_whose, of_call=_OF_CALL, names=_NAMES, sums=_SUMS
    )


_USAGES = {
    (key, of_owner, since): _usage_statement(key, of_owner=of_owner, since=since)
    for key in KEYS
    for of_owner in (False, True)
    for since in (False, True)
}


def usage(
    connection: sa.Connection, scope: Scope, since: date | None, until: date | None, by: str
) -> list[Usage]:
    """What calls have cost from a day to a day, both included, by one of KEYS and in its order."""
    statement = _USAGES[by, scope.owner is not None, since is not None]
    rows = statement.fetch(connection, scope, _request(connection.dialect.name, scope, since, until))
    return [_usage_of(by, *row) for row in rows]


def _request(dialect: str, scope: Scope, since: date | None, until: date | None) -> dict[str, object]:
    first = max(since or FIRST_DAY, FIRST_DAY)
    last = min(until or LAST_DAY, LAST_DAY)

    def stored(moment: datetime) -> datetime | str:
        # On SQLite without a fraction: a text that sorts before each of that second, whatever its precision.
        return moment if dialect == "postgresql" else moment.replace(tzinfo=None).isoformat()

    begin = datetime.combine(first, time(), UTC)
    return {
        "owner": scope.owner,
        "first_day": first.isoformat(),
        "last_day": last.isoformat(),
        "since": stored(begin),
        "recent_since": stored(begin - timedelta(seconds=RECENT)),
        "until": stored(datetime.combine(last + timedelta(days=1), time(), UTC)),
        "end_of_time": stored(datetime.combine(LAST_DAY, time(), UTC)),
    }


def _usage_of(by: str, key: str, *counts: int) -> Usage:
    day = date.fromisoformat(key) if by == "day" and is_day(key) else None
    if by == "day" and day is None:
        raise DatabaseError(
            f"the column created_at of a call, or day of usage_kept, is damaged, it holds no day; {REMEDY}"
        )
    return Usage(
        day,
        key if by == "model" else None,
        (key or None) if by == "owner" else None,
        *counts,
    )
