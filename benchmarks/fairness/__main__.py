"""`python -m benchmarks.fairness`: tokenmem's pool beside SQLAlchemy's, on PostgreSQL, in one run.

Tasks and threads load windows as fast as they get a connection, and a request of its own comes every 50 ms.
It prints how many operations a second each pool came to, what the least served and the busiest caller got,
and how long that request waited. Ratios are to SQLAlchemy's pool as SQLAlchemy sets it, of the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from benchmarks.support.databases import workshop
from tokenmem import AsyncStore, Message, Store
from tokenmem.database.engine import SINGLE_STATEMENTS, Engines
from tokenmem.database.statements import OWN_ENGINE
from tokenmem.errors import TokenmemError
from tokenmem.execution.runners import EngineRunner, GreenletRunner

PLACES = 15
"""Connections of every pool: as many as SQLAlchemy's own opens by default, 5 that it keeps and 10 beyond."""

CALLERS = (PLACES, 1_000)
THREADS = (PLACES, 200)
POOLS = ("SQLAlchemy's", "the same behind a semaphore", "tokenmem's")


@dataclass(frozen=True)
class Served:
    """What callers got in one round."""

    each: list[int]
    seconds: float
    waits: list[float]
    """Seconds that the request beside them waited, each time."""

    @property
    def rate(self) -> float:
        return sum(self.each) / self.seconds


class LimitedRunner(EngineRunner):
    """One that lets no more in than there are connections."""

    gate = threading.BoundedSemaphore(PLACES)

    def run(self, effect: Any) -> object:
        with self.gate:
            return super().run(effect)


class LimitedGreenletRunner(GreenletRunner):
    """The same for tasks."""

    def __init__(self, runner: EngineRunner) -> None:
        super().__init__(runner)
        self.gate = asyncio.Semaphore(PLACES)

    async def run(self, effect: Any) -> object:
        async with self.gate:
            return await super().run(effect)


def store_of(pool: str, url: str) -> Store:
    """A store on the pool of this name."""
    store = Store(url, pool_size=PLACES)
    if pool != POOLS[-1]:
        engine = sa.create_engine(url, poolclass=QueuePool, pool_size=5, max_overflow=10, **as_ours())
        kind = EngineRunner if pool == POOLS[0] else LimitedRunner
        store._runner = store._connections = kind(engines(store._connections, engine))
    return store


def async_store_of(pool: str, url: str) -> AsyncStore:
    """The same, awaited."""
    store = AsyncStore(url, pool_size=PLACES)
    if pool != POOLS[-1]:
        options = as_ours() | {"poolclass": AsyncAdaptedQueuePool, "pool_size": 5, "max_overflow": 10}
        engine = create_async_engine(url, **options).sync_engine
        kind = GreenletRunner if pool == POOLS[0] else LimitedGreenletRunner
        inner: Any = store._connections
        store._runner = store._connections = kind(EngineRunner(engines(inner.runner, engine)))
    return store


def as_ours() -> dict[str, Any]:
    return {"pool_use_lifo": True, "execution_options": OWN_ENGINE, **SINGLE_STATEMENTS}


def engines(runner: EngineRunner, engine: sa.Engine) -> Engines:
    return Engines(engine, engine, engine, True, runner.engines.settings)


async def tasks(store: AsyncStore, count: int, seconds: float) -> Served:
    each, waits = [0] * count, list[float]()
    ends = time.monotonic() + seconds

    async def caller(number: int) -> None:
        while time.monotonic() < ends:
            await store.window(f"c{number % 50}", 1_000)
            each[number] += 1

    async def beside() -> None:
        while time.monotonic() < ends:
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            await store.window("beside", 1_000)
            waits.append(time.monotonic() - begun)

    await store.window("beside", 1_000)
    begun = time.monotonic()
    await asyncio.gather(beside(), *map(caller, range(count)), return_exceptions=True)
    return Served(each, time.monotonic() - begun, waits or [seconds])


def threads(store: Store, count: int, seconds: float) -> Served:
    each, waits = [0] * count, list[float]()
    ends = time.monotonic() + seconds

    def caller(number: int) -> None:
        while time.monotonic() < ends:
            try:
                store.window(f"c{number % 50}", 1_000)
            except TokenmemError:
                return
            each[number] += 1

    def beside() -> None:
        while time.monotonic() < ends:
            time.sleep(0.05)
            begun = time.monotonic()
            store.window("beside", 1_000)
            waits.append(time.monotonic() - begun)

    store.window("beside", 1_000)
    workers = [threading.Thread(target=caller, args=[number]) for number in range(count)]
    workers.append(threading.Thread(target=beside))
    begun = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return Served(each, time.monotonic() - begun, waits or [seconds])


@contextmanager
def filled() -> Iterator[str]:
    """A database with 50 conversations and one more."""
    with workshop("postgresql") as opened, opened.database() as database:
        with Store(database.url) as store:
            store.upgrade()
            for name in ("beside", *(f"c{number}" for number in range(50))):
                store.append(name, [Message.user("Hello"), Message.assistant("Hi!")] * 10)
        yield database.url


def measure(url: str, pool: str, kind: str, count: int, seconds: float) -> Served:
    if kind == "threads":
        with store_of(pool, url) as store:
            return threads(store, count, seconds)

    async def main() -> Served:
        async with async_store_of(pool, url) as store:
            return await tasks(store, count, seconds)

    return asyncio.run(main())


def rows(rounds: int, seconds: float, tell: Callable[[str], None]) -> Iterator[tuple[str, ...]]:
    with filled() as url:
        for kind, counts in (("tasks", CALLERS), ("threads", THREADS)):
            for count in counts:
                tell(f"{count} {kind}")
                got: dict[str, list[Served]] = {pool: [] for pool in POOLS}
                for _ in range(rounds):
                    for pool in POOLS:
                        got[pool].append(measure(url, pool, kind, count, seconds))
                for pool in POOLS:
                    yield row(f"{count} {kind}", pool, got[pool], got[POOLS[0]])


def row(who: str, pool: str, served: list[Served], others: list[Served]) -> tuple[str, ...]:
    ratio = statistics.median(mine.rate / other.rate for mine, other in zip(served, others, strict=True))
    waits = [wait for each in served for wait in each.waits]
    return (
        who,
        pool,
        f"{statistics.median(each.rate for each in served):,.0f}",
        f"{ratio:.2f}",
        f"{min(min(each.each) for each in served)} to {max(max(each.each) for each in served)}",
        f"{statistics.median(waits) * 1000:,.1f}",
        f"{max(waits) * 1000:,.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fairness", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    console = Console()
    table = Table("callers", "pool", "operations/s", "ratio", "each got", "beside, ms", "at most, ms")
    for cells in rows(given.rounds, given.seconds, lambda text: console.print(text, style="dim")):
        table.add_row(*cells)
    console.print(table)


if __name__ == "__main__":
    main()
