"""The values that go in and come out: frozen, with no connection behind them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
StartOn = Literal["message", "step", "turn"]
JSONObject = dict[str, Any]
PARTIAL = "tokenmem_partial"
"""The key in a payload that marks a reply which was cut off, so that only its part is stored. Never sent.

Its value is what had arrived besides the text: the beginnings of tool calls, where there are any.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks: system, developer, user, assistant, tool or function.
        content: the text that a person reads; None where the message has no text.
        kind: message, tool_call, tool_result, reasoning or other.
        payload: the provider's message where role and text alone cannot rebuild it, else None. A text
            content is left out of it: that is `content`.
        pinned: a pinned message is part of every window.
        position: its place in the conversation, from 1; 0 while it is not stored.
        token_count: its cost in tokens by the conversation's counter; 0 while it is not stored.
        created_at: when the database stored it, in UTC; None while it is not stored.
    """

    role: str
    content: str | None = None
    kind: str = "message"
    payload: JSONObject | None = None
    pinned: bool = False
    position: int = 0
    token_count: int = 0
    created_at: datetime | None = None

    @classmethod
    def system(cls, content: str, *, pinned: bool = False) -> Message:
        """Instructions to the model."""
        return cls("system", content, pinned=pinned)

    @classmethod
    def user(cls, content: str | Sequence[JSONObject], *, pinned: bool = False) -> Message:
        """What the user says: text, or parts (text, image_url, input_audio, file) as OpenAI defines them."""
        if isinstance(content, str):
            return cls("user", content, pinned=pinned)
        parts = list(content)
        return cls("user", text_of_parts(parts), payload={"role": "user", "content": parts}, pinned=pinned)

    @classmethod
    def assistant(
        cls, content: str | None = None, *, tool_calls: Sequence[Mapping[str, Any]] | None = None
    ) -> Message:
        """What the model says, and the tools that it calls, as OpenAI's `tool_calls` list."""
        if not tool_calls:
            return cls("assistant", content, payload=_null_content("assistant", content))
        payload = (_null_content("assistant", content) or {"role": "assistant"}) | {
            "tool_calls": [dict(call) for call in tool_calls]
        }
        return cls("assistant", content, kind="tool_call", payload=payload)

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str) -> Message:
        """The result of the tool call with this id."""
        payload = {"role": "tool", "tool_call_id": tool_call_id}
        return cls("tool", content, kind="tool_result", payload=payload)

    @property
    def partial(self) -> bool:
        """Whether this is the part that had arrived of a reply that was cut off."""
        return self.payload is not None and PARTIAL in self.payload

    def to_openai(self) -> JSONObject:
        """The provider's message, equal to the one that went in; the caller may change it."""
        return provider_message(self.role, self.content, copy.deepcopy(self.payload))


class MessageFields:
    """A Message while it is being made: a frozen class's own __init__ takes six times as long."""

    __slots__ = Message.__slots__
    role: str
    content: str | None
    kind: str
    payload: JSONObject | None
    pinned: bool
    position: int
    token_count: int
    created_at: datetime | None


def plain_message(role: str, content: str) -> Message:
    """Message(role, content), on the path that a million messages take."""
    made: Any = MessageFields()
    made.role = role
    made.content = content
    made.kind = "message"
    made.payload = made.created_at = None
    made.pinned = False
    made.position = made.token_count = 0
    made.__class__ = Message
    message: Message = made
    return message


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


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append stored.

    Attributes:
        first_position: the position of its first message.
        last_position: the position of its last message.
        token_count: what its messages cost together, in tokens; where replayed, what they cost by now.
        total_tokens: the conversation's running total behind them, in tokens.
        replayed: True where the idempotency key was known and nothing was stored again.
    """

    first_position: int
    last_position: int
    token_count: int
    total_tokens: int
    replayed: bool = False


class MessageRows(Protocol):
    """Rows of messages as the database gave them."""

    def messages(self) -> list[Message]:
        """The messages."""

    def to_openai(self) -> list[JSONObject]:
        """The messages as OpenAI's chat API takes them."""

    def plain(self) -> list[JSONObject] | None:
        """The same where each is a role and a text alone; None where one is more, or says nothing."""


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

    def to_openai(self) -> list[JSONObject]:
        """The messages as OpenAI's chat API takes them."""
        rows: MessageRows | None = self.__dict__.get("_rows")
        return rows.to_openai() if rows else [message.to_openai() for message in self.messages]

    def plain(self) -> list[JSONObject] | None:
        """As `to_openai`, where each message is a role and a text alone and no reply is empty; else None."""
        rows: MessageRows | None = self.__dict__.get("_rows")
        return rows.plain() if rows else None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Called for what is not there: messages that nobody has looked at yet."""
            if name != "messages" or "_rows" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name)
            messages = tuple(self.__dict__["_rows"].messages())
            self.__dict__["messages"] = messages
            return messages


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for.

    Attributes:
        id: what its result must name.
        name: the tool's name.
        arguments: JSON text as the model wrote it; a custom tool's input is any text.
        custom: whether it is a custom tool's.
    """

    id: str
    name: str
    arguments: str
    custom: bool = False


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
        status: ok, error or cancelled. A call that runs, or whose process died, is cancelled until it ends.
        error: what went wrong, in a few words without the conversation's text.
        request_id: the provider's id of the request.
        created_at: when it began, in UTC.
        running: whether it still runs, by its process's last sign of life; as `Store.calls` found it.
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


@dataclass(frozen=True, slots=True)
class Problem:
    """A place where a database breaks one of the invariants that `verify` checks.

    Attributes:
        conversation_id: the conversation.
        position: the message, or None where the conversation's own row is wrong.
        detail: what should be and what is, in numbers.
    """

    conversation_id: str
    position: int | None
    detail: str


def provider_message(role: str, content: str | None, payload: JSONObject | None) -> JSONObject:
    """The provider's message, equal to the one that went in; the payload becomes part of it."""
    if payload is None:
        return {"role": role, "content": content}
    payload.pop(PARTIAL, None)
    if content is None or "content" in payload:
        return payload
    if "role" in payload:
        return {"role": payload.pop("role"), "content": content, **payload}
    if "output" not in payload and str(payload.get("type")).endswith("_output"):
        payload["output"] = content  # an item of the Responses API
    return payload


def text_of_parts(parts: Sequence[Any]) -> str | None:
    """The text among a message's content parts, joined by newlines; None where there is none."""
    texts = [part if isinstance(part, str) else part.get("text") for part in parts]
    found = [text for text in texts if isinstance(text, str)]
    return "\n".join(found) if found else None


def _null_content(role: str, content: str | None) -> JSONObject | None:
    return {"role": role, "content": None} if content is None else None
