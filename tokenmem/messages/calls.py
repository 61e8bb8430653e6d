"""Tool calls: those that messages make, and the results that answer them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tokenmem.messages.items import LOCAL_SHELL, is_call_item, is_item, item_type
from tokenmem.messages.message import Message
from tokenmem.messages.unstorable import ESCAPED, unescaped
from tokenmem.messages.values import JSONObject, dump_json

# What stands before the name of a function that is called without an id; no stored text has a NUL.
_BY_NAME = "\0"

# What the arguments are called where they stand in a call itself: by OpenAI, LangChain and Anthropic.
_ARGUMENTS = ("arguments", "args", "input")
_FLAT = frozenset({*_ARGUMENTS, "name", "function", "custom", "type", "call_id"})


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


def tool_calls(message: Message) -> list[ToolCall]:
    """The calls that a message of the model makes; none where it was cut off."""
    payload = _payload(message)
    if message.kind != "tool_call" or message.partial:
        return []
    if is_call_item(message):
        return [_tool_call(payload["call_id"], payload)]
    return [
        _tool_call(str(call.get("id")), called_function(call)) for call in payload.get("tool_calls") or []
    ]


def _payload(message: Message) -> JSONObject:
    """The payload with its texts as they came: ids are looked for by what they are."""
    payload = message.payload or {}
    return unescaped(payload) if ESCAPED in payload else payload


def called_function(call: Mapping[str, object]) -> JSONObject:
    """The name and arguments of one of the `tool_calls` of a chat message, or the name and input."""
    called = call.get("function") or call.get("custom")
    if isinstance(called, dict):
        return called
    name = call.get("name") or called
    given = next((call[key] for key in _ARGUMENTS if call.get(key) is not None), None)
    if name is None and given is None:
        return {}
    flat: JSONObject = {} if name is None else {"name": name}
    if given is not None:
        is_custom = call.get("type") == "custom" and isinstance(given, str)
        flat["input" if is_custom else "arguments"] = given
    return flat


def standard_call(call: JSONObject) -> JSONObject | None:
    """A call as Chat Completions has it; None where nothing is called.

    One that is that already is the same object. Others have the name and the arguments in the call itself,
    as other frameworks write them, or an empty or another type.
    """
    given = call.get("type")
    if isinstance(given, str) and given not in ("function", "custom") and isinstance(call.get(given), dict):
        return call  # one of a kind that came after this was written
    kind = "custom" if isinstance(call.get("custom"), dict) and not call.get("function") else "function"
    if isinstance(call.get(kind), dict) and call[kind].get("name") is not None:
        beside = call.keys() & {"name", *_ARGUMENTS}
        if given in (None, kind) and not beside:
            return call
        return {**{key: value for key, value in call.items() if key not in beside}, "type": kind}
    called = called_function(call)
    if called.get("name") is None:
        return None
    kind = "custom" if "input" in called and "arguments" not in called else "function"
    rest = {key: value for key, value in call.items() if key not in _FLAT}
    call_id = call.get("id") or call.get("call_id")
    return {**({} if call_id is None else {"id": call_id}), **rest, "type": kind, kind: called}


def _tool_call(call_id: str, called: JSONObject) -> ToolCall:
    arguments = called.get("arguments", called.get("input"))
    if isinstance(arguments, dict):  # some servers send the object itself
        arguments = dump_json(arguments)
    text = arguments if isinstance(arguments, str) else ""
    return ToolCall(
        call_id, str(called.get("name", "")), text, custom="arguments" not in called and "input" in called
    )


def call_ids(message: Message) -> list[str]:
    """The ids of the tool calls that a message makes: in `tool_calls`, in its parts, or its own."""
    payload = _payload(message)
    listed = payload.get("tool_calls")
    calls = [*(listed if isinstance(listed, list) else ()), *_parts(payload, "tool_use", "tool_call")]
    ids = [call.get("id") for call in calls if isinstance(call, dict)]
    if is_call_item(message):
        ids.append(payload.get("call_id"))
    return [call_id for call_id in ids if isinstance(call_id, str)]


def answered_ids(message: Message) -> set[str]:
    """The ids of the tool calls that a message answers."""
    if message.payload is None:
        return set()
    payload = _payload(message)
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


def calls_of_keys(message: Message) -> list[ToolCall]:
    """The calls of a message, each in the place of its key in `call_keys`; "" is the id of one without."""
    if message.kind != "tool_call":
        return []
    payload = message.payload or {}
    if is_item(message):
        return [_tool_call(key, payload) for key in call_keys(message)]
    listed = payload.get("tool_calls") or []
    keys = [call.get("id") for call in listed]
    calls = [
        _tool_call(key if isinstance(key, str) else "", called_function(call))
        for key, call in zip(keys, listed, strict=True)
    ]
    for part in _parts(payload, "tool_use", "tool_call"):
        if isinstance(part.get("id"), str) and part["id"] not in keys:
            arguments = part.get("arguments", part.get("input"))
            calls.append(_tool_call(part["id"], {"name": part.get("name"), "arguments": arguments}))
    called = payload.get("function_call")
    return [*calls, _tool_call("", called)] if isinstance(called, dict) else calls


def results_of_calls(messages: Sequence[Message]) -> dict[int, list[int | None]]:
    """For each message with calls, where the results of each are among the messages, by index.

    The result of a call is the first one behind it, before its id is called again: some servers count their
    ids from one in every reply. Where one message has an id twice, its results come in order.
    """
    found: dict[int, list[int | None]] = {}
    waiting: dict[str, list[tuple[int, int]]] = {}
    for index, message in enumerate(messages):
        if message.kind == "tool_result":
            for key in answer_keys(message):
                if places := waiting.get(key):
                    caller, number = places.pop(0)
                    found[caller][number] = index
        elif keys := call_keys(message):
            found[index] = [None] * len(keys)
            waiting |= {key: [] for key in keys}
            for number, key in enumerate(keys):
                waiting[key].append((index, number))
    return found


def call_keys(message: Message) -> list[str]:
    """What the results of a message's calls name: ids, "" for a call without one, or a key by its name."""
    if message.kind != "tool_call":
        return []
    payload = _payload(message)
    if is_item(message):
        return [payload["call_id"]] if item_type(message) != LOCAL_SHELL else []
    given = [call.get("id") for call in payload.get("tool_calls") or []]
    keys = [call_id if isinstance(call_id, str) else "" for call_id in given]
    called = payload.get("function_call")
    by_name = [f"{_BY_NAME}{called.get('name')}"] if isinstance(called, dict) else []
    return keys + [call_id for call_id in call_ids(message) if call_id not in keys] + by_name


