"""`tokenmem import` and `export`: between JSON Lines and a database."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tokenmem.cli.group import FAILED
from tokenmem.cli.options import DEFAULT_URL, Json, Owner, Schema, Url, opened
from tokenmem.cli.output import plural, print_json


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("import", epilog="Example: tokenmem import logs.jsonl more.jsonl.gz")(import_files)
    app.command(epilog="Example: tokenmem export --owner ada --output ada.jsonl")(export)


def import_files(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="JSON Lines, gzipped or not; - is stdin.")
    ],
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    counter: Annotated[
        str | None,
        typer.Option("--counter", metavar="NAME", help="Their token counter: an encoding or a model."),
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="The owner of lines that name none.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import conversations from JSON Lines.

    A line is {"id": ..., "messages": [OpenAI chat messages]}. It may also have owner, title, token_counter,
    metadata, pinned (the numbers of pinned messages, from 1), times (one a message) and message_metadata;
    other keys are kept in the metadata. What export has written comes back whole.
    Importing again stores nothing twice, so that an interrupted import is gone on with by repeating it.
    Where an id is taken by other messages, the line is stored under a second id, made of the first and the
    messages' digest. Exit code 1 if any line could not be stored.
    """
    from tokenmem.arguments import optional_name
    from tokenmem.cli.importing import Importer

    optional_name(owner, "--owner")
    with opened(url, schema, counter=counter) as database:
        database.store.conversations(limit=1)  # a database without tables is told once, not at every line
        importer = Importer(database.store, owner, counter)
        for name in files:
            importer.import_file(name)
    tally = importer.tally
    if as_json:
        print_json(tally.record())
    else:
        print(tally.summary())
    if tally.bad_lines:
        raise typer.Exit(FAILED)


def export(
    conversation_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="These conversations instead of all.")
    ] = None,
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    owner: Owner = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", metavar="FILE", help="Where to; gzipped if it ends in .gz. Default: stdout."
        ),
    ] = None,
) -> None:
    """Write conversations as JSON Lines.

    With times, metadata, versions and model calls; archived and empty conversations too. `tokenmem import`
    reads them. A file is written beside its place and moved there when it is complete.
    """
    from tokenmem.cli.exporting import destination, write_conversations

    with opened(url, schema) as database:
        store = database.store if owner is None else database.store.for_owner(owner)
        store.conversations(limit=1)  # before anything is written
        with destination(output) as write:
            conversations, messages = write_conversations(store, conversation_ids or [], write)
    counted = f"{plural(conversations, 'conversation')}, {plural(messages, 'message')}"
    print(f"exported {counted}", file=sys.stderr)
