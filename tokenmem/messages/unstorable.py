"""Characters that no database holds: NUL, and halves of surrogate pairs. Refused, escaped, or replaced.

An escaped text has `ESCAPE` and four hexadecimal digits in the place of each, and `ESCAPE` twice where the
text has it itself, so that `unescaped` gives back the text that went in. A message whose texts are escaped
says so by the mark `ESCAPED` in its payload: others are stored as they come, whatever stands in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from tokenmem.messages.values import JSONValue

ESCAPE = "\u241b"
"""U+241B, SYMBOL FOR ESCAPE: a person sees that something stands for something else; hardly a text has it."""

ESCAPED = "tokenmem_escaped"
"""The key in a payload that marks a message whose texts are escaped. Never sent."""

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_TO_ESCAPE = re.compile(f"[\0\ud800-\udfff{ESCAPE}]")
_SEQUENCE = re.compile(f"{ESCAPE}({ESCAPE}|0000|d[89a-f][0-9a-f]{{2}})")


def holds_unstorable(value: JSONValue) -> bool:
    """Whether any text of a JSON value, keys included, has a character that databases cannot hold."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is not None
    if isinstance(value, list):
        return any(map(holds_unstorable, value))
    if isinstance(value, dict):
        return any(map(holds_unstorable, value)) or any(map(holds_unstorable, value.values()))
    return False


def _in_texts(value: JSONValue, change: Callable[[str], str]) -> JSONValue:
    """The value with its texts changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_in_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {_in_texts(key, change): _in_texts(item, change) for key, item in value.items()}
    return value


def escaped(value: JSONValue) -> JSONValue:
    """The value with its texts, keys included, such that databases hold them; `unescaped` is the way back."""
    return _in_texts(value, lambda text: _TO_ESCAPE.sub(_sequence_of, text))


def _sequence_of(found: re.Match[str]) -> str:
    return ESCAPE * 2 if found[0] == ESCAPE else f"{ESCAPE}{ord(found[0]):04x}"


def unescaped(value: JSONValue) -> JSONValue:
    """The value whose texts were escaped."""
    return _in_texts(value, lambda text: _SEQUENCE.sub(_character_of, text))


def _character_of(found: re.Match[str]) -> str:
    return ESCAPE if found[1] == ESCAPE else chr(int(found[1], 16))


def with_whole_characters(value: JSONValue) -> JSONValue:
    """The value in which two halves of a surrogate pair that stand side by side are their character."""
    return _in_texts(value, _with_whole)


def _with_whole(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def without_half(text: str) -> str:
    """The text without a first half of a surrogate pair at its end, whose other half may still come."""
    return text[:-1] if "\ud800" <= text[-1:] <= "\udbff" else text


def scrubbed(value: JSONValue) -> JSONValue:
    """The value with U+FFFD, the sign for what could not be read, in the place of what databases cannot hold.

    Nothing leads back: this is for what is sent, and for replies that are not to be lost for a NUL.
    """
    return _in_texts(value, _scrubbed)


def _scrubbed(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
