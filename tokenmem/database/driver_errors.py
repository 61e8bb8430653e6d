"""From the driver's errors to ours: the one place where that is done."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from tokenmem.database import sqlalchemy_internals
from tokenmem.database.statements import READ_ONLY_STATE
from tokenmem.database.urls import redacted
from tokenmem.errors import (
    DatabaseError,
    DatabaseUnavailable,
    SchemaOutOfDate,
    TokenmemError,
)

# SQLSTATE classes and codes (PostgreSQL manual, appendix A) after which another try may succeed.
_RETRYABLE_STATES = ("08", "40", "53", "55P03", "57", READ_ONLY_STATE)
_CONFLICT_STATES = ("40001", "40P01")  # serialization failure, deadlock: nothing of it was stored
_SCHEMA_STATES = ("42P01", "42703", "3F000")  # undefined table, undefined column, invalid schema name
_SCHEMA_TEXTS = ("no such table", "no such column", "has no column named", "no such view")
_UNAVAILABLE_TEXTS = ("locked", "unable to open", "readonly", "disk", "busy")


# libpq's and psycopg's texts about the URL itself: no server is asked, and no further try will succeed.
_BAD_OPTION = re.compile(
    r"invalid (connection option|\w+ value|port number)|bad value for \w+|could not parse network address"
    r"|SSL support is not compiled in|does not support SSL, but SSL was required"
    r"|(certificate|private key|revocation list) file .* does not exist"
)


class WriteConflict(DatabaseUnavailable):
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
            f"{redacted(url)}: every connection of the pool is in use; raise pool_size or max_overflow"
        )
    if isinstance(error, exc.DBAPIError):
        return _translate(error, url)
    if isinstance(error, exc.SQLAlchemyError):
        return DatabaseError(
            f"{redacted(url)}: {type(error).__name__}: {sqlalchemy_internals.message_of(error)}"
        )
    if isinstance(error, UnicodeError):
        return DatabaseError(
            f"{redacted(url)}: its connection does not carry all of Unicode; "
            f"give the engine connect_args={{'client_encoding': 'utf8'}}"
        )
    return _translate(exc.DBAPIError("", None, error), url) if _of_driver(error) else None


def is_of_lost_preparation(error: BaseException | None) -> bool:
    """Whether a statement failed because a pooler in between knows nothing of prepared statements.

    PostgreSQL manual, appendix A: duplicate_prepared_statement, invalid_sql_statement_name, and a
    protocol_violation where another client's statement of that name takes other parameters.
    """
    state = getattr(error, "sqlstate", None)
    return state in ("42P05", "26000") or (state == "08P01" and "prepared statement" in str(error))


def _of_driver(error: Exception) -> bool:
    """Rows are fetched from the driver's own cursor, so its errors may come without SQLAlchemy's wrapping."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(modules & {"sqlite3", "psycopg"})


def _translate(error: exc.DBAPIError, url: sa.URL) -> DatabaseError | SchemaOutOfDate:
    state = getattr(error.orig, "sqlstate", None)
    diagnosis = getattr(error.orig, "diag", None)
    # Only the primary message: PostgreSQL's detail quotes the row.
    text = (getattr(diagnosis, "message_primary", None) or str(error.orig)).strip().partition("\n")[0]
    text = text.partition(" with text ")[0]  # SQLite's driver quotes what is no UTF-8
    if (state in _SCHEMA_STATES) if state else any(known in text for known in _SCHEMA_TEXTS):
        return SchemaOutOfDate(
            f"{redacted(url)} has no tokenmem tables of this version ({text}); "
            f"run `tokenmem db upgrade` on it or call store.upgrade()"
        )
    where = f"{redacted(url)}: {text}"
    if url.get_backend_name() == "sqlite":
        return _translate_sqlite(where, text, url)
    if state in _CONFLICT_STATES:
        return WriteConflict(f"{where}; try again")
    if state is None and _BAD_OPTION.search(text):
        return DatabaseError(f"{where}; correct or leave out that option of the URL")
    lost = error.connection_invalidated or (state is None and isinstance(error, exc.OperationalError))
    if lost or (state or "").startswith(_RETRYABLE_STATES):
        return DatabaseUnavailable(f"{where}; check that the server runs and try again")
    if isinstance(error.orig, Exception) and text.startswith("timestamp too "):  # read, but no datetime
        return DatabaseError(f"{where}; run `tokenmem verify`, which names the row, and correct it")
    return DatabaseError(f"{where} (SQLSTATE {state})")


def _translate_sqlite(where: str, text: str, url: sa.URL) -> DatabaseError:
    if "readonly" in text:
        return DatabaseUnavailable(f"{where}; make the file and its directory writable{_or_immutable(url)}")
    if "unable to open" in text:
        remedy = "it is a directory; name a file in it" if os.path.isdir(url.database or "") else ""
        remedy = remedy or f"check that its directory exists and is writable{_or_immutable(url)}"
        return DatabaseUnavailable(f"{where}; {remedy}")
    if "malformed JSON" in text or "JSON cannot hold" in text:
        return DatabaseError(f"{where}; run `tokenmem verify`, which names the row, and correct it")
    if "malformed" in text:
        return DatabaseError(f"{where}; the file is damaged: restore it from a backup")
    if "not a database" in text:
        return DatabaseError(f"{where}; name another file")
    if any(known in text for known in _UNAVAILABLE_TEXTS):
        return DatabaseUnavailable(f"{where}; try again")
    return DatabaseError(where)


def _or_immutable(url: sa.URL) -> str:
    """How a file in a directory that nobody may write to is read: a log beside it cannot be made."""
    path = (url.database or "").removeprefix("file:")
    if "immutable" in url.query or not os.path.exists(path):
        return ""
    immutable = f"sqlite:///file:{quote(os.path.abspath(path))}?immutable=1&uri=true"
    return f"; only to read it, and while nobody writes to it: {immutable}"
