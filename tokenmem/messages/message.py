"""Message: its role, kind, text and payload, and the one way back to the provider's message."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

from tokenmem.errors import InvalidMessage
from tokenmem.messages.unstorable import ESCAPED, scrubbed, unescaped
from tokenmem.messages.values import JSONObject, JSONValue

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
ROLES: tuple[str, ...] = get_args(Role)
"""Who can speak."""

KINDS = ("message", "tool_call", "tool_result", "reasoning", "other")
"""What a message can be."""

PARTIAL = "tokenmem_partial"
"""The key in a payload that marks a reply which was cut off, so that only its part is stored. Never sent.

Its value is what had arrived besides the text: the beginnings of tool calls, where there are any.
"""
OPAQUE = "tokenmem_opaque"
"""The key in a payload that holds the data of an opaque item (`Message.opaque`). Never sent."""

RAW = "tokenmem_reply"
"""The key in a payload that holds a model's reply as it came, where no message has its form. Never sent."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: who speaks: system, developer, user, assistant, tool or function.
        content: the text that a person reads; None where the message has no text. Where the message holds
            characters that no database does, and was appended with unstorable="escape", it is escaped.
        kind: message, tool_call, tool_result, reasoning or other.
        payload: the provider's message where role and text alone cannot rebuild it, else None. A text
            content is left out of it: that is `content`.
        pinned: a pinned message is part of every window.
        position: its place in the conversation, from 1; 0 while it is not stored.
        token_count: its cost in tokens by the conversation's counter; 0 while it is not stored.
        created_at: when it was said, in UTC: a time that came in with it, else when the database stored it;
            None while it is not stored.
        metadata: whatever JSON object the application keeps beside it: never counted, never sent; or None.
    """

    role: str
    content: str | None = None
    kind: str = "message"
    payload: JSONObject | None = None
    pinned: bool = False
    position: int = 0
    token_count: int = 0
    created_at: datetime | None = None
    metadata: JSONObject | None = None

    @classmethod
    def system(cls, content: str, *, pinned: bool = False, metadata: JSONObject | None = None) -> Message:
        """Instructions to the model."""
        return cls("system", content, pinned=pinned, metadata=metadata)

    @classmethod
    def user(
        cls,
        content: str | Sequence[JSONObject],
        *,
        pinned: bool = False,
        metadata: JSONObject | None = None,
    ) -> Message:
        """What the user says: text, or parts (text, image_url, input_audio, file) as OpenAI defines them."""
        if isinstance(content, str):
            return cls("user", content, pinned=pinned, metadata=metadata)
        parts = list(content)
        payload = {"role": "user", "content": parts}
        return cls("user", text_of_parts(parts), payload=payload, pinned=pinned, metadata=metadata)

    @classmethod
    def assistant(
        cls,
        content: str | None = None,
        *,
        tool_calls: Sequence[Mapping[str, object]] | None = None,
        metadata: JSONObject | None = None,
    ) -> Message:
        """What the model says, and the tools that it calls, as OpenAI's `tool_calls` list."""
        if not tool_calls:
            payload = _null_content("assistant", content)
            return cls("assistant", content, payload=payload, metadata=metadata)
        payload = (_null_content("assistant", content) or {"role": "assistant"}) | {
            "tool_calls": [dict(call) for call in tool_calls]
        }
        return cls("assistant", content, kind="tool_call", payload=payload, metadata=metadata)

    @classmethod
    def tool(cls, content: str, *, tool_call_id: str, metadata: JSONObject | None = None) -> Message:
        """The result of the tool call with this id."""
        payload = {"role": "tool", "tool_call_id": tool_call_id}
        return cls("tool", content, kind="tool_result", payload=payload, metadata=metadata)

    @classmethod
    def opaque(
        cls,
        data: JSONValue,
        text: str | None = None,
        *,
        role: str = "assistant",
        metadata: JSONObject | None = None,
    ) -> Message:
        """Something that no API of OpenAI's has a form for: an event or an item of a framework's own.

        It is counted, and sent by a Chat, as its text; without one it costs nothing, and is not sent. `data`
        gives the item back.

        Args:
            data: any JSON value; None too.
            text: what a person reads in its place.
            role: whose text that is: system, developer, user or assistant.
            metadata: see Message.
        """
        return cls(role, text or None, kind="other", payload={OPAQUE: data}, metadata=metadata)

    @property
    def data(self) -> JSONValue:
        """What was given to `opaque`, equal, for the caller to change; None of any other message."""
        if not is_opaque(self):
            return None
        payload = copy.deepcopy(self.payload) or {}
        return unescaped(payload[OPAQUE]) if ESCAPED in payload else payload[OPAQUE]

    @property
    def partial(self) -> bool:
        """Whether this is the part that had arrived of a reply that was cut off."""
        return self.payload is not None and PARTIAL in self.payload

    def to_openai(self) -> JSONObject:
        """The provider's message, equal to the one that went in; the caller may change it.

        For an opaque item, which has no such form, a message of its role and its text, "" where it has none.
        """
        return provider_message(self.role, self.content, copy.deepcopy(self.payload))


