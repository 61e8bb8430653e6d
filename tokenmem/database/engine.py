"""From a URL to engines."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from tokenmem.database.connection_settings import (
    DEFAULTS,
    ConnectionOptions,
    ConnectionSettings,
    settings_of,
    settings_of_engine,
)
from tokenmem.database.driver_internals import begin_names_anywhere
from tokenmem.database.liveness import is_stale
from tokenmem.database.pool import ConnectionLimit, FairPool
from tokenmem.database.schema import DEFAULT_SCHEMA, checked_schema
from tokenmem.database.sqlalchemy_internals import commits_every_statement
from tokenmem.database.statements import OWN_ENGINE, DriverConnection, Scope, Statement, is_demoted
from tokenmem.database.urls import URL_HELP, checked_options, is_in_memory, parse_url
from tokenmem.database.write_gate import WriteGate, gate_of
from tokenmem.errors import (
    DatabaseError,
    InvalidArgument,
)
from tokenmem.forks import reset_after_fork

if TYPE_CHECKING:
    import sqlite3

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

OLDEST_SQLITE = (3, 38, 0)
"""RETURNING came with SQLite 3.35; JSON functions, which the views use, are always there since 3.38."""

WAL_SIZE_LIMIT = 64 * 1024 * 1024
"""Bytes to which SQLite cuts its write-ahead log after a checkpoint: else it keeps the size of its peak."""


@dataclass(frozen=True, slots=True)
class Engines:
    """What a store works on.

    Attributes:
        public: for transactions of the caller's own.
        reading: for reads; on PostgreSQL for all that the store does.
        writing: for writes. On a SQLite file it has one connection, for which this process's writers wait in
            the order in which they came; for the file's lock, whoever asks at the right moment would have it.
        is_own: whether tokenmem has opened them.
        settings: how they were opened.
        gate: for whoever has the connection for writes: on a SQLite file other processes wait for it.
    """

    public: sa.Engine
    reading: sa.Engine
    writing: sa.Engine
    is_own: bool
    settings: ConnectionSettings
    gate: WriteGate | None = None

    def dispose(self) -> None:
        """Close the connections."""
        for engine in {self.writing, self.reading, self.public}:
            engine.dispose()
        if self.gate is not None:
            self.gate.close()


def open_engines(url: str | sa.URL | sa.Engine, options: ConnectionOptions = DEFAULTS) -> Engines:
    """The engines for a URL; a given engine is used as it is, for everything.

    Raises:
        InvalidArgument: the URL or an option is wrong.
    """
    if isinstance(url, sa.Engine):
        check_dialect(url)
        return engines_of(url, options)
    if hasattr(url, "sync_engine"):  # asked so, because to import AsyncEngine imports SQLAlchemy's ORM
        raise InvalidArgument("Store takes an Engine; pass an AsyncEngine to AsyncStore")
    settings = settings_of(parse_url(url), options)
    with checked_options(settings.url):
        if settings.url.get_backend_name() == "sqlite":
            return _sqlite_engines(settings)
        limit = ConnectionLimit(settings.pool_size)
        public = _postgresql_engine(settings, limit)
        event.listen(public, "handle_error", leave_demoted_server)
        working = _postgresql_engine(settings, limit, **SINGLE_STATEMENTS)
        return Engines(public, working, working, True, settings)


def engines_of(engine: sa.Engine, options: ConnectionOptions) -> Engines:
    """An engine of the caller's, for everything.

    Raises:
        InvalidArgument: an option is for an engine that tokenmem opens.
    """
    fork_safe(engine)
    return Engines(engine, engine, engine, False, settings_of_engine(engine.url, options))


def open_engine(url: str | sa.URL) -> sa.Engine:
    """An engine for transactions on a URL.

    Raises:
        InvalidArgument: the URL is wrong.
    """
    return open_engines(url).public


# Nothing is begun on these connections unless a transaction is asked for: when one returns, there is nothing
# to roll back, and no ROLLBACK after which psycopg would forget what it has prepared.
SINGLE_STATEMENTS = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}


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


def _postgresql_engine(
    settings: ConnectionSettings, limit: ConnectionLimit, **options: str | None
) -> sa.Engine:
    engine = sa.create_engine(settings.url, **(postgresql_arguments(settings, limit) | options))
    return set_up_postgresql(engine, settings)


def set_up_postgresql(engine: sa.Engine, settings: ConnectionSettings) -> sa.Engine:
    """What each engine of ours on PostgreSQL listens to; listeners to its use would make that cost more."""

    def set_up(connection: DriverConnection, _record: object) -> None:
        driver: DriverConnection = getattr(connection, "driver_connection", connection)
        if settings.preparation.is_off:
            driver.prepare_threshold = None
        begin_names_anywhere(driver)

    event.listen(engine, "connect", set_up)
    return fork_safe(engine)


def leave_demoted_server(context: sa.ExceptionContext) -> None:
    """A primary that has become a replica refuses every write: drop its connections, look for the new one."""
    if is_demoted(context.original_exception):
        context.is_disconnect = True


EngineOptions = dict[str, Any]
"""What `create_engine` is given by name: a type for each name."""

_EVERY_ENGINE: EngineOptions = {
    "poolclass": FairPool,
    "hide_parameters": True,  # SQLAlchemy's own log lines and errors must not carry what people said
    "execution_options": OWN_ENGINE,
}


def postgresql_arguments(settings: ConnectionSettings, limit: ConnectionLimit) -> EngineOptions:
    """What `create_engine` is told besides a PostgreSQL URL."""
    preparation = settings.preparation

    def is_of_no_use(connection: DriverConnection) -> bool:
        if preparation.is_off and connection.prepare_threshold is not None:
            return True
        return is_stale(connection)

    return {
        "connect_args": settings.connect_arguments(),
        "limit": limit,
        "pool_timeout": settings.pool_timeout,
        "is_stale": is_of_no_use,
        "opens_aside": True,
        **_EVERY_ENGINE,
    }


def _sqlite_engines(settings: ConnectionSettings) -> Engines:
    # A database in memory lives in its one connection; its users take turns.
    if is_in_memory(settings.url):
        engine = _sqlite_engine(settings, 1)
        return Engines(_for_transactions(engine), engine, engine, True, settings)
    reading = _sqlite_engine(settings, settings.pool_size)
    writing = _sqlite_engine(settings, 1)
    return Engines(_for_transactions(reading), reading, writing, True, settings, gate_of(settings))


def _sqlite_engine(settings: ConnectionSettings, connections: int) -> sa.Engine:
    engine = sa.create_engine(
        settings.url,
        limit=ConnectionLimit(connections),
        pool_timeout=settings.pool_timeout,
        connect_args=settings.connect_arguments(),
        **_EVERY_ENGINE,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return fork_safe(engine)


def _for_transactions(engine: sa.Engine) -> sa.Engine:
    """An engine on the same connections; with a listener each use of one costs more, so `engine` has none."""
    public = engine.execution_options()
    event.listen(public, "begin", _begin_sqlite)
    return public


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Its driver begins a transaction before some statements and not before others, a SAVEPOINT among these.
    connection.isolation_level = None
    cursor = connection.cursor()
    version = cursor.execute("SELECT sqlite_version()").fetchone()[0]
    if tuple(map(int, version.split("."))) < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise DatabaseError(f"SQLite {version} is too old; use a Python that brings {needed} or newer")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA journal_size_limit = {WAL_SIZE_LIMIT}")
    cursor.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    """Begin where SQLAlchemy begins: what it rolls back is then all that was done since, as on PostgreSQL."""
    driver: DriverConnection = connection.connection.driver_connection
    if not driver.in_transaction and not commits_every_statement(connection):
        driver.execute("BEGIN")


def use_write_ahead_log(connection: sa.Connection) -> None:
    """Let a SQLite file's readers and its writer work at the same time; the file remembers it."""
    if connection.dialect.name != "sqlite":
        return
    if connection.in_transaction():  # in which nothing has been written, and the journal cannot be changed
        connection.rollback()
    driver: DriverConnection = connection.connection.driver_connection  # SQLAlchemy would begin another one
    if driver.execute("PRAGMA journal_mode").fetchone() != ("delete",):
        return
    # SQLite does not wait here: another process that starts at the same time does the same.
    with suppress(connection.dialect.loaded_dbapi.OperationalError):
        driver.execute("PRAGMA journal_mode = WAL").close()


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
