"""The reply of a stream of the Responses API, from its events."""

from __future__ import annotations

from collections.abc import Mapping

from tokenmem.chat.apis.characters import GrowingText
from tokenmem.chat.apis.failures import failed, failure_in
from tokenmem.chat.apis.interface import Event
from tokenmem.chat.apis.output_items import (
    answer_of_body,
    failure_in_response,
    output_of,
    parsed_item,
    stored_items,
    text_of,
    text_of_item,
)
from tokenmem.chat.apis.repeated_calls import is_whole_call
from tokenmem.chat.apis.replies import Answer, plain
from tokenmem.chat.apis.streamed_item import StreamedItem, is_said
from tokenmem.chat.apis.usage import Usage, larger, usage_of
from tokenmem.errors import InvalidMessage
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import Unstorable, clean, parse_partial
from tokenmem.messages.unstorable import holds_unstorable, scrubbed, with_whole_characters, without_half
from tokenmem.messages.values import JSONObject, JSONValue, as_json, can_be_stored

# What a call's pieces are pieces of.
_GROWING = {
    "response.function_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
    "response.refusal": "refusal",
}
_TEXT = "response.output_text"
_PARTS = ("response.content_part.added", "response.content_part.done")
_ENDS = ("response.completed", "response.incomplete", "response.done")
_FAILURES = ("error", "response.failed", "response.error", "response.cancelled")


class ResponseReader:
    """Puts the items together, and delivers their texts in the order of the items."""

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = request_id
        self._items: list[StreamedItem] = []
        self._response: JSONObject | None = None
        self._usage: Usage = {}
        self._text = GrowingText()
        self._delivered: list[str] = []

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
        text = self._text.grow_to(self._ready())
        self._delivered.append(text)
        return text

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
        if kind in _PARTS and is_said(body.get("part")):
            number = body.get("content_index")
            known = self._item(_TEXT, body)
            if known.done is None:
                known.begin_part(number if isinstance(number, int) else 0, body.get("part"))
            return
        name, _, what = kind.rpartition(".")
        text = body.get("delta") if what == "delta" else body.get(_GROWING.get(name, "text"))
        if what in ("delta", "done") and isinstance(text, str) and (name == _TEXT or name in _GROWING):
            self._grow(name, body, text, is_whole=what == "done")

    def _grow(self, name: str, body: Mapping[str, JSONValue], text: str, *, is_whole: bool) -> None:
        item = self._item(name, body)
        if item.done is not None:
            if is_whole:
                return
            item = self._new(body.get("output_index"), body.get("item_id"))
        number = body.get("content_index")
        if name == _TEXT:
            item.grow_part(number if isinstance(number, int) else 0, text, is_whole=is_whole)
        else:
            item.grow(_GROWING[name], text, is_whole=is_whole)

    def _item(self, name: str, body: Mapping[str, JSONValue]) -> StreamedItem:
        """The item that an event is of: one that it begins where it is of none so far."""
        place, item_id = body.get("output_index"), body.get("item_id")
        same = [each for each in self._same(place, item_id) if _can_be_of(each, name)]
        return same[-1] if same else self._new(place, item_id)

    def _same(self, place: object, item_id: object) -> list[StreamedItem]:
        """The items that have this id, else this place: some servers have another id in each event."""
        newest = self._items[-1] if self._items else None
        if newest is not None and item_id and newest.name == item_id:
            return [newest]
        if item_id and (named := [each for each in self._items if each.name == item_id]):
            return named
        at_place = [each for each in self._items if each.place == place]
        if place is None and item_id:
            return [each for each in at_place if not each.name]
        return at_place

    def _new(self, place: object, item_id: object = None) -> StreamedItem:
        self._items.append(StreamedItem(place, name=item_id))
        return self._items[-1]

    def _add(self, place: object, begun: JSONObject) -> None:
        """An item begins; its first pieces may have come before."""
        same = self._same(place, begun.get("id"))
        known = next((each for each in same if not each.done), None)
        if known is None or known.begun.get("type"):
            known = self._new(place)
        known.begin(begun)

    def _finish(self, place: object, done: JSONObject) -> None:
        """An item has come whole; the same one may come again."""
        same = [each for each in self._same(place, done.get("id")) if _may_be(each, done)]
        item = next((each for each in same if each.done is None), None)
        if item is None:
            item = next((each for each in same if _identity(each.done) == _identity(done)), None)
        item = item or self._new(place, done.get("id"))
        item.finish(done)

    def _ordered(self) -> list[StreamedItem]:
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
        output, streamed = output_of(body), [item.closed() for item in self._ordered()]
        told = text_of(stored_items(output, "refuse"))
        if not output:
            body["output"] = streamed
        elif not told.startswith("".join(self._delivered)):  # what was delivered is the reply
            rest = [item for item in output if not _is_among(item, streamed)]
            thoughts = [item for item in rest if _type_of(item) == "reasoning"]
            body["output"] = [*thoughts, *streamed, *(item for item in rest if item not in thoughts)]
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
            message, rest = clean(told, unstorable)
            stored.append(parse_partial(message, rest, unstorable))
        return stored


def _under_way(items: list[StreamedItem], text: str) -> JSONObject:
    """The message whose text was coming."""
    known = next((item.begun for item in items if item.begun.get("type") == "message"), {})
    named = {"id": known["id"]} if isinstance(known.get("id"), str) else {}
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {"type": "message", **named, "role": "assistant", "status": "incomplete", "content": content}


def _can_be_of(item: StreamedItem, name: str) -> bool:
    """Whether an event of this name can be of the item: a call and a message may have the same number."""
    if name == _TEXT or _GROWING[name] == "refusal":
        return not item.is_call and not ({"arguments", "input"} & item.begun.keys())
    return item.begun.get("type") != "message" and not item.texts


def _is_among(item: JSONValue, streamed: list[JSONObject]) -> bool:
    """Whether an item of the whole response is one that was streamed; its messages are."""
    if _type_of(item) in ("message", None):
        return True
    if not isinstance(item, Mapping):
        return False
    names = [name for name in ("id", "call_id") if item.get(name)]
    return any(item == each or any(item[name] == each.get(name) for name in names) for each in streamed)


def _type_of(item: JSONValue) -> object:
    return item.get("type") if isinstance(item, Mapping) else None


def _may_be(item: StreamedItem, done: JSONObject) -> bool:
    """Whether what has come of an item can be the beginning of this whole one."""
    known = item.done or item.begun
    return all(known[key] == done[key] for key in ("type", "id") if known.get(key) and done.get(key))


def _identity(item: JSONObject | None) -> tuple[JSONValue, ...]:
    return tuple((item or {}).get(key) for key in ("type", "id", "call_id"))


def _is_whole(item: StreamedItem) -> bool:
    """Whether an item that has a call's id is a whole call: done, or with arguments that can be read."""
    if item.done is not None:
        return True
    return item.begun.get("type") == "function_call" and is_whole_call({"function": item.begun})
