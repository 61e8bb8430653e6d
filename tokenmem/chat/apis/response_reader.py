"""The reply of a stream of the Responses API, from its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenmem.chat.apis.characters import GrowingText
from tokenmem.chat.apis.failures import failed, failure_in
from tokenmem.chat.apis.interface import Event
from tokenmem.chat.apis.output_items import (
    answer_of_body,
    failure_in_response,
    output_of,
    parsed_item,
    text_of_item,
)
from tokenmem.chat.apis.repeated_calls import is_whole_call
from tokenmem.chat.apis.replies import Answer, plain
from tokenmem.chat.apis.usage import Usage, larger, usage_of
from tokenmem.errors import InvalidMessage
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import Unstorable, parse_partial
from tokenmem.messages.unstorable import holds_unstorable, scrubbed, with_whole_characters, without_half
from tokenmem.messages.values import JSONObject, JSONValue, as_json, can_be_stored

# What a call's pieces are pieces of.
_GROWING = {
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.refusal": "refusal",
}
_TEXT = "response.output_text"
_ENDS = ("response.completed", "response.incomplete", "response.done")
_FAILURES = ("error", "response.failed", "response.error")


@dataclass(slots=True)
class _Item:
    """One item of the reply.

    Attributes:
        place: its number in the reply, where the server tells it.
        begun: what it was when it began, and what has grown of it.
        texts: the text of a message under way, by the numbers of its parts.
        done: the whole item, once it has come.
        said: the text of the whole item.
    """

    place: object = None
    begun: JSONObject = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    done: JSONObject | None = None
    said: str = ""

    @property
    def text(self) -> str:
        """What it says so far."""
        return (
            self.said if self.done is not None else "\n".join(map(self.texts.__getitem__, sorted(self.texts)))
        )

    @property
    def is_text(self) -> bool:
        """Whether it is under way and may say more."""
        return self.done is None and self.begun.get("type", "message") == "message"

    @property
    def is_call(self) -> bool:
        """Whether it is a call that somebody answers."""
        known = self.done or self.begun
        return "call_id" in known or known.get("type") in ("function_call", "custom_tool_call")

    @property
    def has_begun(self) -> bool:
        """Whether there is more to it, under way, than the text of a message."""
        is_message = self.begun.get("type", "message") == "message"
        return bool(self.begun.get("refusal")) or (bool(self.begun) and not is_message)

    def closed(self) -> JSONObject:
        """It as a whole item, where the server has not sent that."""
        if self.done is not None:
            return self.done
        if self.begun.get("type", "message") != "message":
            return self.begun
        parts: list[JSONObject] = [
            {"type": "output_text", "text": self.texts[number], "annotations": []}
            for number in sorted(self.texts)
        ]
        if refusal := self.begun.get("refusal"):
            parts.append({"type": "refusal", "refusal": refusal})
        begun = {key: value for key, value in self.begun.items() if key != "refusal"}
        return {**begun, "type": "message", "role": "assistant", "content": parts}


class ResponseReader:
    """Puts the items together, and delivers their texts in the order of the items."""

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = request_id
        self._items: list[_Item] = []
        self._response: JSONObject | None = None
        self._usage: Usage = {}
        self._text = GrowingText()

    def feed(self, event: Event) -> str:
        """Take an event in and return the text in it.

        Raises:
            ModelError: the provider says that the reply has failed.
        """
        body = plain(event)
        if not can_be_stored(body):
            body = as_json(body)
        if not isinstance(body, Mapping):
            return ""
        kind, response = body.get("type"), body.get("response")
        response = response if isinstance(response, Mapping) else None
        if response is not None:
            self._usage = larger(self._usage, usage_of(response.get("usage")))
        self._check(kind, body, response)
        if kind in _ENDS and response is not None:
            self._response = dict(response)
        elif isinstance(kind, str):
            self._take(kind, body)
        return self._text.grow_to(self._ready())

    def _check(self, kind: object, body: Mapping[str, JSONValue], response: object) -> None:
        """Raise the error that an event tells of."""
        failure = failure_in(body) or (failure_in_response(response) if response is not None else None)
        if failure is None and kind in _FAILURES:
            failure = failed(body)
        if failure is not None:
            raise failure

    def _take(self, kind: str, body: Mapping[str, JSONValue]) -> None:
        """Take in an event that tells of one item."""
        place, item = body.get("output_index"), body.get("item")
        if kind == "response.output_item.added" and isinstance(item, Mapping):
            self._add(place, dict(item))
            return
        if kind == "response.output_item.done" and isinstance(item, Mapping):
            self._finish(place, dict(item))
            return
        name, _, what = kind.rpartition(".")
        text = body.get("delta") if what == "delta" else body.get(_GROWING.get(name, "text"))
        if what in ("delta", "done") and isinstance(text, str) and (name == _TEXT or name in _GROWING):
            self._grow(name, body, text, is_whole=what == "done")

    def _grow(self, name: str, body: Mapping[str, JSONValue], text: str, *, is_whole: bool) -> None:
        place = body.get("output_index")
        item = next((each for each in reversed(self._items) if each.place == place), None)
        if item is None or (item.done is not None and not is_whole):
            item = self._new(place)
        if item.done is not None:
            return
        number = body.get("content_index")
        key = number if isinstance(number, int) else 0
        if name == _TEXT:
            item.texts[key] = text if is_whole else item.texts.get(key, "") + text
        else:
            known = item.begun.get(_GROWING[name])
            item.begun[_GROWING[name]] = text if is_whole or not isinstance(known, str) else known + text

    def _new(self, place: object) -> _Item:
        self._items.append(_Item(place))
        return self._items[-1]

    def _add(self, place: object, begun: JSONObject) -> None:
        """An item begins; its first pieces may have come before."""
        known = next((each for each in self._items if each.place == place and not each.done), None)
        if known is None or known.begun.get("type"):
            known = self._new(place)
        known.begun = {**begun, **known.begun}

    def _finish(self, place: object, done: JSONObject) -> None:
        """An item has come whole; the same one may come again."""
        same = [each for each in self._items if each.place == place and _may_be(each, done)]
        item = next((each for each in same if each.done is None), None)
        if item is None:
            item = next((each for each in same if _identity(each.done) == _identity(done)), None)
        item = item or self._new(place)
        item.done, item.said = done, text_of_item(done)

    def _ordered(self) -> list[_Item]:
        """The items in the order of the reply."""
        last = len(self._items)
        return sorted(self._items, key=lambda each: each.place if isinstance(each.place, int) else last)

    def _ready(self) -> str:
        """The text up to the end of the first message that is under way."""
        told = []
        for item in self._ordered():
            told.append(item.text)
            if item.is_text:
                break
        return "".join(told)

    @property
    def complete(self) -> bool:
        """Whether the model has said that it has come to its end."""
        return self._response is not None

    @property
    def whole(self) -> bool:
        """Whether what has arrived is a reply, although the model has not said that it is at its end."""
        items = self._ordered()
        calls = [each for each in items if each.is_call]
        says = any(each.text or each.begun.get("refusal") for each in items)
        return bool(says or calls) and all(map(_is_whole, calls)) and not self._text.is_waiting

    def answer(self) -> Answer:
        """The whole reply."""
        body: JSONObject = dict(self._response or {})
        if not output_of(body):
            body["output"] = [item.closed() for item in self._ordered()]
        answer = answer_of_body(body, self.request_id, ended=self.complete)
        answer.usage.update(larger(self._usage, answer.usage))
        return answer

    def part(self) -> Answer:
        """What has arrived of a reply that was cut off: whole items, and the text of the one under way."""
        done = [item.done for item in self._ordered() if item.done is not None]
        under_way = [item for item in self._ordered() if item.done is None]
        text = "".join(item.text for item in under_way)
        arrived = [done, [item.begun for item in under_way], text]
        told = "".join(map(text_of_item, done)) + without_half(text)
        exact = self._part("escape") if holds_unstorable(with_whole_characters(arrived)) else []
        told = scrubbed(with_whole_characters(told))
        return Answer(self._part("refuse"), told, None, self._usage, self.request_id, exact)

    def _part(self, unstorable: Unstorable) -> list[Message]:
        stored: list[Message] = []
        begun: list[JSONValue] = []
        for item in self._ordered():
            if item.done is None:
                continue
            try:
                stored.append(parsed_item(item.done, unstorable))
            except (
                InvalidMessage
            ):  # in the mark, like what has only begun: nothing may hide why it was cut off
                begun.append(item.done)
        under_way = [item for item in self._ordered() if item.done is None]
        text = "".join(item.text for item in under_way)
        if unstorable == "refuse":
            text = without_half(text)
        begun += [item.begun for item in under_way if item.has_begun]
        if text or begun or stored:  # behind whole items too: the reply is not whole without the mark
            told = with_whole_characters([_under_way(under_way, text), {"items": begun} if begun else {}])
            message, rest = scrubbed(told) if unstorable == "refuse" else told
            stored.append(parse_partial(message, rest, unstorable))
        return stored


def _under_way(items: list[_Item], text: str) -> JSONObject:
    """The message whose text was coming."""
    known = next((item.begun for item in items if item.begun.get("type") == "message"), {})
    named = {"id": known["id"]} if isinstance(known.get("id"), str) else {}
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {"type": "message", **named, "role": "assistant", "status": "incomplete", "content": content}


def _may_be(item: _Item, done: JSONObject) -> bool:
    """Whether what has come of an item can be the beginning of this whole one."""
    known = item.done or item.begun
    return all(known[key] == done[key] for key in ("type", "id") if known.get(key) and done.get(key))


def _identity(item: JSONObject | None) -> tuple[JSONValue, ...]:
    return tuple((item or {}).get(key) for key in ("type", "id", "call_id"))


def _is_whole(item: _Item) -> bool:
    """Whether an item that has a call's id is a whole call: done, or with arguments that can be read."""
    if item.done is not None:
        return True
    return item.begun.get("type") == "function_call" and is_whole_call({"function": item.begun})
