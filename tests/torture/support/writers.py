"""Threads or tasks that append and read all the time, and try again where they are told to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.support.ledger import Ledger, exchange
from tests.torture.support.outcome import Case
from tokenmem import Store, errors


@dataclass
class Writer:
    """One thread that appends to a conversation of its own, and reads it.

    Attributes:
        number: which one it is.
        path: of its ledger.
        appended: how many appends it was told are stored.
        errors: how often each kind of error was raised.
        other: errors that are not one of tokenmem's that say to try again.
    """

    number: int
    path: Path
    appended: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    other: list[str] = field(default_factory=list)

    def work(self, store: Store, stop: threading.Event) -> None:
        ledger = Ledger(self.path)
        name = f"w{self.number}"
        while not stop.is_set():
            key = f"{name}-{self.appended}"
            ledger.attempt(name, key)
            while True:
                try:
                    stored = store.append(name, exchange(key), idempotency_key=key)
                    store.messages(name, limit=2, newest_first=True)
                except errors.DatabaseUnavailable as error:
                    self.errors[type(error).__name__] += 1
                    time.sleep(0.005)
                except Exception as error:
                    self.other.append(f"{type(error).__name__}: {error}")
                    stop.set()
                    break
                else:
                    ledger.acknowledge(name, key, stored.first_position)
                    self.appended += 1
                    break
        ledger.close()


@contextmanager
def writing(case: Case, url: str, count: int) -> Iterator[list[Writer]]:
    """Writers beside the block, on one store if it is sync, each on a store and loop of its own else."""
    stop = threading.Event()
    writers = [Writer(number, case.directory / f"{number}.ledger") for number in range(count)]

    def work_alone(writer: Writer) -> None:
        with case.store(url) as store:
            writer.work(store, stop)

    with case.store(url) as shared:
        alone = case.mode == "async"
        threads = [
            threading.Thread(target=work_alone, args=(each,))
            if alone
            else threading.Thread(target=each.work, args=(shared, stop))
            for each in writers
        ]
        for thread in threads:
            thread.start()
        try:
            yield writers
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
            if any(thread.is_alive() for thread in threads):
                writers[0].other.append("a writer hangs: it has not ended a minute after it was told to")


def wait_for_progress(writers: list[Writer], more: int = 1) -> None:
    """Until each writer has appended so many times more; raises TimeoutError where one does not."""
    _wait_for(writers, lambda writer: writer.appended, more)


def wait_for_errors(writers: list[Writer], more: int = 1) -> None:
    """Until each writer has been told so many times more to try again; raises TimeoutError likewise."""
    _wait_for(writers, lambda writer: writer.errors.total(), more)


def _wait_for(writers: list[Writer], count: Callable[[Writer], int], more: int) -> None:
    goals = [count(writer) + more for writer in writers]
    until = time.monotonic() + 60
    while any(count(writer) < goal for writer, goal in zip(writers, goals, strict=True)):
        if any(writer.other for writer in writers):
            return
        if time.monotonic() > until:
            raise TimeoutError("a writer does not go on within a minute")
        time.sleep(0.002)