class MessageWithoutPayload(Message):
    """A message that was read without its payload, which it has: good for a list, not for a model."""

    __slots__ = ()

    @property
    def partial(self) -> bool:
        """Only the payload would tell. Raises InvalidMessage."""
        raise self._incomplete()

    def to_openai(self) -> JSONObject:
        """Only the payload would tell. Raises InvalidMessage."""
        raise self._incomplete()

    def _incomplete(self) -> InvalidMessage:
        return InvalidMessage(
            f"message {self.position} was read without its payload; read it with payload=True"
        )


MARKS = (PARTIAL, OPAQUE, RAW, ESCAPED)
"""The keys in a payload that are ours, and in no provider's message."""


def marks_of(message: Message) -> JSONObject:
    """What of a message's payload is ours, and in no provider's message."""
    payload = message.payload
    return {mark: payload[mark] for mark in MARKS if mark in payload} if payload else {}


def is_opaque(message: Message) -> bool:
    """Whether it is an item that no API has a form for."""
    return message.kind == "other" and message.payload is not None and OPAQUE in message.payload


def is_escaped(message: Message) -> bool:
    """Whether its texts are escaped, as `messages.unstorable` says."""
    return message.payload is not None and ESCAPED in message.payload


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
    metadata: JSONObject | None


def plain_message(role: str, content: str) -> Message:
    """Message(role, content), on the path that a million messages take."""
    made: Any = MessageFields()
    made.role = role
    made.content = content
    made.kind = "message"
    made.payload = made.created_at = made.metadata = None
    made.pinned = False
    made.position = made.token_count = 0
    made.__class__ = Message
    message: Message = made
    return message


def provider_message(role: str, content: str | None, payload: JSONObject | None) -> JSONObject:
    """The provider's message, equal to the one that went in; the payload becomes part of it.

    It is the way back from `split_message`.
    """
    if payload is None:
        return {"role": role, "content": content}
    if payload.pop(ESCAPED, None) is not None:
        content, payload = unescaped(content), unescaped(payload)
    return stored_form(role, content, payload)


def stored_form(role: str, content: str | None, payload: JSONObject) -> JSONObject:
    """The provider's message with its texts as they are stored, without our marks; it takes the payload."""
    payload.pop(ESCAPED, None)
    payload.pop(PARTIAL, None)
    payload.pop(RAW, None)
    if OPAQUE in payload:
        return {"role": role, "content": content or ""}
    if content is None or "content" in payload:
        return payload
    if "role" in payload:
        return {"role": payload.pop("role"), "content": content, **payload}
    if "output" not in payload and _is_output(payload):
        payload["output"] = content
    return payload


