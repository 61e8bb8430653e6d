"""The server falls silent: connections stay, bytes are taken, and nothing ever comes back."""

from __future__ import annotations

import time
from typing import Any

from tests.torture.failing_server import errors_of_the_driver
from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.proxy import Proxy
from tokenmem import Store, errors

TIMEOUT = 0.5
"""Seconds that an operation may take, by the store's `timeout=`."""

PATIENCE = 10.0
"""Seconds after which a call counts as one that hangs."""


def run(case: Case) -> Outcome:
    """So many silences, a write and a read in each; then the same store goes on."""
    told, failures = 0, []
    longest = 0.0
    ledger, path = Ledger(case.directory / "ledger"), case.directory / "ledger"
    options: dict[str, Any] = {"timeout": TIMEOUT}
    with Proxy(case.url) as proxy, case.breaking(), case.store(proxy.url, **options) as store:
        for number in range(case.size):
            append(store, ledger, f"before{number}")
            proxy.set_mode("black hole")
            for use in (
                lambda n=number: append(store, ledger, f"in{n}"),
                lambda: store.messages("c", limit=1),
            ):
                began = time.monotonic()
                try:
                    use()
                except errors.DatabaseUnavailable:
                    told += 1
                except Exception as error:
                    failures.append(f"a caller was told {type(error).__name__}: {error}")
                else:
                    failures.append("a call to a silent server returns")
                longest = max(longest, time.monotonic() - began)
            proxy.set_mode("pass")
            append(store, ledger, f"in{number}")
    ledger.close()
    with case.store() as store:
        found = settle(store, read_ledgers([path]))
    if longest > PATIENCE:
        failures.append(f"a call took {longest:.1f} s, where its timeout was {TIMEOUT} s")
    return Outcome(
        operations=4 * case.size,
        faults=case.size,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"errors that said to try again": told, "longest call in a silence, s": round(longest, 2)},
        failures=(*found.failures, *failures[:5]),
    )


def append(store: Store, ledger: Ledger, key: str) -> None:
    ledger.attempt("c", key)
    stored = store.append("c", exchange(key), idempotency_key=key)
    ledger.acknowledge("c", key, stored.first_position)


CASES = (("postgresql", "sync"), ("postgresql", "async"))

CLASS = FaultClass(
    name="silence",
    claim="A proxy in front of the server takes connections and bytes and never answers. Calls of a store "
    "with a timeout end with DatabaseUnavailable in time, and when the server speaks again the same "
    "store goes on; an append that timed out is sent again with its key and is there once.",
    counts="silences",
    run=run,
    cases=CASES,
    short=1,
    long=50,
    planted=(
        PlantedFault("errors of the driver not translated", errors_of_the_driver, "postgresql", "sync", 1),
    ),
)
