"""`tokenmem db …`: create, migrate, check and remove the tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from tokenmem.cli.group import FAILED, help_without_command, new_group
from tokenmem.cli.options import DEFAULT_URL, Json, Schema, Url, confirm, opened
from tokenmem.cli.output import complain, escape, print_json

if TYPE_CHECKING:
    import sqlalchemy as sa

group = new_group("Create the tables, or migrate them.", epilog="Example: tokenmem db upgrade")

Revision = Annotated[str, typer.Argument(metavar="REVISION", help="How far: a revision, or head.")]


@group.callback(invoke_without_command=True)
def _begin(context: typer.Context) -> None:
    help_without_command(context)


@group.command(epilog="Example: tokenmem db upgrade --url postgresql+psycopg://user:password@host/database")
def upgrade(
    url: Url = DEFAULT_URL, schema: Schema = None, revision: Revision = "head", as_json: Json = False
) -> None:
    """Create the tables, or bring them to this version.

    Safe while other processes do the same.
    """
    from tokenmem.database import migrate

    with opened(url, schema, create=True) as database:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            database.store.upgrade(revision)
        with connected(database.engine) as connection:
            reached = migrate.current(connection, database.schema)
    for warning in caught:
        complain(str(warning.message))
    if as_json:
        print_json({"revision": reached})
    else:
        print(f"{_place(database.engine.url)} is at revision {reached}")


@group.command(
    epilog="Example: tokenmem db downgrade base --yes",
    context_settings={"ignore_unknown_options": True},  # so that -1 is a revision
)
def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="How far: a revision, -1, or base.")],
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take migrations back.

    Down to base, every table goes, and with them every conversation.
    """
    from tokenmem.database import migrate
    from tokenmem.database.driver_errors import translated_errors

    with opened(url, schema) as database:
        place = _place(database.engine.url)
        if not yes:
            confirm(f"This removes tables or columns from {place}, and what is in them. Go on?")
        with translated_errors(database.engine.url):
            with database.engine.begin() as connection:
                migrate.downgrade(connection, database.schema, revision)
            with database.engine.connect() as connection:
                reached = migrate.current(connection, database.schema)
    if as_json:
        print_json({"revision": reached})
        return
    print(f"{place} is at revision {reached}" if reached else f"{place} has no tokenmem tables any more")


@group.command(epilog="Example: tokenmem db current")
def current(url: Url = DEFAULT_URL, schema: Schema = None, as_json: Json = False) -> None:
    """Show the revision that the database is at."""
    from tokenmem.database import migrate

    with opened(url, schema) as database, connected(database.engine) as connection:
        found, newest = migrate.current(connection, database.schema), migrate.head()
        advice = "" if found == newest else _compare(connection, database.schema).advice
    if as_json:
        print_json({"revision": found, "head": newest})
        return
    print(found or "none")
    if advice:
        complain(advice)


@group.command(epilog="Example: tokenmem db check && echo up to date")
def check(url: Url = DEFAULT_URL, schema: Schema = None, as_json: Json = False) -> None:
    """Compare the tables with those of this version.

    Exit code 1 where they differ. Tables of a newer version on which this one works count as right.
    """
    from tokenmem.database import migrate

    with opened(url, schema) as database, connected(database.engine) as connection:
        found = migrate.current(connection, database.schema)
        if found == migrate.head():
            differences = migrate.check(connection, database.schema)
            answer = f"{_place(database.engine.url)} is as this version wants it, at {found}"
        else:
            other = _compare(connection, database.schema)
            differences = [] if other.usable else [f"revision {found or 'none'}: {other.advice}"]
            answer = f"{_place(database.engine.url)} is at {found}: {other.advice}"
    if as_json:
        print_json({"differences": differences})
    else:
        print(*map(escape, differences or [answer]), sep="\n")
    if differences:
        raise typer.Exit(FAILED)


class _OtherRevision(NamedTuple):
    """A revision that is not this version's newest: whether it can be worked on, and what to say about it."""

    usable: bool
    advice: str


def _compare(connection: sa.Connection, schema: str | None) -> _OtherRevision:
    from tokenmem.database import migrate
    from tokenmem.errors import SchemaOutOfDate

    try:
        newer = migrate.newer_revision(connection, schema)
    except SchemaOutOfDate as error:
        return _OtherRevision(False, str(error))
    newest = migrate.head()
    if newer is None:
        return _OtherRevision(False, f"this version of tokenmem is at {newest}; run `tokenmem db upgrade`")
    return _OtherRevision(True, f"a newer tokenmem's; this version is at {newest} and works on it")


@group.command(epilog="Example: tokenmem db sql --url postgresql+psycopg://host/database > tables.sql")
def sql(url: Url = DEFAULT_URL, schema: Schema = None, revision: Revision = "head") -> None:
    """Write the SQL that creates the tables.

    For someone who runs it by hand; connects to nothing.
    """
    from tokenmem.database import migrate

    with opened(url, schema, create=True) as database:
        print(migrate.sql(database.engine.url, database.schema, revision), end="")


@contextmanager
def connected(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection that only looks: whatever happens on it is rolled back."""
    from tokenmem.database.driver_errors import translated_errors

    with translated_errors(engine.url), engine.connect() as connection:
        yield connection


def _place(url: sa.URL) -> str:
    from tokenmem.database.urls import redacted

    return redacted(url)
