"""Checks of the arguments that callers pass: before anything is counted, locked or written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Final, Literal, get_args

from tokenmem.edges import StartOn
from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.messages.values import JSONObject, check_json, check_text, checked_moment

LONGEST_ID = 255
"""Characters of a conversation's id, an owner, a title's or an idempotency key's name."""

LARGEST_COST = 2**31 - 1
"""The most tokens that one message may cost: what an integer column holds."""

LARGEST_COUNT = 2**53
"""The largest token limit or position: what every JSON reader still takes as a whole number."""

LONGEST_AGE = timedelta(days=365_000)
"""Some thousand years: both databases' calendars go back so far."""


class Keep(Enum):
    """What an argument is that is not passed, where None says something else: what is stored stays."""

    KEEP = "keep"

    def __repr__(self) -> str:
        return self.name


KEEP: Final = Keep.KEEP

Order = Literal["id", "recent"]
"""In what order conversations are listed."""

ORDERS: tuple[str, ...] = get_args(Order)

STARTS: tuple[str, ...] = get_args(StartOn)

Missing = Literal["error", "empty"]
"""What reading a conversation that is not there comes to."""

MISSING: tuple[str, ...] = get_args(Missing)


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
    return checked_text(value, what)


def checked_text(value: str, what: str) -> str:
    """A text that both databases can hold.

    Raises:
        InvalidArgument: it is not.
    """
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


def optional_number(value: object, what: str, *, least: int = 0, most: int = LARGEST_COUNT) -> int | None:
    """None, or a checked number. Raises as `checked_number` does."""
    return None if value is None else checked_number(value, what, least=least, most=most)


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


def optional_moment(value: object, what: str) -> datetime | None:
    """None, or a time in UTC.

    Raises:
        InvalidArgument: it is no datetime, or has no time zone.
    """
    try:
        return checked_moment(value, what)
    except InvalidMessage as error:
        raise InvalidArgument(str(error)) from None


def optional_age(value: object, what: str) -> timedelta | None:
    """None, or how old: not negative, and not before the databases' calendars begin.

    Raises:
        InvalidArgument: it is something else, or not in that range.
    """
    if value is None or (isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST_AGE):
        return value
    raise InvalidArgument(f"{what} is {value!r:.40}; pass a timedelta, for example timedelta(days=90)")


def optional_day(value: object, what: str) -> date | None:
    """None, or a day in UTC: that of a moment whose time zone is known.

    Raises:
        InvalidArgument: it is something else, or a moment without a time zone.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidArgument(
                f"{what} is {value.isoformat()}, without a time zone; pass a datetime with one, "
                f"such as datetime.now(UTC), or a date"
            )
        try:
            return value.astimezone(UTC).date()
        except OverflowError:
            raise InvalidArgument(f"{what} is {value.isoformat()}; pass one in the years 2 to 9998") from None
    if value is None or isinstance(value, date):
        return value
    raise InvalidArgument(f"{what} is a {type(value).__name__}; pass a date or a datetime")


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
