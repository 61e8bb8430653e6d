"""One item of a reply that the Responses API streams, put together of its pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenmem.chat.apis.output_items import text_of_item
from tokenmem.messages.unstorable import with_whole_characters
from tokenmem.messages.values import JSONObject

GROWING = ("arguments", "input", "refusal")
"""What comes in pieces besides the text of a message."""


@dataclass(slots=True)
class StreamedItem:
    """One item of the reply.

    Attributes:
        place: its number in the reply, where the server tells it.
        begun: what it was when it began, and what has grown of it.
        name: the id that its events name, where they do.
        texts: the text of a message under way, by the numbers of its parts.
        given: the texts that parts had when they began, by their numbers; and what else had, by its key.
        texts_of: what has come in pieces, by its key.
        done: the whole item, once it has come.
        said: the text of the whole item.
    """

    place: object = None
    begun: JSONObject = field(default_factory=dict)
    name: object = None
    texts: dict[int, str] = field(default_factory=dict)
    given: dict[int | str, str] = field(default_factory=dict)
    texts_of: dict[str, str] = field(default_factory=dict)
    done: JSONObject | None = None
    said: str = ""

    @property
    def text(self) -> str:
        """What it says so far."""
        return self.said if self.done is not None else "\n".join(self.parts())

    def parts(self) -> list[str]:
        """The texts of its parts so far, in their order."""
        numbers = {*self.texts, *(key for key in self.given if isinstance(key, int))}
        return [_grown(self.given.get(number, ""), self.texts.get(number, "")) for number in sorted(numbers)]

    def begin(self, begun: JSONObject) -> None:
        """It is told as it begins; its first pieces may have come before, and it may have a text already."""
        self.name = self.name or begun.get("id")
        content = begun.get("content")
        is_message = begun.get("type", "message") == "message"
        for number, part in enumerate(content if is_message and isinstance(content, list) else []):
            if is_said(part):
                self.begin_part(number, part)
        self.given |= {key: begun[key] for key in GROWING if isinstance(begun.get(key), str) and begun[key]}
        self.begun = {**begun, **self.begun}

    def begin_part(self, number: int, part: object) -> None:
        """A part of it begins, or has come whole."""
        text = part.get("text") if isinstance(part, Mapping) else part
        refusal = part.get("refusal") if isinstance(part, Mapping) else None
        if isinstance(refusal, str) and refusal:
            self.given["refusal"] = refusal
            self.begun.setdefault("refusal", refusal)
        if isinstance(text, str) and text:
            self.given[number] = text

    def grow(self, key: str, text: str, *, is_whole: bool) -> None:
        """What it has under a key goes on, or has come whole."""
        deltas = self.begun.get(key) if key not in self.given else self.texts_of.get(key, "")
        deltas = text if is_whole or not isinstance(deltas, str) else deltas + text
        self.texts_of[key] = deltas
        self.begun[key] = deltas if is_whole else _grown(self.given.get(key, ""), deltas)

    def grow_part(self, number: int, text: str, *, is_whole: bool) -> None:
        """The text of a part goes on, or has come whole: what has been delivered stays."""
        known = self.texts.get(number, "")
        if not is_whole:
            self.texts[number] = known + text
        elif goes_on(known, text):
            self.texts[number] = text

    def finish(self, done: JSONObject) -> None:
        """It has come whole; where that says something else than its pieces, they are what was delivered."""
        said = text_of_item(done)
        if self.done is None and not goes_on(self.text, said):
            done = {**self.closed(), **{key: value for key, value in done.items() if key != "content"}}
            said = self.text
        self.done, self.said = done, said

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
            {"type": "output_text", "text": text, "annotations": []} for text in self.parts()
        ]
        if refusal := self.begun.get("refusal"):
            parts.append({"type": "refusal", "refusal": refusal})
        begun = {key: value for key, value in self.begun.items() if key != "refusal"}
        return {**begun, "type": "message", "role": "assistant", "content": parts}


def _grown(given: str, deltas: str) -> str:
    """What an item had when it began, and its pieces: these may be the same once more, or go on with it."""
    if not given or not deltas:
        return given or deltas
    if given.startswith(deltas):
        return given
    return deltas if deltas.startswith(given) else given + deltas


def is_said(part: object) -> bool:
    """Whether a part is of what a model says: what it thinks comes in parts too."""
    return not isinstance(part, Mapping) or part.get("type") in (None, "text", "output_text", "refusal")


def goes_on(known: str, text: str) -> bool:
    """Whether a text begins with what is known of it."""
    whole: str = with_whole_characters(text)
    return text.startswith(known) or whole.startswith(with_whole_characters(known))
