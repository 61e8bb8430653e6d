"""PgBouncer in transaction mode between the store and the server, with and without prepared statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.pgbouncer import keeps_prepared_statements, running_pgbouncer, version
from tests.torture.failing_server import settled
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.writers import wait_for_progress, writing
from tokenmem.execution import runners

WRITERS = 6
BEHIND = 2
"""Connections that the pooler has to the server: fewer than there are writers, so that they take turns."""


def run(case: Case) -> Outcome:
    """Writers through the pooler until each has appended so often."""
    with (
        running_pgbouncer(
            case.url, case.directory, behind=BEHIND, prepared=200 if case.mode == "prepared" else 0
        ) as url,
        case.breaking(),
        writing(case, url, WRITERS) as writers,
    ):
        wait_for_progress(writers, case.size)
    with case.store() as store:
        return settled(case, store, writers)


def missing() -> str:
    """Why it cannot be tried here; empty where it can."""
    return "" if version() else "there is no pgbouncer on PATH"


@contextmanager
def lost_statements_unnoticed() -> Iterator[None]:
    """What the pooler loses of prepared statements is an error like any other."""
    with patched(runners, "is_of_lost_preparation", lambda _: False):
        yield


CLASS = FaultClass(
    name="pooler",
    claim="Six writers go through PgBouncer in transaction mode with two connections behind it, once with "
    "its prepared statements and once without. Nobody gets an error that is not one to try again, and "
    "nothing is lost.",
    counts="appends of each writer",
    run=run,
    cases=(("postgresql", "prepared"), ("postgresql", "unprepared")),
    pending={}
    if keeps_prepared_statements() or not version()
    else {("postgresql", "prepared"): f"PgBouncer {version()} keeps no prepared statements, 1.21 does"},
    short=30,
    long=1000,
    planted=(
        PlantedFault(
            "lost statements not noticed", lost_statements_unnoticed, "postgresql", "unprepared", 20
        ),
    ),
    unavailable=missing,
)
