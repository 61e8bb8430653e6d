"""The disk is full, and has room again: under a SQLite file, and under a tablespace of PostgreSQL's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import sqlalchemy as sa

from tests.support import postgres_keeper
from tests.torture.failing_server import errors_of_the_driver
from tests.torture.support.ledger import Ledger, read_ledgers
from tests.torture.support.outcome import EACH_ENGINE, Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.restartable import restartable_server
from tests.torture.support.small_disk import SmallDisk, cannot_mount, small_disk
from tokenmem import Message, Store, errors

PADDING = "x" * 60_000
MOST = 200
"""Appends after which a disk of this size must be full."""


def run(case: Case) -> Outcome:
    """So many times: fill the disk, append until that fails, make room, and append again."""
    told = 0
    failures: list[str] = []
    ledger, path = Ledger(case.directory / "ledger"), case.directory / "ledger"
    with ExitStack() as stack:
        disk, url = stack.enter_context(database(case))
        with Store(url) as upgraded:
            upgraded.upgrade()
        store = stack.enter_context(case.store(url))
        with case.breaking():
            for cycle in range(case.size):
                append(store, ledger, f"{cycle}-before", "")
                disk.fill()
                for number in range(MOST):
                    try:
                        append(store, ledger, f"{cycle}-{number}", PADDING)
                    except errors.DatabaseUnavailable:
                        told += 1
                        break
                    except Exception as error:
                        failures.append(f"a caller was told {type(error).__name__}: {str(error)[:200]}")
                        break
                else:
                    failures.append("the disk was not full")
                with suppress(errors.DatabaseUnavailable):  # SQLite's readers may need room as well
                    store.messages("c", limit=3, newest_first=True)
                disk.free()
                append(store, ledger, f"{cycle}-after", "")
                if store.conversation("c").message_count % 2:
                    failures.append("an append is stored in half")
                store.truncate("c", after=0)
                settle_table(case, store)
        ledger.close()
        checked = read_ledgers([path]).stored
        store.append("last", [Message.user("1 last")])
        problems = len(store.verify())
        if store.messages("c", limit=None):
            failures.append("what was removed is there")
    return Outcome(
        operations=case.size * 3 + told,
        faults=case.size,
        acknowledged=len(checked),
        problems=problems,
        figures={"errors that said to try again": told},
        failures=tuple(failures[:5]),
    )


def append(store: Store, ledger: Ledger, key: str, padding: str) -> None:
    """One exchange; what was acknowledged is there at once, and whole."""
    said = [Message.user(f"1 asks {key} {padding}"), Message.assistant(f"1 answers {key}")]
    ledger.attempt("c", key)
    stored = store.append("c", said)
    ledger.acknowledge("c", key, stored.first_position)
    found = store.messages("c", after=stored.first_position - 1, limit=2)
    if [each.content for each in found] != [each.content for each in said]:
        raise AssertionError("an acknowledged append is not there")


def settle_table(case: Case, store: Store) -> None:
    """Give back what removed rows take."""
    if case.engine == "postgresql":
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM tokenmem.messages")


@contextmanager
def database(case: Case) -> Iterator[tuple[SmallDisk, str]]:
    """A database on a disk of a few megabytes."""
    if case.engine == "sqlite":
        with small_disk(4) as disk:
            yield disk, f"sqlite:///{disk.directory}/c.db"
        return
    server = restartable_server()
    user = postgres_keeper.account()
    with small_disk(24, user.pw_uid if user else None) as disk:
        place = disk.directory / "space"
        place.mkdir()
        postgres_keeper.hand_over(place)
        admin = sa.create_engine(server.url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE TABLESPACE small LOCATION '{place}'")
            connection.exec_driver_sql("CREATE DATABASE small TEMPLATE template0 TABLESPACE small")
        try:
            yield (
                disk,
                str(sa.make_url(server.url).set(database="small").render_as_string(hide_password=False)),
            )
        finally:
            disk.free()
            with admin.connect() as connection:
                connection.exec_driver_sql("DROP DATABASE small WITH (FORCE)")
                connection.exec_driver_sql("DROP TABLESPACE small")
            admin.dispose()


CLASS = FaultClass(
    name="full_disk",
    claim="The file system below the database is filled to the last byte and emptied again. An append that "
    "finds no room is DatabaseUnavailable and stores nothing of itself, what was acknowledged stays, "
    "and the same store goes on when there is room.",
    counts="times full",
    run=run,
    cases=EACH_ENGINE,
    short=2,
    long=100,
    planted=(
        PlantedFault("errors of the driver not translated", errors_of_the_driver, "sqlite", "sync", 2, True),
    ),
    unavailable=cannot_mount,
)
