"""A model's reply as the assistant's message, whatever form it came in: it is paid, and not to be lost."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence

from tokenmem.chat.apis.repeated_calls import without_repeated_calls
from tokenmem.errors import InvalidMessage
from tokenmem.messages.calls import standard_call
from tokenmem.messages.message import MARKS, RAW, Message, text_of_parts
from tokenmem.messages.parsing import Unstorable, clean, parse_marked, parse_message
from tokenmem.messages.unstorable import holds_unstorable, scrubbed, with_whole_characters
from tokenmem.messages.values import JSONObject, as_json, can_be_stored, json_or, json_text

_NOTHING = object()
"""In the place of what a message cannot hold."""

_OF_A_CALL = ("function", "custom", "name", "arguments", "args", "input", "id", "type")


def stored_reply(reply: Mapping[str, object], unstorable: Unstorable) -> Message:
    """A reply as it is stored: an assistant's message, with the mark RAW where it cannot hold all of it.

    Args:
        reply: as Chat Completions has it, or in whatever form it came.
        unstorable: what becomes of characters that databases cannot hold: they are replaced, or escaped.
    """
    usable, is_all = assistant_message(reply)
    usable = with_whole_characters(with_call_ids(without_repeated_calls(usable)))
    if is_all:
        try:
            return parse_message(clean(usable, unstorable), unstorable)
        except InvalidMessage:  # another framework's, and more than one of OpenAI's can say
            pass
    return with_raw(usable, reply, unstorable)


def with_raw(usable: JSONObject, reply: object, unstorable: Unstorable) -> Message:
    """What can be used of a reply, and beside it, in the mark RAW, the reply as it came."""
    marks = {RAW: clean(with_whole_characters(as_json(reply)), unstorable)}
    try:
        return parse_marked(clean(usable, unstorable), marks, unstorable)
    except InvalidMessage:
        said = usable.get("content")
        text = said if isinstance(said, str) else text_of_parts(said) if isinstance(said, list) else None
        told = clean({"role": "assistant", "content": text}, unstorable)
        return parse_marked(told, marks, unstorable)


def needs_escapes(reply: object) -> bool:
    """Whether it has characters that no database holds."""
    return holds_unstorable(with_whole_characters(as_json(reply)))


def assistant_message(reply: Mapping[str, object]) -> tuple[JSONObject, bool]:
    """The message in a reply, and whether that is all of the reply."""
    message: JSONObject = {"role": "assistant"}
    is_all = True
    for key, value in reply.items():
        if not isinstance(key, str) or key in MARKS:
            is_all = False
            continue
        usable = _FORMS.get(key, _storable)(value)
        if usable is not _NOTHING:
            message[key] = usable
        is_all = is_all and (usable is value or (key == "role" and not value))
    if reply.get("content") is None and not is_all:
        text = _text_elsewhere(reply)
        message |= {} if text is None else {"content": text}
    return message, is_all


def _storable(value: object) -> object:
    return value if can_be_stored(value) else _NOTHING


def _role(value: object) -> object:
    return value if isinstance(value, str) and value == "assistant" else "assistant"


def _text(value: object) -> object:
    return value if value is None or isinstance(value, str) else _NOTHING


def _said(value: object) -> object:
    return value if value is None or isinstance(value, str) else json_text(value)


def _text_elsewhere(reply: Mapping[str, object]) -> str | None:
    """The text of a reply of Gemini's own, or of a framework's, which stands in its parts."""
    found = (reply.get(name) for name in ("parts", "blocks", "text"))
    value = next((value for value in found if value), None)
    parts = as_json(value) if isinstance(value, (list, tuple)) else None
    return text_of_parts(parts) if parts else value if isinstance(value, str) else None


def _content(value: object) -> object:
    """Text or a list of parts; of anything else the JSON text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping) and value.get("type") == "text" and isinstance(value.get("text"), str):
        return [as_json(value)]
    if not isinstance(value, (list, tuple)):
        return json_text(value)
    parts = [_part(part) for part in value if part is not None]
    same = len(parts) == len(value) and all(one is other for one, other in zip(parts, value, strict=True))
    return value if same and isinstance(value, list) else parts


