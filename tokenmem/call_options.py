"""What is kept on record of a request's options: named scalars, and none of what people said."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from tokenmem.messages.values import JSONObject

NAMES = frozenset(
    {
        "function_call",
        "modality",
        "reasoning_effort",
        "service_tier",
        "tool_choice",
        "truncation",
        "verbosity",
    }
)
"""Options whose text is one of a few names of the provider's, such as "high"."""

INSIDE = {"reasoning": ("effort", "summary"), "text": ("verbosity",)}
"""The same of the Responses API, which stand in an object: kept as `reasoning.effort`."""

OF_PEOPLE = frozenset({"user", "safety_identifier", "prompt_cache_key", "metadata"})
"""Options that name people or are theirs, whatever their type."""

_A_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")
_LARGEST = 2**63


def named_scalars(options: Mapping[str, object]) -> JSONObject | None:
    """The options that are numbers, flags or None, or one of the provider's names; None where none is."""
    kept: JSONObject = {}
    for name, value in options.items():
        if name in OF_PEOPLE or not _A_NAME.fullmatch(name):
            continue
        if _is_number(value) or (name in NAMES and _is_name(value)):
            kept[name] = value
        elif name in INSIDE and isinstance(value, Mapping):
            inner = {f"{name}.{key}": value.get(key) for key in INSIDE[name]}
            kept |= {key: item for key, item in inner.items() if _is_name(item)}
    return kept or None


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and abs(value) < _LARGEST)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _A_NAME.fullmatch(value) is not None
