"""The server's processes are terminated, one after the other, under writers that go on."""

from __future__ import annotations

import time

import sqlalchemy as sa

from tests.torture.failing_server import WRITERS, errors_of_the_driver, settled
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.writers import wait_for_progress, writing

# One that is at work if there is any: what is idle is met by the next caller.
TERMINATE = sa.text("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'tokenmem'
ORDER BY state = 'active' DESC, random() LIMIT 1
""")


def run(case: Case) -> Outcome:
    """So many terminations, at random moments."""
    random, killed = case.random, 0
    engine = sa.create_engine(case.url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as administrator, case.breaking(), writing(case, case.url, WRITERS) as writers:
            wait_for_progress(writers)
            while killed < case.size and not any(writer.other for writer in writers):
                time.sleep(random.random() * 0.01)
                killed += len(administrator.execute(TERMINATE).all())
            wait_for_progress(writers)
    finally:
        engine.dispose()
    with case.store() as store:
        return settled(case, store, writers)


CLASS = FaultClass(
    name="terminated_backends",
    claim="Processes of the server are terminated (pg_terminate_backend) at random moments, those at work "
    "first, while four threads, or four event loops, append and read. Each shows as "
    "DatabaseUnavailable and nothing else, and the same stores go on.",
    counts="terminations",
    run=run,
    cases=(("postgresql", "sync"), ("postgresql", "async")),
    short=10,
    long=500,
    planted=(
        PlantedFault("errors of the driver not translated", errors_of_the_driver, "postgresql", "sync", 20),
    ),
)