def answer_keys(message: Message) -> list[str]:
    """Which of the calls a result answers, as `call_keys` names them."""
    if ids := answered_ids(message):
        return sorted(ids)
    return [f"{_BY_NAME}{(message.payload or {}).get('name')}" if message.role == "function" else ""]


def is_call_id(key: str) -> bool:
    """Whether a call's key is its id."""
    return bool(key) and not key.startswith(_BY_NAME)


def is_called_in_content(message: Message, key: str) -> bool:
    """Whether the call of this id stands in a part of the content, as no API of OpenAI's has it."""
    if is_item(message) or not is_call_id(key):
        return False
    return all(call.get("id") != key for call in (message.payload or {}).get("tool_calls") or [])


def result_of(message: Message, key: str, text: str, *, failed: bool = False) -> Message:
    """The result of a message's call, in the form of the API that made the call.

    Args:
        message: the one that makes the call.
        key: of the call, as `call_keys` names it.
        text: what the tool returned.
        failed: whether it failed.
    """
    result = Message.tool(text, tool_call_id=key)
    if (type_ := item_type(message)) is not None:
        payload = output_item(type_, key, text, failed=failed)
        if payload["output"] == text:  # it is the content, as where it is stored
            del payload["output"]
        return replace(result, payload=payload)
    if key.startswith(_BY_NAME):
        payload = {"role": "function", "name": key.removeprefix(_BY_NAME)}
        return replace(result, role="function", payload=payload)
    return result


def output_item(call_type: str, call_id: object, output: object, *, failed: bool = False) -> JSONObject:
    """An output in the form that the type of its call asks for."""
    item: JSONObject = {"type": f"{call_type}_output", "call_id": call_id}
    if call_type == "shell_call":
        text = output if isinstance(output, str) else dump_json(output)
        outcome = {"type": "exit", "exit_code": int(failed)}
        return {**item, "output": [{"stdout": text, "stderr": "", "outcome": outcome}]}
    if call_type == "apply_patch_call":
        item["status"] = "failed" if failed else "completed"
    return {**item, "output": output}
