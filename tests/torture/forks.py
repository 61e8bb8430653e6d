"""A process forks: while its stores are idle, while threads are inside of a write, and in an event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.stores import Unit
from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.processes import at_once
from tokenmem import AsyncStore, Store, forks

CHILDREN = 8
HANGS = 60.0
"""Seconds after which a child counts as one that hangs."""


def run(case: Case) -> Outcome:
    """So many appends in each of eight children, forked as the mode says; their parent goes on too."""
    ((hung, failed, slowest),) = at_once(1, parent, case, patience=600)
    with case.store() as store:
        found = settle(store, read_ledgers(case.directory.glob("*.ledger")))
    return Outcome(
        operations=found.acknowledged,
        faults=CHILDREN,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"longest fork ms": round(1000 * slowest)},
        failures=(
            *found.failures,
            *((f"{hung} children hang",) if hung else ()),
            *((f"{failed} children failed",) if failed else ()),
        ),
    )


def parent(_: int, case: Case) -> tuple[int, int, float]:
    """Fork children, and count those that hang and those that fail."""
    with case.breaking():
        if case.mode == "in a loop":
            return asyncio.run(in_loop(case))
        store = Store(case.url, counter=Unit())
        append(store, case, "parent", 3)
        stop = threading.Event()
        threads = []
        if case.mode == "busy":
            threads = [threading.Thread(target=keep_on, args=(store, case, n, stop)) for n in range(3)]
        for thread in threads:
            thread.start()
        found = forked(case, lambda number: append(store, case, f"child{number}", case.size))
        stop.set()
        for thread in threads:
            thread.join()
        append(store, case, "parent-after", 3)
        store.close()
        return found


async def in_loop(case: Case) -> tuple[int, int, float]:
    """Forked in an event loop whose AsyncStore has calls under way; each child runs a loop of its own."""
    store = AsyncStore(case.url, counter=Unit())

    async def some(name: str, count: int) -> None:
        ledger = Ledger(case.directory / f"{name}.ledger")
        for turn in range(count):
            key = f"{name}-{turn}"
            ledger.attempt(name, key)
            stored = await store.append(name, exchange(key), idempotency_key=key)
            ledger.acknowledge(name, key, stored.first_position)
        ledger.close()

    await some("parent", 3)
    busy = asyncio.create_task(some("parent-meanwhile", 20))
    await asyncio.sleep(0.005)

    def in_child(number: int) -> None:
        asyncio.events._set_running_loop(None)
        asyncio.run(some(f"child{number}", case.size))

    found = forked(case, in_child)
    await busy
    await store.close()
    return found


def forked(case: Case, work: object) -> tuple[int, int, float]:
    children: dict[int, int] = {}
    slowest = 0.0
    for number in range(CHILDREN):
        time.sleep(0.003)
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(number)  # type: ignore[operator]
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        slowest = max(slowest, time.monotonic() - began)
        children[child] = number
    failed = 0
    until = time.monotonic() + HANGS
    while children and time.monotonic() < until:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended:
            children.pop(ended, None)
            failed += status != 0
        else:
            time.sleep(0.005)
    for child in children:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return len(children), failed, slowest


def append(store: Store, case: Case, name: str, count: int) -> None:
    """Appends to a conversation of one's own, each read back: a row of another process's would show."""
    ledger = Ledger(case.directory / f"{name}.ledger")
    for turn in range(count):
        key = f"{name}-{turn}"
        ledger.attempt(name, key)
        stored = store.append(name, exchange(key))  # without a key, nothing is tried again behind our back
        ledger.acknowledge(name, key, stored.first_position)
        (last,) = store.messages(name, limit=1, newest_first=True)
        if last.content != exchange(key)[1].content:
            raise AssertionError("a read returned another's row")
    ledger.close()


def keep_on(store: Store, case: Case, number: int, stop: threading.Event) -> None:
    turn = 0
    while not stop.is_set():
        append(store, case, f"thread{number}-{turn}", 3)
        turn += 1


@contextmanager
def connections_shared() -> Iterator[None]:
    """A forked child goes on with its parent's connections."""
    with patched(forks, "_reset_all", lambda: None):
        yield


def cannot_fork() -> str:
    return "" if hasattr(os, "fork") else "this system has no fork"


CLASS = FaultClass(
    name="forks",
    claim="A process with an open store forks eight children: while it is idle, while three threads write, "
    "and in an event loop. Children and parent go on with the same store; nobody hangs, nobody reads "
    "another's row, nothing is lost.",
    counts="appends in each child",
    run=run,
    cases=(
        ("sqlite", "idle"),
        ("postgresql", "idle"),
        ("postgresql", "busy"),
        ("postgresql", "in a loop"),
        ("sqlite", "busy"),
        ("sqlite", "in a loop"),
    ),
    short=5,
    long=1000,
    planted=(
        PlantedFault("connections shared with the parent", connections_shared, "postgresql", "idle", 300),
    ),
    unavailable=cannot_fork,
)
