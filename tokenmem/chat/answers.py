"""What a model's reply is, whatever API it came by, and how its pieces become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenmem.formats import check_text, parse_message
from tokenmem.models import PARTIAL, JSONObject, Message, ToolCall

_WHOLE = frozenset({"id", "type", "role", "name"})
"""What a stream sends whole, some servers with every piece."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, or the part of one that has arrived.

    Attributes:
        messages: what to store, in order; empty where nothing has arrived.
        text: what it says.
        finish_reason: why the model stopped; None while it has not.
        usage: the provider's counts, by the names of `operations.calls.Outcome`.
        request_id: the provider's id of the request.
    """

    messages: Sequence[Message] = ()
    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, int | None] = field(default_factory=dict)
    request_id: str | None = None


def plain(value: Any) -> Any:
    """The JSON value of what the openai package returns; a dict is one already."""
    dump = getattr(value, "to_dict", None)
    if callable(dump):
        return dump(mode="json", warnings=False)
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_unset=True) if callable(dump) else value


def request_id_of(response: Any) -> str | None:
    """The provider's id of a request: of a reply, a stream or an error."""
    found = getattr(response, "_request_id", None) or getattr(response, "request_id", None)
    if found is None:
        headers = getattr(getattr(response, "response", None), "headers", None)
        found = headers.get("x-request-id") if headers is not None else None
    return found if isinstance(found, str) and storable(found) else None


def usage_of(usage: Any, given: str, told: str) -> dict[str, int | None]:
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
        "output_tokens": _count(usage.get(f"{told}_tokens")),
        "reasoning_tokens": _count(_inside(usage, f"{told}_tokens_details", "reasoning_tokens")),
    }


def _inside(usage: Mapping[str, Any], name: str, key: str) -> Any:
    details = usage.get(name)
    return details.get(key) if isinstance(details, Mapping) else None


def _count(value: Any) -> int | None:
    """A whole number that an integer column holds."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def part_of(message: JSONObject, rest: JSONObject) -> Message:
    """The stored form of a reply that was cut off, with the mark that says so.

    Args:
        message: the provider's message, as far as it has arrived.
        rest: what of it cannot be sent again: the beginnings of tool calls.
    """
    parsed = parse_message(message)
    return replace(parsed, payload={**(parsed.payload or {"role": parsed.role}), PARTIAL: rest or True})


def merge(whole: JSONObject, delta: Mapping[str, Any]) -> None:
    """Add a streamed piece to what has come before it: texts grow, the rest is put in its place.

    As Chat Completions streams: lists hold objects that tell their `index`.
    """
    for key, value in delta.items():
        known = whole.get(key)
        if isinstance(value, list):
            if not isinstance(known, list):
                known = whole[key] = []
            merge_list(known, value)
        elif isinstance(value, dict) and isinstance(known, dict):
            merge(known, value)
        elif isinstance(value, str) and isinstance(known, str) and key not in _WHOLE:
            whole[key] = known + value
        elif value is not None or key not in whole:
            whole[key] = value


def merge_list(whole: list[Any], pieces: Sequence[Any]) -> None:
    """Add pieces to a list; one with an index grows the item with that index."""
    for piece in pieces:
        index = piece.get("index") if isinstance(piece, dict) else None
        known = next((item for item in whole if isinstance(item, dict) and item.get("index") == index), None)
        if index is None or known is None:
            whole.append(piece)
        else:
            merge(known, piece)


def tool_calls_of(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The tools that a reply calls."""
    return tuple(call for message in messages for call in _calls(message))


def _calls(message: Message) -> list[ToolCall]:
    payload = message.payload or {}
    if message.kind != "tool_call" or message.partial:
        return []
    if isinstance(payload.get("call_id"), str):
        return [_tool_call(payload["call_id"], payload)]
    return [
        _tool_call(str(call.get("id")), call.get("function") or call.get("custom") or {})
        for call in payload.get("tool_calls") or []
    ]


def _tool_call(call_id: str, called: Mapping[str, Any]) -> ToolCall:
    arguments = called.get("arguments", called.get("input"))
    return ToolCall(call_id, str(called.get("name", "")), arguments if isinstance(arguments, str) else "")


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


def scrubbed(value: Any) -> Any:
    """A model's JSON with what databases cannot hold put in other words: a reply is not lost for a NUL.

    NUL and halves of surrogate pairs become U+FFFD, the sign for what could not be read.
    """
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [scrubbed(item) for item in value]
    if isinstance(value, dict):
        return {scrubbed(key): scrubbed(item) for key, item in value.items()}
    return value
