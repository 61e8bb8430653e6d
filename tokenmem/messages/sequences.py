"""The order of messages as an endpoint takes it: who may follow whom, and where pictures may stand."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.messages.items import is_item
from tokenmem.messages.message import Message, text_of_parts
from tokenmem.messages.values import JSONObject

EARLIER = "[the messages before are left out]"
"""What a prompt begins with where an endpoint wants a user's message first and there is none."""

NO_ANSWER = "[no answer]"
"""What stands behind a tool's result where an endpoint wants the model to speak there and it did not."""

_SYSTEM = ("system", "developer")


def in_order(messages: Sequence[Message], rules: EndpointRules) -> list[Message]:
    """Messages of Chat Completions in an order that the endpoint takes.

    Args:
        messages: prepared, each as the endpoint takes it.
        rules: what it takes.
    """
    ordered = with_pictures_behind(messages)
    if rules.system_only_first or rules.alternates:
        ordered = _system_first(ordered, may_lead=not rules.has_instructions)
    if rules.begins_with_user:
        ordered = _user_first(ordered)
    return _answered(ordered) if rules.answers_after_tools else ordered


def with_pictures_behind(messages: Sequence[Message]) -> list[Message]:
    """What tools returned besides text in a user's message behind all results: theirs take text alone."""
    placed: list[Message] = []
    waiting: list[object] = []
    for message in messages:
        if waiting and message.role != "tool":
            placed.append(_user_with(waiting))
            waiting = []
        parts = _result_parts(message)
        pictures = [part for part in parts if not _can_stay(part)]
        if pictures:
            message = _without_pictures(message, parts)
            waiting += pictures
        placed.append(message)
    return [*placed, _user_with(waiting)] if waiting else placed


def _result_parts(message: Message) -> list[object]:
    if message.kind != "tool_result" or message.role != "tool" or message.payload is None:
        return []
    parts = message.payload.get("output" if is_item(message) else "content")
    return parts if isinstance(parts, list) else []


def _can_stay(part: object) -> bool:
    """Whether a tool's message may hold a part: all but media are text, or named in their place."""
    return not isinstance(part, dict) or part.get("type") not in (
        *("image_url", "input_image", "image", "input_audio", "file", "input_file"),
    )


def _without_pictures(message: Message, parts: Sequence[object]) -> Message:
    """A tool's result as text, which says what follows."""
    kinds = [str(part["type"]) for part in parts if isinstance(part, dict) and not _can_stay(part)]
    note = " ".join(f"[{kind}: in the next message]" for kind in kinds)
    told = text_of_parts([part for part in parts if _can_stay(part)])
    text = f"{told}\n{note}" if told else note
    taken = ("output", "content")
    payload = {key: value for key, value in (message.payload or {}).items() if key not in taken}
    return replace(message, content=text, payload=payload)


def _user_with(parts: Sequence[object]) -> Message:
    return Message("user", None, payload={"role": "user", "content": list(parts)})


def _system_first(messages: Sequence[Message], *, may_lead: bool) -> list[Message]:
    """The system's messages behind the first ones as the user's: their place in the order says something.

    Args:
        messages: the messages.
        may_lead: whether the first may be the system's: no instructions stand before them.
    """
    leading = next((index for index, each in enumerate(messages) if each.role not in _SYSTEM), len(messages))
    leading = leading if may_lead else 0
    later = (
        replace(each, role="user", payload=_with_role(each, "user")) if each.role in _SYSTEM else each
        for each in messages[leading:]
    )
    return [*messages[:leading], *later]


def _with_role(message: Message, role: str) -> dict[str, object] | None:
    return None if message.payload is None else {**message.payload, "role": role}


def _user_first(messages: Sequence[Message]) -> list[Message]:
    """Without what stands before the first user's message; a stand-in where there is none."""
    leading = next((index for index, each in enumerate(messages) if each.role not in _SYSTEM), len(messages))
    first = next((index for index, each in enumerate(messages) if each.role == "user"), None)
    if first is None:
        return [*messages[:leading], Message.user(EARLIER), *messages[leading:]]
    return [*messages[:leading], *messages[first:]]


def _answered(messages: Sequence[Message]) -> list[Message]:
    """With a word of the model's between a tool's result and the user's message."""
    placed: list[Message] = []
    for message in messages:
        if placed and placed[-1].role == "tool" and message.role == "user":
            placed.append(Message.assistant(NO_ANSWER))
        placed.append(message)
    return placed


def neighbours(roles: Sequence[str]) -> list[range]:
    """Which places in a list of roles are neighbours of the same role; a tool's results stand alone."""
    found: list[range] = []
    for place, role in enumerate(roles):
        if found and roles[place - 1] == role and role not in ("tool", "function"):
            found[-1] = range(found[-1].start, place + 1)
        else:
            found.append(range(place, place + 1))
    return found


def joined(sent: Sequence[JSONObject]) -> list[JSONObject]:
    """Messages as Chat Completions takes them, neighbours of one role as one."""
    together = neighbours([message["role"] for message in sent])
    return [functools.reduce(_join, [sent[place] for place in places]) for places in together]


def _join(first: JSONObject, second: JSONObject) -> JSONObject:
    """Two messages of one role as one."""
    made = {**first, **second}
    if first.get("name") != second.get("name"):
        made.pop("name", None)
    if calls := [*(first.get("tool_calls") or ()), *(second.get("tool_calls") or ())]:
        made["tool_calls"] = calls
    contents = [first.get("content"), second.get("content")]
    if any(isinstance(content, list) for content in contents):
        made["content"] = [part for content in contents for part in _as_parts(content)]
    else:
        made["content"] = "\n\n".join(content for content in contents if content) or second.get("content")
    return made


def _as_parts(content: object) -> list[object]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []
