"""The options that most commands share, and the database that they name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tokenmem.cli.group import Failure
from tokenmem.cli.output import escape

if TYPE_CHECKING:
    import sqlalchemy as sa

    from tokenmem.store import Store

DEFAULT_URL = "sqlite:///tokenmem.db"

Url = Annotated[
    str, typer.Option("--url", metavar="URL", envvar="TOKENMEM_URL", help="The database, by its URL.")
]
Schema = Annotated[
    str | None,
    typer.Option("--schema", metavar="NAME", envvar="TOKENMEM_SCHEMA", help="PostgreSQL: the schema."),
]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
Owner = Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Only this owner's.")]
ConversationId = Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")]


@dataclass(frozen=True, slots=True)
class Database:
    """A database that a command works on.

    Attributes:
        engine: its connections.
        schema: where the tables are; None on SQLite.
        store: the conversations in it.
    """

    engine: sa.Engine
    schema: str | None
    store: Store


@contextmanager
def opened(
    url: str, schema: str | None, *, counter: str | None = None, create: bool = False
) -> Iterator[Database]:
    """The database of this URL, closed at the end.

    Args:
        url: as the user wrote it.
        schema: as the user wrote it.
        counter: for new conversations, in place of the default.
        create: whether a SQLite file may come into being; else opening one by a wrong name would leave an
            empty file behind.
    """
    from tokenmem.counting.counters import DEFAULT_COUNTER
    from tokenmem.database.engine import default_schema
    from tokenmem.database.urls import parse_url, redacted
    from tokenmem.errors import InvalidArgument
    from tokenmem.store import Store

    try:
        parsed = parse_url(url)
    except InvalidArgument as error:
        raise Failure(f"--url: {error}") from None
    if not create and is_missing_file(parsed):
        raise Failure(
            f"{redacted(parsed)}: there is no such file; name another in --url or TOKENMEM_URL, or create "
            f"it with `tokenmem db upgrade --url {redacted(parsed)}`"
        )
    with Store(parsed, counter=counter or DEFAULT_COUNTER, schema=schema) as store:
        yield Database(store.engine, default_schema(store.engine.dialect.name, schema), store)


def is_missing_file(url: sa.URL) -> bool:
    """Whether the URL names a SQLite file that is not there."""
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return False
    return not os.path.exists(name)


def confirm(question: str) -> None:
    """Ask on a terminal whether to go on; the question ends with "Go on?".

    Raises:
        Failure: nobody is there to be asked.
        Abort: the answer is no.
    """
    if not sys.stdin.isatty():
        raise Failure(f"{question.removesuffix(' Go on?')} Say so with --yes")
    typer.confirm(escape(question), abort=True, err=True)
