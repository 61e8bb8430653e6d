"""`tokenmem erase`: all that an owner has is deleted, and on SQLite no file holds its bytes any more."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from tokenmem.cli.group import FAILED
from tokenmem.cli.options import DEFAULT_URL, Database, Json, Schema, Url, confirm, opened
from tokenmem.cli.output import complain, escape, plural, print_json

if TYPE_CHECKING:
    import sqlalchemy as sa

BYTES_LOOKED_THROUGH = 50_000_000_000
"""About how many bytes are looked through, in some 20 seconds; of more texts only a part is looked for."""


@dataclass(slots=True)
class Erasure:
    """What has been done, and what the look at the files has found.

    Attributes:
        owner: whose all was.
        conversations: how many conversations there were.
        texts: pieces of the owner's texts that were looked for in the files; 0 where there were none, or none
            of 8 bytes.
        left_in_files: how many of these still stand in a file, in no row.
        stored_elsewhere: columns, as `table.column`, that hold one of these for somebody else.
        vacuumed: whether the file, or on PostgreSQL the tables, were written anew.
        log_is_empty: whether nothing is left in SQLite's write-ahead log.
        statements: what is to be run on PostgreSQL, so that the server's files lose the bytes.
    """

    owner: str
    conversations: int = 0
    texts: int = 0
    left_in_files: int = 0
    stored_elsewhere: list[str] = field(default_factory=list)
    vacuumed: bool = False
    log_is_empty: bool = True
    statements: list[str] = field(default_factory=list)

    @property
    def is_proven(self) -> bool:
        """Whether no file holds anything of it."""
        return not self.left_in_files and self.log_is_empty


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: tokenmem erase --owner user-7 --yes")(erase)


def erase(
    owner: Annotated[str, typer.Option("--owner", metavar="NAME", help="Whose conversations.")],
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="PostgreSQL: write the tables anew now; they are locked meanwhile."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete all that an owner has, its bytes too.

    On SQLite the files are looked through for the owner's texts afterwards, and written anew where they hold
    one; exit code 1 where they still do. On PostgreSQL the statements are printed that remove the bytes.
    """
    with opened(url, schema) as database:
        if not yes:
            confirm(f"This deletes all conversations of the owner {owner!r}, for good. Go on?")
        is_sqlite = database.engine.dialect.name == "sqlite"
        done = _erase_on_sqlite(database, owner) if is_sqlite else _erase_on_server(database, owner, vacuum)
    if as_json:
        print_json(asdict(done))
    else:
        _print(done, is_sqlite=is_sqlite)
    if not done.is_proven:
        complain(
            "another process uses the database, so that its files could not be written anew: "
            "end it, or wait until it has read, and run the command again"
        )
        raise typer.Exit(FAILED)


def _print(done: Erasure, *, is_sqlite: bool) -> None:
    print(f"removed {plural(done.conversations, 'conversation')} of {escape(repr(done.owner))}")
    if not is_sqlite:
        if done.vacuumed:
            print("the tables were written anew; write-ahead log, replicas and backups keep what they have")
        else:
            print("until these have run, the server's files hold bytes of it (they lock the tables):")
            print(*done.statements, sep="\n")
        return
    rewritten = ", after the file was written anew" if done.vacuumed else ""
    if done.is_proven:
        looked_for = f"{plural(done.texts, 'piece')} of its texts" if done.texts else "its texts"
        print(f"no file holds {looked_for} any more{rewritten}")
    for place in done.stored_elsewhere:
        print(f"some of them are stored by somebody else, in {escape(place)}")


def _erase_on_sqlite(database: Database, owner: str) -> Erasure:
    from tokenmem.arguments import checked_name
    from tokenmem.database import sqlite_files
    from tokenmem.database.statements import Scope
    from tokenmem.operations import erasure

    done = Erasure(owner)
    with _connected(database) as connection:
        encoding = sqlite_files.encoding_of(connection)
        wanted = {
            piece
            for text in erasure.texts(connection, Scope(database.schema, checked_name(owner, "--owner")))
            for piece in erasure.probes(text, encoding)
        }
        paths = sqlite_files.files_of(connection)
    done.conversations = database.store.delete_owner(owner)
    size = sum(os.path.getsize(path) for path in paths if os.path.exists(path))
    most = max(100, BYTES_LOOKED_THROUGH // max(size, 1))
    chosen = wanted if len(wanted) <= most else set(random.sample(sorted(wanted), most))
    done.texts = len(chosen)
    _look(database, chosen, encoding, done)
    # What is not known in full, or was deleted before, is not looked for in full: the file is written anew.
    if not done.is_proven or len(chosen) < len(wanted) or not done.conversations:
        done.vacuumed = _vacuumed(database)
        _look(database, chosen, encoding, done)
    return done


def _look(database: Database, wanted: set[bytes], encoding: str, done: Erasure) -> None:
    """Look through the files, with no connection of ours open, for texts that no row holds."""
    from tokenmem.database import sqlite_files

    with _connected(database) as connection:
        done.log_is_empty = sqlite_files.truncate_log(connection)
        paths = sqlite_files.files_of(connection)
    database.store.close()  # the last connection writes the log into the file
    found = sqlite_files.found_in([path for path in paths if os.path.exists(path)], wanted)
    stored: dict[str, set[bytes]] = {}
    if found:
        with _connected(database) as connection:
            stored = sqlite_files.stored_in(connection, found, encoding)
    done.stored_elsewhere = sorted(stored)
    done.left_in_files = len(found - set[bytes]().union(*stored.values()))


def _vacuumed(database: Database) -> bool:
    from tokenmem.database import sqlite_files
    from tokenmem.errors import DatabaseUnavailable

    try:
        with _connected(database) as connection:
            sqlite_files.vacuum(connection)
    except DatabaseUnavailable as error:
        complain(str(error))
        return False
    return True


def _erase_on_server(database: Database, owner: str, vacuum: bool) -> Erasure:
    from tokenmem.database.schema import DEFAULT_SCHEMA
    from tokenmem.operations.several import CHILDREN

    tables = (*CHILDREN, "conversations", "usage_kept")
    names = [f"{database.schema or DEFAULT_SCHEMA}.{table}" for table in tables]
    done = Erasure(owner, statements=[f"VACUUM (FULL, ANALYZE) {name};" for name in names])
    done.conversations = database.store.delete_owner(owner)
    if vacuum:
        with _connected(database) as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            for statement in done.statements:
                connection.exec_driver_sql(statement)
        done.vacuumed, done.statements = True, []
    return done


@contextmanager
def _connected(database: Database) -> Iterator[sa.Connection]:
    from tokenmem.database.driver_errors import translated_errors

    with translated_errors(database.engine.url), database.engine.connect() as connection:
        yield connection
