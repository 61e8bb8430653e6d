"""Verify: prove the invariants on any database, some conversations at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.models import Problem
from tokenmem.operations import usage
from tokenmem.operations.damage import is_integer
from tokenmem.operations.verify_columns import damaged_columns

BATCH = 1000
"""Conversations that one statement looks at, at most."""

BATCH_MESSAGES = 200_000
"""Messages that one statement looks at, unless one conversation alone has more: some 50 MB in the server."""

_NEXT = Statement("""
SELECT c.id, c.message_count FROM {conversations} c
WHERE c.id > :after AND {owned} ORDER BY c.id LIMIT :limit
""")

# The range is given for messages and conversations alike, so that both are read by their primary keys.
_CHECK = """
WITH chosen AS MATERIALIZED (
    SELECT * FROM {conversations} c
    WHERE c.id > :after AND c.id <= :last AND {owned}
), followed AS (
    SELECT m.conversation_id, m.position, m.token_count, m.tokens_before,
        lead(m.tokens_before) OVER (PARTITION BY m.conversation_id ORDER BY m.position) AS next_before
    FROM {messages} m
    WHERE m.conversation_id > :after AND m.conversation_id <= :last
        AND m.conversation_id IN (SELECT id FROM chosen)
), counted AS (
    SELECT conversation_id, count(*) AS message_count, max(position) AS newest,
        max(tokens_before + token_count) AS total_tokens
    FROM followed GROUP BY conversation_id
), stood AS (
    SELECT v.conversation_id, v.position, v.version, v.since_revision, v.replaced_at_revision,
        COALESCE(lag(v.replaced_at_revision)
            OVER (PARTITION BY v.conversation_id, v.position ORDER BY v.version), 0) AS expected
    FROM {message_versions} v
    WHERE v.conversation_id > :after AND v.conversation_id <= :last
        AND v.conversation_id IN (SELECT id FROM chosen) AND v.part = 1
)
SELECT conversation_id, position, 'running total behind it', tokens_before + token_count, next_before
FROM followed WHERE next_before <> tokens_before + token_count
UNION ALL
SELECT conversation_id, position, 'tokens', 0,
    CASE WHEN token_count < 0 THEN token_count ELSE tokens_before END
FROM followed WHERE token_count < 0 OR tokens_before < 0
UNION ALL
SELECT c.id, NULL, 'message_count', COALESCE(t.message_count, 0), c.message_count
FROM chosen c LEFT JOIN counted t ON t.conversation_id = c.id
WHERE c.message_count <> COALESCE(t.message_count, 0)
UNION ALL
SELECT c.id, NULL, 'total_tokens', t.total_tokens, c.total_tokens
FROM chosen c JOIN counted t ON t.conversation_id = c.id WHERE c.total_tokens <> t.total_tokens
UNION ALL
SELECT c.id, NULL, 'last_position', t.newest, c.last_position
FROM chosen c JOIN counted t ON t.conversation_id = c.id WHERE c.last_position < t.newest
UNION ALL
SELECT c.id, NULL, 'last_call', max(l.number), c.last_call
FROM chosen c JOIN {llm_calls} l ON l.conversation_id = c.id
WHERE l.conversation_id > :after AND l.conversation_id <= :last
GROUP BY c.id, c.last_call HAVING max(l.number) > c.last_call
UNION ALL
SELECT conversation_id, position, 'since_revision of version ' || version, expected, since_revision
FROM stood WHERE since_revision <> expected
UNION ALL
SELECT conversation_id, position, 'replaced_at_revision of version ' || version, since_revision + 1,
    replaced_at_revision
FROM stood WHERE replaced_at_revision <= since_revision
UNION ALL
SELECT v.conversation_id, v.position, 'versions without a message', 0, count(*)
FROM stood v WHERE NOT EXISTS (
    SELECT 1 FROM {messages} m WHERE m.conversation_id = v.conversation_id AND m.position = v.position)
GROUP BY v.conversation_id, v.position
UNION ALL
SELECT m.conversation_id, NULL, 'messages without a conversation', 0, count(*)
FROM {messages} m
WHERE m.conversation_id > :after AND m.conversation_id <= :last
    AND CAST(:owner AS text) IS NULL
    AND NOT EXISTS (SELECT 1 FROM {conversations} c WHERE c.id = m.conversation_id)
