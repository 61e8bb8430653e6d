"""The newest 50 of one owner's many conversations over the newest 50 of a hundred, and what appends pay.

Both owners are in one table. An append is measured with the lists' indexes and without, each on a table of
its own, to one of some thousand conversations at random.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from benchmarks.peers.tokenmem import CharacterCounter
from benchmarks.support.databases import Database, Workshop
from benchmarks.support.results import Results
from benchmarks.support.timing import Effort, Subject, compare
from tokenmem import Message, Store

FEW = 100
PAGE = 50
APPENDED_TO = 2_000
INDEXES = [
    f"conversations_{name}{suffix}"
    for name in ("made", "changed", "archived")
    for suffix in ("", "_by_owner")
]
COUNTER = CharacterCounter()

# A conversation each ten seconds, two of three changed since; the few stand all along the time of the many.
_TIMES = {
    "postgresql": (
        "timestamptz '2020-01-01 00:00:00Z' + make_interval(secs => 10.0 * {n})",
        "timestamptz '2020-01-01 00:00:00Z' + make_interval(secs => 10.0 * {n} + {n} % 3)",
    ),
    "sqlite": (
        "strftime('%Y-%m-%dT%H:%M:%fZ', '2020-01-01', '+' || (10 * {n}) || ' seconds')",
        "strftime('%Y-%m-%dT%H:%M:%fZ', '2020-01-01', '+' || (10 * {n} + {n} % 3) || ' seconds')",
    ),
}
_FILL = """
INSERT INTO {table} (id, owner, title, token_counter, last_position, message_count, total_tokens, created_at,
    updated_at, recent_at)
SELECT '{owner}-' || n, '{owner}', 'A title of some words', '{counter}', 0, 0, 0, {made}, {changed},
    CASE WHEN n % 3 > 0 THEN {changed} END
FROM {series}
"""


def _filling(engine: str, owner: str, count: int, every: int) -> str:
    made, changed = (text.format(n=f"({every} * n)") for text in _TIMES[engine])
    series = f"generate_series(1, {count}) AS n"
    if engine == "sqlite":
        numbers = (
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s"
        )
        series = f"({numbers.format(count)})"
    table = "conversations" if engine == "sqlite" else "tokenmem.conversations"
    return _FILL.format(
        table=table, owner=owner, counter=COUNTER.name, made=made, changed=changed, series=series
    )


async def run(
    workshop: Workshop, results: Results, *, conversations: int, effort: Effort, appends: int
) -> None:
    """Lists first, then appends with and without the indexes."""
    results.progress(f"filling {conversations:,} conversations")
    with workshop.database() as database:
        with Store(database.url) as store:
            store.upgrade()
        database.run(
            _filling(workshop.engine, "many", conversations, 1),
            _filling(workshop.engine, "few", FEW, conversations // FEW),
        )
        database.settle()
        results.progress("measuring lists, the newest first")
        times = await _lists(database, effort)
    ratios = {
        place: times[f"many, {place}"]["seconds"] / times[f"few, {place}"]["seconds"]
        for place in ("first page", "middle")
    }
    results.record("listing", "lists", {"conversations": conversations, "times": times, "ratios": ratios})
    shown = ", ".join(f"{place} {ratio:.2f}" for place, ratio in ratios.items())
    results.progress(f"{PAGE} of {conversations:,} over {PAGE} of {FEW}: {shown}")
    await _appends(workshop, results, appends)


async def _lists(database: Database, effort: Effort) -> dict[str, dict[str, Any]]:
    with Store(database.url) as store:

        def listed(owner: str, before: Any) -> Callable[[], Any]:
            return lambda: store.conversations(owner=owner, order="recent", before=before, limit=PAGE)

        subjects = []
        for owner in ("many", "few"):
            subjects.append(Subject(f"{owner}, first page", listed(owner, None)))
        count = len(store.conversations(owner="few", limit=None))
        middle = store.conversations(owner="few", order="recent", limit=count)[PAGE - 1]
        for owner in ("many", "few"):
            subjects.append(Subject(f"{owner}, middle", listed(owner, middle)))
        for subject in subjects:
            assert len(subject.operation()) == PAGE, subject.name
        return await compare(subjects, effort)


async def _appends(workshop: Workshop, results: Results, appends: int) -> None:
    if not workshop.can_skip_waiting:
        return
    results.progress("measuring appends with and without the lists' indexes")
    with ExitStack() as stack:
        stores, databases = {}, {}
        for name in ("with", "without"):
            database = databases[name] = stack.enter_context(workshop.without_waiting())
            store = stores[name] = stack.enter_context(Store(database.url, counter=COUNTER))
            store.upgrade()
            prefix = "" if workshop.engine == "sqlite" else "tokenmem."
            if name == "without":
                database.run(*(f"DROP INDEX {prefix}{index}" for index in INDEXES))
            for number in range(APPENDED_TO):
                store.append(f"c{number}", [Message.user("Hello")], owner=f"u{number % 100}")
                store.append(f"c{number}", [Message.assistant("Hello")])
            database.settle()
        before = {name: _updates(database) for name, database in databases.items()}
        subjects = [Subject(name, _appending(store, name)) for name, store in stores.items()]
        effort = Effort(seconds=3600, least=appends, most=appends)
        times = await compare(subjects, effort)
        hot = {name: _hot_share(before[name], _updates(each)) for name, each in databases.items()}
    ratio = times["with"]["seconds"] / times["without"]["seconds"]
    results.record("listing", "appends", {"times": times, "ratio": ratio, "hot": hot})
    shown = ", ".join(f"{name} {share:.0%}" for name, share in hot.items() if share is not None)
    results.progress(
        f"append with the indexes over without: {ratio:.2f}; HOT updates: {shown or 'none known'}"
    )


def _appending(store: Store, name: str) -> Callable[[], Any]:
    source = random.Random(name)
    numbers: Iterator[int] = itertools.count()
    return lambda: store.append(
        f"c{source.randrange(APPENDED_TO)}", [Message.user(f"What of number {next(numbers)}? " * 8)]
    )


def _updates(database: Database) -> tuple[int, int] | None:
    """Updates of conversations' rows until now, and how many were HOT."""
    if database.engine == "sqlite":
        return None
    ((updates, hot),) = database.run(
        "SELECT pg_stat_force_next_flush()",
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'conversations'",
    )
    return updates, hot


def _hot_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or before[0] == after[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0])
