"""Many callers on one store, far more than it has connections: each is served in its turn."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.stores import Unit, pools_of
from tests.torture.support.ledger import exchange
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import AsyncStore, Store
from tokenmem.database.fair_semaphore import FairSemaphore

ROUNDS = 3
BATCH = 15
OPERATIONS_WAITED = 30
"""Of a batch of 15 that is always busy, so many operations may end while a request beside it waits."""


class Turns:
    """Who has come to the line for a connection, and who was served before whom although he came later."""

    def __init__(self) -> None:
        self._arrivals = itertools.count()
        self._waiting: dict[int, int] = {}
        self.overtaken = 0
        self._lock = threading.Lock()

    def arrive(self) -> int:
        with self._lock:
            number = next(self._arrivals)
            self._waiting[number] = 0
            return number

    def end(self, number: int) -> None:
        """Everybody who came before and still waits has been overtaken once more."""
        with self._lock:
            del self._waiting[number]
            for other in self._waiting:
                if other < number:
                    self._waiting[other] += 1
                    self.overtaken = max(self.overtaken, self._waiting[other])

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note who takes his place in the line, and who gets a connection."""
        whole = FairSemaphore.acquire

        def acquire(line: FairSemaphore, *arguments: Any, **options: Any) -> bool:
            if line.limit == 1:  # the line for the very first connection
                return whole(line, *arguments, **options)
            mine = self.arrive()
            try:
                return whole(line, *arguments, **options)
            finally:
                self.end(mine)

        with patched(FairSemaphore, "acquire", acquire):
            yield


def run(case: Case) -> Outcome:
    """So many callers at once, a few times each; then a request beside a batch."""
    turns = Turns()
    with case.breaking(), turns.watched():
        size, failed, waited = asyncio.run(of_tasks(case)) if case.mode == "async" else of_threads(case)
    overtaken = turns.overtaken
    failures = list(failed[:3])
    # A thread may be interrupted between its arrival, as it is noted here, and its place in the line.
    if overtaken > (size if case.mode == "async" else 3 * size):
        failures.append(f"a caller was overtaken by {overtaken} others; the pool has {size} connections")
    if waited > OPERATIONS_WAITED:
        failures.append(f"a request beside a batch of {BATCH} waited for {waited} of its operations")
    return Outcome(
        operations=case.size * ROUNDS,
        faults=case.size,
        figures={
            "most overtakings of one caller": overtaken,
            "connections of the pool": size,
            "operations of a batch that a request waited for (median)": waited,
        },
        failures=tuple(failures),
    )


def connections_of(store: Any) -> int:
    """How many connections may serve at the same time."""
    return max(pool.size() for pool in pools_of(store))


async def of_tasks(case: Case) -> tuple[int, list[str], int]:
    failed: list[str] = []
    async with AsyncStore(case.url, counter=Unit()) as store:

        async def caller(number: int) -> None:
            for round_ in range(ROUNDS):
                try:
                    await store.append(f"c{number}", exchange(f"{number}-{round_}"))
                except Exception as error:
                    failed.append(f"{type(error).__name__}: {error}")

        await asyncio.gather(*map(caller, range(case.size)))
        done, stop, waits = itertools.count(), asyncio.Event(), list[int]()

        async def busy(number: int) -> None:
            while not stop.is_set():
                await store.append(f"b{number}", exchange("x"))
                next(done)

        batch = [asyncio.create_task(busy(number)) for number in range(BATCH)]
        for _ in range(10):
            await asyncio.sleep(0.02)
            before = next(done)
            await store.messages("c0", limit=5)
            waits.append(next(done) - before - 1)
        stop.set()
        await asyncio.gather(*batch)
        return connections_of(store), failed, sorted(waits)[len(waits) // 2]


def of_threads(case: Case) -> tuple[int, list[str], int]:
    failed: list[str] = []
    with Store(case.url, counter=Unit()) as store:

        def caller(number: int) -> None:
            for round_ in range(ROUNDS):
                try:
                    store.append(f"c{number}", exchange(f"{number}-{round_}"))
                except Exception as error:
                    failed.append(f"{type(error).__name__}: {error}")

        together([threading.Thread(target=caller, args=(number,)) for number in range(case.size)])
        done, stop, waits = itertools.count(), threading.Event(), list[int]()

        def busy(number: int) -> None:
            while not stop.is_set():
                store.append(f"b{number}", exchange("x"))
                next(done)

        batch = [threading.Thread(target=busy, args=(number,)) for number in range(BATCH)]
        for thread in batch:
            thread.start()
        for _ in range(10):
            time.sleep(0.02)
            before = next(done)
            store.messages("c0", limit=5)
            waits.append(next(done) - before - 1)
        stop.set()
        for thread in batch:
            thread.join()
        return connections_of(store), failed, sorted(waits)[len(waits) // 2]


def together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Stack(deque[Any]):
    """A line from whose end the next one is taken."""

    def popleft(self) -> Any:
        return self.pop()


@contextmanager
def last_come_first_served() -> Iterator[None]:
    """Of those who wait, whoever came last is served first."""
    whole = FairSemaphore._empty

    def empty(line: FairSemaphore) -> None:
        whole(line)
        line._waiting = Stack()

    with patched(FairSemaphore, "_empty", empty):
        yield


CASES = (("postgresql", "async"), ("postgresql", "threads"))

CLASS = FaultClass(
    name="fairness",
    claim="A thousand tasks, or two hundred threads, use one store at once. Nobody is overtaken by more "
    "callers than the pool has connections, nobody fails, and a request beside a batch of 15 that is "
    "always busy waits no longer than 30 of the batch's operations take.",
    counts="callers",
    run=run,
    cases=CASES,
    short=60,
    long=1000,
    planted=(PlantedFault("last come, first served", last_come_first_served, "postgresql", "async", 200),),
)
