"""Eight processes that write to one SQLite file all the time: who waits how long, and who gets how much.

SQLite has no queue: whoever finds the file locked sleeps and tries again, up to a tenth of a second. The mode
"no gate" shows it, for comparison.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.processes import at_once, wait_until
from tokenmem.database import connection_settings
from tokenmem.database.write_gate import WriteGate

WRITERS = 8
LONG_ENOUGH = 10
"""Seconds after which the shares say something."""


def run(case: Case) -> Outcome:
    """So many seconds, all of them at the same time."""
    answers = at_once(WRITERS, work, case, patience=case.size + 120)
    with case.store() as store:
        found = settle(store, read_ledgers(case.directory.glob("*.ledger")))
    counts = [len(waits) for waits, _ in answers]
    waits = sorted(wait for each, _ in answers for wait in each)
    failed = [text for _, errors in answers for text in errors]
    if case.mode == "as it is" and case.size >= LONG_ENOUGH and 2 * WRITERS * min(counts) < sum(counts):
        failed.append(f"one of {WRITERS} processes made {min(counts)} of {sum(counts)} appends")
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
    with case.breaking(), no_gate() if case.mode == "no gate" else nullcontext(), case.store() as store:
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


def no_gate() -> AbstractContextManager[None]:
    """Writers ask SQLite at once."""
    return patched(WriteGate, "acquire", lambda _: None)


@contextmanager
def impatient() -> Iterator[None]:
    """A writer that finds the file locked gives up at once."""
    with patched(connection_settings, "TIMEOUT", 0.0):
        yield


CLASS = FaultClass(
    name="sqlite_writers",
    claim="Eight processes append to one SQLite file as fast as they can, with synchronous=FULL. None of "
    "them gets an error, and in the long form none gets less than half of an even share. The mode “no "
    "gate” is for comparison: SQLite's own lock alone.",
    counts="seconds",
    run=run,
    cases=(("sqlite", "as it is"),),
    only_long=(("sqlite", "no gate"),),
    short=1,
    long=60,
    planted=(PlantedFault("writers that do not wait", impatient, "sqlite", "as it is", 2),),
)
