"""What a model's reply is, whatever API it came by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from tokenmem.chat.apis.forms import needs_escapes, stored_reply
from tokenmem.chat.apis.usage import Usage, storable_counts
from tokenmem.messages.calls import ToolCall, answered_ids, tool_calls
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import Unstorable, parse_partial
from tokenmem.messages.unstorable import holds_unstorable, scrubbed, with_whole_characters, without_half
from tokenmem.messages.values import JSONObject, JSONValue, as_json, can_be_stored, check_text


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, or the part of one that has arrived.

    Attributes:
        messages: what to store, in order; empty where nothing has arrived.
        text: what it says.
        finish_reason: why the model stopped, in the provider's word; None while it has not.
        usage: what the provider bills.
        request_id: the provider's id of the request.
        exact: the messages with their texts escaped, for a store that keeps what databases cannot hold; empty
            where there is nothing of it.
        failure: what the model's last word was, where that is an error: the call ends with the status
            `error`, and the messages are the part that had arrived.
    """

    messages: Sequence[Message] = ()
    text: str = ""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    request_id: str | None = None
    exact: Sequence[Message] = ()
    failure: Exception | None = None

    def stored_by(self, unstorable: Unstorable) -> Self:
        """The answer as a store keeps it that does this about characters that databases cannot hold."""
        return replace(self, messages=self.exact) if self.exact and unstorable == "escape" else self

    @classmethod
    def of_message(
        cls,
        message: Mapping[str, object],
        *,
        finish_reason: str | None = None,
        usage: Usage | None = None,
        request_id: str | None = None,
    ) -> Self:
        """A whole reply that is one message.

        Args:
            message: as Chat Completions has it: `content`, `tool_calls`, and whatever else is to be kept.
                Characters that no database holds are replaced, and calls without an id are given one. What an
                assistant's message cannot hold is kept as it came, in a mark that is never sent.
            finish_reason: see Answer.
            usage: see Answer.
            request_id: see Answer.
        """
        stored = stored_reply(message, "refuse")
        exact = [stored_reply(message, "escape")] if needs_escapes(message) else []
        text = stored.content or ""
        return cls([stored], text, finish_reason, storable_counts(usage), request_id, exact)

    @classmethod
    def part_of_message(
        cls,
        text: str,
        rest: Mapping[str, object] | None = None,
        *,
        usage: Usage | None = None,
        request_id: str | None = None,
    ) -> Self:
        """The part of a message that had arrived when it was cut off, with the mark that says so.

        Args:
            text: what it says so far. A first half of a character at its end is no part of it.
            rest: what else had arrived, such as the beginnings of tool calls: kept, and not sent again.
            usage: see Answer.
            request_id: see Answer.
        """
        arrived = {"text": text, "rest": dict(rest or {})}
        arrived = with_whole_characters(arrived if can_be_stored(arrived) else as_json(arrived))
        whole = scrubbed(without_half(arrived["text"]))
        stored = _part(whole, scrubbed(arrived["rest"]), "refuse")
        exact = _part(**arrived, unstorable="escape") if holds_unstorable(arrived) else []
        return cls(stored, whole, None, storable_counts(usage), request_id, exact)


def _part(text: str, rest: JSONObject, unstorable: Unstorable) -> list[Message]:
    if not text and not rest:
        return []
    return [parse_partial({"role": "assistant", "content": text}, rest, unstorable)]


def is_stream(response: object) -> bool:
    """Whether a response comes in pieces."""
    return isinstance(response, (Iterator, AsyncIterator))


def plain(value: object) -> JSONValue:
    """The JSON value of what the openai package returns; a dict is one already."""
    dump = getattr(value, "to_dict", None)
    if callable(dump):
        return dump(mode="json", warnings=False)
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_unset=True) if callable(dump) else value


def request_id_of(response: object) -> str | None:
    """The provider's id of a request: of a reply, a stream or an error."""
    found = getattr(response, "_request_id", None) or getattr(response, "request_id", None)
    if found is None:
        headers = getattr(getattr(response, "response", None), "headers", None)
        found = headers.get("x-request-id") if headers is not None else None
    return found if isinstance(found, str) and storable(found) else None


def tool_calls_of(messages: Sequence[Message]) -> tuple[ToolCall, ...]:
    """The tools that a reply calls and that it has no results of: some, the provider answers itself."""
    answered = {call_id for message in messages for call_id in answered_ids(message)}
    return tuple(call for message in messages for call in tool_calls(message) if call.id not in answered)


def main_message(messages: Sequence[Message]) -> Message:
    """The one with the text, else the last."""
    said = [message for message in messages if message.kind == "message"]
    return (said or list(messages))[-1]


def storable(text: str) -> bool:
    """Whether both databases can hold the text."""
    try:
        check_text(text, "text")
    except ValueError:
        return False
    return True
