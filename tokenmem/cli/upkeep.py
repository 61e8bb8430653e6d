"""`tokenmem verify`, `rm`, `purge` and `recount`: looking after a database."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from tokenmem.cli.group import FAILED
from tokenmem.cli.options import DEFAULT_URL, Database, Json, Owner, Schema, Url, opened
from tokenmem.cli.output import Column, escape, plural, print_json, print_table

if TYPE_CHECKING:
    from tokenmem.models import Conversation
    from tokenmem.store import Store

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(\d{1,9})([smhdw])")
PAGE = 500
"""Conversations read at a time."""


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command(epilog="Example: tokenmem verify && echo all totals agree")(verify)
    app.command("rm", epilog="Example: tokenmem rm c1")(remove)
    app.command(epilog="Example: tokenmem purge --older-than 90d --dry-run")(purge)
    app.command(epilog="Example: tokenmem recount --all --counter gpt-4o")(recount)


def verify(url: Url = DEFAULT_URL, schema: Schema = None, as_json: Json = False) -> None:
    """Check that all stored totals agree.

    Token counts, numbers of messages and positions too. Exit code 1 where some do not.
    """
    with opened(url, schema) as database:
        problems = database.store.verify()
        checked = count_conversations(database)
    if as_json:
        listed = [{"conversation_id": p.conversation_id, "position": p.position, "detail": p.detail}
                  for p in problems]  # fmt: skip
        print_json({"conversations": checked, "problems": listed})
    elif problems:
        columns = [Column("conversation", wide=True), Column("position", number=True), Column("problem")]
        print_table(columns, ((p.conversation_id, p.position, p.detail) for p in problems))
    else:
        print(f"{plural(checked, 'conversation')} checked, no problem found")
    if problems:
        print(f"{plural(len(problems), 'problem')} in {plural(checked, 'conversation')}", file=sys.stderr)
        raise typer.Exit(FAILED)


def count_conversations(database: Database) -> int:
    """How many conversations the database holds."""
    from tokenmem.database.driver_errors import translated_errors
    from tokenmem.database.statements import Scope
    from tokenmem.operations import read

    with translated_errors(database.engine.url), database.engine.connect() as connection:
        return read.count_conversations(connection, Scope(database.schema))


def remove(
    conversation_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The conversations' ids.")],
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Remove conversations.

    All that belongs to them goes too, at once: nothing is asked.
    """
    with opened(url, schema) as database:
        for conversation_id in conversation_ids:
            database.store.delete(conversation_id)
            if not as_json:
                print(f"removed {escape(conversation_id)}")
    if as_json:
        print_json({"removed": conversation_ids})


def parse_age(text: str | None, option: str) -> timedelta | None:
    """A number with a unit: 90d, 12h, 2w; None where the option was not given.

    Raises:
        BadParameter: it is something else.
    """
    from tokenmem.arguments import LONGEST_AGE

    if text is None:
        return None
    match = _AGE.fullmatch(text.strip())
    with suppress(OverflowError):
        if match and (age := timedelta(**{_UNITS[match[2]]: int(match[1])})) <= LONGEST_AGE:
            return age
    raise typer.BadParameter(
        f"{text!r} is no age that can be; write a number and s, m, h, d or w, as in 90d", param_hint=option
    )


def purge(
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Messages that are older: 90d, 12h, 2w."),
    ] = None,
    idle_for: Annotated[
        str | None,
        typer.Option("--idle-for", metavar="AGE", help="Conversations that have not changed for so long."),
    ] = None,
    keys_older_than: Annotated[
        str | None,
        typer.Option("--keys-older-than", metavar="AGE", help="Idempotency keys that are older."),
    ] = None,
    owner: Owner = None,
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what is old.

    --older-than: of every conversation the messages before its first younger one, and conversations in which
    none is left. --idle-for: conversations as a whole. --keys-older-than: idempotency keys, alone or besides.
    """
    messages, conversations = parse_age(older_than, "--older-than"), parse_age(idle_for, "--idle-for")
    keys = parse_age(keys_older_than, "--keys-older-than")
    if messages is conversations is keys is None or not (messages is None or conversations is None):
        raise typer.BadParameter(
            "say --older-than or --idle-for, one of the two, or --keys-older-than", param_hint="--older-than"
        )
    with opened(url, schema) as database:
        purged = database.store.purge(
            older_than=messages, idle_for=conversations, keys_older_than=keys, owner=owner, dry_run=dry_run
        )
    if as_json:
        counts = {"conversations": purged.conversations, "messages": purged.messages}
        expired = {} if keys is None else {"keys": purged.keys}
        print_json(counts | expired | {"dry_run": dry_run})
        return
    told = [] if keys is None else [plural(purged.keys, "idempotency key")]
    if messages is not None or conversations is not None:
        told.insert(0, plural(purged.messages, "message"))
        told.append(f"{plural(purged.conversations, 'conversation')} as a whole")
    print(f"{'would remove' if dry_run else 'removed'} {'; '.join(told)}")


def recount(
    conversation_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="The conversation's id.", show_default=False)
    ] = None,
    *,
    counter: Annotated[
        str, typer.Option("--counter", metavar="NAME", help="A token counter: an encoding or a model.")
    ],
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    all_of_them: Annotated[
        bool, typer.Option("--all", help="Every conversation that another counter has counted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Count conversations by another counter.

    They keep it from then on. Each is done as a whole or not at all. With --all, those that this counter
    has counted already are skipped: an interrupted run goes on where it stopped.
    """
    if (conversation_id is None) == (not all_of_them):
        raise typer.BadParameter("name one conversation, or say --all", param_hint="ID")
    from tokenmem.counting.counters import counter_named

    name = counter_named(counter).name
    with opened(url, schema) as database:
        if conversation_id is not None:
            database.store.recount(conversation_id, name)
            recounted, skipped = 1, 0
        else:
            recounted, skipped = recount_all(database, name)
    if as_json:
        print_json({"counter": name, "recounted": recounted, "skipped": skipped})
    else:
        print(f"{plural(recounted, 'conversation')} recounted by {name}, {skipped:,} were so already")


def recount_all(database: Database, name: str) -> tuple[int, int]:
    """Recount what another counter has counted; how many, and how many others there are."""
    from tokenmem.cli.progress import progress
    from tokenmem.errors import ConversationNotFound

    recounted = skipped = 0
    with progress("recounting", count_conversations(database)) as report:
        for conversation in every_conversation(database.store):
            if conversation.token_counter == name:
                skipped += 1
            else:
                with suppress(ConversationNotFound):  # removed meanwhile
                    database.store.recount(conversation.id, name)
                    recounted += 1
            report(recounted + skipped, "")
    return recounted, skipped


def every_conversation(store: Store) -> Iterator[Conversation]:
    """All conversations, archived ones too, a page in memory at a time."""
    after: str | None = None
    while page := store.conversations(after=after, archived=None, limit=PAGE):
        yield from page
        after = page[-1].id
