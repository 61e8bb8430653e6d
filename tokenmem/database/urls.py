"""Database URLs: read, checked, and shown without their secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from tokenmem.errors import (
    InvalidArgument,
)
from tokenmem.messages.values import check_text

URL_HELP = "use sqlite:///file.db or postgresql+psycopg://user:password@host/database"


def parse_url(url: str | sa.URL) -> sa.URL:
    """The URL with its driver filled in; white space and quotes around it are no part of it.

    Raises:
        InvalidArgument: it is no database URL, or of a database or driver that tokenmem does not know.
    """
    try:
        parsed = sa.make_url(_bare(url) if isinstance(url, str) else url)
        check_text(parsed.render_as_string(hide_password=False), "the URL")
        check_text(parsed.database or "", "the URL's database")
    except (exc.ArgumentError, ValueError, AttributeError):
        raise InvalidArgument(f"{_without_secrets(url)!r} is not a database URL; {URL_HELP}") from None
    if _CONTROL.search(parsed.render_as_string(hide_password=False) + (parsed.database or "")):
        raise InvalidArgument(
            f"{_without_secrets(url)!r} has a line break or another control character inside; {URL_HELP}"
        )
    backend = parsed.get_backend_name()
    driver = parsed.drivername.partition("+")[2]
    if backend in ("postgresql", "postgres") and driver in ("", "psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend == "sqlite" and parsed.host:
        raise InvalidArgument(
            f"{redacted(parsed)} lacks a slash; write sqlite:///{parsed.host} for that file"
        )
    if backend == "sqlite":
        _check_sqlite_options(parsed)
    if backend == "sqlite" and driver in ("", "pysqlite", "aiosqlite"):
        return parsed.set(drivername="sqlite")
    raise InvalidArgument(f"no support for {parsed.drivername}; {URL_HELP}")


_CONTROL = re.compile("[\x00-\x1f\x7f]")
_QUOTES = ('"', "'")
_OF_SQLITE = frozenset({"mode", "immutable", "nolock", "vfs", "psow", "modeof"})
"""Options of SQLite itself, which it takes from a URI alone."""


def _bare(url: str) -> str:
    """The URL as it was meant where a file of settings has left a line break or quotes around it."""
    text = url.strip()
    while len(text) > 1 and text[0] in _QUOTES and text[0] == text[-1]:
        text = text[1:-1].strip()
    return text


def _check_sqlite_options(url: sa.URL) -> None:
    """Without `uri` SQLAlchemy drops such options; without "file:" SQLite makes a file that is called so."""
    database = url.database or ""
    own = sorted(_OF_SQLITE & url.query.keys())
    if is_in_memory(url) or (not own and "uri" not in url.query):
        return
    if "uri" in url.query and (database.startswith("file:") or not database):
        return
    name = database if database.startswith("file:") else f"file:{quote(database)}"
    options = "&".join([*(f"{key}={url.query[key]}" for key in own), "uri=true"])
    raise InvalidArgument(f"{redacted(url)}: write it as sqlite:///{name}?{options}")


def _without_secrets(url: object) -> str:
    """What may be shown of a URL that cannot be parsed: where a password may stand is not to be known."""
    text = str(url)
    word = re.split(r"[^\w+.-]", text, maxsplit=1)[0][:40]
    return word if word == text else word + "…"


@contextmanager
def checked_options(url: sa.URL) -> Iterator[None]:
    """The part of a URL behind its question mark is SQLAlchemy's and the driver's to judge."""
    try:
        yield
    except (exc.ArgumentError, ValueError, TypeError) as error:
        raise InvalidArgument(f"{redacted(url)}: {error}; correct or leave out that option") from None


def redacted(url: sa.URL) -> str:
    """The URL without its password, wherever it stands."""
    hidden = {
        name: "hidden" for name in url.query if "password" in name.lower()
    }  # libpq: password, sslpassword
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def is_in_memory(url: sa.URL) -> bool:
    """Whether it names a SQLite database in memory, which is gone with its last connection."""
    if url.get_backend_name() != "sqlite":
        return False
    return url.database in (None, "", ":memory:", "file::memory:") or url.query.get("mode") == "memory"


def with_absolute_path(url: sa.URL) -> sa.URL:
    """The URL that names the same SQLite file from every working directory; any other URL as it is."""
    database = url.database
    if url.get_backend_name() != "sqlite" or database is None or is_in_memory(url):
        return url
    if "uri" not in url.query or not database.startswith("file:"):
        return url.set(database=os.path.abspath(database))
    path = database.removeprefix("file:")  # percent-encoded, as sqlite3 takes it with uri=true
    return url if path.startswith("/") else url.set(database=f"file:{quote(os.getcwd())}/{path}")


DEFAULT_URL = "sqlite:///tokenmem.db"


def default_url() -> str:
    """The database where none is named: TOKENMEM_URL, else a file in the working directory."""
    return os.environ.get("TOKENMEM_URL", "").strip() or DEFAULT_URL
