"""The connection is cut after the statement was sent: whether it was stored, nobody was told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.proxy import Proxy
from tokenmem import Store, errors

CONVERSATIONS = 4
SHARE = 0.3
"""Of the messages that clients send, so many are the last of their connection."""


def run(case: Case) -> Outcome:
    """Keyed appends through the proxy, each repeated with its key until it is acknowledged."""
    random = case.random
    ledger, path = Ledger(case.directory / "ledger"), case.directory / "ledger"
    retries = 0
    with Proxy(case.url) as proxy:
        # The first messages of a connection are no appends; one that is cut there could hardly get on.
        proxy.cuts_after_send = lambda data: data[:1] in (b"P", b"B") and random.random() < SHARE
        with case.breaking(), case.store(proxy.url) as store:
            for number in range(case.size):
                conversation_id, key = f"c{number % CONVERSATIONS}", f"k{number}"
                ledger.attempt(conversation_id, key)
                while True:
                    try:
                        stored = store.append(conversation_id, exchange(key), idempotency_key=key)
                    except errors.DatabaseUnavailable:
                        retries += 1
                    else:
                        ledger.acknowledge(conversation_id, key, stored.first_position)
                        break
        cuts = proxy.cuts
    ledger.close()
    with case.store() as store:
        found = settle(store, read_ledgers([path]))
    return Outcome(
        operations=case.size + retries,
        faults=cuts,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"errors that said to try again": retries},
        failures=(*found.failures, *(() if cuts * 5 >= case.size else (f"only {cuts} cuts",))),
    )


@contextmanager
def without_keys() -> Iterator[None]:
    """The control: the same appends without keys."""
    whole = Store.append

    def keyless(store: Store, name: str, messages: Any, *, idempotency_key: str) -> Any:
        return whole(store, name, messages)

    with patched(Store, "append", keyless):
        yield


CLASS = FaultClass(
    name="commit_unknown",
    claim="A proxy ends connections after it has handed on what the client sent, by FIN and RST in turn, so "
    "that the client cannot know whether its append was stored; it repeats the append with its key. "
    "Nothing is stored twice. The control, the same without keys, stores many twice.",
    counts="appends",
    run=run,
    cases=(("postgresql", "sync"), ("postgresql", "async")),
    short=40,
    long=1000,
    planted=(
        PlantedFault("the control: appends without keys", without_keys, "postgresql", "sync", 60, True),
    ),
)
