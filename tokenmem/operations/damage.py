"""Rows that somebody has changed by hand into what tokenmem never stores: told of without what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TypeGuard

from tokenmem.database.statements import Row
from tokenmem.errors import DatabaseError
from tokenmem.messages.message import KINDS, ROLES
from tokenmem.messages.values import JSONValue, load_json

UNREADABLE = (ValueError, TypeError, RecursionError, OverflowError)
"""What Python raises of a column that holds something else than it should."""

REMEDY = "run `tokenmem verify` for a list of all such rows, and correct them or restore a backup"


def damaged(conversation_id: str, place: str, column: str, what: str) -> DatabaseError:
    """The error of a column that does not hold what it should.

    Args:
        conversation_id: the conversation.
        place: what of it: "message 3", "call 2"; "" for its own row.
        column: the column.
        what: what it should hold.
    """
    where = f"conversation {conversation_id!r:.300}" + (f", {place}" if place else "")
    return DatabaseError(f"{where}: the column {column} is damaged, it holds no {what}; {REMEDY}")


def is_integer(value: object) -> TypeGuard[int]:
    """Whether it is one, of both drivers."""
    return type(value) is int


def is_flag(value: object) -> bool:
    """Whether it is true or false, which SQLite has as 1 and 0."""
    return value in (0, 1) and isinstance(value, int)


def is_text(value: object) -> bool:
    """Whether it is text."""
    return isinstance(value, str)


def is_moment(value: object) -> bool:
    """Whether it is a time: PostgreSQL's, or text of one with its zone."""
    if isinstance(value, datetime):
        return True
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def is_day(value: object) -> bool:
    """Whether it is text of a day, as 2026-01-31."""
    try:
        return isinstance(value, str) and date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def loaded(value: object) -> JSONValue:
    """The JSON value of a column, None where it holds no JSON."""
    try:
        return load_json(value) if isinstance(value, str) else None
    except UNREADABLE:
        return None


def is_object(value: object) -> bool:
    """Whether it is the text of a JSON object."""
    return isinstance(loaded(value), dict)


def is_json(value: object) -> bool:
    """Whether it is JSON text."""
    return loaded(value) is not None or value == "null"


def is_list(value: object) -> bool:
    """Whether it is the text of a JSON list."""
    return isinstance(loaded(value), list)


def is_list_of_positions(value: object) -> bool:
    """Whether it is the text of a JSON list of integers."""
    return is_list(value) and all(map(is_integer, loaded(value)))


def unless_null(check: Callable[[object], bool]) -> Callable[[object], bool]:
    """The check for a column that may be null."""
    return lambda value: value is None or check(value)


Checks = Mapping[str, tuple[Callable[[object], bool], str]]
"""For each column, in order, what it has to pass, and what it should hold in words."""

_INTEGER = (is_integer, "integer")
_COUNT = (unless_null(is_integer), "integer")
_TEXT = (is_text, "text")
_NAME = (unless_null(is_text), "text")
_MOMENT = (is_moment, "time")
_OBJECT = (unless_null(is_object), "JSON object")

ROLE = (ROLES.__contains__, f"role: {', '.join(ROLES)}")
KIND = (KINDS.__contains__, f"kind: {', '.join(KINDS)}")

MESSAGE: Checks = {
    "position": _INTEGER,
    "role": ROLE,
    "kind": KIND,
    "content": _NAME,
    "payload": _OBJECT,
    "token_count": _INTEGER,
    "pinned": (is_flag, "true or false"),
    "created_at": _MOMENT,
    "metadata": _OBJECT,
}
"""Of `{message_columns}`."""

CONVERSATION: Checks = {
    "id": _TEXT,
    "owner": _NAME,
    "title": _NAME,
    "metadata": _OBJECT,
    "token_counter": _TEXT,
    "last_position": _INTEGER,
    "message_count": _INTEGER,
    "total_tokens": _INTEGER,
    "created_at": _MOMENT,
    "updated_at": _MOMENT,
    "parent_id": _NAME,
    "forked_at": _COUNT,
    "archived_at": (unless_null(is_moment), "time"),
    "keep": (is_flag, "true or false"),
}
"""Of `{conversation_columns}`."""

CALL: Checks = {
    "number": _INTEGER,
    "model": _TEXT,
    **dict.fromkeys(
        (
            *("first_position", "last_position", "window_tokens", "input_tokens", "cached_tokens"),
            *("output_tokens", "reasoning_tokens", "reply_position", "reply_messages", "latency_ms"),
            "first_token_ms",
        ),
        _COUNT,
    ),
    "finish_reason": _NAME,
    "status": _TEXT,
    "error": _NAME,
    "request_id": _NAME,
    "created_at": _MOMENT,
    "revision": _COUNT,
    "api": _NAME,
    "token_limit": _COUNT,
    "options": _OBJECT,
    "metadata": _OBJECT,
    "cache_write_tokens": _COUNT,
    "pinned": (unless_null(is_list_of_positions), "JSON list of positions"),
    "changes": (unless_null(is_list), "JSON list"),
}
"""Of `{call_columns}`."""


def find(conversation_id: str, place: str, checks: Checks, row: Sequence[object]) -> DatabaseError | None:
    """The error of the first column that is damaged; None where none is."""
    for (column, (check, what)), value in zip(checks.items(), row, strict=False):
        if not check(value):
            return damaged(conversation_id, place, column, what)
    return None


def find_in_messages(conversation_id: str, rows: Iterable[Row]) -> DatabaseError | None:
    """The error of the first damaged one of rows of `{message_columns}`."""
    for row in rows:
        place = f"message {row[0]}" if is_integer(row[0]) else "a message"
        if (error := find(conversation_id, place, MESSAGE, row)) is not None:
            return error
    return None
