"""A SQLite database as files: its log, and bytes that are left in it of what was deleted."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy import exc

from tokenmem.database.statements import DriverConnection

PATIENCE = 1000
"""Milliseconds that a truncation of the log waits for others who read from it."""


def truncate_log(connection: sa.Connection) -> bool:
    """Write what the write-ahead log holds into the file, and cut the log: it still has what was deleted.

    Returns:
        Whether nothing is left in the log; False where others read from it, or in a transaction.
    """
    if connection.dialect.name != "sqlite":
        return True
    driver: DriverConnection = connection.connection.driver_connection
    if driver.in_transaction:  # the caller's
        return False
    connection.execution_options(isolation_level="AUTOCOMMIT")
    before = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {PATIENCE}")
    try:
        with suppress(exc.OperationalError):  # read-only, or locked
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
            return busy == 0
        return False
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {before}")


def vacuum(connection: sa.Connection) -> None:
    """Write the file anew, with what is in its tables and nothing else. It needs room for a copy of it."""
    connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")


def files_of(connection: sa.Connection) -> list[str]:
    """The files that may hold bytes of the database, those that are there; none of one in memory."""
    listed = connection.exec_driver_sql("PRAGMA database_list").all()
    name = next((row[2] for row in listed if row[1] == "main"), "")
    return [name + suffix for suffix in ("", "-wal", "-journal") if name and os.path.exists(name + suffix)]


def encoding_of(connection: sa.Connection) -> str:
    """In which encoding the file holds texts, as Python calls it."""
    return str(connection.exec_driver_sql("PRAGMA encoding").scalar()).replace("UTF-16", "utf-16-")


def found_in(paths: Iterable[str], texts: Iterable[bytes]) -> set[bytes]:
    """Those of the texts whose bytes stand in one of the files.

    No connection of this process may be open: with the file closed here the system drops SQLite's locks.
    """
    pending, found = set(texts), set[bytes]()
    for path in paths:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                continue
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found |= {text for text in pending if content.find(text) >= 0}
        pending -= found
    return found


def stored_in(connection: sa.Connection, texts: Iterable[bytes], encoding: str) -> dict[str, set[bytes]]:
    """Where some texts are stored, by column, as `table.column`; the schema itself is `sqlite_master.sql`.

    A text that several columns hold is told of the first.
    """
    pending, found = set(texts), dict[str, set[bytes]]()
    inspector = sa.inspect(connection)
    columns = {
        name: [column["name"] for column in inspector.get_columns(name)]
        for name in inspector.get_table_names()
    }
    quote = connection.dialect.identifier_preparer.quote
    for table, names in {**columns, "sqlite_master": ["name", "sql"]}.items():
        for name in names:
            query = (
                f"SELECT {quote(name)} FROM {quote(table)} WHERE typeof({quote(name)}) IN ('text', 'blob')"
            )
            for (value,) in connection.exec_driver_sql(query):
                content = value.encode(encoding, "surrogatepass") if isinstance(value, str) else value
                if here := {text for text in pending if text in content}:
                    found.setdefault(f"{table}.{name}", set()).update(here)
                    pending -= here
            if not pending:
                return found
    return found
