"""Alembic as a library: the same migrations from a wheel and from the repository."""

from __future__ import annotations

import asyncio
import io
import re
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tokenmem.database.engine import begin_write, use_write_ahead_log
from tokenmem.database.preflight import check_room
from tokenmem.database.schema import VERSION_TABLE, VIEWS
from tokenmem.database.sqlalchemy_internals import await_only, in_greenlet
from tokenmem.errors import SchemaOutOfDate
from tokenmem.forks import ForkSafeLock

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

PAUSE = 0.005
"""Seconds between looks whether another thread or task of this process has finished its migration."""

_REVISION = re.compile(r"tokenmem_([0-9]{1,9})")

_alembic = ForkSafeLock()


def directory() -> Path:
    """Where the migrations lie: inside the installed package, or beside it in the repository."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"


def revision_number(revision: str) -> int:
    """The number of one of our revisions: 1 of `tokenmem_0001`.

    Raises:
        SchemaOutOfDate: it is none of ours.
    """
    found = _REVISION.fullmatch(revision)
    if found is None:
        raise SchemaOutOfDate(f"{revision!r:.80} is none of tokenmem's revisions, which are tokenmem_NNNN")
    return int(found[1])


def upgrade(connection: sa.Connection, schema: str | None, revision: str = "head") -> None:
    """Bring the tables to a revision, from nothing or from an older one.

    Safe when many processes start at once: one works, the others wait and find nothing left to do. Where a
    newer tokenmem has migrated the tables and this one works on them, a RuntimeWarning says so and nothing is
    done.

    Raises:
        SchemaOutOfDate: this version has no such revision, or does not work on the database's; or something
            of another application's has the name of one of the tables.
        DatabaseError: the database's encoding cannot hold every text.
    """
    from alembic import command

    with _known_revisions(), _alone():
        take_turn(connection, schema)
        newer = newer_revision(connection, schema)
        if newer is None:
            command.upgrade(_config(schema, connection), revision)
            return
        if revision != "head":
            _script().get_revision(revision)
    warnings.warn(
        f"a newer tokenmem has brought the tables to revision {newer}; this one knows the revisions up to "
        f"{head()} and works on them: nothing was done",
        RuntimeWarning,
        stacklevel=2,
    )


def prepare_file(connection: sa.Connection, schema: str | None) -> None:
    """Set the journal of a SQLite file that is to be migrated; a foreign application's file stays as it is.

    Raises:
        SchemaOutOfDate: the file is another application's, or one on which only a newer tokenmem works.
    """
    if connection.dialect.name == "sqlite":
        check_room(connection, schema)
        newer_revision(connection, schema)
        use_write_ahead_log(connection)


def newer_revision(connection: sa.Connection, schema: str | None) -> str | None:
    """The database's revision where it is newer than this version of tokenmem, which still works on it.

    Code works on a newer revision if it knows the one that `schema_settings` names as the oldest.

    Returns:
        None where this version knows the database's revision, or there is none yet.

    Raises:
        SchemaOutOfDate: this version does not work on the database, or the revision is not tokenmem's.
    """
    found = current(connection, schema)
    if found is None or any(script.revision == found for script in _script().walk_revisions()):
        return None
    newest = head()
    known = f"the database is at revision {found}, this tokenmem knows the revisions up to {newest}"
    is_newer = revision_number(found) > revision_number(newest)
    oldest = _oldest_revision(connection, schema) if is_newer else None
    if oldest is None:
        raise SchemaOutOfDate(
            f"{known}, and no row oldest_revision in a table schema_settings tells whether it works on it: "
            f"install the tokenmem that wrote this database"
        )
    if revision_number(oldest) > revision_number(newest):
        raise SchemaOutOfDate(f"{known} and would have to know {oldest}: install a newer tokenmem")
    return found


def downgrade(connection: sa.Connection, schema: str | None, revision: str) -> None:
    """Take migrations back, to a revision or to "base": there no table is left, and no message.

    Raises:
        SchemaOutOfDate: this version has no such revision, or does not know the database's.
    """
    from alembic import command

    with _known_revisions(), _alone():
        command.downgrade(_config(schema, connection), revision)


def current(connection: sa.Connection, schema: str | None) -> str | None:
    """The revision that the database is at; None before the first migration."""
    from alembic.runtime.migration import MigrationContext

    options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def head() -> str:
    """The newest revision that this version of tokenmem knows."""
    return str(_script().get_current_head())


def check(connection: sa.Connection, schema: str | None) -> list[str]:
    """What differs between the database and what this version expects; empty where nothing does."""
    from alembic import command
    from alembic.util.exc import AutogenerateDiffsDetected, CommandError

    try:
        with _alone():
            command.check(_config(schema, connection))
    except AutogenerateDiffsDetected as differences:
        return [str(difference) for difference in differences.diffs]
    except CommandError as error:
        return [str(error)]
    missing = set(VIEWS) - set(sa.inspect(connection).get_view_names(schema=schema))
    return [f"the view {view} is missing" for view in sorted(missing)]


def sql(url: sa.URL, schema: str | None, revision: str = "head") -> str:
    """The statements of an upgrade from nothing, for a person who runs them by hand.

    Raises:
        SchemaOutOfDate: this version has no such revision.
    """
    from alembic import command

    config = _config(schema)
    config.attributes["url"] = url.render_as_string(hide_password=False)
    config.output_buffer = written = io.StringIO()
    with _known_revisions(), _alone():
        command.upgrade(config, revision, sql=True)
    return written.getvalue()


def _oldest_revision(connection: sa.Connection, schema: str | None) -> str | None:
    inspector = sa.inspect(connection)
    if not inspector.has_table("schema_settings", schema=schema):
        return None
    if not {"name", "value"} <= {each["name"] for each in inspector.get_columns("schema_settings", schema)}:
        return None
    prefix = f"{schema}." if schema else ""
    query = f"SELECT value FROM {prefix}schema_settings WHERE name = 'oldest_revision'"
    value = connection.scalar(sa.text(query))
    return None if value is None else str(value)


@contextmanager
def _known_revisions() -> Iterator[None]:
    """Alembic's error of a revision that it cannot find, as ours."""
    from alembic.util.exc import CommandError

    try:
        yield
    except CommandError as error:
        raise SchemaOutOfDate(
            f"{str(error).rstrip('.')}; this version of tokenmem knows the revisions up to {head()}: "
            f"name one of them, or install the version that wrote this database"
        ) from None


@contextmanager
def _alone() -> Iterator[None]:
    """Let one run of Alembic at a time into this process: it keeps its context in the globals of a module.

    Asked for again and again: a task that waited for the lock would stop the event loop, and with it the
    task that holds the lock.
    """
    while not _alembic.acquire(blocking=False):
        if in_greenlet():
            await_only(asyncio.sleep(PAUSE))
        else:
            time.sleep(PAUSE)
    try:
        yield
    finally:
        _alembic.release()


def take_turn(connection: sa.Connection, schema: str | None) -> None:
    """Wait until no other process migrates this schema, and see that the schema is there.

    Called by the migrations' own environment before it reads the version table.
    """
    if schema is None:
        begin_write(connection)
        return
    key = zlib.crc32(f"tokenmem migrations of {schema}".encode())
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
    found = connection.scalar(
        sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :schema"), {"schema": schema}
    )
    if not found:  # asked first: IF NOT EXISTS wants the right to create schemas even where one is there
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))


def _script() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(None))


def _config(schema: str | None, connection: sa.Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config(stdout=io.StringIO())
    config.set_main_option("script_location", str(directory()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["schema"] = schema
    config.attributes["connection"] = connection
    return config
