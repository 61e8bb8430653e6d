"""The choices of an answer of Chat Completions: one reply, since only one is asked for.

GitHub's Copilot answers with the text in the first choice and each call in one of its own. A choice that says
something else than the first, as where a server gives several answers, is none of the reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokenmem.chat.apis.forms import listed_calls
from tokenmem.chat.apis.repeated_calls import distinct_calls
from tokenmem.messages.values import JSONObject

_OVER_OTHERS = ("length", "content_filter")
"""Why a reply is not whole: to be known whatever the other choices say."""


@dataclass(slots=True)
class Choice:
    """One choice.

    Attributes:
        message: what it says.
        finish_reason: why the model stopped, in the provider's word; None while it has not.
    """

    message: JSONObject
    finish_reason: object = None


def numbered(choices: object) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The choices of an answer or a chunk, each with its number; some servers do not number them."""
    listed = [choices] if isinstance(choices, Mapping) else choices
    if not isinstance(listed, (list, tuple)):
        return
    for place, choice in enumerate(listed):
        if isinstance(choice, Mapping):
            index = choice.get("index")
            yield index if isinstance(index, int) else place, choice


def joined(choices: Sequence[Choice]) -> Choice:
    """The reply that the choices are, in their order."""
    if len(choices) == 1:
        return choices[0]
    first = next((choice for choice in choices if _says(choice.message)), choices[0])
    text = next((choice for choice in choices if choice.message.get("content")), first)
    calling = [choice for choice in choices if listed_calls(choice.message.get("tool_calls"))]
    parts = [
        choice
        for choice in choices
        if any(choice is each for each in (first, text, *calling)) or not _says(choice.message)
    ]
    message = dict(first.message)
    for part in parts:
        message |= {key: value for key, value in part.message.items() if not message.get(key)}
    if len(calling) > 1:
        calls = [call for choice in calling for call in listed_calls(choice.message["tool_calls"])]
        message["tool_calls"] = distinct_calls(calls)
    return Choice(message, _finish_reason([part.finish_reason for part in parts], has_calls=bool(calling)))


def _says(message: Mapping[str, object]) -> bool:
    return any(value for key, value in message.items() if key != "role")


def _finish_reason(told: Sequence[object], *, has_calls: bool) -> object:
    reasons = [reason for reason in told if reason]
    over = next((reason for reason in reasons if reason in _OVER_OTHERS), None)
    if over is not None:
        return over
    if has_calls and "tool_calls" in reasons:
        return "tool_calls"
    return reasons[0] if reasons else None
