"""PostgreSQL's own counts: pages, the write-ahead log, updates in place, the size of the index."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg

from benchmarks.server_cost.workload import LIMITS, Scale, append_exchanges, fill_as_it_comes
from benchmarks.support.databases import Database, Workshop
from benchmarks.support.generated import COUNTER, fill, ids, make_conversations, whole
from benchmarks.support.results import Results
from tokenmem import Store
from tokenmem.database.schema import DEFAULT_SCHEMA
from tokenmem.database.statements import render
from tokenmem.operations.window import WINDOW

REPETITIONS = 7
WARM_UP = 20
"""Appends behind which psycopg has prepared and PostgreSQL has settled on its plan."""

FEW, MANY = 100, 10_000
LOGGED = 1_000
"""Conversations that are appended to at random while the log is read, and for the index's size."""

_TOUCHED = """
SELECT relname, heap_blks_hit + heap_blks_read, coalesce(idx_blks_hit + idx_blks_read, 0)
FROM pg_statio_user_tables
WHERE schemaname = 'tokenmem' AND relname IN ('conversations', 'messages', 'append_keys')
"""
_LOG = """
SELECT "resource_manager/record_type", count, record_size, fpi_size
FROM pg_get_wal_stats(CAST(%s AS pg_lsn), CAST(%s AS pg_lsn), true) WHERE count > 0
ORDER BY record_size DESC
"""
_UPDATES = """
SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count,
    pg_relation_size('tokenmem.conversations'), pg_relation_size('tokenmem.conversations_pkey')
FROM pg_stat_user_tables WHERE schemaname = 'tokenmem' AND relname = 'conversations'
"""
_INDEX = """
SELECT index_size, avg_leaf_density, leaf_fragmentation FROM pgstatindex('tokenmem.messages_pkey')
"""


def run(workshop: Workshop, results: Results, scale: Scale) -> None:
    """Everything, each part in a database of its own."""
    for name, measure in {
        "pages": _pages,
        "log": _log,
        "updates": _updates,
        "index": _index,
    }.items():
        results.progress(f"measuring {name}")
        results.record("server_cost", name, measure(workshop, scale))


