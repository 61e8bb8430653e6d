"""Ids of conversations, where the application's own are longer than an id may be."""

from __future__ import annotations

import hashlib

from tokenmem.arguments import LONGEST_ID, checked_name, checked_text

_KEPT = LONGEST_ID - len("#") - 64
"""Characters of a longer text that stay readable, before the 64 of its SHA-256."""


def hashed_id(text: str) -> str:
    """An id of at most 255 characters for a text of any length, the same in every version of tokenmem.

    A text that can be an id comes back as it is. A longer one becomes its first 190 characters, `#` and the
    64 hexadecimal digits of the SHA-256 of all of it as UTF-8.

    Two different texts longer than 255 characters have the same id only where their SHA-256 is the same, and
    no two such texts are known. A text that can be an id has that of a longer one only where it is that id,
    letter by letter: a hashed id, given again, is itself. Who lets strangers choose texts of both lengths
    puts a prefix before each short one.

    Args:
        text: at least one character, without NUL and lone surrogates, which no id can hold.

    Raises:
        InvalidArgument: it is no text, is empty, or holds what no id can hold.
    """
    if not isinstance(text, str) or len(text) <= LONGEST_ID:
        return checked_name(text, "text")
    digest = hashlib.sha256(checked_text(text, "text").encode()).hexdigest()
    return f"{text[:_KEPT]}#{digest}"
