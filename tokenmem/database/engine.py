"""From a URL to engines."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool

from tokenmem.database.schema import DEFAULT_SCHEMA, checked_schema
from tokenmem.database.statements import OWN_ENGINE, DriverConnection, Scope, Statement, is_demoted
from tokenmem.database.urls import URL_HELP, checked_options, is_in_memory, parse_url
from tokenmem.errors import (
    DatabaseError,
    InvalidArgument,
)
from tokenmem.forks import reset_after_fork

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

BUSY_TIMEOUT = 60.0
"""Seconds that a SQLite writer waits for another one, unless the URL says timeout."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a PostgreSQL server to answer, unless the URL says connect_timeout."""

OLDEST_SQLITE = (3, 38, 0)
"""RETURNING came with SQLite 3.35; JSON functions, which the views use, are always there since 3.38."""


def open_engine(url: str | sa.URL | sa.Engine) -> sa.Engine:
    """An engine for the URL; a given engine is used as it is.

    Raises:
        InvalidArgument: the URL is wrong.
    """
    if isinstance(url, sa.Engine):
        check_dialect(url)
        return fork_safe(url)
    if hasattr(url, "sync_engine"):  # asked so, because to import AsyncEngine imports SQLAlchemy's ORM
        raise InvalidArgument("Store takes an Engine; pass an AsyncEngine to AsyncStore")
    parsed = parse_url(url)
    with checked_options(parsed):
        sqlite = parsed.get_backend_name() == "sqlite"
        return fork_safe(_sqlite_engine(parsed) if sqlite else _postgresql_engine(parsed))


# Nothing is ever begun on these connections, so there is nothing to roll back when one returns.
SINGLE_STATEMENTS = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}


def single_statement_engine(engine: sa.Engine, *, own: bool) -> sa.Engine:
    """The engine for single statements: no BEGIN, and no ROLLBACK that makes psycopg forget what it prepared.

    A second pool where the engine is ours: its connections are set once. An engine of the caller's is itself
    returned, for each use to set. SQLite's driver begins nothing for a SELECT, and needs neither.
    """
    if engine.dialect.name == "sqlite" or not own:
        return engine
    return fork_safe(_postgresql_engine(engine.url, **SINGLE_STATEMENTS))


def check_dialect(engine: sa.Engine | AsyncEngine) -> None:
    """Check that an engine of the caller's is of a database and driver that tokenmem knows.

    Raises:
        InvalidArgument: it is not.
    """
    if (engine.dialect.name, engine.dialect.driver) not in (
        ("sqlite", "pysqlite"),
        ("sqlite", "aiosqlite"),
        ("postgresql", "psycopg"),
        ("postgresql", "psycopg_async"),
    ):
        raise InvalidArgument(f"no support for {engine.dialect.name}+{engine.dialect.driver}; {URL_HELP}")


def default_schema(dialect: str, schema: str | None) -> str | None:
    """The schema to use: the caller's or ours on PostgreSQL, none on SQLite.

    Raises:
        InvalidArgument: it is not a plain lower-case name, or SQLite is asked for one.
    """
    if dialect == "sqlite":
        if schema is not None:
            raise InvalidArgument(f"schema {schema!r}: SQLite has no schemas; leave it out")
        return None
    return checked_schema(schema or DEFAULT_SCHEMA)


def fork_safe(engine: sa.Engine) -> sa.Engine:
    """The engine, whose connections a forked child will leave to its parent, without closing them."""
    return reset_after_fork(engine, lambda engine: engine.dispose(close=False))


def _postgresql_engine(url: sa.URL, **options: str | None) -> sa.Engine:
    engine = sa.create_engine(url, poolclass=QueuePool, **(postgresql_arguments(url) | options))
    event.listen(engine, "handle_error", leave_demoted_server)
    return engine


def leave_demoted_server(context: sa.ExceptionContext) -> None:
    """A primary that has become a replica refuses every write: drop its connections, look for the new one."""
    if is_demoted(context.original_exception):
        context.is_disconnect = True


