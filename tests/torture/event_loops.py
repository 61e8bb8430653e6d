"""One AsyncStore in many event loops, one after the other and at the same time in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.stores import Direct, Unit
from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import AsyncStore
from tokenmem.database.connection_settings import POOL_SIZE

THREADS = {"few loops": 4, "many loops": 5}
LOOPS = {"few loops": 3, "many loops": 8}
"""Of each thread."""

TASKS = 5
"""At once in each loop."""

MOST_CONNECTIONS = POOL_SIZE
"""Of one store in one process, as docs/deployment.md says."""

CONNECTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'tokenmem'
"""


def run(case: Case) -> Outcome:
    """So many operations, spread over loops that begin and end."""
    threads, loops = THREADS[case.mode], LOOPS[case.mode]
    each = max(1, case.size // (threads * loops * TASKS))
    failures: list[str] = []
    store = AsyncStore(case.url, counter=Unit())
    sql, most = Direct(case.url), 0

    def work(thread: int) -> None:
        nonlocal most
        ledger = Ledger(case.directory / f"{thread}.ledger")
        for loop in range(loops):
            try:
                asyncio.run(asyncio.wait_for(in_loop(store, ledger, f"{thread}-{loop}", each), 60))
            except Exception as error:
                failures.append(f"{type(error).__name__}: {error}")
            if case.engine == "postgresql":
                most = max(most, sql.value(CONNECTIONS))
        ledger.close()

    with case.breaking():
        running = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        asyncio.run(store.close())
    sql.close()
    if most > MOST_CONNECTIONS:
        failures.append(f"{most} connections of one process; {MOST_CONNECTIONS} are stated")
    with case.store() as checking:
        found = settle(checking, read_ledgers(case.directory.glob("*.ledger")))
    return Outcome(
        operations=3 * found.acknowledged,
        faults=threads * loops,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"event loops": threads * loops, "most connections": most},
        failures=(*found.failures, *failures[:3]),
    )


async def in_loop(store: AsyncStore, ledger: Ledger, name: str, each: int) -> None:
    async def task(number: int) -> None:
        for turn in range(each):
            key = f"{name}-{number}-{turn}"
            ledger.attempt(f"c{number}", key)
            stored = await store.append(f"c{number}", exchange(key), idempotency_key=key)
            ledger.acknowledge(f"c{number}", key, stored.first_position)
            await store.window(f"c{number}", 200, start_on="message")
            async with store.transaction() as bound:
                await bound.conversation(f"c{number}")

    await asyncio.gather(*map(task, range(TASKS)))


@contextmanager
def bound_to_one_loop() -> Iterator[None]:
    """Something in the store belongs to the loop that used it first."""
    whole, first = AsyncStore.append, list[Any]()

    async def bound(store: AsyncStore, *arguments: Any, **options: Any) -> Any:
        first.append(asyncio.get_running_loop())
        if first[0] is not first[-1]:
            raise RuntimeError("the lock is bound to a different event loop")
        return await whole(store, *arguments, **options)

    with patched(AsyncStore, "append", bound):
        yield


CLASS = FaultClass(
    name="event_loops",
    claim="One AsyncStore is used by twelve event loops in four threads, and by forty in five: each an "
    "asyncio.run that begins and ends. No call fails or hangs, nothing is lost, and the process has "
    "no more connections than stated.",
    counts="appends",
    run=run,
    cases=(
        ("sqlite", "few loops"),
        ("sqlite", "many loops"),
        ("postgresql", "few loops"),
        ("postgresql", "many loops"),
    ),
    short=120,
    long=4000,
    planted=(
        PlantedFault("a store bound to one loop", bound_to_one_loop, "sqlite", "few loops", 60, quick=True),
    ),
)
