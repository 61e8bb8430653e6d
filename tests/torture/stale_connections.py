"""Every idle connection is closed by the server, or by something on the way, before the next call."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.processes import wait_until
from tests.torture.support.proxy import Proxy
from tokenmem import Store
from tokenmem.database import engine

END_ALL = sa.text("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'tokenmem'
""")


def run(case: Case) -> Outcome:
    """So many times: end all idle connections, then a read or a keyed write: no error for its caller."""
    failures: list[str] = []
    ended = 0
    ledger, path = Ledger(case.directory / "ledger"), case.directory / "ledger"
    direct = sa.create_engine(case.url, isolation_level="AUTOCOMMIT")
    with (
        direct.connect() as administrator,
        Proxy(case.url) as proxy,
        case.breaking(),
        case.store(proxy.url) as store,
    ):
        use(store, ledger, "first", 0)
        use(store, ledger, "first", 1)
        for number in range(case.size):
            if number % 2:
                ended += proxy.cut_all(reset=number % 4 == 1)
            else:
                ended += len(administrator.execute(END_ALL).all())
            # What is not there yet when the call begins is met in its middle: another class of faults.
            wait_until(lambda: not proxy.connections, "the end of all connections")
            time.sleep(0.01)
            try:
                use(store, ledger, f"k{number}", number)
            except Exception as error:
                failures.append(f"{'a write' if number % 3 else 'a read'}: {type(error).__name__}: {error}")
    direct.dispose()
    ledger.close()
    with case.store() as store:
        found = settle(store, read_ledgers([path]))
    return Outcome(
        operations=case.size + 2,
        faults=ended,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"callers that got an error": len(failures)},
        failures=(*found.failures, *failures[:3]),
    )


def use(store: Store, ledger: Ledger, key: str, number: int) -> Any:
    if number % 3 == 0:
        return store.messages("c", limit=5, missing="empty")
    if number % 3 == 1:
        with store.transaction() as bound:
            bound.messages("c", limit=1, missing="empty")
    ledger.attempt("c", key)
    stored = store.append("c", exchange(key), idempotency_key=key)
    return ledger.acknowledge("c", key, stored.first_position)


@contextmanager
def never_looked_at() -> Iterator[None]:
    """Idle connections are used without a look at their sockets."""
    with patched(engine, "is_stale", lambda _: False):
        yield


CASES = (("postgresql", "sync"), ("postgresql", "async"))

CLASS = FaultClass(
    name="stale_connections",
    claim="Between calls all idle connections are ended, by the server and by a proxy with FIN and RST in "
    "turn. No caller of a read or of a keyed write gets an error, and nothing is stored twice.",
    counts="times",
    run=run,
    cases=CASES,
    short=6,
    long=200,
    planted=(PlantedFault("sockets never looked at", never_looked_at, "postgresql", "sync", 12),),
)
