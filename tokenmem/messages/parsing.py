"""Messages from outside: checked, and split into text for people and payload. Nothing is lost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

from tokenmem.errors import InvalidMessage
from tokenmem.messages.foreign import fields_of_object, translated
from tokenmem.messages.items import is_item_without_role, item_role_and_kind
from tokenmem.messages.message import (
    OPAQUE,
    PARTIAL,
    RAW,
    ROLES,
    Message,
    is_escaped,
    is_opaque,
    marked,
    marks_of,
    plain_message,
    split_message,
)
from tokenmem.messages.unstorable import ESCAPED, escaped, holds_unstorable, scrubbed, unescaped
from tokenmem.messages.values import JSONObject, JSONValue, check_json, checked_moment, is_plain

Unstorable = Literal["refuse", "escape"]
"""What becomes of a message with characters that databases cannot hold (`messages.unstorable`)."""


def clean(value: JSONValue, unstorable: Unstorable) -> JSONValue:
    """A provider's value with U+FFFD for what no database holds, or as it is where that is escaped later."""
    return scrubbed(value) if unstorable == "refuse" else value


class PydanticMessage(Protocol):
    """A message as the openai package returns it: a pydantic model."""

    def model_dump(self, *, mode: str, exclude_unset: bool) -> JSONObject:
        """The fields that the provider sent, as JSON values."""


MessageLike = Message | Mapping[str, object] | PydanticMessage
"""What `append` takes: a Message, an OpenAI message as a dict, or one as the openai package returns it.

An item of the Responses API is a message too: a function_call, its output, reasoning, or any other.
Messages of some other frameworks are translated (`messages.foreign`).
"""

_PLAIN_ROLES = ("user", "assistant", "system", "developer")
_RESULT_PARTS = {"tool_result"}
_CALL_PARTS = {"tool_call", "tool_use"}


def parse_messages(
    messages: Iterable[MessageLike],
    unstorable: Unstorable = "refuse",
    *,
    may_be_empty: bool = False,
    translate: bool = True,
) -> list[Message]:
    """Check messages from outside and split each into text for people and payload.

    Args:
        messages: the messages.
        unstorable: what to do about characters that databases cannot hold.
        may_be_empty: whether there need be none.
        translate: whether other frameworks' messages are translated or refused; what was stored once is not.

    Raises:
        InvalidMessage: one of them cannot be stored; the text names its place in the list and why.
    """
    if isinstance(messages, (str, bytes, Mapping, Message)) or hasattr(messages, "model_dump"):
        raise InvalidMessage(f"messages is a single {type(messages).__name__}; pass a list of messages")
    try:
        listed = list(messages)
    except TypeError:
        raise InvalidMessage(f"messages is a {type(messages).__name__}; pass a list of messages") from None
    if not listed and not may_be_empty:
        raise InvalidMessage("messages is empty; pass at least one message")
    return [
        _plain(message) or _parse(message, f"messages[{index}]", unstorable, translate=translate)
        for index, message in enumerate(listed)
    ]


def parse_message(
    message: MessageLike, unstorable: Unstorable = "refuse", *, translate: bool = True
) -> Message:
    """Check one message from outside and split it into text for people and payload.

    Raises:
        InvalidMessage: it cannot be stored; the text says why.
    """
    return _parse(message, "message", unstorable, translate=translate)


def parse_partial(message: JSONObject, rest: JSONObject, unstorable: Unstorable = "refuse") -> Message:
    """The stored form of a reply that was cut off, with the mark that says so.

    Args:
        message: the provider's message, as far as it has arrived.
        rest: what of it cannot be sent again: the beginnings of tool calls.
        unstorable: what to do about characters that databases cannot hold.
    """
    return parse_marked(message, {PARTIAL: rest or True}, unstorable)


def parse_marked(message: JSONObject, marks: JSONObject, unstorable: Unstorable = "refuse") -> Message:
    """A reply with marks of ours, each of which holds something that is never sent.

    Args:
        message: the provider's message.
        marks: what the marks hold, by their keys: JSON that can be stored.
        unstorable: what to do about characters that databases cannot hold.

    Raises:
        InvalidMessage: the message cannot be stored, or what a mark holds.
    """
    check_json(marks, "the reply", any_text=unstorable == "escape")
    if unstorable == "escape" and holds_unstorable([message, marks]):
        return _split(escaped(message), "message", {**escaped(marks), ESCAPED: True})
    return marked(parse_message(message, translate=False), marks)


