"""How a conversation becomes a line of JSON Lines, page by page; sixteen bytes a message are held."""

from __future__ import annotations

import copy
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from tokenmem.messages.message import (
    OPAQUE,
    PARTIAL,
    RAW,
    Message,
    is_escaped,
    is_opaque,
    provider_message,
    stored_form,
)
from tokenmem.messages.unstorable import ESCAPED
from tokenmem.messages.values import JSONObject, JSONValue, dump_json, moment_text

FORMAT = "tokenmem_export"
"""The key of a line that says that what stands beside its messages is meant for tokenmem."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_TIME = -(2**63)
_PAGE = 1000
BESIDE = ("message_metadata", "opaque", "partial", "raw")
"""The objects of a line that hold something for some of its messages, by their numbers."""


class LineWriter:
    """Writes one line: its head, its messages, what stands beside some of them, and its lists.

    Args:
        numbered: whether positions are told where they have gaps.
    """

    def __init__(self, *, numbered: bool) -> None:
        self._numbered = numbered
        self._positions = array("q")
        self._times = array("q")
        self._pinned: list[int] = []
        self._escaped: list[int] = []
        self._seen: set[str] = set()

    @property
    def count(self) -> int:
        """How many messages it has written."""
        return len(self._times)

    def head(self, record: JSONObject) -> str:
        """The beginning of the line, up to the messages."""
        return dump_json(record)[:-1] + ',"messages":['

    def page(self, page: Sequence[Message]) -> str:
        """Some messages more."""
        first = self.count == 0
        for message in page:
            self._note(message)
        return ("" if first else ",") + ",".join(dump_json(written_form(message)) for message in page)

    def _note(self, message: Message) -> None:
        self._positions.append(message.position)
        time = message.created_at
        self._times.append(_NO_TIME if time is None else (time - _EPOCH) // _MICROSECOND)
        if message.pinned:
            self._pinned.append(self.count)
        if is_escaped(message):
            self._escaped.append(self.count)
        self._seen.update(name for name in BESIDE if _beside(name, message) is not None)

    def beside(self) -> list[str]:
        """Which of the objects beside the messages are needed: each is one more walk through them."""
        return [name for name in BESIDE if name in self._seen]

    def entries(self, name: str, page: Sequence[Message], first_number: int | None = None) -> str:
        """The entries of one of these objects for some of the messages; each ends with a comma."""
        written = []
        for index, message in enumerate(page):
            if (value := _beside(name, message)) is not None:
                number = bisect_left(self._positions, message.position) + 1
                if first_number is not None:
                    number = first_number + index
                written.append(f'"{number}":{dump_json(value[0])},')
        return "".join(written)

    def lists(self, positions: Sequence[int] | None = None) -> Iterator[str]:
        """What the messages' numbers, positions and times are listed in; `positions` where they are known."""
        if self._pinned:
            yield f',"pinned":{dump_json(self._pinned)}'
        if self._escaped:
            yield f',"escaped":{dump_json(self._escaped)}'
        if positions is not None:
            yield from _listed("positions", positions, str)
        elif self._numbered and self.count and self._positions[-1] > self.count:
            yield from _listed("positions", self._positions, str)
        if any(time != _NO_TIME for time in self._times):
            yield from _listed("times", self._times, _time_text)

    def end(self, *, is_export: bool) -> str:
        """The end of the line, without the newline."""
        is_marked = is_export or self._escaped or not self._seen <= {"message_metadata"}
        return f',"{FORMAT}":1}}' if is_marked else "}"


def _listed(name: str, values: Sequence[int], text: Callable[[int], str]) -> Iterator[str]:
    yield f',"{name}":['
    for start in range(0, len(values), _PAGE):
        written = ",".join(map(text, values[start : start + _PAGE]))
        yield f"{',' if start else ''}{written}"
    yield "]"


def _time_text(microseconds: int) -> str:
    if microseconds == _NO_TIME:
        return "null"
    return f'"{moment_text(_EPOCH + microseconds * _MICROSECOND)}"'


def written_form(message: Message) -> JSONObject:
    """The provider's message, its texts escaped where they are stored so: a line is UTF-8."""
    payload = copy.copy(message.payload)
    if payload is not None and ESCAPED in payload:
        return stored_form(message.role, message.content, payload)
    return provider_message(message.role, message.content, payload)


def _beside(name: str, message: Message) -> tuple[JSONValue] | None:
    """What one of the objects beside the messages holds for a message, as it is stored."""
    payload = message.payload or {}
    if name == "message_metadata":
        return None if message.metadata is None else (message.metadata,)
    if name == "opaque":
        return (payload[OPAQUE],) if is_opaque(message) else None
    mark = PARTIAL if name == "partial" else RAW
    return (payload[mark],) if mark in payload else None
