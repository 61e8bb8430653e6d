"""What is measured in a large database: bytes on disk, windows and appends, warm and from the disk."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psycopg

from benchmarks.support import texts
from benchmarks.support.databases import Database
from benchmarks.support.generated import COUNTER
from tokenmem import Store

LIMIT = 4_000
REPETITIONS = 200
WARM_UP = 15
COLD_CONVERSATIONS = 25
COLD_REPETITIONS = 9

_POSTGRESQL_BYTES = """
SELECT pg_database_size(current_database()), pg_relation_size('tokenmem.messages'),
    pg_relation_size('tokenmem.messages_pkey'), pg_total_relation_size('tokenmem.conversations')
"""
_DIRECTORY = """
SELECT current_setting('data_directory'), oid FROM pg_database WHERE datname = current_database()
"""


def bytes_on_disk(database: Database) -> dict[str, int]:
    """The whole database's, and of PostgreSQL's its largest parts."""
    if database.engine == "sqlite":
        return {"bytes": Path(database.address).stat().st_size}
    names = ("bytes", "table", "messages_pkey", "conversations_table")
    return dict(zip(names, database.run(_POSTGRESQL_BYTES)[0], strict=True))


def windows(database: Database, wanted: Sequence[str]) -> dict[str, Any]:
    """Windows of each conversation that has been looked at just before."""
    with _opened(database) as store:
        return _summary(_times(wanted, lambda id_, _: store.window(id_, LIMIT), twice=True))


def appends(database: Database, wanted: Sequence[str]) -> dict[str, Any]:
    """Exchanges of two times 250 characters, each made durable; and what the disk takes for that alone."""
    with _opened(database) as store:
        found = _summary(_times(wanted, lambda id_, n: store.append(id_, texts.exchange("250", n))))
    with tempfile.TemporaryFile() as file:
        return found | {"disk": statistics.median(_times([""], lambda *_: _write_durably(file)))}


def _write_durably(file: IO[bytes]) -> None:
    """As much as a commit writes at least."""
    os.write(file.fileno(), b"x" * 8192)
    os.fsync(file.fileno())


def _times(wanted: Sequence[str], work: Callable[[str, int], Any], *, twice: bool = False) -> list[float]:
    found = []
    for number in range(WARM_UP + REPETITIONS):
        id_ = wanted[number % len(wanted)]
        if twice:
            work(id_, number)
        started = time.perf_counter()
        work(id_, number)
        found.append(time.perf_counter() - started)
    return found[WARM_UP:]


def _summary(times: Sequence[float]) -> dict[str, Any]:
    deciles = statistics.quantiles(times, n=10, method="inclusive")
    return {
        "seconds": statistics.median(times),
        "low": deciles[0],
        "high": deciles[-1],
        "rounds": len(times),
    }


@contextmanager
def _opened(database: Database) -> Iterator[Store]:
    with Store(database.url, counter=COUNTER) as store:
        yield store


class Cold:
    """Windows and appends whose pages are neither in the engine's cache nor in the system's.

    SQLite's cache goes with its connection. PostgreSQL's shared buffers are filled with other pages of the
    messages. The system is told to forget the files (posix_fadvise), and the machine below it, where it is
    a virtual one, cannot be told.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._evicts = True
        if database.engine == "postgresql":
            try:
                database.run("CREATE EXTENSION pg_prewarm")
            except psycopg.Error:
                self._evicts = False

    def measured(self, longest: str, others: Sequence[str]) -> dict[str, Any]:
        """Medians of windows and appends, or why there are none."""
        if not self._evicts:
            return {
                "failed": "without pg_prewarm the server's own cache cannot be filled with something else"
            }
        another, *random_ones = others[: COLD_CONVERSATIONS + 1]
        found: dict[str, Any] = {}
        for name, wanted in {"longest": [longest] * COLD_REPETITIONS, "random": random_ones}.items():
            found[f"{name} windows"] = self._each(
                another, wanted, lambda store, id_: store.window(id_, LIMIT)
            )
            found[f"{name} appends"] = self._each(
                another, wanted, lambda store, id_: store.append(id_, texts.exchange("250", len(id_)))
            )
        return found

    def _each(self, another: str, wanted: Sequence[str], work: Callable[[Store, str], Any]) -> dict[str, Any]:
        times, blocks = [], []
        for id_ in wanted:
            with _opened(self._database) as store:
                for _ in range(WARM_UP):  # connected and prepared, on another conversation's pages
                    work(store, another)
                self._forget()
                before = _blocks_read()
                started = time.perf_counter()
                work(store, id_)
                times.append(time.perf_counter() - started)
                blocks.append(_blocks_read() - before)
        return _summary(times) | {"read_by_this_process": statistics.median(blocks)}

    def _forget(self) -> None:
        if self._database.engine == "sqlite":
            for suffix in ("", "-wal"):
                _forget_file(Path(self._database.address + suffix))
            return
        self._database.run("CHECKPOINT")
        for path in self._files():
            _forget_file(path)
        buffers = "(SELECT setting::bigint FROM pg_settings WHERE name = 'shared_buffers')"
        pages = f"LEAST({buffers}, pg_relation_size('tokenmem.messages') / 8192)"
        self._database.run(f"SELECT pg_prewarm('tokenmem.messages', 'buffer', 'main', 0, {pages} - 1)")
        for path in self._files():  # what was read for that
            _forget_file(path)

    def _files(self) -> list[Path]:
        directory, number = self._database.run(_DIRECTORY)[0]
        return list((Path(directory) / "base" / str(number)).iterdir())


def _forget_file(path: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)  # only what is written back can be forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _blocks_read() -> int:
    """Bytes that this process has had read from a disk so far: 0 says that there was a cache below."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])
