"""SQLite files that are damaged, cut short, or not tokenmem's at all."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from tests.torture.failing_server import errors_of_the_driver
from tests.torture.support.ledger import exchange
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tokenmem import Message, Store, errors

CONVERSATIONS = 20


def run(case: Case) -> Outcome:
    """So many files, each opened and used; those of others are left as they were."""
    return damaged(case) if case.mode == "damaged" else foreign(case)


def damaged(case: Case) -> Outcome:
    """Copies of one file, each with a few bytes changed, or cut."""
    random = case.random
    with case.store() as store:
        for number in range(CONVERSATIONS):
            for turn in range(5):
                store.append(f"c{number}", exchange(f"{number}-{turn}"), metadata={"number": number})
            store.edit(f"c{number}", 1, Message.user("5 edited"))
    template = Path(case.url.removeprefix("sqlite:///"))
    seen: Counter[str] = Counter()
    failures: list[str] = []
    with case.breaking():
        for number in range(case.size):
            file = case.directory / f"{number}.db"
            shutil.copy(template, file)
            harm(random, file)
            for what, error in used(file):
                seen["uses"] += 1
                seen["typed errors"] += isinstance(error, errors.TokenmemError)
                if error is not None and not isinstance(error, errors.TokenmemError):
                    failures.append(f"{what} of file {number}: {type(error).__name__}")
            for each in case.directory.glob(f"{number}.db*"):
                each.unlink()
    return Outcome(
        operations=seen["uses"],
        faults=case.size,
        figures={"typed errors": seen["typed errors"]},
        failures=tuple(dict.fromkeys(failures))[:8],
    )


def harm(random: Random, file: Path) -> None:
    data = bytearray(file.read_bytes())
    kind = random.random()
    if kind < 0.2:
        del data[random.randrange(len(data)) :]
    elif kind < 0.3:
        start = random.randrange(len(data))
        data[start : start + 4096] = bytes(min(4096, len(data) - start))
    else:
        for _ in range(random.randint(1, 40)):
            data[random.randrange(len(data))] = random.randrange(256)
    file.write_bytes(data)


def used(file: Path) -> Iterator[tuple[str, Exception | None]]:
    """Everything that is done with a file, and what came of each."""
    uses: dict[str, Callable[[Store], Any]] = {
        "conversations": lambda store: store.conversations(limit=None, archived=None),
        "messages": lambda store: [
            each.to_openai() for n in range(3) for each in store.messages(f"c{n}", limit=None)
        ],
        "window": lambda store: store.window("c1", 100).to_openai(),
        "append": lambda store: store.append("c2", exchange("new")),
        "edit": lambda store: store.edit("c3", 1, Message.user("1 edited")),
        "export": lambda store: list(store.export()),
        "verify": lambda store: store.verify(),
        "upgrade": lambda store: store.upgrade(),
        "delete": lambda store: store.delete("c4"),
        "purge": lambda store: store.delete_owner("nobody"),
    }
    from tests.support.stores import Unit

    with Store(f"sqlite:///{file}", counter=Unit()) as store:
        for name, use in uses.items():
            try:
                use(store)
            except Exception as error:
                yield name, error
            else:
                yield name, None


def foreign(case: Case) -> Outcome:
    """Files of somebody else's: refused, and not a byte of them changed."""
    failures: list[str] = []
    operations = 0
    with case.breaking():
        for round_ in range(case.size):
            for name, make in MADE.items():
                file = case.directory / f"{round_}-{name}.db"
                make(file)
                before = digest(file)
                for what, error in used(file):
                    operations += 1
                    if not isinstance(error, errors.TokenmemError):
                        failures.append(
                            f"{name}: {what} {'works' if error is None else type(error).__name__}"
                        )
                if digest(file) != before:
                    failures.append(f"{name}: the file has changed")
    return Outcome(
        operations=operations, faults=len(MADE) * case.size, failures=tuple(dict.fromkeys(failures))[:8]
    )


def digest(file: Path) -> str:
    return "a directory" if file.is_dir() else hashlib.sha256(file.read_bytes()).hexdigest()


def another_application(file: Path) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE conversations (number INTEGER PRIMARY KEY, subject TEXT)")
    connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
    connection.execute("INSERT INTO messages (body) VALUES ('theirs')")
    connection.commit()
    connection.close()


def an_archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("chat.json", "[]")


MADE: dict[str, Callable[[Path], Any]] = {
    "another application's": another_application,
    "text": lambda file: file.write_text("this is no database\n" * 100),
    "zeros": lambda file: file.write_bytes(bytes(8192)),
    "an archive": an_archive,
    "a directory": lambda file: file.mkdir(),
    "half a header": lambda file: file.write_bytes(b"SQLite form"),
}


@contextmanager
def broken_rows_shown() -> Iterator[None]:
    """What the driver raises of a damaged file reaches the caller as it is."""
    with errors_of_the_driver():
        yield


CLASS = FaultClass(
    name="damaged_files",
    claim="SQLite files with changed bytes or without their ends are read, written and verified: whatever "
    "is raised is tokenmem's own error. Files of others, of any kind, are refused, and not a byte of "
    "them changes.",
    counts="files, or rounds of each kind of file",
    run=run,
    cases=(("sqlite", "damaged"), ("sqlite", "foreign")),
    short=10,
    long=1000,
    pending={
        ("sqlite", "damaged"): "damaged rows still raise ValueError with the column's text",
        ("sqlite", "foreign"): "upgrade() turns another application's file to WAL before it refuses it",
    },
    planted=(
        PlantedFault(
            "errors of the driver not translated", broken_rows_shown, "sqlite", "damaged", 30, quick=True
        ),
    ),
)
