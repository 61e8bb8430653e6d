"""Messages as an endpoint takes them: keys, ids, names, arguments, parts. What is stored stays as it came."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tokenmem.messages.conversions import MEDIA, ONLY_IN_REPLIES
from tokenmem.messages.endpoint_rules import (
    DOCUMENTED_KEYS,
    LONGEST_NAME,
    EndpointRules,
    is_wanted_back,
)
from tokenmem.messages.items import is_item
from tokenmem.messages.media_text import holds_media, without_media
from tokenmem.messages.message import MARKS, Message, is_text_part, text_of_parts
from tokenmem.messages.values import JSONObject, dump_json

# The patterns that OpenAI's error messages name.
_NOT_IN_SPEAKERS = re.compile(r"[\s<|\\/>]+")
_NOT_IN_FUNCTIONS = re.compile(r"[^a-zA-Z0-9_-]+")
# Mistral: "Tool call id must be a-z, A-Z, 0-9, with a length of 9."
_NINE_CHARACTERS = re.compile(r"[a-zA-Z0-9]{9}")
_ALPHABET = string.ascii_letters + string.digits
# LiteLLM carries Gemini's thought signatures in the ids of calls, and looks for them there.
_SIGNATURE_IN_ID = "__thought__"
INVALID_ARGUMENTS = "invalid_arguments"
"""The key of the object that is sent in place of arguments that are none: it holds what the model wrote."""

NO_SIGNATURE = "skip_thought_signature_validator"
"""What stands for a thought signature that is not there (Google, "Thought signatures", FAQ)."""

_CALL_KEYS = {"function": ("name", "arguments"), "custom": ("name", "input")}


def fitted(message: Message, rules: EndpointRules) -> Message:
    """A message as the endpoint takes it; the same object where it is that already.

    Args:
        message: as it is prepared for sending.
        rules: what the endpoint takes.
    """
    role, content, payload = message.role, message.content, message.payload
    if role == "developer" and rules.developer_is_system:
        role = "system"
    if content is not None and holds_media(content):
        content = without_media(content)
    if payload is not None:
        made = _item(payload, rules) if is_item(message) else _chat(payload, role, rules)
        if made != payload:
            payload = made
            if "content" in made:
                content, payload = _content_of(made, content)
    if (role, content) == (message.role, message.content) and payload is message.payload:
        return message
    return replace(message, role=role, content=content, payload=payload)


def _content_of(made: JSONObject, content: str | None) -> tuple[str | None, JSONObject]:
    """The text for people of a changed message, and its payload: a text is not in both."""
    given = made["content"]
    if isinstance(given, str):
        return given, {key: value for key, value in made.items() if key != "content"}
    return (text_of_parts(given) if isinstance(given, list) else content), made


def _item(item: JSONObject, rules: EndpointRules) -> JSONObject:
    """An item of the Responses API."""
    made = {key: value for key, value in item.items() if key not in rules.without}
    if isinstance(made.get("call_id"), str):
        made["call_id"] = call_id_of(made["call_id"], rules)
    if made.get("type") == "function_call":
        made["arguments"] = _arguments(made.get("arguments"))
        made["name"] = _function_name(made.get("name"), rules)
    for key in ("content", "output"):
        if isinstance(made.get(key), list):
            made[key] = [_part(part, rules, is_chat=False) for part in made[key]]
    return made


def _chat(payload: JSONObject, role: str, rules: EndpointRules) -> JSONObject:
    """A message of Chat Completions."""
    known = DOCUMENTED_KEYS.get(role, frozenset())
    made: JSONObject = {}
    for key, value in payload.items():
        is_empty = value in (None, [], {})
        if key in MARKS or (role == "assistant" and (is_empty or key in ONLY_IN_REPLIES)):
            made[key] = value  # what is never sent of a reply is no change of it
        elif key in rules.without or (is_empty and key != "content"):
            continue
        elif key in known or _is_kept(key, payload, role, rules):
            made[key] = value
    if "role" in made:
        made["role"] = role
    if isinstance(made.get("name"), str):
        _put_name(made, role, rules)
    if isinstance(made.get("tool_call_id"), str):
        made["tool_call_id"] = call_id_of(made["tool_call_id"], rules)
    if isinstance(made.get("tool_calls"), list):
        made["tool_calls"] = [_call(call, rules) for call in made["tool_calls"]]
    if isinstance(called := made.get("function_call"), dict):
        made["function_call"] = _function(called, "function", rules)
    if isinstance(made.get("content"), list):
        made["content"] = _parts(made["content"], role, rules)
    if role == "assistant":
        _put_wanted(made, payload, rules)
    return made


def _is_kept(key: str, payload: Mapping[str, object], role: str, rules: EndpointRules) -> bool:
    """Whether a key that OpenAI does not document is sent: what the application writes, or is wanted."""
    return not rules.only_documented and (role != "assistant" or is_wanted_back(key, payload))


def _put_wanted(made: JSONObject, payload: Mapping[str, object], rules: EndpointRules) -> None:
    """Put in what the endpoint refuses to do without."""
    if rules.wants_reasoning:
        told = payload.get("reasoning_content") or payload.get("reasoning")
        made["reasoning_content"] = told if isinstance(told, str) else ""
    if rules.no_null and "content" in made and made["content"] is None:
        made["content"] = ""
    if rules.wants_signatures and made.get("tool_calls"):
        first, *rest = made["tool_calls"]
        signed = {"google": {"thought_signature": NO_SIGNATURE}}
        made["tool_calls"] = [{"extra_content": signed, **first}, *rest]


def _put_name(made: JSONObject, role: str, rules: EndpointRules) -> None:
    if role == "function":
        made["name"] = _function_name(made["name"], rules)
    elif name := _NOT_IN_SPEAKERS.sub("_", made["name"])[:LONGEST_NAME]:
        made["name"] = name
    else:
        del made["name"]


def call_id_of(call_id: str, rules: EndpointRules) -> str:
    """A call's id as the endpoint takes it; the same for the call and its result."""
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest()
    if rules.nine_character_ids:
        if _NINE_CHARACTERS.fullmatch(call_id):
            return call_id
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:9])
    if len(call_id) <= rules.longest_call_id:
        return call_id
    if _SIGNATURE_IN_ID in call_id and not rules.only_documented:
        return call_id
    return f"call_{digest.hex()}"[: rules.longest_call_id]


