"""A conversation as either of OpenAI's two APIs takes it, whichever of them its messages came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenmem.models import JSONObject, Message, text_of_parts

# What OpenAI's replies hold and its requests do not take (API reference, "Create chat completion").
_ONLY_IN_REPLIES = frozenset({"annotations"})


def chat_messages(messages: Iterable[Message]) -> list[JSONObject]:
    """The messages for Chat Completions; reasoning and the provider's own tools have no place there."""
    sent: list[JSONObject] = []
    for message in messages:
        if message.payload is None:
            sent.append({"role": message.role, "content": message.content})
            continue
        given = message.to_openai()
        if "type" not in given:
            sent.append(_as_input(given) if message.role == "assistant" else given)
        elif message.kind == "tool_call":
            _add_call(sent, given)
        elif message.kind == "tool_result":
            content = _chat_content(given.get("output"))
            sent.append({"role": "tool", "tool_call_id": given["call_id"], "content": content})
        elif "role" in given:
            sent.append(_chat_message(given))
    return sent


def has_chat_form(message: Message) -> bool:
    """Whether Chat Completions can be sent the message at all."""
    payload = message.payload
    return (
        payload is None
        or "type" not in payload
        or "role" in payload
        or message.kind in ("tool_call", "tool_result")
    )


def _as_input(reply: JSONObject) -> JSONObject:
    """A reply without what is empty, or only replies have."""
    kept = {
        key: value
        for key, value in reply.items()
        if key == "content" or (value not in (None, [], {}) and key not in _ONLY_IN_REPLIES)
    }
    if isinstance(kept.get("audio"), dict) and "id" in kept["audio"]:
        kept["audio"] = {"id": kept["audio"]["id"]}
    return kept


def _add_call(sent: list[JSONObject], item: JSONObject) -> None:
    """Add a function's call to the assistant's message before it, or as one of its own."""
    if item["type"] == "custom_tool_call":
        body: JSONObject = {"type": "custom", "custom": _only(item, "name", "input")}
    else:
        name, arguments = item.get("name", item["type"]), item.get("arguments", "{}")
        body = {"type": "function", "function": {"name": name, "arguments": arguments}}
    call = {"id": item["call_id"], **body}
    if sent and sent[-1]["role"] == "assistant" and not sent[-1].get("function_call"):
        sent[-1] = {**sent[-1], "tool_calls": [*sent[-1].get("tool_calls", []), call]}
    else:
        sent.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _chat_message(item: JSONObject) -> JSONObject:
    role, content = item["role"], item.get("content")
    if role == "assistant" and isinstance(content, list):
        return {"role": role, "content": _said(content)}
    return {"role": role, "content": _chat_content(content)}


def _said(parts: list[Any]) -> str | None:
    refusals = [part["refusal"] for part in parts if isinstance(part, dict) and part.get("refusal")]
    return text_of_parts(parts) or "\n".join(refusals) or None


def _chat_content(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    return [_chat_part(part) for part in content]


def _chat_part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("input_text", "output_text"):
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image":
        image = {"url": part.get("image_url"), **_only(part, "detail")}
        return {"type": "image_url", "image_url": image}
    if kind == "input_file":
        return {"type": "file", "file": _only(part, "file_data", "file_id", "filename")}
    return part


def response_items(messages: Iterable[Message]) -> list[JSONObject]:
    """The messages as input items of the Responses API."""
    items: list[JSONObject] = []
    called: dict[Any, str] = {}
    for message in messages:
        if message.payload is None:
            items.append({"role": message.role, "content": message.content})
            continue
        given = message.to_openai()
        if "type" in given:
            added = [given]
        elif message.role in ("tool", "function"):
            added = [_output_item(given, called)]
        else:
            added = list(_message_items(given))
        called |= {
            item["call_id"]: item["type"]
            for item in added
            if message.kind == "tool_call" and "call_id" in item
        }
        items += added
    return items


def _output_item(message: JSONObject, called: Mapping[Any, str]) -> JSONObject:
    """A result as the output of the kind of call that it answers."""
    content = message.get("content")
    output = [_input_part(part) for part in content] if isinstance(content, list) else content or ""
    call_id = message.get("tool_call_id") or message.get("name")
    kind = called.get(call_id, "function_call")
    return {"type": f"{kind}_output", "call_id": call_id, "output": output}


def _message_items(message: JSONObject) -> Iterable[JSONObject]:
    """A message and the calls in it, each an item."""
    role, content = message["role"], message.get("content")
    if role == "assistant":
        content = content if isinstance(content, str) else _said(content or []) or message.get("refusal")
    elif isinstance(content, list):
        content = [_input_part(part) for part in content]
    if content:
        yield {"role": role, "content": content}
    for call in message.get("tool_calls") or []:
        if "custom" in call:
            yield {
                "type": "custom_tool_call",
                "call_id": call.get("id"),
                **_only(call["custom"], "name", "input"),
            }
        else:
            yield _call_item(call.get("id"), call.get("function") or {})
    if called := message.get("function_call"):
        yield _call_item(called.get("name"), called)


def _call_item(call_id: Any, function: Mapping[str, Any]) -> JSONObject:
    return {"type": "function_call", "call_id": call_id, **_only(function, "name", "arguments")}


def _input_part(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        return {"type": "input_text", "text": part.get("text")}
    if kind == "image_url":
        image = part.get("image_url") or {}
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail", "auto")}
    if kind == "file":
        return {"type": "input_file", **_only(part.get("file") or {}, "file_data", "file_id", "filename")}
    return {"type": "input_text", "text": part} if isinstance(part, str) else part


def chat_tool(tool: Mapping[str, Any]) -> JSONObject:
    """A tool as Chat Completions describes it."""
    kind = tool.get("type")
    if kind in ("function", "custom") and kind not in tool:
        return {"type": kind, kind: {key: value for key, value in tool.items() if key != "type"}}
    return dict(tool)


def response_tool(tool: Mapping[str, Any]) -> JSONObject:
    """A tool as the Responses API describes it."""
    kind = tool.get("type")
    if kind in ("function", "custom") and isinstance(tool.get(kind), Mapping):
        return {"type": kind, **tool[kind]}
    return dict(tool)


def _only(mapping: Mapping[str, Any], *keys: str) -> JSONObject:
    return {key: mapping[key] for key in keys if mapping.get(key) is not None}
