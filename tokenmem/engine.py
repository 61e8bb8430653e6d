"""From a URL to engines, and from the driver's errors to ours."""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.pool import QueuePool

from tokenmem.errors import (
    DatabaseError,
    DatabaseUnavailable,
    InvalidArgument,
    SchemaOutOfDate,
    TokenmemError,
)
from tokenmem.formats import check_text
from tokenmem.schema import DEFAULT_SCHEMA, Scope, checked_schema
from tokenmem.statements import OWN_ENGINE, READ_ONLY_STATE, Statement, is_demoted

BUSY_TIMEOUT = 60.0
"""Seconds that a SQLite writer waits for another one, unless the URL says timeout."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a PostgreSQL server to answer, unless the URL says connect_timeout."""

OLDEST_SQLITE = (3, 38, 0)
"""RETURNING came with SQLite 3.35; JSON functions, which the views use, are always there since 3.38."""

# SQLSTATE classes and codes (PostgreSQL manual, appendix A) after which another try may succeed.
_RETRYABLE_STATES = ("08", "40", "53", "55P03", "57", READ_ONLY_STATE)
_CONFLICT_STATES = ("40001", "40P01")  # serialization failure, deadlock: nothing of it was stored
_SCHEMA_STATES = ("42P01", "42703", "3F000")  # undefined table, undefined column, invalid schema name
_SCHEMA_TEXTS = ("no such table", "no such column", "has no column named", "no such view")
_UNAVAILABLE_TEXTS = ("locked", "unable to open", "readonly", "disk", "busy")

_URL_HELP = "use sqlite:///file.db or postgresql+psycopg://user:password@host/database"

_forked_engines: weakref.WeakSet[sa.Engine] = weakref.WeakSet()


def _leave_parents_connections() -> None:
    """In a forked child: forget the parent's connections without closing them, they are the parent's."""
    for engine in list(_forked_engines):
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parents_connections)


def parse_url(url: str | sa.URL) -> sa.URL:
    """The URL with its driver filled in.

    Raises:
        InvalidArgument: it is no database URL, or of a database or driver that tokenmem does not know.
    """
    try:
        parsed = sa.make_url(url)
        check_text(parsed.render_as_string(hide_password=False), "the URL")
        check_text(parsed.database or "", "the URL's database")
    except (exc.ArgumentError, ValueError, AttributeError):
        raise InvalidArgument(f"{_without_secrets(url)!r} is not a database URL; {_URL_HELP}") from None
    backend = parsed.get_backend_name()
    driver = parsed.drivername.partition("+")[2]
    if backend in ("postgresql", "postgres") and driver in ("", "psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.host:
        raise InvalidArgument(f"{shown(parsed)} lacks a slash; write sqlite:///{parsed.host} for that file")
    if backend == "sqlite" and driver in ("", "pysqlite", "aiosqlite"):
        return parsed.set(drivername="sqlite")
    raise InvalidArgument(f"no support for {parsed.drivername}; {_URL_HELP}")


def _without_secrets(url: object) -> str:
    """What may be shown of a URL that cannot be parsed: where a password may stand is not to be known."""
    text = str(url)
    word = re.split(r"[^\w+.-]", text, maxsplit=1)[0][:40]
    return word if word == text else word + "…"


def open_engine(url: str | sa.URL | sa.Engine) -> sa.Engine:
    """An engine for the URL; a given engine is used as it is.

    Raises:
        InvalidArgument: the URL is wrong.
    """
    if isinstance(url, sa.Engine):
        check_dialect(url)
        return remembered(url)
    if hasattr(url, "sync_engine"):  # asked so, because to import AsyncEngine imports SQLAlchemy's ORM
        raise InvalidArgument("Store takes an Engine; pass an AsyncEngine to AsyncStore")
    parsed = parse_url(url)
    with checked_options(parsed):
        sqlite = parsed.get_backend_name() == "sqlite"
        return remembered(_sqlite_engine(parsed) if sqlite else _postgresql_engine(parsed))


@contextmanager
def checked_options(url: sa.URL) -> Iterator[None]:
    """The part of a URL behind its question mark is SQLAlchemy's and the driver's to judge."""
    try:
        yield
    except (exc.ArgumentError, ValueError, TypeError) as error:
        raise InvalidArgument(f"{shown(url)}: {error}; correct or leave out that option") from None


# Nothing is ever begun on these connections, so there is nothing to roll back when one returns.
SINGLE_STATEMENTS = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None}


