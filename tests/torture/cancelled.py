"""Tasks are cancelled at some moment of what they do: before it begins, on its way, or when it is done."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from tests.support.stores import Unit, pools_of
from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import AsyncStore
from tokenmem.execution.transactions import TransactionRunner

AT_ONCE = 8
TRIALS = 5
PATIENCE = 10.0
"""Seconds for which what nobody waits for any more may go on, in a thread of the store's."""

IDLE = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""


def run(case: Case) -> Outcome:
    """So many tasks, a few at once, most of them cancelled."""
    ledger = Ledger(case.directory / "ledger")
    with case.stores() as stores:
        facade: Any = stores.open(counter=Unit())
        store: AsyncStore = facade.store
        with case.breaking():
            cancelled = stores.loop.run(cancel_many(case, store, ledger))
            after = stores.loop.run(settled_tasks(store))
            out = stores.loop.run(still_checked_out(store))
        idle = stores.sql.value(IDLE) if case.engine == "postgresql" else 0
        gc.collect()
    ledger.close()
    sync = Case(case.engine, "sync", case.size, case.url, case.directory)
    with sync.store() as checking:
        found = settle(checking, read_ledgers([case.directory / "ledger"]))
    more = {
        f"{out} connections are still checked out": out,
        f"{idle} sessions are idle in a transaction": idle,
    }
    return Outcome(
        operations=case.size,
        faults=cancelled,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"stored although nobody waited": found.unacknowledged, "appends afterwards": after},
        failures=(*found.failures, *(text for text, count in more.items() if count)),
    )


async def cancel_many(case: Case, store: AsyncStore, ledger: Ledger) -> int:
    """How many were cancelled before they had ended."""
    random, places = case.random, asyncio.Semaphore(AT_ONCE)
    began = time.monotonic()
    for number in range(TRIALS):
        await append(store, ledger, "c0", f"trial{number}")
    moment = Moment(random, (time.monotonic() - began) / TRIALS * AT_ONCE)

    async def one(number: int) -> bool:
        async with places:
            return await cancel_one(moment, store, ledger, number)

    return sum(await asyncio.gather(*map(one, range(case.size))))


class Moment:
    """When a task is cancelled; adapted so that about half of them have ended before."""

    def __init__(self, random: Random, latest: float) -> None:
        self.random = random
        self._latest = latest

    async def come(self) -> None:
        await asyncio.sleep(self.random.random() * self._latest)

    def was(self, *, too_early: bool) -> None:
        self._latest *= 1.05 if too_early else 0.95


async def cancel_one(moment: Moment, store: AsyncStore, ledger: Ledger, number: int) -> bool:
    key, name = f"k{number}", f"c{number % 5}"
    work = moment.random.choice([append, append, append_in_transaction, read])
    task = asyncio.create_task(work(store, ledger, name, key))
    await moment.come()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        moment.was(too_early=True)
        return True
    moment.was(too_early=False)
    return False


async def append(store: AsyncStore, ledger: Ledger, name: str, key: str) -> None:
    ledger.attempt(name, key)
    stored = await store.append(name, exchange(key), idempotency_key=key)
    ledger.acknowledge(name, key, stored.first_position)


async def append_in_transaction(store: AsyncStore, ledger: Ledger, name: str, key: str) -> None:
    """Both halves, in one transaction of two writes and a read."""
    ledger.attempt(name, key)
    async with store.transaction() as bound:
        first = await bound.append(name, exchange(key)[:1])
        await asyncio.sleep(0.01)  # the application's own: a cancellation may come between two statements
        await bound.append(name, exchange(key)[1:])
    ledger.acknowledge(name, key, first.first_position)


async def read(store: AsyncStore, _ledger: Ledger, name: str, _key: str) -> None:
    await store.window("c0", 500, start_on="message")
    await store.messages(name, limit=50, missing="empty")
    await store.read("c0", limit=20)


async def still_checked_out(store: AsyncStore) -> int:
    """How many connections have not come back when everything has had time to."""
    until = time.monotonic() + PATIENCE
    while out := sum(pool.checkedout() for pool in pools_of(store)):
        if time.monotonic() > until:
            return out
        await asyncio.sleep(0.01)
    return 0


async def settled_tasks(store: AsyncStore) -> int:
    """Twice as many appends as any pool is large: a connection that had leaked would be missed."""
    for number in range(40):
        await asyncio.wait_for(store.append("after", exchange(f"after{number}")), 60)
    return 40


@contextmanager
def not_rolled_back() -> Iterator[None]:
    """A transaction whose block was cancelled is left as it is, by somebody who still knows of it."""
    left: list[TransactionRunner] = []
    with patched(TransactionRunner, "roll_back", lambda runner: left.append(runner)):
        yield


CLASS = FaultClass(
    name="cancelled",
    claim="Tasks that append, append in transactions, and read are cancelled at random moments. Nothing is "
    "stored in half, no connection stays checked out, no session stays in a transaction, and the same "
    "store goes on.",
    counts="tasks",
    run=run,
    cases=(("sqlite", "async"), ("postgresql", "async")),
    short=120,
    long=2000,
    planted=(PlantedFault("transactions not rolled back", not_rolled_back, "postgresql", "async", 100),),
)
