"""Sums over the calls of a replay, and what is published of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from benchmarks.cache.replay import Call
from benchmarks.support.results import Results

LIMITS = (4_000, 8_000, 16_000, 32_000)
PARTS_OF_LIMIT = (None, 16, 8, 4, 2)
"""The stride as a part of the limit; None slides."""

ALONE, CHAINED = "alone", "chained"
OWN = "own"
CONSTANTS = (0, 2_000, 8_000)
"""Tokens of instructions and tools before the window, in place of the log's own."""

BAR_LIMIT, BAR_PART = 16_000, 8
BAR_REPEATED, BAR_FULLNESS = 0.85, 0.90

LEAST_CACHED, CACHED_IN = 1_024, 128
"""OpenAI, openai.com/index/api-prompt-caching: prefixes of 1,024 tokens or more, in steps of 128."""


@dataclass(frozen=True)
class Cell:
    """What calls are summed up together.

    Attributes:
        how: conversations alone, or chained.
        source: where the log comes from.
        limit: of the window, in tokens.
        part: the stride is this part of the limit; None slides.
        constant: what stands before the window.
        full: only calls whose conversation exceeds the limit.
    """

    how: str
    source: str
    limit: int
    part: int | None
    constant: str = OWN
    full: bool = True

    @property
    def key(self) -> str:
        """As it is called in the results' file."""
        return "|".join(map(str, (self.how, self.source, self.limit, self.part, self.constant, self.full)))


@dataclass
class Tally:
    """Sums over calls, in tokens but for `calls`, `moved`, `impossible` and `fullness`.

    Attributes:
        calls: how many.
        prompt: tokens of all prompts.
        repeated: of these, with how many the call before began too.
        cached: of these, how many a provider's cache serves.
        fullness: the sum of each window's share of its limit.
        moved: how many windows start at another message than the one before.
        impossible: prompts that cannot be, because nothing fits the limit; in no other sum.
    """

    calls: int = 0
    prompt: int = 0
    repeated: int = 0
    cached: int = 0
    fullness: float = 0.0
    moved: int = 0
    impossible: int = 0

    def add(self, call: Call, limit: int, constant: int) -> None:
        """Count one call, whose window follows a constant part of so many tokens."""
        if call.window is None:
            self.impossible += 1
            return
        repeated = 0 if call.repeated is None else constant + call.repeated
        self.calls += 1
        self.prompt += constant + call.window
        self.repeated += repeated
        self.cached += repeated // CACHED_IN * CACHED_IN if repeated >= LEAST_CACHED else 0
        self.fullness += call.window / limit
        self.moved += call.moved

    @property
    def sent_before(self) -> float:
        """The share of the prompts' tokens that the call before had sent."""
        return self.repeated / self.prompt

    @property
    def served(self) -> float:
        """The share of the prompts' tokens that a provider's cache serves."""
        return self.cached / self.prompt

    @property
    def full(self) -> float:
        """What windows hold of their limit, on average."""
        return self.fullness / self.calls

    def bill(self, price: float) -> float:
        """What all prompts cost, in tokens at full price, where a cached one costs this much of it."""
        return self.prompt - self.cached * (1 - price)


class Figures:
    """What was measured, as the page and the plot ask for it."""

    def __init__(self, results: Results) -> None:
        known = results.part("cache")
        self.sources: dict[str, dict[str, Any]] = known.get("sources", {})
        self._cells: dict[str, dict[str, Any]] = known.get("cells", {})

    @property
    def agents(self) -> list[str]:
        """The sources with tools' results among their messages; all sources where none has any."""
        return [source for source, each in self.sources.items() if each["tools"]] or list(self.sources)

    def tally(
        self,
        sources: Iterable[str],
        limit: int,
        part: int | None,
        *,
        how: str = CHAINED,
        constant: str = OWN,
        full: bool = True,
    ) -> Tally:
        """The sums over the calls of all these sources."""
        together = Tally()
        for source in sources:
            found = self._cells.get(Cell(how, source, limit, part, constant, full).key, {})
            for field in fields(Tally):
                setattr(together, field.name, getattr(together, field.name) + found.get(field.name, 0))
        return together