def single_statement_engine(engine: sa.Engine, *, own: bool) -> sa.Engine:
    """The engine for single statements: no BEGIN, and no ROLLBACK that makes psycopg forget what it prepared.

    A second pool where the engine is ours: its connections are set once. An engine of the caller's is itself
    returned, for each use to set. SQLite's driver begins nothing for a SELECT, and needs neither.
    """
    if engine.dialect.name == "sqlite" or not own:
        return engine
    return remembered(_postgresql_engine(engine.url, **SINGLE_STATEMENTS))


def check_dialect(engine: Any) -> None:
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
        raise InvalidArgument(f"no support for {engine.dialect.name}+{engine.dialect.driver}; {_URL_HELP}")


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


def remembered(engine: sa.Engine) -> sa.Engine:
    """The engine, whose connections a forked child will leave to its parent."""
    _forked_engines.add(engine)
    return engine


def _postgresql_engine(url: sa.URL, **options: Any) -> sa.Engine:
    engine = sa.create_engine(url, poolclass=QueuePool, **(postgresql_arguments(url) | options))
    event.listen(engine, "handle_error", leave_demoted_server)
    return engine


def leave_demoted_server(context: Any) -> None:
    """A primary that has become a replica refuses every write: drop its connections, look for the new one."""
    if is_demoted(context.original_exception):
        context.is_disconnect = True


_EVERY_ENGINE: dict[str, Any] = {
    "hide_parameters": True,  # SQLAlchemy's own log lines and errors must not carry what people said
    "execution_options": OWN_ENGINE,
    "pool_use_lifo": True,  # the connection used last has its statements prepared and its pages at hand
}


