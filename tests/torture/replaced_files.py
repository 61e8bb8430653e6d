"""A SQLite file is backed up, restored and replaced beside a process that works on it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.stores import Unit
from tests.torture.support.ledger import exchange
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.processes import started, wait_until
from tokenmem import Store, errors
from tokenmem.models import Appended


def run(case: Case) -> Outcome:
    """So many backups under a writer, each restored and used."""
    file = Path(case.url.removeprefix("sqlite:///"))
    stop, failures, lost, problems, operations = case.directory / "stop", [], 0, 0, 0
    writer = started(write, case, str(stop))
    progress = case.directory / "progress"
    wait_until(progress.exists, "the writer's first append")
    try:
        for number in range(case.size):
            acknowledged = last_number(progress)
            backup = case.directory / f"{number}.db"
            back_up(file, backup)
            with Store(f"sqlite:///{backup}", counter=Unit()) as store:
                operations += 4
                lost += missing(store, acknowledged)
                problems += len(store.verify())
                # The application goes on from the backup: what came after it is sent again with its keys.
                store.append("c", exchange("again"), idempotency_key="again")
                for each in range(last_number(progress) + 1):
                    operations += 1
                    store.append("c", exchange(f"k{each}"), idempotency_key=f"k{each}")
                lost += missing(store, acknowledged)
                problems += len(store.verify())
    finally:
        stop.touch()
        writer.join(60)
        if writer.is_alive():
            failures.append("the writer hangs")
            writer.kill()
    failures += restored_in_place(case, file)
    return Outcome(
        operations=operations,
        faults=case.size,
        acknowledged=last_number(progress) + 1,
        lost=lost,
        problems=problems,
        failures=tuple(failures[:5]),
    )


def write(case: Case, stop: str) -> None:
    """Append until told to stop."""
    number = 0
    with case.breaking(), Store(case.url, counter=Unit()) as store:
        while not Path(stop).exists() and number < 2000:
            store.append("c", exchange(f"k{number}"), idempotency_key=f"k{number}")
            (case.directory / "new").write_text(str(number))
            (case.directory / "new").rename(case.directory / "progress")
            number += 1


def last_number(progress: Path) -> int:
    return int(progress.read_text())


def back_up(file: Path, to: Path) -> None:
    """As SQLite's documentation says: by its own interface, while others write."""
    source, target = sqlite3.connect(file, timeout=60), sqlite3.connect(to)
    source.backup(target)
    target.close()
    source.close()


def missing(store: Store, last: int) -> int:
    """How many appends up to this one are not there, whole and once."""
    said = [str(each.content) for each in store.messages("c", limit=None)]
    keys = [text.split()[2] for text in said if " asks " in text]
    answers = [text.split()[2] for text in said if " answers " in text]
    return sum(keys.count(f"k{each}") != 1 or answers.count(f"k{each}") != 1 for each in range(last + 1))


def restored_in_place(case: Case, file: Path) -> list[str]:
    """The file is replaced by a backup, or removed, while a store is closed: what it shows then."""
    failures = []
    backup = case.directory / "backup.db"
    back_up(file, backup)
    with Store(case.url, counter=Unit()) as store:
        store.append("later", exchange("later"))
        store.close()  # as documented: nobody may have it open
        for each in ("", "-wal", "-shm"):
            Path(f"{file}{each}").unlink(missing_ok=True)
        shutil.copy(backup, file)
        if store.messages("later", missing="empty"):
            failures.append("a store that was closed shows what the backup does not hold")
        if store.verify():
            failures.append("verify finds problems in a restored backup")
        store.close()
        file.unlink()
        try:
            store.append("c", exchange("gone"))
        except errors.SchemaOutOfDate:
            pass
        else:
            failures.append("an append to a file that is gone is acknowledged")
        shutil.copy(backup, file)
        store.close()
        store.append("c", exchange("back"))
    return failures


@contextmanager
def written_behind() -> Iterator[None]:
    """Appends are acknowledged at once and stored three at a time."""
    waiting: list[Any] = []
    whole = Store.append

    def later(store: Store, name: str, messages: Any, *, idempotency_key: str) -> Appended:
        waiting.append((messages, idempotency_key))
        if len(waiting) == 3:
            for said, key in waiting:
                whole(store, name, said, idempotency_key=key)
            waiting.clear()
        return Appended(1, 2, 0, 0)

    with patched(Store, "append", later):
        yield


CLASS = FaultClass(
    name="replaced_files",
    claim="A SQLite file is backed up by SQLite's own interface while a process appends to it, and an "
    "application goes on from the backup: all that was acknowledged before is there, and what came "
    "later is sent again with its keys. A file that is restored in place, or gone, is what a store "
    "sees that was closed in between.",
    counts="backups",
    run=run,
    cases=(("sqlite", "sync"),),
    short=3,
    long=200,
    planted=(PlantedFault("appends written behind", written_behind, "sqlite", "sync", 20),),
)
