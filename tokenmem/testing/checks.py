"""Checks that every rule is made of. Each yields what is wrong, with the place in front of it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

Problems = Iterator[str]
# OpenAI, API reference, "function.name": letters, digits, underscores and dashes, at most 64.
FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def keys(
    value: Mapping[str, object], required: Collection[str], allowed: Collection[str], place: str
) -> Problems:
    """Keys that are missing, and keys that are not documented."""
    for key in required:
        if key not in value:
            yield f"Missing required parameter: '{place}.{key}'."
    for key in value:
        if key not in required and key not in allowed:
            yield f"Unknown parameter: '{place}.{key}'."


def text(value: object, place: str, *, longest: int | None = None, empty: bool = True) -> Problems:
    """A text of at most so many characters."""
    if not isinstance(value, str):
        yield f"Invalid type for '{place}': expected a string, but got {_kind(value)}."
    elif not value and not empty:
        yield f"Invalid '{place}': empty string. Expected a string with minimum length 1."
    elif longest is not None and len(value) > longest:
        yield (
            f"Invalid '{place}': string too long. Expected a string with maximum length {longest}, "
            f"but got a string with length {len(value)} instead."
        )


def name(value: object, place: str) -> Problems:
    """A function's name."""
    if not isinstance(value, str):
        yield from text(value, place)
    elif not FUNCTION_NAME.fullmatch(value):
        yield (
            f"Invalid '{place}': string does not match pattern. "
            f"Expected a string that matches the pattern '^{FUNCTION_NAME.pattern}$'."
        )


def filled(value: object, place: str) -> Problems:
    """A list with something in it."""
    if not isinstance(value, list):
        yield f"Invalid type for '{place}': expected an array, but got {_kind(value)}."
    elif not value:
        yield f"Invalid '{place}': empty array. Expected an array with minimum length 1."


def parts(value: list[object], documented: Mapping[str, tuple[str, ...]], place: str) -> Problems:
    """Content parts, by a table of the types that may stand here and their keys; optional keys end in "?"."""
    for index, part in enumerate(value):
        here = f"{place}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict) or not isinstance(kind, str) or kind not in documented:
            supported = ", ".join(documented)
            yield f"Invalid value for '{here}.type': {kind!r}. Supported values are: {supported}."
            continue
        required = [key for key in documented[kind] if not key.endswith("?")]
        optional = [key[:-1] for key in documented[kind] if key.endswith("?")]
        yield from keys(part, ["type", *required], [*optional, "prompt_cache_breakpoint"], here)
        for key in ("text", "refusal"):
            if key in required and key in part:
                yield from text(part[key], f"{here}.{key}")


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