def _part(part: object) -> object:
    if isinstance(part, str) or (isinstance(part, dict) and can_be_stored(part)):
        return part
    if isinstance(part, Mapping):
        return as_json(part)
    return {"type": "text", "text": json_text(part)}


def _calls(value: object) -> object:
    """The calls in `tool_calls`: a list of objects, or what may be meant for one."""
    if value is None:
        return None
    listed = listed_calls(value)
    calls = [call for given in listed if (call := _call(given)) is not None]
    same = len(calls) == len(listed) and all(one is other for one, other in zip(calls, listed, strict=True))
    if same and listed is value:
        return value
    return calls or _NOTHING


def listed_calls(value: object) -> Sequence[object]:
    """The calls as a list: some servers send one alone, an object of them, or all as JSON text."""
    if isinstance(value, str):
        value = json_or(value, None)
    if isinstance(value, Mapping):
        is_call = not value.keys().isdisjoint(_OF_A_CALL)
        return [value] if is_call else list(value.values())
    return value if isinstance(value, (list, tuple)) else []


def _call(given: object) -> JSONObject | None:
    """A call that can be stored and answered; None where it is none."""
    call = json_or(given, None) if isinstance(given, str) else given
    if not isinstance(call, Mapping):
        return None
    made = call if isinstance(call, dict) and can_be_stored(call) else as_json(call)
    changed: JSONObject = {}
    for name in ("function", "custom"):
        if made.get(name) is not None and (called := _called(made[name], made)) is not made[name]:
            changed[name] = called
    usable: JSONObject = {**made, **changed} if changed else made
    standard = standard_call(usable)
    if standard is None or standard is usable:
        return standard
    kind: str = standard["type"]
    return {**standard, kind: _called(standard[kind], standard)}


def _called(given: object, beside: Mapping[str, object]) -> JSONObject | None:
    """The function that is called, with its name and arguments."""
    called = json_or(given, None) if isinstance(given, str) else given
    if isinstance(given, str) and not isinstance(called, dict):  # its name, with the arguments beside it
        called = {"name": given, **{key: beside[key] for key in ("arguments",) if key in beside}}
    if not isinstance(called, dict):
        return None
    changed: JSONObject = {}
    if "name" in called and not isinstance(called["name"], str):
        changed["name"] = "" if called["name"] is None else json_text(called["name"])
    arguments = called.get("arguments")
    if arguments is not None and not isinstance(arguments, (str, dict, list)):
        changed["arguments"] = json_text(arguments)
    return {**called, **changed} if changed else called


def _function_call(value: object) -> object:
    if value is None or value == {}:
        return value
    called = value if isinstance(value, dict) and can_be_stored(value) else as_json(value)
    return _called(called, {}) or _NOTHING


def with_call_ids(message: JSONObject) -> JSONObject:
    """A reply in which every call has an id of its own: without one, nothing could answer it."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    seen: set[str] = set()
    named = []
    for call in calls:
        known = call.get("id")
        if isinstance(known, str) and holds_unstorable(known):  # whoever answers it names it
            known = scrubbed(known)
            call = {**call, "id": known}
        if not isinstance(known, str) or not known or known in seen:
            call = {**call, "id": made_call_id()}
        seen.add(call["id"])
        named.append(call)
    return {**message, "tool_calls": named}


def made_call_id() -> str:
    """An id for a call that came without one of its own."""
    return f"call_{uuid.uuid4().hex[:24]}"


_FORMS: Mapping[str, Callable[[object], object]] = {
    "role": _role,
    "content": _content,
    "tool_calls": _calls,
    "function_call": _function_call,
    "name": _text,
    "refusal": _said,
}