def _plain(message: object) -> Message | None:
    """A role and a text with which nothing can be wrong: most messages, in a tenth of the time."""
    if type(message) is dict and message.keys() == {"role", "content"}:
        role, content = message["role"], message["content"]
    elif type(message) is Message and _is_role_and_text(message):
        role, content = message.role, message.content
    else:
        return None
    if not is_plain(role, content) or role not in _PLAIN_ROLES:
        return None
    return plain_message(role, content)


def _is_role_and_text(message: Message) -> bool:
    if message.pinned is not False or message.payload is not None:
        return False
    return message.metadata is None and message.created_at is None


def _parse(message: MessageLike, where: str, unstorable: Unstorable, *, translate: bool) -> Message:
    if isinstance(message, Message):
        return _parse_made(message, where, unstorable)
    if isinstance(message, Mapping):
        original = dict(message)
    elif hasattr(message, "model_dump"):
        original = fields_of_object(message)
    else:
        raise InvalidMessage(f"{where} is a {type(message).__name__}; pass a Message or a dict with a role")
    check_json(original, where, any_text=unstorable == "escape")
    if taken := original.keys() & {OPAQUE, RAW, ESCAPED}:
        raise InvalidMessage(
            f"{where} has the key {min(taken)!r}, which tokenmem uses for itself; use another, or a Message"
        )
    metadata = None
    if translate and (found := translated(original, where)) is not None:
        original, metadata = found.message, scrubbed(found.metadata) or None
    parsed = _storable(original, where, {}, is_to_be_escaped=unstorable == "escape")
    return parsed if metadata is None else replace(parsed, metadata=metadata)


def _parse_made(message: Message, where: str, unstorable: Unstorable) -> Message:
    """A Message, made by hand or read from a store; one that is escaped stays so."""
    escapes = unstorable == "escape" or is_escaped(message)
    _check_fields(message, where, any_text=escapes)
    created_at = checked_moment(message.created_at, f"{where}.created_at")
    original = message.to_openai()
    check_json(original, where, any_text=escapes)
    marks = marks_of(message)
    if is_escaped(message):
        marks = unescaped(marks)
    if is_opaque(message):
        original["data"], marks = message.data, {OPAQUE: None}
    elif OPAQUE in marks:
        raise InvalidMessage(f"{where} holds {OPAQUE!r} and is a {message.kind}; use Message.opaque")
    parsed = _storable(original, where, marks, is_to_be_escaped=escapes)
    given = message.content
    if is_escaped(parsed) and not is_escaped(message):
        given = escaped(given)
    if (message.role, given) != (parsed.role, parsed.content):
        raise InvalidMessage(
            f"{where}: role or content differ from the payload's; change the dict of to_openai() instead"
        )
    if message.pinned and parsed.kind != "message":
        raise InvalidMessage(f"{where} is a {parsed.kind} and pinned; only plain messages can be pinned")
    if not message.pinned and created_at is None and message.metadata is None:
        return parsed
    return replace(parsed, pinned=message.pinned, created_at=created_at, metadata=message.metadata)


def _storable(original: JSONObject, where: str, marks: JSONObject, *, is_to_be_escaped: bool) -> Message:
    """A checked message split, its texts escaped where that is asked for and needed."""
    marks = {key: value for key, value in marks.items() if key != ESCAPED}
    if is_to_be_escaped and holds_unstorable([original, marks]):
        original, marks = escaped(original), {**escaped(marks), ESCAPED: True}
    return _split(original, where, marks)


