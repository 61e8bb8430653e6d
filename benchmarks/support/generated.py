"""Messages that the database makes itself, by INSERT … SELECT: 50 million cannot come through an API.

Every conversation repeats the same 500 texts, with their real token counts, so that all totals agree and
`tokenmem verify` has nothing to say.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate
from typing import Any
from uuid import UUID

from benchmarks.support import texts
from benchmarks.support.databases import Database
from tokenmem import Message, TiktokenCounter

COUNTER = "o200k_base"
CHUNK = 100_000
"""Messages of one conversation that one row of the plan stands for."""

BATCH = 500_000
"""Messages a transaction."""

OLD = timedelta(days=365)

_TEMPLATE = """
CREATE TEMPORARY TABLE template
    (number integer PRIMARY KEY, role text, content text, token_count integer, tokens_before integer)
"""
_PLAN = """
CREATE TEMPORARY TABLE plan
    (number integer PRIMARY KEY, id text, first_position bigint, messages bigint, last_old bigint)
"""
_SERIES = f"""
INSERT INTO series WITH RECURSIVE s(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM s WHERE n < {CHUNK})
SELECT n FROM s
"""
_CONVERSATION = """
INSERT INTO {conversations} (id, token_counter, last_position, message_count, total_tokens)
VALUES ($, $, $, $, $)
"""
# In the order of the plan: the series is the outer side of every join, on both engines.
_MESSAGES = """
INSERT INTO {messages}
    (conversation_id, position, tokens_before, created_at, token_count, role, kind, content)
SELECT p.id, p.first_position + s.n - 1,
    (p.first_position + s.n - 2) / {template_messages} * {template_tokens} + t.tokens_before,
    CASE WHEN p.first_position + s.n - 1 <= p.last_old THEN {old} ELSE {now} END,
    t.token_count, t.role, 'message', t.content
FROM plan p CROSS JOIN {series} CROSS JOIN template t
WHERE p.number BETWEEN {first} AND {last} AND s.n <= p.messages
    AND t.number = (p.first_position + s.n - 2) % {template_messages}
"""


@dataclass(frozen=True)
class Part:
    """Messages of one conversation that are stored one behind the other.

    Attributes:
        id: the conversation.
        first_position: the position of the first of them.
        messages: how many.
        last_old: up to which position they are a year old.
    """

    id: str
    first_position: int
    messages: int
    last_old: int = 0


@cache
def _template() -> tuple[tuple[Any, ...], ...]:
    counter = TiktokenCounter(COUNTER)
    messages = texts.messages("250")
    counts = [counter.count(Message(**message)) for message in messages]
    before = accumulate(counts, initial=0)
    return tuple(
        (number, message["role"], message["content"], tokens, tokens_before)
        for number, (message, tokens, tokens_before) in enumerate(zip(messages, counts, before, strict=False))
    )


def total_tokens(messages: int) -> int:
    """What a conversation of so many messages costs."""
    whole, rest = divmod(messages, len(_template()))
    return whole * _template_tokens() + _template()[rest][4]


def _template_tokens() -> int:
    *_, tokens, before = _template()[-1]
    return int(tokens + before)


def ids(count: int) -> list[str]:
    """Random UUIDs, always the same ones: what applications take for sessions."""
    source = random.Random(9)
    return [str(UUID(int=source.getrandbits(128), version=4)) for _ in range(count)]


def make_conversations(database: Database, lengths: dict[str, int]) -> None:
    """The conversations' own rows, with the totals that they will have."""
    rows = [(id_, COUNTER, count, count, total_tokens(count)) for id_, count in lengths.items()]
    connection = database.connect()
    try:
        connection.execute("BEGIN")
        connection.cursor().executemany(_rendered(database, _CONVERSATION), rows)
        connection.execute("COMMIT")
    finally:
        connection.close()


def whole(lengths: dict[str, int], *, old_share: float = 0.0) -> Iterator[Part]:
    """One conversation after the other, the first part of each a year old."""
    for id_, count in lengths.items():
        for first in range(1, count + 1, CHUNK):
            yield Part(id_, first, min(CHUNK, count - first + 1), int(count * old_share))


def fill(database: Database, parts: Iterable[Part]) -> Iterator[int]:
    """Make messages in the order of the parts; yields how many there are behind each transaction."""
    plan = list(parts)
    connection = database.connect()
    try:
        _prepare(database, connection, plan)
        done = 0
        for first, last, messages in _batches(plan):
            connection.execute("BEGIN")
            connection.execute(_messages_statement(database, first, last))
            connection.execute("COMMIT")
            done += messages
            yield done
    finally:
        connection.close()


def _prepare(database: Database, connection: Any, plan: list[Part]) -> None:
    if database.engine == "sqlite":
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TEMPORARY TABLE series (n INTEGER PRIMARY KEY)")
        connection.execute(_SERIES)
    else:
        # The checks of the foreign key, row by row, would take most of the time; the plan keeps it by itself.
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET synchronous_commit = off")
    connection.execute(_TEMPLATE)
    connection.execute(_PLAN)
    rows = [
        (number, part.id, part.first_position, part.messages, part.last_old)
        for number, part in enumerate(plan)
    ]
    connection.execute("BEGIN")
    cursor = connection.cursor()
    cursor.executemany(_rendered(database, "INSERT INTO template VALUES ($, $, $, $, $)"), _template())
    cursor.executemany(_rendered(database, "INSERT INTO plan VALUES ($, $, $, $, $)"), rows)
    connection.execute("COMMIT")
    if database.engine == "postgresql":
        connection.execute("ANALYZE template, plan")


def _batches(plan: list[Part]) -> Iterator[tuple[int, int, int]]:
    """Ranges of the plan with about BATCH messages each: first, last, how many messages."""
    first = messages = 0
    for number, part in enumerate(plan):
        messages += part.messages
        if messages >= BATCH or number == len(plan) - 1:
            yield first, number, messages
            first, messages = number + 1, 0


def _messages_statement(database: Database, first: int, last: int) -> str:
    now = datetime.now(UTC)
    moments = {
        name: f"'{moment.strftime('%Y-%m-%dT%H:%M:%S.000Z')}'"
        for name, moment in {"now": now, "old": now - OLD}.items()
    }
    if database.engine == "postgresql":
        moments = {name: f"timestamptz {moment}" for name, moment in moments.items()}
    series = "series s" if database.engine == "sqlite" else "generate_series(1, p.messages) AS s(n)"
    return _rendered(
        database,
        _MESSAGES,
        series=series,
        first=first,
        last=last,
        template_messages=len(_template()),
        template_tokens=_template_tokens(),
        **moments,
    )


def _rendered(database: Database, text: str, **values: Any) -> str:
    prefix = "" if database.engine == "sqlite" else "tokenmem."
    tables = {name: prefix + name for name in ("conversations", "messages")}
    return text.format(**tables, **values).replace("$", "?" if database.engine == "sqlite" else "%s")
