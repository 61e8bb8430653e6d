"""The values that come out beside messages: frozen, with no connection behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from tokenmem.cursors import Cursor
from tokenmem.messages.calls import ToolCall
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, JSONValue


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, without its messages.

    Attributes:
        id: the application's own id, 1 to 255 characters.
        owner: the user or tenant that it belongs to, or None.
        title: a name for people, or None.
        metadata: whatever JSON object the application keeps with it.
        token_counter: the name of the counter that produced every count in it.
        last_position: the highest position ever given; 0 before the first message.
        message_count: how many messages it holds.
        total_tokens: the running total behind its newest message, in tokens, counted since its first.
        created_at: when it was created, in UTC.
        updated_at: when it last changed, in UTC.
        parent_id: the conversation that it was forked from, or None.
        forked_at: the last position that it has in common with that one.
        archived_at: when it was put away from the lists, in UTC; None where it was not.
        keep: whether it is exempt from purges.
    """

    id: str
    owner: str | None
    title: str | None
    metadata: JSONObject
    token_counter: str
    last_position: int
    message_count: int
    total_tokens: int
    created_at: datetime
    updated_at: datetime
    parent_id: str | None = None
    forked_at: int | None = None
    archived_at: datetime | None = None
    keep: bool = False

    @property
    def cursor(self) -> str:
        """Where it stands in the lists by recency, in letters that URLs take as they are.

        As `before` of `conversations(order="recent")` it begins the page behind this conversation, as it was
        when it was read: in the archive's list where it was archived then.
        """
        archived = self.archived_at is not None
        return Cursor(self.archived_at or self.updated_at, self.id, archived).render()


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append stored.

    Attributes:
        first_position: the position of the first message that it stored, or, where replayed, had stored.
        last_position: the position of the last one.
        token_count: what these cost together, in tokens; where replayed, what they cost by now.
        total_tokens: the conversation's running total, in tokens.
        replayed: True where the idempotency key, or every one of the keys, was known and nothing was stored.
    """

    first_position: int
    last_position: int
    token_count: int
    total_tokens: int
    replayed: bool = False
    _positions: tuple[int, ...] = field(default=(), repr=False)

    @property
    def positions(self) -> tuple[int, ...]:
        """Where each of the messages stands, in the order in which they were given."""
        return self._positions or tuple(range(self.first_position, self.last_position + 1))


class MessageRows(Protocol):
    """Rows of messages as the database gave them."""

    def messages(self) -> list[Message]:
        """The messages."""

    def to_openai(self) -> list[JSONObject]:
        """The messages as OpenAI's chat API takes them."""

    def plain(self) -> list[JSONObject] | None:
        """The messages where each is a role and a text alone; None where one is more, or says nothing."""


@dataclass(frozen=True)
class Window:
    """The messages to send to a model: the pinned ones, then the newest that fit.

    Attributes:
        messages: what to send, in order.
        token_count: what they cost together, in tokens.
        token_limit: the limit that was asked for, in tokens.
        first_position: where the run of newest messages begins; 0 where there is none.
        last_position: where it ends; 0 where there is none.
        omitted: how many messages of the conversation are not in the window.
    """

    messages: tuple[Message, ...]
    token_count: int
    token_limit: int
    first_position: int
    last_position: int
    omitted: int

    @classmethod
    def of_rows(cls, rows: MessageRows, **others: int) -> Self:
        """A window whose `messages` are made when somebody looks at them (docs/adr/0007)."""
        window = object.__new__(cls)
        window.__dict__.update(others, _rows=rows)
        return window

    def to_openai(self) -> list[JSONValue]:
        """The messages as OpenAI's chat API takes them: dicts, each equal to the one that was stored.

        To a type checker they are anything, as what a provider sends and takes is, so that they can be passed
        to any client.
        """
        rows = rows_of(self)
        return rows.to_openai() if rows else [message.to_openai() for message in self.messages]

    def plain(self) -> list[JSONObject] | None:
        """The messages as dicts where each is a role and a text alone and no reply is empty; else None."""
        rows = rows_of(self)
        return rows.plain() if rows else None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Called for what is not there: messages that nobody has looked at yet."""
            if name != "messages" or "_rows" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)
            messages = tuple(self.__dict__["_rows"].messages())
            self.__dict__["messages"] = messages
            return messages


def rows_of(window: Window) -> MessageRows | None:
    """What a window's messages are made of; None where they were given as such."""
    found: MessageRows | None = window.__dict__.get("_rows")
    return found


def with_rows(window: Window, rows: MessageRows) -> Window:
    """A window with the same numbers, of other rows."""
    others = {name: value for name, value in window.__dict__.items() if name not in ("_rows", "messages")}
    return Window.of_rows(rows, **others)


CallStatus = Literal["ok", "error", "refused", "cancelled"]
"""How a call ended; refused: the provider did not take the request as it was."""


