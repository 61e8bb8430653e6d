"""What a provider bills, wherever in its answer it says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypedDict

_GIVEN = ("prompt_tokens", "input_tokens")
_TOLD = ("completion_tokens", "output_tokens")
# OpenAI counts in `…_details`; DeepSeek beside the others (`prompt_cache_hit_tokens`), and so do Moonshot
# (`cached_tokens`) and LiteLLM (`cache_read_input_tokens`).
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
# OpenAI bills none; servers in front of other providers tell them by either name, in either place.
_CACHE_WRITES = ("cache_write_tokens", "cache_creation_input_tokens", "cache_creation_tokens")
_A_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_REASONING = ("reasoning_tokens",)
_DETAILS_OF_PROMPT = ("prompt_tokens_details", "input_tokens_details")
_DETAILS_OF_REPLY = ("completion_tokens_details", "output_tokens_details")


class Usage(TypedDict, total=False):
    """What a provider bills, in tokens; None or no key for what it does not tell.

    Attributes:
        input_tokens: the whole prompt, what came from a cache included.
        cached_tokens: how many of these came from a cache.
        output_tokens: the reply, reasoning included.
        reasoning_tokens: how many of these were spent on reasoning.
        cache_write_tokens: how many of the prompt's were written to a cache, where that is billed.
    """

    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None


def usage_of(*told: object) -> Usage:
    """The provider's counts, in tokens, by the names of either of OpenAI's APIs.

    Where a count is told several times, as in every chunk of a stream, it is the largest.

    Args:
        told: usage objects; what is none tells nothing.
    """
    found: Usage = {}
    for usage in told:
        if isinstance(usage, Mapping):
            found = larger(found, _counts_of(usage))
    return larger(found, {})


def _counts_of(usage: Mapping[str, object]) -> Usage:
    prompt = [*_details(usage, _DETAILS_OF_PROMPT), usage]
    reply = [*_details(usage, _DETAILS_OF_REPLY), usage]
    cached = max(_counts(prompt, _CACHED), default=None)
    writes = next(iter(_counts(prompt, _CACHE_WRITES)), None)
    given = max(_counts([usage], _GIVEN), default=None)
    told = max(_counts([usage], _TOLD), default=None)
    reasoning = max(_counts(reply, _REASONING), default=None)
    total = _count(usage.get("total_tokens"))
    if given is not None and told is not None and reasoning and total == given + told + reasoning:
        told += reasoning  # xAI counts it beside the reply
    if given is not None and cached is not None and cached > given:
        given += cached + (writes or 0)  # Anthropic counts what was not in a cache
    return {
        "input_tokens": given,
        "cached_tokens": cached,
        "cache_write_tokens": writes,
        "output_tokens": told,
        "reasoning_tokens": reasoning,
    }


def usages_in(body: Mapping[str, object]) -> Iterator[object]:
    """Where an answer or a chunk of Chat Completions tells what is billed, besides in its choices."""
    yield body.get("usage")
    groq = body.get("x_groq")
    if isinstance(groq, Mapping):
        yield groq.get("usage")


def larger(one: Usage, other: Usage) -> Usage:
    """The larger of two counts of each kind: a later chunk may have zeros in their place."""
    return {
        "input_tokens": _larger(one.get("input_tokens"), other.get("input_tokens")),
        "cached_tokens": _larger(one.get("cached_tokens"), other.get("cached_tokens")),
        "cache_write_tokens": _larger(one.get("cache_write_tokens"), other.get("cache_write_tokens")),
        "output_tokens": _larger(one.get("output_tokens"), other.get("output_tokens")),
        "reasoning_tokens": _larger(one.get("reasoning_tokens"), other.get("reasoning_tokens")),
    }


def storable_counts(usage: Usage | None) -> Usage:
    """The counts that can be stored."""
    return larger({}, {} if usage is None else usage)


def _details(usage: Mapping[str, object], names: tuple[str, ...]) -> list[Mapping[str, object]]:
    return [details for name in names if isinstance(details := usage.get(name), Mapping)]


def _counts(places: list[Mapping[str, object]], names: tuple[str, ...]) -> list[int]:
    return [count for place in places for name in names if (count := _count(place.get(name))) is not None]


def _larger(one: object, other: object) -> int | None:
    counts = [count for value in (one, other) if (count := _count(value)) is not None]
    return max(counts, default=None)


def _count(value: object) -> int | None:
    """A whole number that an integer column holds; some servers write it as 9.0 or "9"."""
    if isinstance(value, str) and _A_NUMBER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None
