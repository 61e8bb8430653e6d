"""A process that goes on and on: what it holds in memory does not grow."""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.torture.support.ledger import exchange
from tests.torture.support.outcome import SYNC_AND_ASYNC, Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import Message, Store, errors

LEAST = 1024
"""Bytes that each thousand operations may add in the second half."""

NOISE = 64 * 1024
"""Bytes that may come and go at any two looks: caches of the interpreter's own."""


def run(case: Case) -> Outcome:
    """So many operations of every kind; Python's memory at the half, and at the end."""
    with case.breaking(), case.store() as store:
        tracemalloc.start()
        try:
            work(store, range(case.size // 2))
            before, pages = held(), resident()
            work(store, range(case.size // 2, case.size))
            grown, more_pages = held() - before, resident() - pages
        finally:
            tracemalloc.stop()
        problems = len(store.verify())
    thousands = case.size / 2000
    allowed = thousands * LEAST + NOISE
    return Outcome(
        operations=case.size,
        problems=problems,
        figures={
            "bytes more in the second half": grown,
            "of which for each 1,000 operations": round(grown / thousands),
            "bytes more of resident memory": more_pages,
        },
        failures=() if grown < allowed else (f"{grown:,} bytes more, of {allowed:,.0f} allowed",),
    )


def work(store: Store, numbers: range) -> None:
    """Operations of every kind, errors too, on conversations that come and go."""
    for number in numbers:
        name, kind = f"c{number // 10 % 50}", number % 10
        with suppress(errors.TokenmemError):
            if kind < 3:
                store.append(name, exchange(f"k{number}"), idempotency_key=f"k{number}")
            elif kind == 3:
                store.window(name, 100).to_openai()
            elif kind == 4:
                store.messages(name, limit=20)
            elif kind == 5:
                store.edit(name, 1, Message.user(f"{number} edited"))
            elif kind == 6:
                store.append(name, [{"role": "nobody", "content": "x"}])
            elif kind == 7:
                store.update(name, metadata={"number": number})
            elif kind == 8:
                store.conversations(order="recent", limit=5)
            elif number // 500 % 2:
                store.delete(name)
            else:
                with store.transaction() as bound:
                    bound.append(name, exchange(f"t{number}"))


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def everything_kept() -> Iterator[None]:
    """Each append is remembered for good."""
    kept: list[Any] = []
    whole = Store.append

    def keeping(store: Store, *arguments: Any, **options: Any) -> Any:
        kept.append(arguments)
        return whole(store, *arguments, **options)

    with patched(Store, "append", keeping):
        yield


CLASS = FaultClass(
    name="memory",
    claim="Operations of every kind, failing ones among them, on conversations that come and go. In the "
    "second half Python's memory grows by less than 1 kB for each 1,000 operations (and 16 kB, for "
    "what comes and goes).",
    counts="operations",
    run=run,
    cases=SYNC_AND_ASYNC[:1],
    only_long=SYNC_AND_ASYNC[1:],
    short=400,
    long=100_000,
    planted=(PlantedFault("appends remembered for good", everything_kept, "sqlite", "sync", 2000),),
    seconds=2400,
)
