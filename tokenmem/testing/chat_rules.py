"""The rules for the messages of a chat completion."""

from __future__ import annotations

import re
from collections.abc import Collection

from tokenmem.testing.checks import Problems, filled, keys, name, parts, text
from tokenmem.testing.replies import JSONObject

# OpenAI, API reference, "Create chat completion", messages: the keys of each role, the required ones first.
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "developer": (("role", "content"), ("name",)),
    "system": (("role", "content"), ("name",)),
    "user": (("role", "content"), ("name",)),
    # Annotations are documented for answers only, but the provider's own examples send answers back whole.
    "assistant": (
        ("role",),
        ("content", "refusal", "name", "audio", "tool_calls", "function_call", "annotations"),
    ),
    "tool": (("role", "content", "tool_call_id"), ()),
    "function": (("role", "content", "name"), ()),
}
_TEXT_PARTS: dict[str, tuple[str, ...]] = {"text": ("text",)}
_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "user": {
        **_TEXT_PARTS,
        "image_url": ("image_url",),
        "input_audio": ("input_audio",),
        "file": ("file",),
    },
    "assistant": {**_TEXT_PARTS, "refusal": ("refusal",)},
}
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "refusal", "audio")
_CALL_KEYS = {"function": ("name", "arguments"), "custom": ("name", "input")}
# The lengths and the pattern are those that the provider's error messages name.
_LONGEST_CALL_ID = 40
_SPEAKER = re.compile(r"[^\s<|\\/>]+")


def message_problems(messages: object, allow_keys: Collection[str]) -> Problems:
    """What is wrong with the list of messages."""
    yield from filled(messages, "messages")
    if not isinstance(messages, list):
        return
    sound = True
    for index, message in enumerate(messages):
        found = list(_message(message, f"messages[{index}]", allow_keys))
        sound = sound and not found
        yield from found
    # Who answers whom can only be said of messages that are well formed.
    if sound:
        yield from _unanswered(messages)


def _message(message: object, place: str, allow_keys: Collection[str]) -> Problems:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(role, str) or role not in _KEYS:
        yield f"Invalid value for '{place}.role': {role!r}. Supported values are: {', '.join(_KEYS)}."
        return
    required, optional = _KEYS[role]
    yield from keys(message, required, {*optional, *allow_keys}, place)
    if "content" in message or role == "assistant":
        yield from _content(role, message, f"{place}.content")
    if "name" in message:
        yield from _speaker(message["name"], f"{place}.name")
    if "tool_call_id" in message and role == "tool":
        yield from text(
            message["tool_call_id"], f"{place}.tool_call_id", longest=_LONGEST_CALL_ID, empty=False
        )
    if "tool_calls" in message and role == "assistant":
        yield from _calls(message["tool_calls"], f"{place}.tool_calls", allow_keys)


def _content(role: str, message: JSONObject, place: str) -> Problems:
    content = message.get("content")
    if content is None and role == "assistant":
        if not any(message.get(key) for key in _INSTEAD_OF_CONTENT):
            yield f"Invalid value for '{place}': expected a string, got null."
    elif isinstance(content, list) and role != "function":
        yield from filled(content, place)
        yield from parts(content, _PARTS.get(role, _TEXT_PARTS), place)
    elif content is not None or role != "function":
        yield from text(content, place)


def _speaker(value: object, place: str) -> Problems:
    yield from text(value, place)
    if isinstance(value, str) and not _SPEAKER.fullmatch(value):
        yield (
            f"Invalid '{place}': string does not match pattern. "
            f"Expected a string that matches the pattern '^{_SPEAKER.pattern}$'."
        )


def _calls(calls: object, place: str, allow_keys: Collection[str]) -> Problems:
    yield from filled(calls, place)
    seen: set[str] = set()
    for index, call in enumerate(calls if isinstance(calls, list) else []):
        here = f"{place}[{index}]"
        kind = call.get("type") if isinstance(call, dict) else None
        if kind not in ("function", "custom"):
            yield f"Invalid value for '{here}.type': {kind!r}. Supported values are: function, custom."
            continue
        yield from keys(call, ("id", "type", kind), allow_keys, here)
        yield from text(call.get("id"), f"{here}.id", longest=_LONGEST_CALL_ID, empty=False)
        if call.get("id") in seen:
            yield f"Duplicate value for '{here}.id': {call['id']!r}."
        if isinstance(call.get("id"), str):
            seen.add(call["id"])
        yield from _called(call.get(kind), kind, f"{here}.{kind}")


def _called(called: object, kind: str, place: str) -> Problems:
    if not isinstance(called, dict):
        yield f"Invalid type for '{place}': expected an object."
        return
    written = _CALL_KEYS[kind][1]
    yield from keys(called, _CALL_KEYS[kind], (), place)
    yield from name(called.get("name"), f"{place}.name")
    if written in called:
        yield from text(called[written], f"{place}.{written}")


def _unanswered(messages: list[JSONObject]) -> Problems:
    """Tool calls without their results directly behind them, and results without their call."""
    waiting: dict[str, None] = {}
    answered: set[str] = set()
    caller = 0
    for index, message in enumerate([*messages, {"role": "end"}]):
        if message["role"] == "tool":
            call_id = message["tool_call_id"]
            if call_id in answered:
                yield f"Invalid parameter: 'messages[{index}]' responds to tool_call_id {call_id!r} again."
            elif call_id not in waiting:
                yield (
                    f"Invalid parameter: messages with role 'tool' must be a response to a preceeding "
                    f"message with 'tool_calls' (messages[{index}])."
                )
            waiting.pop(call_id, None)
            answered.add(call_id)
            continue
        if waiting:
            yield (
                f"An assistant message with 'tool_calls' must be followed by tool messages responding to "
                f"each 'tool_call_id'. The following tool_call_ids did not have response messages: "
                f"{', '.join(waiting)} (messages[{caller}])."
            )
        waiting = {call["id"]: None for call in message.get("tool_calls") or ()}
        answered, caller = set(), index