def postgresql_arguments(url: sa.URL) -> dict[str, Any]:
    """What `create_engine` is told besides a PostgreSQL URL."""
    connect: dict[str, Any] = {
        "application_name": "tokenmem",
        "connect_timeout": CONNECT_TIMEOUT,
        "client_encoding": "utf8",  # whatever the server's is: it converts, or says that it cannot
    }
    given = {name: value for name, value in connect.items() if name not in url.query}
    return {"connect_args": given, **_EVERY_ENGINE}


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    in_memory = url.database in (None, "", ":memory:", "file::memory:") or url.query.get("mode") == "memory"
    engine = sa.create_engine(
        url,
        poolclass=QueuePool,
        # A database in memory lives in its one connection; its users take turns.
        **({"pool_size": 1, "max_overflow": 0, "pool_timeout": BUSY_TIMEOUT} if in_memory else {}),
        connect_args={"check_same_thread": False}
        | ({} if "timeout" in url.query else {"timeout": BUSY_TIMEOUT}),
        **_EVERY_ENGINE,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    version = cursor.execute("SELECT sqlite_version()").fetchone()[0]
    if tuple(map(int, version.split("."))) < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise DatabaseError(f"SQLite {version} is too old; use a Python that brings {needed} or newer")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
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
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction:
        _BEGIN_IMMEDIATE.run(connection, Scope(), {})


def leave_autocommit(connection: sa.Connection) -> None:
    """Let a connection of the caller's that commits every statement hold a transaction, for this use."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "postgresql" and driver.autocommit:
        connection.execution_options(isolation_level="READ COMMITTED")


_BEGIN_IMMEDIATE = Statement("BEGIN IMMEDIATE")


class TryAgain(DatabaseUnavailable):
    """Another process was faster; nothing was stored, and repeating at once is expected to succeed."""


class translated_errors:  # noqa: N801 - used like a function; one made by contextmanager costs four times as much
    """Turn SQLAlchemy's and the driver's errors into ours: the one place where that is done.

    The originals are not chained: their texts quote parameters and rows, which are what people said.
    """

    __slots__ = ("_url",)

    def __init__(self, url: sa.URL) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and (ours := _translated(error, self._url)) is not None:
            raise ours from None


def _translated(error: Exception, url: sa.URL) -> TokenmemError | None:
    """The error of ours that tells of it; None where it is none of the database's."""
    if isinstance(error, TokenmemError):
        return None
    if isinstance(error, exc.TimeoutError):
        return DatabaseUnavailable(
            f"{shown(url)}: every connection of the pool is in use; raise pool_size or max_overflow"
        )
    if isinstance(error, exc.DBAPIError):
        return _translate(error, url)
    if isinstance(error, exc.SQLAlchemyError):
        return DatabaseError(f"{shown(url)}: {type(error).__name__}: {error._message()}")
    if isinstance(error, UnicodeError):
        return DatabaseError(
            f"{shown(url)}: its connection does not carry all of Unicode; "
            f"give the engine connect_args={{'client_encoding': 'utf8'}}"
        )
    return _translate(exc.DBAPIError("", None, error), url) if _of_driver(error) else None


def _of_driver(error: Exception) -> bool:
    """Rows are fetched from the driver's own cursor, so its errors may come without SQLAlchemy's wrapping."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"sqlite3", "psycopg"})


def shown(url: sa.URL) -> str:
    """The URL without its password, wherever it stands."""
    hidden = {
        name: "hidden" for name in url.query if "password" in name.lower()
    }  # libpq: password, sslpassword
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _translate(error: exc.DBAPIError, url: sa.URL) -> DatabaseError | SchemaOutOfDate:
    state = getattr(error.orig, "sqlstate", None)
    diagnosis = getattr(error.orig, "diag", None)
    # Only the primary message: PostgreSQL's detail quotes the row.
    text = (getattr(diagnosis, "message_primary", None) or str(error.orig)).strip().partition("\n")[0]
    text = text.partition(" with text ")[0]  # SQLite's driver quotes what is no UTF-8
    if (state in _SCHEMA_STATES) if state else any(known in text for known in _SCHEMA_TEXTS):
        return SchemaOutOfDate(
            f"{shown(url)} has no tokenmem tables of this version ({text}); "
            f"run `tokenmem db upgrade` on it or call store.upgrade()"
        )
    where = f"{shown(url)}: {text}"
    if url.get_backend_name() == "sqlite":
        return _translate_sqlite(where, text, url)
    if state in _CONFLICT_STATES:
        return TryAgain(f"{where}; try again")
    lost = error.connection_invalidated or (state is None and isinstance(error, exc.OperationalError))
    if lost or (state or "").startswith(_RETRYABLE_STATES):
        return DatabaseUnavailable(f"{where}; check that the server runs and try again")
    return DatabaseError(f"{where} (SQLSTATE {state})")


def _translate_sqlite(where: str, text: str, url: sa.URL) -> DatabaseError:
    if "readonly" in text:
        return DatabaseUnavailable(f"{where}; make the file and its directory writable")
    if "unable to open" in text:
        remedy = "it is a directory; name a file in it" if os.path.isdir(url.database or "") else ""
        return DatabaseUnavailable(f"{where}; {remedy or 'check that its directory exists and is writable'}")
    if "malformed" in text:
        return DatabaseError(f"{where}; the file is damaged: restore it from a backup")
    if "not a database" in text:
        return DatabaseError(f"{where}; name another file")
    if any(known in text for known in _UNAVAILABLE_TEXTS):
        return DatabaseUnavailable(f"{where}; try again")
    return DatabaseError(where)