EngineOptions = dict[str, Any]
"""What `create_engine` is given by name: a type for each name."""

_EVERY_ENGINE: EngineOptions = {
    "hide_parameters": True,  # SQLAlchemy's own log lines and errors must not carry what people said
    "execution_options": OWN_ENGINE,
    "pool_use_lifo": True,  # the connection used last has its statements prepared and its pages at hand
}


def postgresql_arguments(url: sa.URL) -> EngineOptions:
    """What `create_engine` is told besides a PostgreSQL URL."""
    connect = {
        "application_name": "tokenmem",
        "connect_timeout": CONNECT_TIMEOUT,
        "client_encoding": "utf8",  # whatever the server's is: it converts, or says that it cannot
    }
    given = {name: value for name, value in connect.items() if name not in url.query}
    return {"connect_args": given, **_EVERY_ENGINE}


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=QueuePool,
        # A database in memory lives in its one connection; its users take turns.
        **({"pool_size": 1, "max_overflow": 0, "pool_timeout": BUSY_TIMEOUT} if is_in_memory(url) else {}),
        connect_args={"check_same_thread": False}
        | ({} if "timeout" in url.query else {"timeout": BUSY_TIMEOUT}),
        **_EVERY_ENGINE,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    cursor = connection.cursor()
    version = cursor.execute("SELECT sqlite_version()").fetchone()[0]
    if tuple(map(int, version.split("."))) < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise DatabaseError(f"SQLite {version} is too old; use a Python that brings {needed} or newer")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
    cursor.close()


def use_write_ahead_log(connection: sa.Connection) -> None:
    """Let a SQLite file's readers and its writer work at the same time; the file remembers it."""
    if connection.dialect.name != "sqlite":
        return
    if connection.exec_driver_sql("PRAGMA journal_mode").scalar() != "delete":
        return
    # SQLite does not wait here: another process that starts at the same time does the same.
    with suppress(exc.OperationalError):
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def begin_write(connection: sa.Connection) -> None:
    """Take SQLite's write lock at once: a transaction that reads first could not be upgraded later."""
    if connection.dialect.name != "sqlite":
        return
    driver: DriverConnection = connection.connection.driver_connection
    if not driver.in_transaction:
        _BEGIN_IMMEDIATE.run(connection, Scope(), {})


def restart_as_write(connection: sa.Connection) -> None:
    """Let a transaction that has just begun hold SQLite's write lock: it may read first and then write.

    An engine of the caller's may have begun it in another way, as SQLAlchemy's documentation shows.
    """
    if connection.dialect.name != "sqlite":
        return
    driver: DriverConnection = connection.connection.driver_connection
    if driver.in_transaction:
        _ROLLBACK.run(connection, Scope(), {})
    begin_write(connection)


def leave_autocommit(connection: sa.Connection) -> None:
    """Let a connection of the caller's that commits every statement hold a transaction, for this use."""
    driver: DriverConnection = connection.connection.driver_connection
    if connection.dialect.name == "postgresql" and driver.autocommit:
        connection.execution_options(isolation_level="READ COMMITTED")


_BEGIN_IMMEDIATE = Statement("BEGIN IMMEDIATE")
_ROLLBACK = Statement("ROLLBACK")


def check_connection(
    connection: object, kind: type[sa.Connection] | type[AsyncConnection], engine: sa.Engine
) -> None:
    """Check that a connection to bind to is sync or async as the store is, and of its database.

    Raises:
        InvalidArgument: it is not.
    """
    if not isinstance(connection, kind):
        raise InvalidArgument(f"connection is a {type(connection).__name__}; pass a {kind.__name__}")
    check_dialect(connection.engine)
    if connection.dialect.name != engine.dialect.name:
        raise InvalidArgument(
            f"a {connection.dialect.name} connection, but {engine.dialect.name} in the store"
        )
