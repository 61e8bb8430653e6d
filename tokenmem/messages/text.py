"""The readable text of a message, by the rules of the view `message_log`: what a person is shown of it.

A line for its text, one for a refusal, then one for each part that has no text and for each tool call.
"""

from __future__ import annotations

from collections.abc import Iterator

from tokenmem.messages.items import is_call_item, is_item, item_type
from tokenmem.messages.message import Message, is_opaque
from tokenmem.messages.values import JSONObject, dump_json


def readable_text(message: Message) -> str | None:
    """What a person reads of a message, whichever API it came by; None where it has nothing to read."""
    payload = message.payload
    if payload is None:
        return message.content
    lines = list(_lines(message, payload))
    if message.partial:
        return " ".join([*(["\n".join(lines)] if lines else []), "[incomplete]"])
    return "\n".join(lines) if lines else message.content


def _lines(message: Message, payload: JSONObject) -> Iterator[str]:
    if message.kind in ("reasoning", "other"):  # neither said nor called: labelled with what it is
        yield f"[{_first(_shown(payload, 'type'), message.kind)}]" + (
            f" {message.content}" if message.content else ""
        )
    elif message.content:
        yield message.content
    if (refusal := _shown(payload, "refusal")) is not None:
        yield refusal
    for part in _parts(message, payload):
        if (line := _part_line(part)) is not None:
            yield line
    yield from _call_lines(message, payload)


def _parts(message: Message, payload: JSONObject) -> list[object]:
    """The parts of the content, or of what a tool returned."""
    content, output = payload.get("content"), payload.get("output")
    if isinstance(content, list):
        return content
    if message.kind != "tool_result":
        return []
    return output if isinstance(output, list) else [output] if isinstance(output, dict) else []


def _part_line(part: object) -> str | None:
    """What stands for a part; None for one whose text is among the message's text, or that says nothing."""
    if _shown(part, "text") is not None:
        return None
    name, type_ = _shown(part, "name"), _shown(part, "type")
    called = None if name is None else f"{name}({_shown(part, 'input') or ''})"
    label = None if type_ is None else f"[{type_}]"
    return _first(_shown(part, "refusal"), called, _shown(part, "content"), label)


def _call_lines(message: Message, payload: JSONObject) -> list[str]:
    """The name and arguments of each tool call."""
    calls, called = payload.get("tool_calls"), payload.get("function_call")
    if isinstance(calls, list):
        return [_chat_call_line(call) for call in calls]
    if isinstance(called, dict):
        return [_chat_call_line(called)]
    if not is_call_item(message) or payload.get("call_id") is None:
        return []
    # What a built-in tool is to do stands in its action or operation.
    given = next(
        (key for key in ("arguments", "input", "action", "operation") if key in payload), "arguments"
    )
    return [_call_line(_shown(payload, "name" if "name" in payload else "type"), _shown(payload, given))]


def _chat_call_line(call: object) -> str:
    name = _first(_shown(call, "function", "name"), _shown(call, "custom", "name"), _shown(call, "name"))
    arguments = _first(
        _shown(call, "function", "arguments"), _shown(call, "custom", "input"), _shown(call, "arguments")
    )
    return _call_line(name, arguments)


def _call_line(name: str | None, arguments: str | None) -> str:
    return f"{_first(name, '?')}({arguments or ''})"


def _shown(value: object, *path: str) -> str | None:
    """What stands at a path of a JSON value: a text itself, null as None, else its JSON text."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if value is None or isinstance(value, str) else dump_json(value)


def _first(*texts: str | None) -> str | None:
    return next((text for text in texts if text is not None), None)


def says_something(message: Message) -> bool:
    """Whether there is anything in a reply, or in an opaque item; what others say is sent as it is."""
    if is_opaque(message):
        return bool(message.content)
    if message.role != "assistant" or message.content:
        return True
    payload = message.payload or {}
    if is_item(message):
        return item_type(message) != "message" or says_in_parts(payload.get("content"))
    return says_in_parts(payload.get("content")) or any(
        payload.get(key) for key in ("tool_calls", "function_call", "refusal", "audio")
    )


def says_in_parts(content: object) -> bool:
    """Whether there is anything in a list of content parts."""
    return isinstance(content, list) and any(map(_says, content))


def _says(part: object) -> bool:
    if not isinstance(part, dict):
        return bool(part)
    told = [part[key] for key in ("text", "refusal") if key in part]
    return any(told) if told else True
