"""A call that a server sends once more is one call: what it does would otherwise be done twice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tokenmem.messages.calls import called_function
from tokenmem.messages.values import JSONObject, JSONValue

_LOOKED_AT = 64
"""Characters at the end of a call's arguments that tell whether they can be whole."""


def without_repeated_calls(message: JSONObject) -> JSONObject:
    """The message without the calls that stand in it a second time."""
    calls, called = message.get("tool_calls"), message.get("function_call")
    changed: JSONObject = {}
    if isinstance(calls, list) and (kept := distinct_calls(calls)) != calls:
        changed["tool_calls"] = kept
    if isinstance(called, dict) and (once := _said_once(called.get("arguments"))) is not None:
        changed["function_call"] = {**called, "arguments": once}
    return {**message, **changed} if changed else message


def distinct_calls(calls: Sequence[JSONValue]) -> list[JSONValue]:
    """The calls, each once: the same id, name and arguments tell one again.

    The same id with other arguments is another call: some servers count their ids from one.
    """
    kept: list[JSONValue] = []
    for given in calls:
        call = _with_arguments_once(given) if isinstance(given, dict) else given
        if not (isinstance(call, dict) and any(_repeats(call, known) for known in kept)):
            kept.append(call)
    return kept


def _repeats(call: Mapping[str, object], known: JSONValue) -> bool:
    if not isinstance(known, dict):
        return False
    now, before = called_function(call), called_function(known)
    if not now.get("name") or now["name"] != before.get("name"):
        return False
    call_id, known_id, index = call.get("id"), known.get("id"), call.get("index")
    is_beside = index is not None and index == known.get("index")
    if call_id and call_id == known_id:
        return _is_empty(now.get("arguments")) or arguments_key(now) == arguments_key(before)
    if call_id or not is_beside:  # in a stream, under the same number
        return False
    return _is_empty(now.get("arguments")) or bool(known_id and arguments_key(now) == arguments_key(before))


def _is_empty(arguments: object) -> bool:
    return arguments is None or (isinstance(arguments, str) and not arguments.strip())


def arguments_key(called: Mapping[str, object]) -> str:
    """A text that is the same for equal arguments, however they are written."""
    given = called.get("arguments", called.get("input"))
    try:
        value = json.loads(given or "{}", parse_float=_number) if isinstance(given, str) else given
        return json.dumps({} if value is None else value, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return str(given)


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() else value


def _with_arguments_once(call: JSONObject) -> JSONObject:
    called = called_function(call)
    once = _said_once(called.get("arguments"))
    name = next((name for name in ("function", "custom") if isinstance(call.get(name), dict)), None)
    if once is None:
        return call
    if name is None:  # they stand in the call itself
        return {**call, "arguments": once}
    return {**call, name: {**called, "arguments": once}}


def _said_once(arguments: object) -> str | None:
    """The first of several equal JSON objects one behind the other; None where it is something else.

    An empty one holds the place of the others: LiteLLM sends it when a call begins.
    """
    if not isinstance(arguments, str) or not arguments.startswith("{") or is_complete(arguments):
        return None
    decoder, end, first = json.JSONDecoder(), 0, ""
    keys: set[str] = set()
    try:
        while end < len(arguments):
            start = end
            _, end = decoder.raw_decode(arguments, start)
            said = arguments[start:end]
            first = said if not first or is_placeholder(first) else first
            keys |= {arguments_key({"arguments": said})} if not is_placeholder(said) else set()
            end += len(arguments[end:]) - len(arguments[end:].lstrip())
    except (ValueError, RecursionError):
        return None
    return first if len(keys) <= 1 else None


def is_placeholder(arguments: object) -> bool:
    """Whether arguments are an empty object, which some servers send before the real ones."""
    return arguments == {} or (isinstance(arguments, str) and arguments.strip() == "{}")


def is_complete(arguments: object) -> bool:
    """Whether a call's arguments are JSON, so that nothing of them can be missing."""
    if isinstance(arguments, (dict, list)):
        return True
    end = arguments[-_LOOKED_AT:].rstrip()[-1:] if isinstance(arguments, str) else ""
    if isinstance(arguments, str) and arguments[:1] == "{" and end not in ("", "}"):
        return False  # the most of what is under way, known without parsing it
    try:
        json.loads(arguments)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def is_whole_call(call: object) -> bool:
    """Whether a call has a name, and arguments that are JSON, or none."""
    called = called_function(call) if isinstance(call, Mapping) else {}
    if not called.get("name"):
        return False
    if "arguments" not in called and "input" in called:
        return isinstance(called["input"], str)
    return _is_empty(called.get("arguments")) or is_complete(called.get("arguments"))
