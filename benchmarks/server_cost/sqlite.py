"""SQLite's own counts: steps of its virtual machine, pages read, bytes of the write-ahead log."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.server_cost.workload import LIMITS, Scale, append_exchanges, fill_as_it_comes
from benchmarks.support.databases import Database, Workshop
from benchmarks.support.generated import COUNTER, ids
from benchmarks.support.results import Results
from tokenmem import Store
from tokenmem.database.statements import render
from tokenmem.operations.window import WINDOW

FRAME_HEADER = 24
"""Bytes in front of each page in the write-ahead log (SQLite's file format, section 4.1)."""

OTHERS = 1_000
WARM_UP = 10

_TREES = """
SELECT name, count(*), sum(payload) * 1.0 / sum(pgsize) FROM dbstat
WHERE name IN ('messages', 'messages_pinned', 'conversations', 'append_keys') GROUP BY name
"""
_PAGE_NAMES = """
SELECT pageno, CASE pageno WHEN 1 THEN 'first page' ELSE name || ' ' || pagetype END FROM dbstat
"""


def run(workshop: Workshop, results: Results, scale: Scale) -> None:
    """Everything, in one file."""
    with workshop.database() as database:
        with Store(database.url) as store:
            store.upgrade()
        results.progress("filling")
        measured = fill_as_it_comes(database, scale.lengths)
        database.settle()
        results.progress("measuring windows and appends")
        value = {
            "windows": [
                _window(database, id_, length, limit) for length, id_ in measured.items() for limit in LIMITS
            ],
            "appends": {
                str(length): _appends(database, [id_], scale.counted_appends)
                for length, id_ in measured.items()
            }
            | {
                f"{OTHERS:,} in turn": _appends(
                    database, ids(len(measured) + OTHERS)[len(measured) :], scale.counted_appends
                )
            },
            "page_size": database.run("PRAGMA page_size")[0][0],
            "trees": _trees(database),
        }
        for name, found in value.items():
            results.record("server_cost", name, found)


def _window(database: Database, id_: str, length: int, limit: int) -> dict[str, Any]:
    statement = render(WINDOW.text, "sqlite", None)
    request = {"id": id_, "owner": None, "limit": limit, "stride": 1}
    connection = sqlite3.connect(database.address, isolation_level=None)
    try:
        # The schema is read, and the statement compiled, before anything is counted; no page of the
        # tables is in this connection's cache yet.
        connection.execute(f"EXPLAIN {statement}", request).fetchall()
        before = _bytes_read()
        rows = connection.execute(statement, request).fetchall()
        after = _bytes_read()
        with _counted(connection) as steps:
            connection.execute(statement, request).fetchall()
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    finally:
        connection.close()
    pages = None if before is None or after is None else (after - before) // page_size
    return {"length": length, "limit": limit, "rows": len(rows) - 1, "steps": len(steps), "pages": pages}


def _bytes_read() -> int | None:
    """What this thread has read so far, from the kernel's account; None where it keeps none."""
    account = Path("/proc/thread-self/io")
    try:
        return int(account.read_text(encoding="ascii").split()[1])
    except OSError:
        return None


@contextmanager
def _counted(connection: Any) -> Iterator[list[None]]:
    """One entry for each step of the virtual machine that is taken in the block."""
    steps: list[None] = []
    connection.set_progress_handler(lambda: steps.append(None), 1)
    try:
        yield steps
    finally:
        connection.set_progress_handler(None, 0)


def _appends(database: Database, wanted: list[str], count: int) -> dict[str, Any]:
    """Steps of an append, and the pages that it writes into the log."""
    log = Path(f"{database.address}-wal")
    with _observed(database) as (store, connections):
        append_exchanges(store, wanted, WARM_UP)
        (connection,) = connections
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        append_exchanges(store, wanted, 1, seed=1)
        size_before = log.stat().st_size
        append_exchanges(store, wanted, count, seed=2)
        written = log.read_bytes()[size_before:]
        trees = _written_trees(connection, written)
        with _counted(connection) as steps:
            append_exchanges(store, wanted, 1, seed=3)
    return {
        "steps": len(steps),
        "bytes": len(written) / count,
        "pages": {name: pages / count for name, pages in sorted(trees.items())},
    }


def _written_trees(connection: Any, frames: bytes) -> Counter[str]:
    """How many pages of which b-tree were written into the log; a frame begins with its page's number."""
    page_size = connection.execute("PRAGMA page_size").fetchone()[0]
    step = page_size + FRAME_HEADER
    numbers = [int.from_bytes(frames[start : start + 4], "big") for start in range(0, len(frames), step)]
    try:
        rows = connection.execute(_PAGE_NAMES).fetchall()
    except sqlite3.OperationalError:
        rows = []
    names = dict(rows)
    return Counter(names.get(number, "not known") for number in numbers)


@contextmanager
def _observed(database: Database) -> Iterator[tuple[Store, list[Any]]]:
    """A store on an engine of our own, set as tokenmem sets its own, and that engine's connections."""
    engine = sa.create_engine(database.url)
    connections: list[Any] = []

    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the log's size tells what was written
        connections.append(connection)

    sa.event.listen(engine, "connect", prepare)
    with Store(engine, counter=COUNTER) as store:
        yield store, connections
    engine.dispose()


def _trees(database: Database) -> list[dict[str, Any]] | None:
    """Pages of each b-tree and how full they are; None where SQLite is built without `dbstat`."""
    try:
        rows = database.run(_TREES)
    except sqlite3.OperationalError:
        return None
    return [{"name": name, "pages": pages, "filled": filled} for name, pages, filled in rows]
