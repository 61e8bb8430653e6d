"""Checks of the arguments that callers pass: before anything is counted, locked or written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import get_args

from tokenmem.edges import StartOn
from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.messages.values import JSONObject, check_json, check_text

LONGEST_ID = 255
"""Characters of a conversation's id, an owner, a title's or an idempotency key's name."""

LARGEST_COST = 2**31 - 1
"""The most tokens that one message may cost: what an integer column holds."""

LARGEST_COUNT = 2**53
"""The largest token limit or position: what every JSON reader still takes as a whole number."""

LONGEST_AGE = timedelta(days=365_000)
"""Some thousand years: both databases' calendars go back so far."""

STARTS: tuple[str, ...] = get_args(StartOn)


def checked_name(value: object, what: str) -> str:
    """A text of 1 to 255 characters that both databases can hold.

    Raises:
        InvalidArgument: it is not; the text names the value, or its length.
    """
    if not isinstance(value, str):
        raise InvalidArgument(
            f"{what} is a {type(value).__name__}; pass a string of 1 to {LONGEST_ID} characters"
        )
    if not 1 <= len(value) <= LONGEST_ID:
        shown = f" ({value[:20]!r}…)" if value else ""
        raise InvalidArgument(f"{what} has {len(value)} characters{shown}; pass 1 to {LONGEST_ID}")
    try:
        check_text(value, what)
    except InvalidMessage as error:
        raise InvalidArgument(str(error)) from None
    return value


def optional_name(value: object, what: str) -> str | None:
    """None, or a checked name. Raises as `checked_name` does."""
    return None if value is None else checked_name(value, what)


def checked_number(value: object, what: str, *, least: int = 0, most: int = LARGEST_COUNT) -> int:
    """A whole number that is neither too small nor too large.

    Raises:
        InvalidArgument: it is not; the text names the value.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{what} is {value!r:.40}; pass an integer")
    if not least <= value <= most:
        shown = value if abs(value) <= LARGEST_COUNT else f"of {value.bit_length()} bits"
        raise InvalidArgument(f"{what} is {shown}; pass {least} to {most}")
    return value


def optional_number(value: object, what: str, *, least: int = 0) -> int | None:
    """None, or a checked number. Raises as `checked_number` does."""
    return None if value is None else checked_number(value, what, least=least)


def optional_flag(value: object, what: str) -> bool | None:
    """True, False or None.

    Raises:
        InvalidArgument: it is something else.
    """
    if value is None or isinstance(value, bool):
        return value
    raise InvalidArgument(f"{what} is a {type(value).__name__}; pass True, False or None")


def checked_flag(value: object, what: str) -> bool:
    """True or False.

    Raises:
        InvalidArgument: it is something else.
    """
    if isinstance(value, bool):
        return value
    raise InvalidArgument(f"{what} is a {type(value).__name__}; pass True or False")


def checked_choice(value: object, what: str, choices: Sequence[str]) -> str:
    """One of the choices.

    Raises:
        InvalidArgument: it is not; the text names them.
    """
    if value in choices:
        return str(value)
    raise InvalidArgument(f"{what} is {value!r:.40}; use one of {', '.join(choices)}")


def checked_age(value: object) -> timedelta:
    """How old: not negative, and not before the databases' calendars begin.

    Raises:
        InvalidArgument: it is no timedelta, or not in that range.
    """
    if isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST_AGE:
        return value
    raise InvalidArgument(f"older_than is {value!r:.40}; pass a timedelta, for example timedelta(days=90)")


def checked_metadata(value: object, what: str = "metadata") -> JSONObject | None:
    """A JSON object or None.

    Raises:
        InvalidArgument: it is something else, or holds what JSON cannot carry.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{what} is a {type(value).__name__}; pass a dict")
    check_json(value, what)
    return value
