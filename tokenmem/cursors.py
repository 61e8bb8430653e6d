"""Cursors: where a page of conversations, the newest first, ended; as text for URLs."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tokenmem.errors import InvalidArgument

_ORIGIN = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LISTS = {"r": False, "a": True}  # by recency, the archive


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a list of conversations, the newest first.

    Attributes:
        moment: when the conversation changed last, in UTC; in the archive when it was put there.
        id: its id: what follows are earlier moments, and at the same moment lower ids.
        archived: whether the list is the archive.
    """

    moment: datetime
    id: str
    archived: bool

    def render(self) -> str:
        """The cursor as text of letters, digits, `-` and `_`."""
        letter = "a" if self.archived else "r"
        text = f"{letter}{(self.moment - _ORIGIN) // _MICROSECOND}:{self.id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that `render` made this text of.

        Raises:
            InvalidArgument: it is no such text.
        """
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            decoded = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
            head, separator, id_ = decoded.partition(":")
            made = cls(_ORIGIN + int(head[1:]) * _MICROSECOND, id_, _LISTS[head[:1]])
        except (UnicodeError, binascii.Error, ValueError, KeyError, OverflowError):
            made, separator = cls(_ORIGIN, "", archived=False), ""
        if not separator or made.render() != text:
            raise InvalidArgument(
                f"before is {text[:20]!r}…, which is no cursor; pass the last conversation of the page "
                f"before, or its `cursor`"
            )
        return made
