"""The reply of a stream of Chat Completions, from its chunks."""

from __future__ import annotations

from collections.abc import Mapping

from tokenmem.chat.apis.characters import GrowingText
from tokenmem.chat.apis.choices import Choice, choices_of, joined, message_in, reason_in, says
from tokenmem.chat.apis.failures import ends_in_error, failure_in, with_failure
from tokenmem.chat.apis.forms import listed_calls
from tokenmem.chat.apis.interface import Event
from tokenmem.chat.apis.merging import merge, text_of_content
from tokenmem.chat.apis.repeated_calls import distinct_calls, is_whole_call
from tokenmem.chat.apis.replies import Answer, plain
from tokenmem.chat.apis.usage import Usage, larger, usage_of, usages_in
from tokenmem.errors import ModelError
from tokenmem.messages.calls import called_function
from tokenmem.messages.unstorable import scrubbed
from tokenmem.messages.values import JSONObject, JSONValue, as_json, can_be_stored


class CompletionReader:
    """Puts the choices together, each by itself, and delivers the text of the first."""

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = request_id
        self._choices: dict[int, Choice] = {0: Choice({})}
        self._usage: Usage = {}
        self._text = GrowingText()
        self._failure: ModelError | None = None
        self._ends_in_error = False

    def feed(self, chunk: Event) -> str:
        """Take a chunk in and return the text in it.

        Raises:
            ModelError: the chunk, or the one before, says that the reply has failed.
        """
        if self._failure is not None and not self._ends_in_error:
            raise self._failure
        body = plain(chunk)
        if not can_be_stored(body):
            body = as_json(body)
        if not isinstance(body, Mapping):
            return ""
        choices = list(choices_of(body))
        told = (*usages_in(body), *(choice.get("usage") for _, choice in choices))
        self._usage = larger(self._usage, usage_of(*told))
        for number, choice in choices:
            self._take(number, choice)
        text = self._text.grow_to(text_of_content(self._choices[0].message.get("content")))
        self._failure = self._failure or failure_in(body)
        self._ends_in_error = self._ends_in_error or ends_in_error(body)
        if self._failure is not None and not text and not self._ends_in_error:
            raise self._failure
        return text

    def _take(self, number: int, choice: Mapping[str, JSONValue]) -> None:
        known = self._choices.setdefault(number, Choice({}))
        known.finish_reason = reason_in(choice) or known.finish_reason
        delta = choice.get("delta")
        if isinstance(delta, str):
            delta = {"content": delta}
        if isinstance(delta, Mapping):
            merge(known.message, delta)
            known.has_deltas = known.has_deltas or says(delta)
        rest = {name: value for name, value in choice.items() if name != "delta"}
        whole = message_in(rest)  # in the place of the pieces, itself in pieces, or what they were once more
        if whole is not None and known.has_deltas:
            merge(known.message, {key: each for key, each in whole.items() if not known.message.get(key)})
        elif whole is not None:
            merge(known.message, whole)

    @property
    def complete(self) -> bool:
        """Whether the model has said that it has come to its end, or that it has failed."""
        return self._failure is not None or self._joined().finish_reason is not None

    @property
    def whole(self) -> bool:
        """Whether what has arrived is a reply, although the model has not said that it is at its end."""
        message = self._joined().message
        calls = [*listed_calls(message.get("tool_calls"))]
        if called := message.get("function_call"):
            calls.append({"function": called})
        says = text_of_content(message.get("content")) or message.get("refusal")
        return bool(says or calls) and all(map(is_whole_call, calls)) and not self._text.is_waiting

    def answer(self) -> Answer:
        """The whole reply.

        Raises:
            ModelError: the last chunk said that it has failed.
        """
        if self._failure is not None:
            return with_failure(self.part() if self._ends_in_error else Answer(), self._failure)
        reply = self._joined()
        reply.message.setdefault("content", None)
        return whole_answer(reply, self._usage, self.request_id)

    def part(self) -> Answer:
        """What has arrived of a reply that was cut off."""
        return part_of(joined(self._ordered()).message, self._usage, self.request_id)

    def _joined(self) -> Choice:
        """The reply so far, its calls without the numbers of their pieces."""
        choices = self._ordered()
        return joined([Choice(_without_numbers(each.message), each.finish_reason) for each in choices])

    def _ordered(self) -> list[Choice]:
        return [self._choices[number] for number in sorted(self._choices)]


def _without_numbers(message: JSONObject) -> JSONObject:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return dict(message)
    plain_calls = [
        {key: value for key, value in call.items() if key != "index"} if isinstance(call, dict) else call
        for call in distinct_calls(calls)
        if not (isinstance(call, dict) and _calls_nothing(call))
    ]
    return {**message, "tool_calls": plain_calls}


def _calls_nothing(call: JSONObject) -> bool:
    """Whether a call is a number or an id alone, as some servers send behind the last."""
    return call.keys() <= {"index", "id", "type", "function", "custom"} and not called_function(call)


def whole_answer(reply: Choice, usage: Usage, request_id: str | None) -> Answer:
    """The answer that a reply is."""
    reason = reply.finish_reason
    told = scrubbed(str(reason)) if reason is not None else None
    return Answer.of_message(reply.message, finish_reason=told, usage=usage, request_id=request_id)


def part_of(message: JSONObject, usage: Usage, request_id: str | None) -> Answer:
    """What had arrived of a message: its text, and in the mark what else there is."""
    content = message.get("content")
    rest = {key: value for key, value in message.items() if value and key not in ("role", "content")}
    if content and not isinstance(content, str):
        rest["content"] = content
    return Answer.part_of_message(text_of_content(content), rest, usage=usage, request_id=request_id)
