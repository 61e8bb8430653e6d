"""`tokenmem ls`, `show` and `window`: what is stored, and what a model would get of it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from tokenmem.cli.options import DEFAULT_URL, ConversationId, Json, Owner, Schema, Url, opened
from tokenmem.cli.output import Column, page_of, plural, print_json, print_table, say_more
from tokenmem.messages.text import readable_text

if TYPE_CHECKING:
    from tokenmem.edges import StartOn
    from tokenmem.messages.message import Message
    from tokenmem.messages.values import JSONObject
    from tokenmem.models import Conversation, Window

CONVERSATION_COLUMNS = [
    Column("id", wide=True),
    Column("owner"),
    Column("title", wide=True),
    Column("messages", number=True),
    Column("tokens", number=True),
    Column("updated"),
]
MESSAGE_COLUMNS = [
    Column("position", number=True),
    Column("role"),
    Column("kind"),
    Column("tokens", number=True),
    Column("time"),
    Column("text", wide=True),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("ls", epilog="Example: tokenmem ls --owner ada --limit 20")(list_conversations)
    app.command("show", epilog="Example: tokenmem show c1 --newest --limit 10")(show)
    app.command("window", epilog="Example: tokenmem window c1 --limit 4000 --start-on turn")(window)


def list_conversations(
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    owner: Owner = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    after: Annotated[str | None, typer.Option("--after", metavar="ID", help="From behind this id.")] = None,
    recent: Annotated[bool, typer.Option("--recent", help="Those first that changed last.")] = False,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="CURSOR", help="With --recent: from behind this place."),
    ] = None,
    archived: Annotated[bool, typer.Option("--archived", help="The archived ones instead.")] = False,
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="TEXT", help="Only ids that begin so.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List conversations, in the order of their ids.

    Archived ones are hidden.
    """
    with opened(url, schema) as database:
        found = database.store.conversations(
            owner=owner,
            order="recent" if recent else "id",
            after=after,
            before=before,
            prefix=prefix,
            archived=archived,
            limit=limit + 1,
        )
    page = found[:limit]
    if as_json:
        print_json([conversation_record(conversation) for conversation in page])
    else:
        print_table(
            CONVERSATION_COLUMNS,
            (
                (each.id, each.owner, each.title, each.message_count, each.total_tokens, each.updated_at)
                for each in page
            ),
        )
    if len(found) > limit:
        last = page[-1]
        say_more(f"--before {last.cursor}" if recent else f"--after {shlex.quote(last.id)}")


def show(
    conversation_id: ConversationId,
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many messages.")] = 50,
    after: Annotated[int, typer.Option("--after", metavar="POSITION", help="From behind this position.")] = 0,
    newest: Annotated[bool, typer.Option("--newest", help="The newest ones instead of the oldest.")] = False,
    as_json: Json = False,
) -> None:
    """Show a conversation's messages."""
    with opened(url, schema) as database:
        found = database.store.messages(conversation_id, after=after, limit=limit + 1, newest_first=newest)
    page, has_more = page_of(found, limit, newest=newest)
    if as_json:
        print_json([message_record(message) for message in page])
    else:
        print_messages(page)
    if has_more:
        say_more(f"--limit {limit * 10}" if newest else f"--after {page[-1].position}")


def window(
    conversation_id: ConversationId,
    limit: Annotated[int, typer.Option("--limit", metavar="TOKENS", help="The token limit.")],
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    start_on: Annotated[
        str, typer.Option("--start-on", metavar="message|step|turn", help="Where it may start.")
    ] = "step",
    stride: Annotated[
        int | None,
        typer.Option("--stride", metavar="TOKENS", help="Move its start in steps of so many tokens."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a model would get of it within a token limit."""
    start = checked_start(start_on)
    with opened(url, schema) as database:
        found = database.store.window(conversation_id, limit, start, stride)
    if as_json:
        print_json(window_record(conversation_id, found))
        return
    print_messages(found.messages)
    print(f"\n{describe(found)}")


def checked_start(value: str) -> StartOn:
    """One of the places where a window may start.

    Raises:
        BadParameter: it is none of them.
    """
    from typing import cast

    from tokenmem.arguments import STARTS

    if value not in STARTS:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(STARTS)}", param_hint="--start-on")
    return cast("StartOn", value)


def describe(window: Window) -> str:
    """What a window holds and what it leaves out, in one line."""
    share = window.token_count / window.token_limit if window.token_limit else 0.0
    places = f", positions {window.first_position} to {window.last_position}" if window.last_position else ""
    pinned = sum(1 for message in window.messages if message.pinned)
    return (
        f"{plural(len(window.messages), 'message')}{places}{f', {pinned} pinned' if pinned else ''}: "
        f"{window.token_count:,} of {window.token_limit:,} tokens ({share:.0%}); "
        f"{plural(window.omitted, 'message')} left out"
    )


def print_messages(messages: Iterable[Message]) -> None:
    """A table of messages."""
    print_table(
        MESSAGE_COLUMNS,
        (
            (
                message.position,
                message.role,
                "pinned" if message.pinned else message.kind,
                message.token_count,
                message.created_at,
                readable_text(message),
            )
            for message in messages
        ),
    )


def conversation_record(conversation: Conversation) -> JSONObject:
    """A conversation as JSON."""
    return {
        "id": conversation.id,
        "owner": conversation.owner,
        "title": conversation.title,
        "metadata": conversation.metadata,
        "token_counter": conversation.token_counter,
        "message_count": conversation.message_count,
        "last_position": conversation.last_position,
        "total_tokens": conversation.total_tokens,
        "created_at": conversation.created_at,
        "updated_at": conversation.updated_at,
    }


def message_record(message: Message) -> JSONObject:
    """A stored message as JSON, the provider's message inside it as it went in."""
    return {
        "position": message.position,
        "kind": message.kind,
        "token_count": message.token_count,
        "pinned": message.pinned,
        "created_at": message.created_at,
        "message": message.to_openai(),
    }


def window_record(conversation_id: str, window: Window) -> JSONObject:
    """A window as JSON."""
    return {
        "conversation_id": conversation_id,
        "token_limit": window.token_limit,
        "token_count": window.token_count,
        "first_position": window.first_position,
        "last_position": window.last_position,
        "omitted": window.omitted,
        "messages": [message_record(message) for message in window.messages],
    }
