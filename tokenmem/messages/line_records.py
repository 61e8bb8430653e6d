"""What a line of JSON Lines holds beside its messages: the rows of versions, calls and prompts, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from tokenmem.errors import InvalidArgument
from tokenmem.messages.message import KINDS, ROLES
from tokenmem.messages.values import JSONObject, JSONValue, check_json, moment_of

Kind = Literal["number", "count", "time", "text", "json"]
"""What a column holds: a number of 64 bits, one of 32, a time in UTC, text, or JSON."""

VERSIONS: Mapping[str, Kind] = {
    "position": "number",
    "version": "number",
    "part": "number",
    "since_revision": "number",
    "replaced_at_revision": "number",
    "replaced_at": "time",
    "token_count": "count",
    "role": "text",
    "kind": "text",
    "content": "text",
    "payload": "json",
}
CALLS: Mapping[str, Kind] = {
    "number": "number",
    "model": "text",
    "first_position": "number",
    "last_position": "number",
    "window_tokens": "count",
    "input_tokens": "count",
    "cached_tokens": "count",
    "output_tokens": "count",
    "reasoning_tokens": "count",
    "cache_write_tokens": "count",
    "reply_position": "number",
    "reply_messages": "count",
    "latency_ms": "count",
    "first_token_ms": "count",
    "finish_reason": "text",
    "status": "text",
    "error": "text",
    "request_id": "text",
    "prompt_digest": "text",
    "created_at": "time",
    "revision": "number",
    "api": "text",
    "token_limit": "number",
    "options": "json",
    "metadata": "json",
    "pinned": "json",
    "changes": "json",
}
PROMPTS: Mapping[str, Kind] = {
    "digest": "text",
    "instructions": "text",
    "tools": "json",
    "created_at": "time",
}
_OPTIONAL_OF_CALLS = tuple(CALLS.keys() - {"number", "model", "status", "created_at"})
Shape = tuple[Mapping[str, Kind], tuple[str, ...], int]
"""Columns, those that may be left out, and how many of the first tell rows apart."""

RECORDS: Mapping[str, Shape] = {
    "versions": (VERSIONS, ("content", "payload"), 3),
    "calls": (
        CALLS,
        _OPTIONAL_OF_CALLS,
        1,
    ),
    "call_prompts": (PROMPTS, ("instructions", "tools"), 1),
}
"""The lists of rows that a line may hold."""


def _is_object(value: JSONValue) -> bool:
    return isinstance(value, dict)


def _is_list_of_positions(value: JSONValue) -> bool:
    return isinstance(value, list) and all(_is_of("number", each, "") for each in value)


_MUST_BE: Mapping[str, tuple[Callable[[JSONValue], bool], str]] = {
    "role": (ROLES.__contains__, f"one of {', '.join(ROLES)}"),
    "kind": (KINDS.__contains__, f"one of {', '.join(KINDS)}"),
    "payload": (_is_object, "an object"),
    "options": (_is_object, "an object"),
    "metadata": (_is_object, "an object"),
    "pinned": (_is_list_of_positions, "a list of positions"),
    "changes": (lambda value: isinstance(value, list), "a list"),
}
_LARGEST = {"number": 2**62, "count": 2**31 - 1}


def checked_records(name: str, value: JSONValue) -> list[JSONObject]:
    """The rows of one of the lists in `RECORDS`.

    Raises:
        InvalidArgument: they are none; the text names the place.
    """
    if value is None:
        return []
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise InvalidArgument(f"{name} is a {type(value).__name__}; it must be a list")
    columns, optional, keys = RECORDS[name]
    names = tuple(columns)[:keys]
    last: tuple[object, ...] | None = None
    for index, record in enumerate(value):
        where = f"{name}[{index}]"
        _check_record(record, where, columns, optional)
        key = tuple(record[each] for each in names)
        if last is not None and not last < key:
            raise InvalidArgument(
                f"{where} does not follow the one before it; sort them by {', '.join(names)}"
            )
        last = key
    return list(value)


def _check_record(
    record: JSONValue, where: str, columns: Mapping[str, Kind], optional: tuple[str, ...]
) -> None:
    if not isinstance(record, dict):
        raise InvalidArgument(f"{where} is a {type(record).__name__}; it must be an object")
    for key in record.keys() - columns.keys():
        raise InvalidArgument(
            f"{where} has {key!r:.40}, which is not known here; a newer tokenmem may know it"
        )
    for column, kind in columns.items():
        value = record.get(column)
        if value is None and column not in optional:
            raise InvalidArgument(f"{where} has no {column}; export the conversation anew")
        check_json(
            value, f"{where}.{column}"
        )  # each alone: a message that nests as deep as it may is one too
        if value is not None and not _is_of(kind, value, f"{where}.{column}"):
            raise InvalidArgument(f"{where}.{column} is {value!r:.40}; it must be a {kind}")
        if value is not None and column in _MUST_BE and not _MUST_BE[column][0](value):
            raise InvalidArgument(f"{where}.{column} is wrong; it must be {_MUST_BE[column][1]}")


def _is_of(kind: Kind, value: JSONValue, where: str) -> bool:
    if kind == "json":
        return True
    if kind == "text":
        return isinstance(value, str)
    if kind == "time":
        return moment_of(value, where) is not None
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number and 0 <= value <= _LARGEST[kind]
