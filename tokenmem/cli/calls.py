"""`tokenmem calls`: what models were asked in a conversation, what it cost, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tokenmem.cli.options import DEFAULT_URL, ConversationId, Json, Schema, Url, opened
from tokenmem.cli.output import (
    Column,
    cell_text,
    is_terminal,
    page_of,
    plural,
    print_json,
    print_table,
    say_more,
)

if TYPE_CHECKING:
    from tokenmem.messages.values import JSONObject
    from tokenmem.models import LLMCall

COLUMNS = [
    Column("call", number=True),
    Column("time"),
    Column("model"),
    Column("status"),
    Column("window"),
    Column("counted", number=True),
    Column("billed", number=True),
    Column("off", number=True),
    Column("cached", number=True),
    Column("share", number=True),
    Column("output", number=True),
    Column("reasoning", number=True),
    Column("ms", number=True),
    Column("first ms", number=True),
    Column("finish"),
    Column("error"),
    Column("request"),
]
STACKED_COLUMNS = [
    Column("call", number=True),
    Column("status\nfinish"),
    Column("window\ncounted\nbilled\noff", number=True),
    Column("cached\nshare", number=True),
    Column("output\nreasoning", number=True),
    Column("ms\nfirst", number=True),
    Column("time\nmodel\nerror\nrequest", wide=True),
]
"""The columns one above the other: a terminal is not as wide as seventeen columns."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: tokenmem calls c1 --newest --limit 10")(calls)


def calls(
    conversation_id: ConversationId,
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many calls.")] = 50,
    after: Annotated[int, typer.Option("--after", metavar="NUMBER", help="From behind this call.")] = 0,
    newest: Annotated[bool, typer.Option("--newest", help="The newest ones instead of the oldest.")] = False,
    as_json: Json = False,
) -> None:
    """Show a conversation's model calls.

    What each saw, our count of its prompt against the provider's bill (off: by how much ours is above it),
    what came from the provider's cache, the reply's tokens and times, and how it ended.
    """
    with opened(url, schema) as database:
        found = database.store.calls(conversation_id, after=after, limit=limit + 1, newest_first=newest)
    page, has_more = page_of(found, limit, newest=newest)
    if as_json:
        print_json([call_record(call) for call in page])
    else:
        print_calls(page)
        print(f"\n{describe(page, 'shown' if has_more else '')}")
    if has_more:
        say_more(f"--limit {limit * 10}" if newest else f"--after {page[-1].number}")


def call_record(call: LLMCall) -> JSONObject:
    """A call as JSON."""
    return asdict(call)


def print_calls(calls: Sequence[LLMCall]) -> None:
    """A table of calls: what belongs together is stacked for people, and apart in a pipe."""
    if is_terminal():
        print_table(STACKED_COLUMNS, (_stacked(call) for call in calls))
    else:
        print_table(COLUMNS, (_row(call) for call in calls))


def _row(call: LLMCall) -> list[object]:
    return [
        call.number,
        call.created_at,
        call.model,
        standing(call),
        _window(call),
        call.window_tokens,
        call.input_tokens,
        difference(call),
        call.cached_tokens,
        cached_share(call.cached_tokens, call.input_tokens),
        call.output_tokens,
        call.reasoning_tokens,
        call.latency_ms,
        call.first_token_ms,
        call.finish_reason,
        call.error,
        call.request_id,
    ]


def _stacked(call: LLMCall) -> list[object]:
    share = cached_share(call.cached_tokens, call.input_tokens)
    told = [each for each in (call.error, call.request_id) if each]
    return [
        call.number,
        _above(standing(call), call.finish_reason),
        _above(_window(call), call.window_tokens, call.input_tokens, difference(call), ""),
        _above(call.cached_tokens, share),
        _above(call.output_tokens, call.reasoning_tokens),
        _above(call.latency_ms, call.first_token_ms),
        _above(call.created_at, call.model, *told, ""),  # a line below what is longest parts the calls
    ]


def _above(*cells: object) -> str:
    """Cells one above the other; an empty one keeps its place."""
    return "\n".join(cell_text(cell) for cell in cells)


def _window(call: LLMCall) -> str | None:
    return None if call.first_position is None else f"{call.first_position}-{call.last_position}"


def standing(call: LLMCall) -> str:
    """How a call ended, or that it has not."""
    from tokenmem.operations.calls import DIED, UNFINISHED

    if call.running:
        return "running"
    return "died" if call.error in (DIED, UNFINISHED) else call.status


def difference(call: LLMCall) -> str | None:
    """By how much our count is above the provider's, in percent of the provider's."""
    if call.window_tokens is None or not call.input_tokens:
        return None
    return f"{(call.window_tokens - call.input_tokens) / call.input_tokens:+.1%}"


def cached_share(cached: int | None, billed: int | None) -> str | None:
    """How much of a prompt came from the provider's cache."""
    return None if cached is None or not billed else f"{cached / billed:.0%}"


def describe(calls: Sequence[LLMCall], which: str = "") -> str:
    """What calls cost together, in one line."""
    billed, cached, output = (
        sum(getattr(call, name) or 0 for call in calls)
        for name in ("input_tokens", "cached_tokens", "output_tokens")
    )
    share = cached_share(cached, billed)
    unbilled = sum(1 for call in calls if call.input_tokens is None)
    return (
        f"{plural(len(calls), 'call')}{f' {which}' if which else ''}: {plural(billed, 'input token')}, "
        f"{cached:,} of them cached{f' ({share})' if share else ''}; {plural(output, 'output token')}"
        f"{f'; {unbilled:,} without a bill' if unbilled else ''}"
    )
