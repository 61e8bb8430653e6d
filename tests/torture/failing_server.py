"""The PostgreSQL server is killed, restarted, or demoted to a replica, under writers that go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.torture.support.ledger import read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.restartable import restartable_server
from tests.torture.support.writers import Writer, wait_for_errors, wait_for_progress, writing
from tokenmem import Store
from tokenmem.database import driver_errors, engine, statements

WRITERS = 4


def run(case: Case) -> Outcome:
    """So many faults of the mode's kind, one when all writers have written again after the last."""
    random, server = case.random, restartable_server()
    url = server.create_database()
    with case.breaking(), writing(case, url, WRITERS) as writers:
        for _ in range(case.size):
            wait_for_progress(writers)
            time.sleep(random.random() * 0.02)
            if case.mode == "demoted":
                server.do("stop", "standby")
                wait_for_errors(writers)
                server.do("promote")
            else:
                server.do("kill" if case.mode == "killed" else "stop", "start")
        wait_for_progress(writers)
    with case.store(url) as store:
        return settled(case, store, writers)


def settled(case: Case, store: Store, writers: list[Writer]) -> Outcome:
    """What the writers and the database say."""
    found = settle(store, read_ledgers(writer.path for writer in writers))
    told = sum(sum(writer.errors.values()) for writer in writers)
    other = [text for writer in writers for text in writer.other]
    return Outcome(
        operations=2 * sum(writer.appended for writer in writers) + told,
        faults=case.size,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"errors that said to try again": told},
        failures=(*found.failures, *(f"a caller was told: {text}" for text in other[:3])),
    )


@contextmanager
def demotion_unknown() -> Iterator[None]:
    """A server that refuses writes is not one to come back to later."""

    def states() -> Any:
        return tuple(state for state in driver_errors._RETRYABLE_STATES if state != "25006")

    with (
        patched(driver_errors, "_RETRYABLE_STATES", states()),
        patched(engine, "is_demoted", lambda _: False),
        patched(statements, "is_demoted", lambda _: False),
    ):
        yield


@contextmanager
def errors_of_the_driver() -> Iterator[None]:
    """What the driver raises reaches the caller as it is."""
    with patched(driver_errors, "_translated", lambda *_: None):
        yield


CLASS = FaultClass(
    name="failing_server",
    claim="The server is killed with SIGKILL (all of its processes), restarted, or demoted to a read-only "
    "replica and promoted again, while four threads append and read. Each fault shows as "
    "DatabaseUnavailable, the same store goes on when the server is back, and whatever was "
    "acknowledged is there once.",
    counts="kills, restarts or demotions",
    run=run,
    cases=(("postgresql", "killed"), ("postgresql", "restarted"), ("postgresql", "demoted")),
    short=1,
    long=200,
    planted=(
        PlantedFault("a demoted server taken for an error", demotion_unknown, "postgresql", "demoted", 3),
        PlantedFault(
            "errors of the driver not translated", errors_of_the_driver, "postgresql", "killed", 2, quick=True
        ),
    ),
)
