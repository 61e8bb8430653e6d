"""The messages that are stored: English-like text in two sizes, the same on every machine."""

from __future__ import annotations

import random
from bisect import bisect_right
from functools import cache

Message = dict[str, str]

TEMPLATE_MESSAGES = 500
"""Different messages; longer conversations repeat them."""

CHARACTERS = 250

# Lengths in characters of 12,870 messages in real conversations with assistants, coding agents and support
# agents, in English and Chinese, tool calls included: (share of the messages, length below it).
QUANTILES = (
    *((0.00, 1), (0.05, 8), (0.10, 16), (0.20, 30), (0.30, 55), (0.40, 84), (0.50, 129)),
    *((0.60, 173), (0.70, 265), (0.75, 327), (0.80, 400), (0.85, 524), (0.90, 706), (0.95, 1_223)),
    *((0.97, 1_748), (0.98, 2_292), (0.99, 6_047), (0.998, 6_894), (0.999, 17_762), (1.00, 36_176)),
)

SIZES = {
    "250": f"{CHARACTERS} characters each",
    "mix": "lengths of real conversations: half under 130 characters, one in fifty over 2,292, up to 36,176",
}

WORDS = tuple(
    """
the of and to a in is it you that was for on are with as his they be at one have this from or had by hot word
but what some we can out other were all there when up use your how said an each she which do their time if
will way about many then them write would like so these her long make thing see him two has look more day
could go come did number sound no most people my over know water than call first who may down side been now
find any new work part take get place made live where after back little only round man year came show every
good me give our under name very through just form sentence great think say help low line differ turn cause
much mean before move right boy old too same tell does set three want air well also play small end put home
read hand port large spell add even land here must big high such follow act why ask men change went light
kind off need house picture try us again animal point mother world near build self earth father database
message token window conversation station platform ticket train reservation customer function result error
""".split()  # noqa: SIM905
)


@cache
def messages(size: str) -> tuple[Message, ...]:
    """The template conversation of one size: user and assistant in turn."""
    source = random.Random(20_240_229)
    weights = [1 / rank for rank in range(1, len(WORDS) + 1)]  # as often as words come in a language
    lengths = _lengths(size, source)
    return tuple(
        {"role": "assistant" if index % 2 else "user", "content": _text(source, weights, length)}
        for index, length in enumerate(lengths)
    )


def exchange(size: str, number: int) -> list[Message]:
    """A user's message and its answer; another pair for each number."""
    first = 2 * number % TEMPLATE_MESSAGES
    return [dict(message) for message in messages(size)[first : first + 2]]


def _lengths(size: str, source: random.Random) -> list[int]:
    if size == "250":
        return [CHARACTERS] * TEMPLATE_MESSAGES
    lengths = [_quantile((index + 0.5) / TEMPLATE_MESSAGES) for index in range(TEMPLATE_MESSAGES)]
    source.shuffle(lengths)
    return lengths


def _quantile(share: float) -> int:
    """Between two known quantiles, in proportion."""
    above = bisect_right(QUANTILES, (share, 0))
    (low_share, low), (high_share, high) = QUANTILES[above - 1 : above + 1]
    return round(low + (high - low) * (share - low_share) / (high_share - low_share))


def _text(source: random.Random, weights: list[float], length: int) -> str:
    words = source.choices(WORDS, weights, k=length // 2 + 1)
    for index in range(0, len(words), 12):
        words[index] = words[index].capitalize()
    return " ".join(words)[:length].replace(" ", ". ", 1)[:length].strip().ljust(length, ".")
