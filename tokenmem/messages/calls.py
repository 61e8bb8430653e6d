"""Tool calls: those that messages make, and the results that answer them."""

from __future__ import annotations

from dataclasses import dataclass

from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject


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


def call_ids(message: Message) -> list[str]:
    """The ids of the tool calls that a message makes: in `tool_calls`, in its parts, or its own."""
    payload = message.payload or {}
    listed = payload.get("tool_calls")
    calls = [*(listed if isinstance(listed, list) else ()), *_parts(payload, "tool_use", "tool_call")]
    ids = [call.get("id") for call in calls if isinstance(call, dict)]
    if message.kind == "tool_call":  # an item of the Responses API
        ids.append(payload.get("call_id"))
    return [call_id for call_id in ids if isinstance(call_id, str)]


def answered_ids(message: Message) -> set[str]:
    """The ids of the tool calls that a message answers."""
    payload = message.payload or {}
    answers = [
        payload.get("tool_call_id"),
        payload.get("call_id") if message.kind == "tool_result" else None,
        *(part.get("tool_use_id") for part in _parts(payload, "tool_result")),
    ]
    return {answered for answered in answers if isinstance(answered, str) and answered}


def _parts(payload: JSONObject, *types: str) -> list[JSONObject]:
    content = payload.get("content")
    if not isinstance(content, list):
        return []
    return [part for part in content if isinstance(part, dict) and part.get("type") in types]
