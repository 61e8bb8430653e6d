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

_SAYING = ("message", "delta")
"""Where a choice has its message, whole or in pieces."""

_NOT_SAID = frozenset({"index", "finish_reason", "logprobs", "usage", "error"})
"""What a choice has besides its message."""

_OVER_OTHERS = ("length", "content_filter")
"""Why a reply is not whole: to be known whatever the other choices say."""


@dataclass(slots=True)
class Choice:
    """One choice.

    Attributes:
        message: what it says.
        finish_reason: why the model stopped, in the provider's word; None while it has not.
        has_deltas: whether it has said something in `delta`, so that a whole message is that once more.
    """

    message: JSONObject
    finish_reason: object = None
    has_deltas: bool = False


def numbered(choices: object) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The choices of an answer or a chunk, each with its number; some servers do not number them."""
    listed = _listed(choices)
    for place, given in enumerate(listed):
        choice = {"text": given} if isinstance(given, str) else given
        if isinstance(choice, Mapping):
            index = choice.get("index")
            yield index if isinstance(index, int) else place, choice


def _listed(choices: object) -> Sequence[object]:
    """The choices as a list: some servers send one alone, or an object of them by their numbers."""
    if isinstance(choices, Mapping):
        is_many = bool(choices) and all(str(key).isdecimal() for key in choices)
        return list(choices.values()) if is_many else [choices]
    return choices if isinstance(choices, (list, tuple)) else []


def choices_of(body: Mapping[str, object]) -> Iterator[tuple[int, Mapping[str, object]]]:
    """The choices of an answer or a chunk; where it has none, what it says itself, as Ollama's do."""
    if body.get("choices"):
        return numbered(body["choices"])
    said = {name: body[name] for name in _SAYING if isinstance(body.get(name), (Mapping, list))}
    if not said and isinstance(body.get("output_text"), str):
        said = {"text": body["output_text"]}
    if not said and "role" in body and "content" in body:
        said = dict(body)
    if not said:
        return iter(())
    done = body.get("done_reason") or ("stop" if body.get("done") is True else None)
    return numbered([{**said, "finish_reason": body.get("finish_reason") or done}])


def message_in(choice: Mapping[str, object]) -> JSONObject | None:
    """The message of a choice that came whole, or as pieces come, or as its text alone."""
    message: JSONObject = {}
    found = False
    for said in [part for name in (*_SAYING, "text") for part in _parts_of(choice.get(name))]:
        found = True
        _fill(message, said)
    if not found and "content" in choice:
        return {key: value for key, value in choice.items() if key not in _NOT_SAID}
    return message if found else None


def _fill(message: JSONObject, said: Mapping[str, object]) -> None:
    """Put into a message what it does not say itself."""
    for key, value in said.items():
        if not message.get(key) and (value or key not in message):
            message[key] = value


def _parts_of(said: object) -> list[Mapping[str, object]]:
    """What a choice says in one place: a message, its text, or a list with it."""
    listed = said if isinstance(said, (list, tuple)) else [said]
    given = [{"content": each} if isinstance(each, str) else each for each in listed]
    return [each for each in given if isinstance(each, Mapping)]


def reason_in(choice: Mapping[str, object]) -> object:
    """Why the model stopped, or None; some servers write None as a word in each chunk."""
    reason = choice.get("finish_reason")
    return None if isinstance(reason, str) and reason.lower() in ("", "null", "none") else reason


def joined(choices: Sequence[Choice]) -> Choice:
    """The reply that the choices are, in their order."""
    if len(choices) == 1:
        return choices[0]
    first = next((choice for choice in choices if says(choice.message)), choices[0])
    text = next((choice for choice in choices if choice.message.get("content")), first)
    calling = [choice for choice in choices if listed_calls(choice.message.get("tool_calls"))]
    parts = [
        choice
        for choice in choices
        if any(choice is each for each in (first, text, *calling)) or not says(choice.message)
    ]
    message = dict(first.message)
    for part in parts:
        message |= {key: value for key, value in part.message.items() if not message.get(key)}
    if len(calling) > 1:
        calls = [call for choice in calling for call in listed_calls(choice.message["tool_calls"])]
        message["tool_calls"] = distinct_calls(calls)
    return Choice(message, _finish_reason([part.finish_reason for part in parts], has_calls=bool(calling)))


def says(message: Mapping[str, object]) -> bool:
    """Whether there is more to a message than its role."""
    return any(value for key, value in message.items() if key != "role")


def _finish_reason(told: Sequence[object], *, has_calls: bool) -> object:
    reasons = [reason for reason in told if reason]
    over = next((reason for reason in reasons if reason in _OVER_OTHERS), None)
    if over is not None:
        return over
    if has_calls and "tool_calls" in reasons:
        return "tool_calls"
    return reasons[0] if reasons else None
