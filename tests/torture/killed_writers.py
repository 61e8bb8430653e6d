"""Writers are killed with SIGKILL in the middle of appends; the next process sends again what was unknown."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.torture.support.ledger import Ledger, exchange, read_ledgers, settle
from tests.torture.support.outcome import SYNC_AND_ASYNC, Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.processes import started, wait_until
from tokenmem import AsyncStore, Store
from tokenmem.models import Appended

AT_ONCE = 2
CONVERSATIONS = 3
SLOWEST_KILL = 0.02
"""Seconds after its first acknowledged append at which a writer is killed at the latest."""


def run(case: Case) -> Outcome:
    """So many kills, of two writers that share conversations."""
    random = case.random
    ledgers: list[Path] = []
    alive: list[tuple[Any, Path]] = []
    for life in range(case.size + AT_ONCE):
        path = case.directory / f"{life}.ledger"
        retries = read_ledgers(ledgers).unknown if life % 10 == 0 else read_ledgers(ledgers[-3:]).unknown
        ours = {key: name for key, name in retries.items() if key.partition("-")[0] not in _lives(alive)}
        alive.append((started(write, case, path, life, ours), path))
        ledgers.append(path)
        if len(alive) > AT_ONCE:
            process, written = alive.pop(0)
            wait_until(lambda file=written: has_stored(file), "a writer's first append")
            time.sleep(random.random() * SLOWEST_KILL)
            process.kill()
            process.join()
            process.close()
    for process, written in alive:
        wait_until(lambda file=written: has_stored(file), "a writer's first append")
        process.kill()
        process.join()
        process.close()
    entries = read_ledgers(ledgers)
    with case.store() as store:
        again = repeat(store, case.directory / "last.ledger", entries.unknown)
        found = settle(store, read_ledgers([*ledgers, again]))
    return Outcome(
        operations=len(entries.tried),
        faults=case.size + AT_ONCE,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={
            "kills in the middle of an append": sum(len(read_ledgers([path]).unknown) for path in ledgers)
        },
        failures=found.failures,
    )


def _lives(alive: list[tuple[Any, Path]]) -> set[str]:
    return {path.stem for _, path in alive}


def has_stored(path: Path) -> bool:
    return path.exists() and b"stored" in path.read_bytes()


def write(case: Case, path: Path, life: int, retries: dict[str, str]) -> None:
    """Append until killed, first of all what another's death has left unknown."""
    with case.breaking(), case.store() as store:
        repeat(store, path, retries)
        ledger = Ledger(path)
        for number in itertools.count():
            append(store, ledger, f"c{number % CONVERSATIONS}", f"{life}-{number}")


def repeat(store: Store, path: Path, retries: dict[str, str]) -> Path:
    ledger = Ledger(path)
    for key, conversation_id in retries.items():
        append(store, ledger, conversation_id, key)
    ledger.close()
    return path


def append(store: Store, ledger: Ledger, conversation_id: str, key: str) -> None:
    ledger.attempt(conversation_id, key)
    stored = store.append(conversation_id, exchange(key), idempotency_key=key)
    ledger.acknowledge(conversation_id, key, stored.first_position)


@contextmanager
def in_two_transactions() -> Iterator[None]:
    """Each message of an append is stored by itself, the key with the last."""
    whole = Store.append

    def split(store: Store, name: str, messages: Any, *, idempotency_key: str, **_: Any) -> Appended:
        first = whole(store, name, messages[:1])
        time.sleep(0.002)
        last = whole(store, name, messages[1:], idempotency_key=idempotency_key)
        return Appended(first.first_position, last.last_position, 0, 0)

    with patched(Store, "append", split):
        yield


@contextmanager
def written_behind() -> Iterator[None]:
    """Appends are acknowledged at once and stored five at a time."""
    waiting: list[Any] = []
    whole = AsyncStore.append

    async def later(store: AsyncStore, name: str, messages: Any, *, idempotency_key: str) -> Appended:
        waiting.append((name, messages, idempotency_key))
        if len(waiting) == 5:
            for each, said, key in waiting:
                await whole(store, each, said, idempotency_key=key)
            waiting.clear()
        return Appended(1, 2, 0, 0)

    with patched(AsyncStore, "append", later):
        yield


CLASS = FaultClass(
    name="killed_writers",
    claim="Processes that append, with a key each, are killed with SIGKILL; others repeat what was unknown. "
    "Whatever was acknowledged is there, once, at its position, whole.",
    counts="kills",
    run=run,
    cases=SYNC_AND_ASYNC,
    short=5,
    long=500,
    planted=(
        PlantedFault("an append in two transactions", in_two_transactions, "sqlite", "sync", 60),
        PlantedFault("appends written behind", written_behind, "sqlite", "async", 5, quick=True),
    ),
)