@dataclass(frozen=True, slots=True)
class LLMCall:
    """A call of a model: what it saw and what it cost.

    Attributes:
        conversation_id: the conversation.
        number: the call's number in it, from 1.
        model: the model that was asked.
        first_position: the first message of the window that was sent, besides the pinned ones; None where
            there was none.
        last_position: the last one.
        window_tokens: our count of the whole prompt, instructions and tools included, in tokens.
        input_tokens: the provider's count of it; None where it told none, as with all of its numbers.
        cached_tokens: how many of these came from its prompt cache.
        output_tokens: its count of the reply, reasoning included.
        reasoning_tokens: how many of these were spent on reasoning.
        reply_position: where the reply, or the part of it that arrived, is stored; None where nothing is.
        reply_messages: how many messages the reply is, from there on.
        latency_ms: from the request to the end of the reply, in milliseconds.
        first_token_ms: from the request to the first of the reply's text, in milliseconds; when streaming.
        finish_reason: why the model stopped, in the provider's word.
        status: ok, error (something broke), refused (the provider did not take the request as it was) or
            cancelled. A call that runs, or whose process died, is cancelled until it ends.
        error: what went wrong, in a few words without the conversation's text.
        request_id: the provider's id of the request.
        created_at: when it began, in UTC.
        running: whether it still runs, by its process's last sign of life; as `Store.calls` found it.
        revision: the conversation's revision that it read; None for calls of tokenmem's first tables.
        api: "chat" or "responses", "function", or the name of the class of a ModelAPI of the caller's own.
        token_limit: the limit as the caller gave it, in tokens.
        options: the request's options that are numbers, flags, None or names such as "high"; no free text.
        metadata: whatever JSON object the caller gave with the call.
        cache_write_tokens: how many of `input_tokens` the provider wrote to its prompt cache.
        pinned: the positions of the pinned messages that were sent from outside the window's positions; None
            where that is not on record.
        changes: where what was sent is not what is stored: for each such position `{"position": 3, "change":
            "left_out"}`; left_out, moved, answered (a result was put behind its call), cut, changed or joined
            (with its neighbour of the same role). And what providers have refused: refused (by a refused call
            that sent this message; others left it out for that), perhaps_refused (a refused call sent it, and
            it may be why), accepted (sent again, and taken), too_long (with `token_limit`, below which later
            windows stay) and over_half (the message costs more than half of what a window may).
    """

    conversation_id: str
    number: int
    model: str
    first_position: int | None
    last_position: int | None
    window_tokens: int | None
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    reply_position: int | None
    reply_messages: int | None
    latency_ms: int | None
    first_token_ms: int | None
    finish_reason: str | None
    status: str
    error: str | None
    request_id: str | None
    created_at: datetime
    running: bool = False
    revision: int | None = None
    api: str | None = None
    token_limit: int | None = None
    options: JSONObject | None = None
    metadata: JSONObject | None = None
    cache_write_tokens: int | None = None
    pinned: tuple[int, ...] | None = None
    changes: list[JSONObject] | None = None


@dataclass(frozen=True, slots=True)
class MessageVersion:
    """What stood at a position before an edit put something else there.

    Attributes:
        version: its number among those that stood there, from 1.
        messages: what stood there, with position and token_count, but without metadata and times.
        since_revision: the conversation's revision from which on it stood there; 0 from the beginning.
        replaced_at_revision: the conversation's revision that replaced it.
        replaced_at: when it was replaced, in UTC.
    """

    version: int
    messages: tuple[Message, ...]
    since_revision: int
    replaced_at_revision: int
    replaced_at: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, as it is stored.

    Attributes:
        text: what it says; "" where it only calls tools.
        message: its message, the one with the text where it is several.
        window: what it was sent besides instructions and tools.
        call: the record of the call.
        messages: all that it is, in order; several with the Responses API.
        tool_calls: the tools that it calls; answer them all with `send_tool_results`.
        replayed: True where the idempotency key was known and the reply is the stored one.
    """

    text: str
    message: Message
    window: Window
    call: LLMCall
    messages: tuple[Message, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    replayed: bool = False
    _parsed: Callable[[], Any] | None = field(default=None, repr=False, compare=False)

    @property
    def parsed(self) -> Any:
        """The reply as an object of the class that was given as `response_format`; always the same one.

        None where no class was given, and where the model has refused or calls tools instead.

        Raises:
            ModelError: it is no valid object of the class: it was cut off, or is other JSON, or none. The
                reply is stored all the same.
        """
        return None if self._parsed is None else self._parsed()

    @property
    def over_half(self) -> tuple[int, ...]:
        """The positions of messages that each take more than half of what a window may cost.

        They crowd out what stands before them: the reply itself may, in the next prompt.
        """
        listed = self.call.changes or ()
        return tuple(each["position"] for each in listed if each["change"] == "over_half")


@dataclass(frozen=True, slots=True)
class OpenToolCall(ToolCall):
    """A call of a tool that has no result yet.

    Attributes:
        position: of the message that makes the call.
    """

    position: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """A place where a database breaks one of the invariants that `verify` checks.

    Attributes:
        conversation_id: the conversation; "" where it is what is kept of removed ones.
        position: the message, or None where the conversation's own row is wrong.
        detail: what should be and what is, in numbers; or which column is damaged. Never what a text says.
    """

    conversation_id: str
    position: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge removed, or would remove.

    Attributes:
        conversations: conversations that went as a whole.
        messages: messages that went, theirs included.
        keys: idempotency keys that expired, by `keys_older_than`.
    """

    conversations: int
    messages: int
    keys: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What model calls cost, those of removed conversations included: one line of `Store.usage`.

    Of day, model and owner the one that was asked for is set.

    Attributes:
        day: the day on which the calls began, in UTC.
        model: the model that was asked.
        owner: the user or tenant; None also for conversations without one.
        calls: model calls.
        failed_calls: of these, those that did not end well: failed, refused, cancelled, or not ended.
        estimated_calls: of these, those without the provider's bill: their tokens are our counts.
        input_tokens: what was sent, in tokens.
        cached_tokens: of these, read from the provider's prompt cache.
        cache_write_tokens: of these, written to it.
        output_tokens: the replies, in tokens.
        reasoning_tokens: of these, spent on reasoning.
    """

    day: date | None
    model: str | None
    owner: str | None
    calls: int
    failed_calls: int
    estimated_calls: int
    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
