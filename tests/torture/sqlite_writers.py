"""Eight processes that write to one SQLite file all the time: who waits how long, and who gets how much.

SQLite has no queue: whoever finds the file locked sleeps and tries again, up to a tenth of a second. The mode
"gated" is a prototype that stands beside it for comparison: a lock on a file of its own, for which the system
wakes those who wait.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.processes import at_once, wait_until
from tokenmem.database import connection_settings
from tokenmem.execution.effects import Write
from tokenmem.execution.runners import EngineRunner

WRITERS = 8


def run(case: Case) -> Outcome:
    """So many seconds, all of them at the same time."""
    answers = at_once(WRITERS, work, case, patience=case.size + 120)
    with case.store() as store:
        found = settle(store, read_ledgers(case.directory.glob("*.ledger")))
    counts = [len(waits) for waits, _ in answers]
    waits = sorted(wait for each, _ in answers for wait in each)
    failed = [text for _, errors in answers for text in errors]
    return Outcome(
        operations=sum(counts),
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={
            "appends a second": round(sum(counts) / case.size),
            "median ms": round(1000 * waits[len(waits) // 2], 1),
            "99th percentile ms": round(1000 * waits[len(waits) * 99 // 100], 1),
            "worst stall ms": round(1000 * waits[-1]),
            "least share %": round(100 * min(counts) / sum(counts), 1),
            "largest share %": round(100 * max(counts) / sum(counts), 1),
        },
        failures=(*found.failures, *failed[:3]),
    )


def work(number: int, case: Case) -> tuple[list[float], list[str]]:
    """How long each append took, in seconds."""
    waits, failed = [], []
    ledger = Ledger(case.directory / f"{number}.ledger")
    with case.breaking(), gate(case) if case.mode == "gated" else nullcontext(), case.store() as store:
        store.conversations(limit=1)
        (case.directory / f"{number}.ready").touch()
        wait_until(lambda: len(list(case.directory.glob("*.ready"))) == WRITERS, "all writers")
        turn, began = 0, time.time()
        while (now := time.time()) < began + case.size:
            key = f"{number}-{turn}"
            ledger.attempt(f"c{number}", key)
            try:
                stored = store.append(f"c{number}", exchange(key))
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}")
                break
            waits.append(time.time() - now)
            ledger.acknowledge(f"c{number}", key, stored.first_position)
            turn += 1
    ledger.close()
    return waits or [0.0], failed


@contextmanager
def gate(case: Case) -> Iterator[None]:
    """Writers wait for a lock on a file beside the database, before they ask SQLite."""
    whole = EngineRunner.run
    file = os.open(case.directory / "gate", os.O_RDWR | os.O_CREAT)

    def gated(runner: EngineRunner, effect: Any) -> object:
        if not isinstance(effect, Write):
            return whole(runner, effect)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            return whole(runner, effect)
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    with patched(EngineRunner, "run", gated):
        yield
    os.close(file)


@contextmanager
def impatient() -> Iterator[None]:
    """A writer that finds the file locked gives up at once."""
    with patched(connection_settings, "TIMEOUT", 0.0):
        yield


CLASS = FaultClass(
    name="sqlite_writers",
    claim="Eight processes append to one SQLite file as fast as they can, with synchronous=FULL. None of "
    "them gets an error. The mode “gated” is a prototype for comparison, with a lock on a file in "
    "front of SQLite's own.",
    counts="seconds",
    run=run,
    cases=(("sqlite", "as it is"),),
    only_long=(("sqlite", "gated"),),
    short=1,
    long=60,
    planted=(PlantedFault("writers that do not wait", impatient, "sqlite", "as it is", 2),),
)