def is_role_and_content(message: Message) -> bool:
    """Whether its role and its content are all of the provider's message, as of most."""
    return message.payload is None


def is_text_alone(message: Message) -> bool:
    """Whether it is a message that says a text and nothing else: no parts, no calls, no reasoning."""
    if message.kind != "message":
        return False
    return message.payload is None or not isinstance(message.payload.get("content"), list)


def provider_fields(message: Message) -> Mapping[str, object]:
    """The provider's message as `to_openai()` gives it, its values shared with the payload: for reading only.

    A payload that is no object, as only a Message made by hand can have, is its content.
    """
    payload: object = message.payload
    if payload is None:
        return {"role": message.role, "content": message.content}
    if not isinstance(payload, dict):
        return {"role": message.role, "content": payload}
    if message.content is None and payload.keys().isdisjoint(MARKS):  # nothing to join
        return payload
    return provider_message(message.role, message.content, dict(payload))


def split_message(given: JSONObject) -> tuple[str | None, JSONObject | None]:
    """The text that a person reads of a provider's message, and the payload; `provider_message` joins them.

    A text that stands in the message as a whole is left out of the payload.
    """
    has_role = "role" in given
    names = ("content",) if has_role else ("output", "summary")
    text = given.get(names[0])
    if isinstance(text, str) and (has_role or ("call_id" in given and _is_output(given))):
        if not has_role and "content" in given:  # the way back could not tell whether `output` was left out
            return text, given
        rest = {key: value for key, value in given.items() if key != names[0]}
        return text, (None if rest.keys() == {"role"} else rest)
    for name in names:
        parts = given.get(name)
        if isinstance(parts, list) and all(isinstance(part, (dict, str)) for part in parts):
            return text_of_parts(parts), given
    return None, given


def _is_output(item: JSONObject) -> bool:
    """Whether it is an item of the Responses API that holds what a tool returned."""
    return str(item.get("type")).endswith("_output")


def as_sent(message: Message) -> Message:
    """The message with U+FFFD where it holds what no database does: not every client can send that either."""
    if not is_escaped(message):
        return message
    payload = scrubbed(
        unescaped({key: value for key, value in (message.payload or {}).items() if key != ESCAPED})
    )
    return replace(message, content=scrubbed(unescaped(message.content)), payload=payload)


def with_text(message: Message, text: str) -> Message:
    """The message with this text in place of all that its content or output holds."""
    payload = message.payload
    if payload is not None:
        payload = {key: value for key, value in payload.items() if key not in ("content", "output")}
    return replace(message, content=text, payload=payload)


def marked(message: Message, marks: JSONObject) -> Message:
    """The message with marks of ours in its payload."""
    payload = message.payload or {"role": message.role}
    return replace(message, payload={**payload, **marks})


def marked_partial(message: Message, rest: JSONObject | None = None) -> Message:
    """The message with the mark of a reply that was cut off.

    Args:
        message: what had arrived and can be sent again.
        rest: what had arrived besides: the beginnings of tool calls.
    """
    return marked(message, {PARTIAL: rest or True})


def is_text_part(part: object) -> bool:
    """Whether a content part is a text, in the form of either API."""
    if not isinstance(part, Mapping) or part.get("type") not in ("text", "input_text", "output_text"):
        return False
    return isinstance(part.get("text"), str)


def text_of_parts(parts: Sequence[object]) -> str | None:
    """The text among a message's content parts, joined by newlines; None where there is none."""
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    found = [text for text in texts if isinstance(text, str)]
    return "\n".join(found) if found else None


def _null_content(role: str, content: str | None) -> JSONObject | None:
    return {"role": role, "content": None} if content is None else None


def plain_form(message: Message) -> JSONObject | None:
    """The provider's message where it is a role and a text alone; None where it is more, or says nothing."""
    if message.payload is not None or message.kind != "message":
        return None
    if message.role == "assistant" and not message.content:
        return None
    return {"role": message.role, "content": message.content}
