"""What a model's reply is, whatever API it came by, and how its pieces become one."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self, TypedDict

from tokenmem.messages.calls import ToolCall, answered_ids, called_function, tool_calls
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import Unstorable, parse_message, parse_partial
from tokenmem.messages.unstorable import holds_unstorable, scrubbed
from tokenmem.messages.values import JSONObject, JSONValue, check_text

_WHOLE = frozenset({"id", "type", "role", "name", "format"})
"""What a stream sends whole, some servers with every piece, or empty with every later one."""


_CACHE_WRITES = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")


class Usage(TypedDict, total=False):
    """What a provider bills, in tokens; None or no key for what it does not tell.

    Attributes:
        input_tokens: the whole prompt, what came from a cache included.
        cached_tokens: how many of these came from a cache.
        output_tokens: the reply, reasoning included.
        reasoning_tokens: how many of these were spent on reasoning.
        cache_write_tokens: how many of the prompt's were written to a cache, where that is billed.
    """

    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, or the part of one that has arrived.

    Attributes:
        messages: what to store, in order; empty where nothing has arrived.
        text: what it says.
        finish_reason: why the model stopped, in the provider's word; None while it has not.
        usage: what the provider bills.
        request_id: the provider's id of the request.
        exact: the messages with their texts escaped, for a store that keeps what databases cannot hold; empty
            where there is nothing of it.
    """

    messages: Sequence[Message] = ()
    text: str = ""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    request_id: str | None = None
    exact: Sequence[Message] = ()

    def stored_by(self, unstorable: Unstorable) -> Self:
        """The answer as a store keeps it that does this about characters that databases cannot hold."""
        return replace(self, messages=self.exact) if self.exact and unstorable == "escape" else self

    @classmethod
    def of_message(
        cls,
        message: Mapping[str, object],
        *,
        finish_reason: str | None = None,
        usage: Usage | None = None,
        request_id: str | None = None,
    ) -> Self:
        """A whole reply that is one message.

        Args:
            message: as Chat Completions has it: `content`, `tool_calls`, and whatever else is to be kept.
                Characters that no database holds are replaced, and calls without an id are given one.
            finish_reason: see Answer.
            usage: see Answer.
            request_id: see Answer.

        Raises:
            InvalidMessage: it cannot be stored.
        """
        given = with_call_ids({"role": "assistant", **message})
        given["role"] = given["role"] or "assistant"
        parsed = parse_message(scrubbed(given))
        exact = [parse_message(given, "escape")] if holds_unstorable(given) else []
        return cls([parsed], parsed.content or "", finish_reason, _counts(usage), request_id, exact)

    @classmethod
    def part_of_message(
        cls,
        text: str,
        rest: Mapping[str, object] | None = None,
        *,
        usage: Usage | None = None,
        request_id: str | None = None,
    ) -> Self:
        """The part of a message that had arrived when it was cut off, with the mark that says so.

        Args:
            text: what it says so far.
            rest: what else had arrived, such as the beginnings of tool calls: kept, and not sent again.
            usage: see Answer.
            request_id: see Answer.
        """
        rest = dict(rest or {})
        if not text and not rest:
            return cls(usage=_counts(usage), request_id=request_id)
        message = {"role": "assistant", "content": text}
        stored = parse_partial(scrubbed(message), scrubbed(rest))
        exact = [parse_partial(message, rest, "escape")] if holds_unstorable([text, rest]) else []
        return cls([stored], scrubbed(text), None, _counts(usage), request_id, exact)


def is_stream(response: object) -> bool:
    """Whether a response comes in pieces."""
    return isinstance(response, (Iterator, AsyncIterator))


def plain(value: object) -> JSONValue:
    """The JSON value of what the openai package returns; a dict is one already."""
    dump = getattr(value, "to_dict", None)
    if callable(dump):
        return dump(mode="json", warnings=False)
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_unset=True) if callable(dump) else value


def request_id_of(response: object) -> str | None:
    """The provider's id of a request: of a reply, a stream or an error."""
    found = getattr(response, "_request_id", None) or getattr(response, "request_id", None)
    if found is None:
        headers = getattr(getattr(response, "response", None), "headers", None)
        found = headers.get("x-request-id") if headers is not None else None
    return found if isinstance(found, str) and storable(found) else None


def usage_of(usage: object, given: str, told: str) -> Usage:
    """The provider's counts, in tokens.

    Args:
        usage: the usage object, or None.
        given: what the API calls the prompt ("prompt" or "input").
        told: what it calls the reply ("completion" or "output").
    """
    usage = usage if isinstance(usage, Mapping) else {}
    return {
        "input_tokens": _count(usage.get(f"{given}_tokens")),
        "cached_tokens": _count(_inside(usage, f"{given}_tokens_details", "cached_tokens")),
        "cache_write_tokens": _cache_writes(usage, _details(usage, f"{given}_tokens_details")),
        "output_tokens": _count(usage.get(f"{told}_tokens")),
        "reasoning_tokens": _count(_inside(usage, f"{told}_tokens_details", "reasoning_tokens")),
    }


