"""The provider's rules for a request, as its API reference and its error messages state them."""

from __future__ import annotations

import json
from collections.abc import Collection

from tokenmem.testing.chat_rules import message_problems
from tokenmem.testing.checks import Problems, name, text
from tokenmem.testing.item_rules import input_problems
from tokenmem.testing.replies import JSONObject

_LONGEST_CACHE_KEY = 64
_MOST_TOOLS = 128
_KEYS_OF_FUNCTION = {"name", "description", "parameters", "strict"}
_KEYS_OF_FUNCTION_ITEM = {
    *("type", "allowed_callers", "async", "defer_loading", "output_schema"),
    *_KEYS_OF_FUNCTION,
}
_KEYS_OF_CUSTOM = {"name", "description", "format"}
_KEYS_OF_CUSTOM_ITEM = {"type", "allowed_callers", "async", "defer_loading", *_KEYS_OF_CUSTOM}
# What a response's tools may be besides functions and custom tools.
_HOSTED_TOOLS = {
    *("file_search", "computer", "computer_use_preview", "web_search", "web_search_2025_08_26", "mcp"),
    *("code_interpreter", "programmatic_tool_calling", "image_generation", "local_shell", "shell"),
    *("namespace", "tool_search", "web_search_preview", "web_search_preview_2025_03_11", "apply_patch"),
}


def problems_in(
    path: str, body: JSONObject, *, allow_keys: Collection[str] = (), allow_items: Collection[str] = ()
) -> list[str]:
    """What the provider would refuse in the body of a request; empty where all is well.

    Args:
        path: what is asked for, such as "/v1/chat/completions"; other endpoints than that, "/v1/responses"
            and "/v1/completions" have no rules here.
        body: the request, as parsed JSON.
        allow_keys: keys of messages and items to accept besides those that the provider documents.
        allow_items: types of input items to accept besides those, without looking into them.
    """
    if path.endswith("/chat/completions"):
        return [*_common(body), *message_problems(body.get("messages"), allow_keys), *_chat_tools(body)]
    if path.endswith("/responses"):
        return [*_common(body), *input_problems(body, allow_keys, allow_items), *_response_tools(body)]
    if path.endswith("/completions"):
        return [*_common(body), *_prompt(body.get("prompt"))]
    return []


def _common(body: JSONObject) -> Problems:
    try:
        json.dumps(body, allow_nan=False)
    except ValueError:
        yield "The body is no JSON: NaN and infinity are no numbers there."
    if not (body.get("model") is None and body.get("prompt")):  # a stored prompt names its own
        yield from text(body.get("model"), "model", empty=False)
    if body.get("prompt_cache_key") is not None:
        yield from text(body["prompt_cache_key"], "prompt_cache_key", longest=_LONGEST_CACHE_KEY)
    if body.get("stream_options") is not None and body.get("stream") is not True:
        yield "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    if body.get("instructions") is not None:
        yield from text(body["instructions"], "instructions")


def _prompt(prompt: object) -> Problems:
    if not isinstance(prompt, (str, list)):
        yield "Invalid type for 'prompt': expected a string or an array."


def _chat_tools(body: JSONObject) -> Problems:
    tools = body.get("tools")
    if tools is None:
        for key in ("tool_choice", "parallel_tool_calls"):
            if body.get(key) is not None:
                yield f"'{key}' is only allowed when 'tools' are specified."
        return
    if not isinstance(tools, list) or not 1 <= len(tools) <= _MOST_TOOLS:
        yield f"Invalid 'tools': expected an array of 1 to {_MOST_TOOLS} tools."
        return
    yield from _unique([_chat_tool_name(tool) for tool in tools])
    for index, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind not in ("function", "custom") or not isinstance(tool.get(kind), dict):
            yield f"Invalid 'tools[{index}]': expected a function or a custom tool in an object of that name."
            continue
        allowed = _KEYS_OF_FUNCTION if kind == "function" else _KEYS_OF_CUSTOM
        yield from _tool(tool[kind], allowed, f"tools[{index}].{kind}")
        yield from (f"Unknown parameter: 'tools[{index}].{key}'." for key in set(tool) - {"type", kind})
    yield from _chosen(body, [_chat_tool_name(tool) for tool in tools])


def _chat_tool_name(tool: object) -> object:
    kind = tool.get("type") if isinstance(tool, dict) else None
    inner = tool.get(kind) if isinstance(tool, dict) and isinstance(kind, str) else None
    return inner.get("name") if isinstance(inner, dict) else None


def _response_tools(body: JSONObject) -> Problems:
    tools = body.get("tools")
    if not tools and body.get("tool_choice") not in (None, "none", "auto"):
        yield "'tool_choice' is only allowed when 'tools' are specified."
    if tools is None:
        return
    if not isinstance(tools, list):
        yield "Invalid type for 'tools': expected an array."
        return
    names = []
    for index, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind in ("function", "custom"):
            names.append(tool.get("name"))
            allowed = _KEYS_OF_FUNCTION_ITEM if kind == "function" else _KEYS_OF_CUSTOM_ITEM
            yield from _tool(tool, allowed, f"tools[{index}]")
        elif kind not in _HOSTED_TOOLS:
            yield f"Invalid value for 'tools[{index}].type': {kind!r}."
    yield from _unique(names)
    yield from _chosen(body, names)


def _tool(tool: JSONObject, allowed: set[str], place: str) -> Problems:
    yield from name(tool.get("name"), f"{place}.name")
    yield from (f"Unknown parameter: '{place}.{key}'." for key in tool if key not in allowed)
    if not isinstance(tool.get("parameters"), dict | None):
        yield f"Invalid type for '{place}.parameters': expected an object."


def _unique(names: list[object]) -> Problems:
    known = [each for each in names if isinstance(each, str)]
    yield from (
        f"Tool names must be unique: {each!r}." for each in sorted(set(known)) if known.count(each) > 1
    )


def _chosen(body: JSONObject, names: list[object]) -> Problems:
    """A tool_choice that names a function, in either API's form."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") in ("function", "custom"):
        chosen = (choice.get(choice["type"]) or choice).get("name")
        if chosen not in names:
            yield f"Tool choice {chosen!r} not found in 'tools' parameter."
    elif isinstance(choice, str) and choice not in ("none", "auto", "required"):
        yield f"Invalid value for 'tool_choice': {choice!r}."
