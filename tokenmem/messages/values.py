"""JSON values: what both databases can hold and give back equal, and its text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tokenmem.errors import InvalidMessage

JSONValue = Any
"""A JSON value of a provider's or of a user's: what is in it only they say."""

JSONObject = dict[str, Any]
"""A JSON object, whose values are such values."""

JSONMapping = Mapping[str, Any]
"""A JSON object that is only read, whatever mapping it is."""

MAX_NESTING = 200
"""How deep a payload may nest: copying takes two of Python's 1,000 stack frames a level."""

_RAW_NESTING = 100
"""How deep what came in another form may nest: it is stored inside of a payload, and copied by recursion."""


def check_json(value: object, where: str, *, any_text: bool = False) -> None:
    """Check that JSON text can carry the value and give back an equal one, on both engines.

    NUL characters and lone surrogates are refused: PostgreSQL's text holds neither, and SQLite's own
    functions cut a text at its first NUL.

    Args:
        value: the value.
        where: what the error calls it.
        any_text: let these pass too, for texts that will be escaped.

    Raises:
        InvalidMessage: it cannot; the text names the place and the remedy.
    """
    if isinstance(value, dict) and all(map(is_plain, value, value.values())):
        return  # most messages, in a third of the time
    pending = [(value, where, 0)]
    while pending:
        item, path, depth = pending.pop()
        if isinstance(item, str):
            if not any_text:
                check_text(item, path)
        elif isinstance(item, dict):
            if depth >= MAX_NESTING:
                raise InvalidMessage(f"{where} nests deeper than {MAX_NESTING} levels; flatten it")
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise InvalidMessage(f"{path} has a key of type {type(key).__name__}; JSON keys are text")
                if not any_text:
                    check_text(key, f"a key of {path}")
                pending.append((inner, _inside(path, key), depth + 1))
        elif isinstance(item, list):
            if depth >= MAX_NESTING:
                raise InvalidMessage(f"{where} nests deeper than {MAX_NESTING} levels; flatten it")
            pending.extend((inner, f"{path}[{index}]", depth + 1) for index, inner in enumerate(item))
        else:
            _check_scalar(item, path)


def is_plain(key: object, item: object) -> bool:
    """Whether both are ASCII text without NUL, with which nothing can be wrong."""
    if type(key) is not str or type(item) is not str:
        return False
    return key.isascii() and item.isascii() and "\x00" not in key and "\x00" not in item


def _inside(path: str, key: str) -> str:
    """Name a place without repeating a key that is text of a person's rather than a field's name."""
    return f"{path}.{key}" if key.isidentifier() and len(key) <= 40 else f"{path}[…]"


def _check_scalar(item: object, path: str) -> None:
    if item is None or isinstance(item, bool):
        return
    if isinstance(item, float):
        if math.isfinite(item):
            return
        raise InvalidMessage(f"{path} is {item}, which JSON cannot carry; use null or a string")
    if isinstance(item, int):
        # Python refuses to print longer ones (sys.set_int_max_str_digits), and no JSON reader takes them.
        if item.bit_length() <= 4096:
            return
        raise InvalidMessage(f"{path} is an integer of {item.bit_length()} bits; write it as a string")
    raise InvalidMessage(
        f"{path} is a {type(item).__name__}; use only dict, list, str, int, float, bool and None"
    )


def check_text(text: str, where: str) -> None:
    """Check that both databases can hold the text.

    Raises:
        InvalidMessage: it has a NUL character or half of a surrogate pair; the text names the position.
    """
    position = text.find("\x00")
    if position >= 0:
        raise InvalidMessage(
            f"{where} has a NUL character at position {position}, which databases cannot hold; "
            f'remove it, for example with text.replace("\\x00", "")'
        )
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidMessage(
            f"{where} has half of a surrogate pair (U+{ord(text[error.start]):04X}) "
            f"at position {error.start}, "
            f'which UTF-8 cannot carry; repair it, for example with text.encode("utf-8", "replace").decode()'
        ) from None


def can_be_stored(value: object) -> bool:
    """Whether a message can hold the value under one of its keys; whatever its characters."""
    try:
        check_json([value], "value", any_text=True)
    except InvalidMessage:
        return False
    return True


def as_json(value: object, levels: int = _RAW_NESTING) -> JSONValue:
    """The value as JSON that can be stored, whatever it is: what JSON cannot carry becomes text.

    Args:
        value: anything.
        levels: how deep the result may nest; what lies deeper becomes its JSON text, or a word for it.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return value if can_be_stored(value) else _number_text(value)
    if isinstance(value, Mapping):
        if levels <= 0:
            return _text_of(value)
        return {_key_text(key): as_json(item, levels - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(item, levels - 1) for item in value] if levels > 0 else _text_of(value)
    return _text_of(value)


def json_or(text: str, otherwise: object) -> JSONValue:
    """The value that a text is as JSON; `otherwise` where it is none, or nests too deep to be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return otherwise


def json_text(value: object) -> str:
    """The value as text: itself where it is one, else its JSON text."""
    found = as_json(value)
    return found if isinstance(found, str) else dump_json(found)


def _key_text(key: object) -> str:
    return str.__str__(key) if isinstance(key, str) else json_text(key)


def _number_text(value: float) -> str:
    return hex(value) if isinstance(value, int) else str(value)


def _text_of(value: object) -> str:
    """What is no JSON value, or lies too deep, as text; a word for what has none."""
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    try:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (Mapping, list)) else str(value)
    except Exception:  # whatever a foreign object's own text raises, or a value that contains itself
        return f"[{type(value).__name__}]"


def checked_moment(value: object, where: str) -> datetime | None:
    """A time in UTC, or None.

    Raises:
        InvalidMessage: it is no datetime, has no time zone, or lies outside the calendar in UTC.
    """
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidMessage(f"{where} is a {type(value).__name__}; use a datetime with a time zone, or None")
    if value.utcoffset() is None:
        raise InvalidMessage(
            f"{where} is {value.isoformat()}, without a time zone; add one, for example "
            f"value.replace(tzinfo=datetime.UTC)"
        )
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise InvalidMessage(
            f"{where} is {value.isoformat()}; use a time of the years 1 to 9999 in UTC"
        ) from None


def moment_text(moment: datetime) -> str:
    """A time in UTC as text: in milliseconds, or, where it has more, in microseconds."""
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"  # ours, or one that came in
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def moment_of(value: object, where: str) -> datetime | None:
    """A time that JSON holds as ISO 8601 text with its zone, in UTC; None stays None.

    Raises:
        InvalidMessage: it is no such text.
    """
    if value is None:
        return None
    try:
        return checked_moment(datetime.fromisoformat(value if isinstance(value, str) else ""), where)
    except InvalidMessage:
        raise
    except ValueError:
        raise InvalidMessage(
            f"{where} is {value!r:.40}; use a time with its zone, as 2026-01-31T12:00:00Z"
        ) from None


def dump_json(value: object) -> str:
    """Compact JSON text; other scripts' letters stay readable in the row."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def load_json(text: str) -> JSONValue:
    """The value back."""
    return json.loads(text)