def _call(call: object, rules: EndpointRules) -> object:
    """One of a message's `tool_calls`."""
    if not isinstance(call, dict):
        return call
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    made = {
        key: value
        for key, value in call.items()
        if value is not None and key not in rules.without and _is_kept_of_call(key, rules)
    }
    if isinstance(made.get("id"), str):
        made["id"] = call_id_of(made["id"], rules)
    if isinstance(made.get(kind), dict):
        made[kind] = _function(made[kind], kind, rules)
    return made


def _is_kept_of_call(key: str, rules: EndpointRules) -> bool:
    if key in ("id", "type", "index", "function", "custom", "name", "arguments"):
        return True
    return not rules.only_documented and is_wanted_back(key, {"tool_calls": True})


def _function(called: JSONObject, kind: str, rules: EndpointRules) -> JSONObject:
    """The name of a call, and its arguments or input."""
    name, written = _CALL_KEYS[kind]
    made = {
        key: value
        for key, value in called.items()
        if key in (name, written) or (key not in rules.without and _is_kept_of_call(key, rules))
    }
    made[name] = _function_name(called.get(name), rules)
    if kind == "function":
        made[written] = _arguments(called.get(written))
    elif not isinstance(made.get(written), str):
        made[written] = "" if made.get(written) is None else dump_json(made[written])
    return made


def _function_name(name: object, rules: EndpointRules) -> str:
    if not isinstance(name, str) or not name:
        return "unknown"
    if name in rules.tool_names:
        return name
    return _NOT_IN_FUNCTIONS.sub("_", name)[:LONGEST_NAME]


def _arguments(arguments: object) -> str:
    """Arguments as JSON text of an object; what is none stands in one, for the model to see."""
    if isinstance(arguments, dict):
        return dump_json(arguments)
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments, parse_constant=_refuse) if arguments.strip() else None
        except (ValueError, RecursionError):
            parsed = arguments
    else:
        parsed = arguments
    if isinstance(parsed, dict):
        return str(arguments)
    return "{}" if parsed is None else dump_json({INVALID_ARGUMENTS: arguments})


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _parts(parts: Sequence[object], role: str, rules: EndpointRules) -> object:
    """A message's parts; those that a model's or a tool's message need not have are left out."""
    made = [_part(part, rules, is_chat=True) for part in parts]
    if role in ("assistant", "tool"):
        made = [part for part in made if _is_taken(part, role, rules)]
    if not rules.plain_text:
        return made
    texts = [part for part in made if _is_text(part)]
    if role == "user" and len(texts) < len(made):
        return made  # what a user shows is not left out without a word
    return text_of_parts(texts) or ""


def _is_taken(part: object, role: str, rules: EndpointRules) -> bool:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in rules.without:
        return False
    if not rules.only_documented or role != "assistant":
        return True
    return kind in ("text", "refusal", "output_text") or isinstance(part, str)


def _part(part: object, rules: EndpointRules, *, is_chat: bool) -> object:
    """One part, its text without media."""
    if isinstance(part, str):
        return without_media(part) if holds_media(part) else part
    if not isinstance(part, dict):
        return part
    made = {
        key: value
        for key, value in part.items()
        if key == "type" or (key not in rules.without and value is not None)
    }
    kind = made.get("type")
    if rules.without and isinstance(kind, str) and isinstance(inner := made.get(kind), dict):
        made[kind] = {key: value for key, value in inner.items() if key not in rules.without}
    if rules.only_documented and is_chat and kind in ("text", *MEDIA):
        made = {key: value for key, value in made.items() if key in ("type", kind)}
    text = made.get("text")
    if isinstance(text, str) and holds_media(text):
        made["text"] = without_media(text)
    return made


def _is_text(part: object) -> bool:
    return isinstance(part, str) or is_text_part(part)