def _split(original: JSONObject, where: str, marks: JSONObject) -> Message:
    """A message that can be stored, split into text for people and payload."""
    if OPAQUE in marks:
        role, text, data = _role(original, where), original["content"], original["data"]
        if role in ("tool", "function"):
            raise InvalidMessage(f"{where} is opaque and of the role {role!r}; use user, assistant or system")
        return Message(role, text or None, kind="other", payload={**marks, OPAQUE: data})
    role, kind = _role_and_kind(original, where)
    text, payload = split_message(original)
    if marks:
        payload = {**(payload or {"role": role}), **marks}
    return Message(role, text, kind=kind, payload=payload)


def _role_and_kind(original: JSONObject, where: str) -> tuple[str, str]:
    """Check what a message says and tell its role and kind; an Enum of the caller's becomes its text."""
    if is_item_without_role(original):
        return item_role_and_kind(original, where)
    role = _role(original, where)
    if (content := _content(original, where)) is not None:
        original["content"] = content
    return role, _kind(role, original, where)


def _check_fields(message: Message, where: str, *, any_text: bool) -> None:
    """What a Message made by hand may hold although its types forbid it."""
    if not isinstance(message.pinned, bool):
        raise InvalidMessage(f"{where}: pinned is a {type(message.pinned).__name__}; use True or False")
    payload: object = message.payload
    if payload is not None and not isinstance(payload, dict):
        raise InvalidMessage(f"{where}: the payload is a {type(payload).__name__}; use a dict or None")
    check_json(payload, where, any_text=any_text)  # before it is copied
    metadata: object = message.metadata
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidMessage(f"{where}: metadata is a {type(metadata).__name__}; use a dict or None")
    check_json(metadata, f"{where}.metadata")


def _role(message: JSONObject, where: str) -> str:
    role = message.get("role")
    if role not in ROLES:
        shown = _described(role) if "role" in message else "missing"
        raise InvalidMessage(f"{where}: the role is {shown}; use one of {', '.join(ROLES)}")
    return ROLES[ROLES.index(role)]  # the text itself, where an Enum of the caller's equals it


def _described(role: object) -> str:
    """A wrong role without what it says, which may be a text in the wrong place; and one that it is like."""
    if not isinstance(role, str):
        return "None" if role is None else f"a {type(role).__name__}"
    from difflib import get_close_matches  # only for errors: to import it takes as long as to open a store

    like = get_close_matches(role.strip().lower()[:40], ROLES, n=1, cutoff=0.75)
    hint = f", much like {like[0]!r}" if like else ""
    return f"a string of {len(role):,} characters that is none{hint}"


def _content(message: JSONObject, where: str) -> object:
    content = message.get("content")
    if content is None or type(content) is str:
        return content
    if isinstance(content, str):
        return str.__str__(content)  # an Enum's text, not its name
    if not isinstance(content, list):
        raise InvalidMessage(
            f"{where}: the content is a {type(content).__name__}; use text, a list of parts, or None"
        )
    for index, part in enumerate(content):
        if not isinstance(part, (dict, str)):
            raise InvalidMessage(
                f"{where}: content[{index}] is a {type(part).__name__}; a part is a dict with a type"
            )
    return content


def _kind(role: str, message: JSONObject, where: str) -> str:
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise InvalidMessage(f"{where}: tool_calls is not a list of objects; use OpenAI's tool_calls format")
    parts = _part_types(message.get("content"))
    if role in ("tool", "function") or parts & _RESULT_PARTS:
        return "tool_result"
    if calls or message.get("function_call") or parts & _CALL_PARTS:
        return "tool_call"
    return "message"


def _part_types(content: object) -> set[str]:
    if not isinstance(content, list):
        return set()
    types = [part.get("type") for part in content if isinstance(part, dict)]
    return {name for name in types if isinstance(name, str)}


def digest(messages: Sequence[Message]) -> str:
    """SHA-256 of messages as they would be stored: tells a repeated append from another one."""
    hashed = hashlib.sha256()
    for message in messages:
        text = f"{message.role} {message.content}"
        if message.payload is not None:
            told = message.to_openai()
            if is_opaque(message):  # whose form for people is not all of it
                told[OPAQUE] = message.data
            text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        pinned, plain = int(message.pinned), int(message.payload is None)
        hashed.update(f"{pinned}{plain} {len(text)} {text}".encode())
    return hashed.hexdigest()