def _counts(usage: Usage | None) -> Usage:
    """The counts that can be stored."""
    given = usage or {}
    return {
        "input_tokens": _count(given.get("input_tokens")),
        "cached_tokens": _count(given.get("cached_tokens")),
        "cache_write_tokens": _count(given.get("cache_write_tokens")),
        "output_tokens": _count(given.get("output_tokens")),
        "reasoning_tokens": _count(given.get("reasoning_tokens")),
    }


def _details(usage: Mapping[str, object], name: str) -> Mapping[str, object]:
    details = usage.get(name)
    return details if isinstance(details, Mapping) else {}


def _inside(usage: Mapping[str, object], name: str, key: str) -> object:
    return _details(usage, name).get(key)


def _cache_writes(usage: Mapping[str, object], details: Mapping[str, object]) -> int | None:
    """OpenAI bills none; servers in front of other providers tell them by either name, in either place."""
    found = (place.get(name) for place in (details, usage) for name in _CACHE_WRITES)
    return next((count for count in map(_count, found) if count is not None), None)


def _count(value: object) -> int | None:
    """A whole number that an integer column holds."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def merge(whole: JSONObject, delta: Mapping[str, object]) -> None:
    """Add a streamed piece to what has come before it: texts grow, the rest is put in its place.

    As Chat Completions streams: lists hold objects that tell their `index`. Nothing of the piece is kept.
    """
    for key, value in delta.items():
        known = whole.get(key)
        if value is None or (value == "" and key in _WHOLE):
            whole.setdefault(key, value)
        elif isinstance(value, list):
            whole[key] = _as_list(known)
            merge_list(whole[key], value)
        elif isinstance(value, dict) and isinstance(known, dict):
            merge(known, value)
        elif isinstance(value, str) and isinstance(known, list):
            if value:
                _add_text(known, value)
        elif isinstance(value, str) and isinstance(known, str) and key not in _WHOLE:
            whole[key] = known + value
        else:
            whole[key] = copy.deepcopy(value)


def _as_list(known: object) -> list[JSONValue]:
    """What a list is added to: some servers stream content as parts and as text in turn."""
    if isinstance(known, list):
        return known
    return [{"type": "text", "text": known}] if known and isinstance(known, str) else []


def _add_text(parts: list[JSONValue], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, dict) and last.get("type") == "text" and isinstance(last.get("text"), str):
        last["text"] += text
    else:
        parts.append({"type": "text", "text": text})


def merge_list(whole: list[JSONValue], pieces: Sequence[JSONValue]) -> None:
    """Add pieces to a list; one with an index grows the item with that index."""
    for piece in pieces:
        known = _grows(whole, piece) if isinstance(piece, dict) else None
        if known is not None:
            merge(known, piece)
        elif piece is not None:
            whole.append(copy.deepcopy(piece))


def _grows(whole: Sequence[JSONValue], piece: JSONObject) -> JSONObject | None:
    """The item that a piece belongs to; None where it begins one.

    OpenAI numbers the calls of a reply. Other servers send whole calls, without a number or all with the
    same, or tell pieces by the call's id.
    """
    index, items = piece.get("index"), [item for item in whole if isinstance(item, dict)]
    if index is not None:
        same = [item for item in items if item.get("index") == index]
    elif not called_function(piece):
        return None
    elif piece.get("id"):
        same = [item for item in items if item.get("id") == piece["id"]]
    else:
        same = [] if called_function(piece).get("name") else items
    return same[-1] if same and not _is_another_call(same[-1], piece) else None


def _is_another_call(known: Mapping[str, object], piece: Mapping[str, object]) -> bool:
    """Whether a piece begins a call although an item has its number or id: it names a function once more."""
    before, now = called_function(known), called_function(piece)
    if not (before.get("name") and now.get("name")):
        return False
    if known.get("id") and piece.get("id") and known["id"] != piece["id"]:
        return True
    return bool(now.get("arguments")) and _is_json(before.get("arguments"))


def _is_json(text: JSONValue) -> bool:
    try:
        json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def with_call_ids(message: JSONObject) -> JSONObject:
    """A reply in which every call has an id of its own: without one, nothing could answer it."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        return message
    seen: set[str] = set()
    named = []
    for call in calls:
        known = call.get("id")
        if isinstance(known, str) and holds_unstorable(known):  # whoever answers it names it
            known = scrubbed(known)
            call = {**call, "id": known}
        if not isinstance(known, str) or not known or known in seen:
            call = {**call, "id": f"call_{uuid.uuid4().hex[:24]}"}
        seen.add(call["id"])
        named.append(call)
    return {**message, "tool_calls": named}


def text_in(content: object) -> str:
    """The text of a message's content, or of a piece of it."""
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def tool_calls_of(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The tools that a reply calls and that it has no results of: some, the provider answers itself."""
    answered = {call_id for message in messages for call_id in answered_ids(message)}
    return tuple(call for message in messages for call in tool_calls(message) if call.id not in answered)


def main_message(messages: Sequence[Message]) -> Message:
    """The one with the text, else the last."""
    said = [message for message in messages if message.kind == "message"]
    return (said or list(messages))[-1]


def storable(text: str) -> bool:
    """Whether both databases can hold the text."""
    try:
        check_text(text, "text")
    except ValueError:
        return False
    return True