@contextmanager
def _migrated(workshop: Workshop) -> Iterator[Database]:
    """A database whose commits do not wait for the disk: it is not times that are measured."""
    with workshop.database() as database:
        name = database.address.rpartition("/")[2]
        database.run(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        with Store(database.url) as store:
            store.upgrade()
        yield database


def _pages(workshop: Workshop, scale: Scale) -> dict[str, Any]:
    """Pages of a window, as its messages came and when they lie side by side; pages of an append."""
    with _migrated(workshop) as database:
        for table in ("messages", "conversations", "append_keys"):  # its pages would be counted too
            database.run(f"ALTER TABLE tokenmem.{table} SET (autovacuum_enabled = false)")
        measured = fill_as_it_comes(database, scale.lengths)
        database.settle()
        windows = {"as they came": _windows(database, measured)}
        database.run("CLUSTER tokenmem.messages USING messages_pkey")
        database.settle()
        windows["side by side"] = _windows(database, measured)
        appends = {
            length: _append_pages(database, id_, scale.counted_appends) for length, id_ in measured.items()
        }
        rows = database.run("SELECT count(*) FROM tokenmem.messages")[0][0]
    return {"windows": windows, "appends": appends, "messages": rows}


def _windows(database: Database, measured: dict[int, str]) -> list[dict[str, Any]]:
    statement = render(WINDOW.text, "postgresql", DEFAULT_SCHEMA)
    found = []
    with psycopg.connect(database.address, autocommit=True) as connection:
        for length, id_ in measured.items():
            for limit in LIMITS:
                request = {"id": id_, "owner": None, "limit": limit, "stride": 1}
                rows = len(connection.execute(statement, request).fetchall()) - 1
                explained = [_explained(connection, statement, request) for _ in range(REPETITIONS)]
                pages = statistics.median(explained)
                found.append({"length": length, "limit": limit, "rows": rows, "pages": pages})
    return found


def _explained(connection: psycopg.Connection[Any], statement: str, request: dict[str, Any]) -> int:
    row = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", request).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def _append_pages(database: Database, id_: str, count: int) -> dict[str, float]:
    """Pages of an append by table, from pg_statio: EXPLAIN does not see the checks of foreign keys.

    Of a longer session without those of a shorter one, so that connecting and planning are left out.
    """
    shorter, longer = (_session_pages(database, id_, WARM_UP + more) for more in (0, count))
    return {name: (pages - shorter[name]) / count for name, pages in longer.items()}


def _session_pages(database: Database, id_: str, appends: int) -> dict[str, int]:
    before = _touched(database)
    with Store(database.url, counter=COUNTER) as store:
        append_exchanges(store, [id_], appends)
    _wait_until_left(database)
    return {name: pages - before[name] for name, pages in _touched(database).items()}


def _touched(database: Database) -> dict[str, int]:
    found = {}
    for table, heap, index in database.run(_TOUCHED):
        found |= {table: heap, f"{table}, indexes": index}
    return found


def _wait_until_left(database: Database) -> None:
    """A connection hands in its counts when it ends, which it does a moment after we have closed it."""
    here = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    while database.run(f"{here} AND backend_type = 'client backend'"):
        time.sleep(0.01)


def _log(workshop: Workshop, scale: Scale) -> dict[str, Any]:
    """Bytes of the write-ahead log, by kind of record; images of whole pages apart."""
    with _migrated(workshop) as database:
        try:
            database.run("CREATE EXTENSION pg_walinspect")
        except psycopg.Error as error:
            return {"failed": f"without pg_walinspect: {error.diag.message_primary}"}
        wanted = ids(LOGGED)
        lengths = dict.fromkeys(wanted, 50)
        make_conversations(database, lengths)
        for _ in fill(database, whole(lengths)):
            pass
        database.settle()
        behind, far = scale.log_appends
        with Store(database.url, counter=COUNTER) as store:
            append_exchanges(store, wanted, WARM_UP)
            database.run("CHECKPOINT")
            found = {"behind a checkpoint": _logged(database, store, wanted, behind)}
            append_exchanges(store, wanted, far)
            found["far from a checkpoint"] = _logged(database, store, wanted, far)
    return {"conversations": LOGGED, "measured": found}


def _logged(database: Database, store: Store, wanted: list[str], appends: int) -> dict[str, Any]:
    start = _flushed(database)
    append_exchanges(store, wanted, appends)
    end = _flushed(database)
    with psycopg.connect(database.address, autocommit=True) as connection:
        rows = connection.execute(_LOG, [start, end]).fetchall()
    messages = 2 * appends
    kinds = [
        {"kind": kind, "count": count / messages, "record": record / messages, "images": images / messages}
        for kind, count, record, images in map(_numbers, rows)
        if kind != "XLOG/SWITCH"  # ours, to get what is flushed
    ]
    return {"appends": appends, "kinds": kinds}


def _numbers(row: tuple[Any, ...]) -> tuple[str, float, float, float]:
    return row[0], float(row[1]), float(row[2]), float(row[3])


def _flushed(database: Database) -> str:
    """Where the log is, with all before it on disk: only that can be read."""
    database.run("SELECT pg_switch_wal()")
    time.sleep(0.3)
    return str(database.run("SELECT pg_current_wal_flush_lsn()")[0][0])


def _updates(workshop: Workshop, scale: Scale) -> list[dict[str, Any]]:
    """What becomes of the conversations' rows, which every append updates."""
    return [
        _updated(workshop, scale, conversations, held)
        for held in (False, True)
        for conversations in (FEW, min(MANY, scale.hot_appends))
    ]


def _updated(workshop: Workshop, scale: Scale, conversations: int, held: bool) -> dict[str, Any]:
    with _migrated(workshop) as database:
        wanted = ids(conversations)
        make_conversations(database, dict.fromkeys(wanted, 0))
        database.settle()
        size_before = database.run(_UPDATES)[0][4]
        with _snapshot(database) if held else nullcontext():
            with Store(database.url, counter=COUNTER) as store:
                append_exchanges(store, wanted, scale.hot_appends)
            time.sleep(1)  # until its connections have handed in their counts
            updated, hot, dead, cleaned, size, index = database.run(_UPDATES)[0]
        database.run("VACUUM tokenmem.conversations")
        dead_after = database.run(_UPDATES)[0][2]
    return {
        "conversations": conversations,
        "held": held,
        "appends": scale.hot_appends,
        "hot_share": hot / updated,
        "dead": dead,
        "dead_after_vacuum": dead_after,
        "autovacuums": cleaned,
        "size_before": size_before,
        "size": size,
        "index": index,
    }


@contextmanager
def _snapshot(database: Database) -> Iterator[None]:
    """Somebody's transaction that has read once and stays open."""
    with psycopg.connect(database.address) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1 FROM tokenmem.conversations LIMIT 1")
        yield


def _index(workshop: Workshop, scale: Scale) -> dict[str, Any]:
    """The primary key's index after appends to conversations in turn, and what REINDEX makes of it."""
    with _migrated(workshop) as database:
        try:
            database.run("CREATE EXTENSION pgstattuple")
        except psycopg.Error as error:
            return {"failed": f"without pgstattuple: {error.diag.message_primary}"}
        with Store(database.url, counter=COUNTER) as store:
            append_exchanges(store, ids(LOGGED), scale.index_appends)
        grown = database.run(_INDEX)[0]
        table, pinned = database.run(
            "SELECT pg_relation_size('tokenmem.messages'), pg_relation_size('tokenmem.messages_pinned')"
        )[0]
        rebuilt = database.run("REINDEX INDEX tokenmem.messages_pkey", _INDEX)[0]
    names = ("size", "density", "fragmentation")
    return {
        "appends": scale.index_appends,
        "conversations": LOGGED,
        "table": table,
        "pinned": pinned,
        "grown": dict(zip(names, grown, strict=True)),
        "rebuilt": dict(zip(names, rebuilt, strict=True)),
    }