GROUP BY m.conversation_id
"""
# Behind the last conversation there is no upper bound; with an OR SQLite would see none in any range.
_VERIFY = Statement(_CHECK)
_VERIFY_REST = Statement(re.sub(r"AND \w+\.(conversation_)?id <= :last", "", _CHECK))

# What the lists by recency rely on, and what a fork knows of where it comes from.
_CHECK_ROWS = """
SELECT c.id, 'updated_at of one that has not changed', CAST(c.created_at AS text),
    CAST(c.updated_at AS text)
FROM {conversations} c
WHERE c.id > :after AND c.id <= :last AND {owned} AND c.recent_at IS NULL AND c.updated_at <> c.created_at
UNION ALL
SELECT c.id, 'recent_at, up to 30 seconds late', CAST(c.updated_at AS text),
    CAST(c.recent_at AS text)
FROM {conversations} c
WHERE c.id > :after AND c.id <= :last AND {owned}
    AND (c.recent_at > c.updated_at OR c.recent_at <= {short_of_updated})
UNION ALL
SELECT c.id, 'parent_id and forked_at', 'both or none', 'one'
FROM {conversations} c
WHERE c.id > :after AND c.id <= :last AND {owned} AND (c.parent_id IS NULL) <> (c.forked_at IS NULL)
"""
_VERIFY_ROWS = Statement(_CHECK_ROWS)
_VERIFY_REST_OF_ROWS = Statement(_CHECK_ROWS.replace("AND c.id <= :last", ""))


def verify(connection: sa.Connection, scope: Scope) -> list[Problem]:
    """Every place where totals, counts, positions or times do not agree or a column is damaged, in order.

    The order is that of the conversations' ids, then of positions, what concerns the conversation as a whole
    first, then of the details' texts; what is kept of removed conversations comes before all.

    The oldest messages may be gone (`purge`): a conversation's first message may have tokens before it.
    """
    problems = []
    for after, last in _ranges(connection, scope):
        request = {"owner": scope.owner, "after": after, "last": last}
        statement = _VERIFY_REST if last is None else _VERIFY
        for conversation_id, position, what, expected, found in statement.fetch(connection, scope, request):
            problems.append(_problem(conversation_id, position, what, expected, found))
        rows = _VERIFY_REST_OF_ROWS if last is None else _VERIFY_ROWS
        for conversation_id, what, expected, found in rows.fetch(connection, scope, request):
            problems.append(_problem(conversation_id, None, what, expected, found))
        problems += damaged_columns(connection, scope, request)
    problems += [Problem("", None, detail) for detail in usage.damage(connection, scope)]
    return sorted(problems, key=lambda each: (each.conversation_id, each.position or 0, each.detail))


def _problem(
    conversation_id: object, position: object, what: str, expected: object, found: object
) -> Problem:
    return Problem(
        conversation_id if isinstance(conversation_id, str) else repr(conversation_id)[:80],
        position if is_integer(position) else None,
        f"{what}: {_shown(found)} where {_shown(expected)} was expected",
    )


def _shown(value: object) -> str:
    """A number or a time; what else somebody has written there may be anything, and is not told."""
    text = str(value)
    return text if is_integer(value) or _TIME.fullmatch(text) or text in _WORDS else "something else"


_TIME = re.compile(r"[0-9]{4,6}-[0-9]{2}-[0-9]{2}[T ][0-9:.]{8,15}(Z|[+-][0-9:]{2,5})?")
_WORDS = ("both or none", "one")


def _ranges(connection: sa.Connection, scope: Scope) -> Iterator[tuple[str, str | None]]:
    """Ranges of ids (from behind the first, up to the second) that together hold every conversation."""
    after = ""
    while True:
        request = {"owner": scope.owner, "after": after, "limit": BATCH}
        rows, messages = _NEXT.fetch(connection, scope, request), 0
        if not rows:
            yield after, None
            return
        for conversation_id, count in rows:
            last, messages = conversation_id, messages + (count if is_integer(count) else 0)
            if messages >= BATCH_MESSAGES:
                break
        yield after, last
        after = last
