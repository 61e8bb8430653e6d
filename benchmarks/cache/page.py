"""The page docs/prompt-cache.md, made from what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from benchmarks.cache.method import CHOOSING, HOW, METHOD, WHAT, WHY
from benchmarks.cache.plot import PLOT
from benchmarks.cache.tally import (
    ALONE,
    BAR_FULLNESS,
    BAR_LIMIT,
    BAR_PART,
    BAR_REPEATED,
    CONSTANTS,
    LIMITS,
    PARTS_OF_LIMIT,
    Figures,
    Tally,
)
from benchmarks.support.results import Results, documents

PRICES = (0.1, 0.25, 0.5)
"""What a cached token costs, where one that is not costs 1."""

LEAST_CALLS = 100
"""Below, a share says little."""

BILLS = [f"bill, cached at {price}" for price in PRICES]


def write_page(results: Results) -> None:
    """Write the page from the results of the last run."""
    figures = Figures(results)
    sections = [
        "# Prompt cache",
        WHAT,
        *_bars(figures),
        f"![What is repeated and how full windows are, against the stride]({PLOT})",
        *WHY,
        *CHOOSING,
        _strides(figures, [BAR_LIMIT]),
        *_limits(figures),
        *_sources(figures),
        *_constants(figures),
        *_alone(figures),
        *METHOD,
        _impossible(figures),
        *HOW,
    ]
    page = documents(quick=False) / "prompt-cache.md"
    page.write_text("\n\n".join(map(_wrapped, sections)) + "\n", encoding="utf-8")


def _wrapped(section: str) -> str:
    """Prose in lines of the repository's length; tables, lists, headings and code as they are."""
    return section if section[0] in "|#-!`" or "\n" in section else "\n".join(textwrap.wrap(section, 108))


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *rows])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _bills(tally: Tally, sliding: Tally) -> list[str]:
    return [f"{tally.bill(price) / sliding.bill(price):.2f}" for price in PRICES]


def _stride(limit: int, part: int | None) -> str:
    return f"{limit // part:,} (1/{part})" if part else "none"


def _against(bar: float, share: float) -> str:
    return _percent(share) + ("" if share >= bar else " **missed**")


def _bars(figures: Figures) -> Iterator[str]:
    sliding, stepped = (figures.tally(figures.agents, BAR_LIMIT, part) for part in (None, BAR_PART))
    yield (
        f"Agents' logs, windows of {BAR_LIMIT:,} tokens, {stepped.calls:,} calls at which the conversation "
        "exceeds the limit:"
    )
    since_first = [figures.tally(figures.agents, BAR_LIMIT, part, full=False) for part in (None, BAR_PART)]
    rows = [
        [
            "prompt tokens that the call before had sent",
            f"≥ {100 * BAR_REPEATED:.0f} %",
            _percent(sliding.sent_before),
            _against(BAR_REPEATED, stepped.sent_before),
        ],
        [
            "how full the window is",
            f"≥ {100 * BAR_FULLNESS:.0f} %",
            _percent(sliding.full),
            _against(BAR_FULLNESS, stepped.full),
        ],
        [
            "prompt tokens that a provider's cache serves",
            "",
            *map(_percent, (sliding.served, stepped.served)),
        ],
        [f"input bill, a cached token at {PRICES[0]}", "", "1.00", _bills(stepped, sliding)[0]],
        [
            "sent before, all calls from the first on",
            "",
            *(_percent(tally.sent_before) for tally in since_first),
        ],
    ]
    yield _table(["", "bar", "sliding", f"stride of {BAR_LIMIT // BAR_PART:,} tokens"], rows)
    yield (
        f"The stepped prompts are {_percent(1 - stepped.prompt / sliding.prompt)} shorter, which is part of "
        "the smaller bill; the rest is the cache."
    )


def _strides(figures: Figures, limits: Iterable[int]) -> str:
    rows = []
    for limit in limits:
        sliding = figures.tally(figures.agents, limit, None)
        for part in PARTS_OF_LIMIT:
            tally = figures.tally(figures.agents, limit, part)
            rows.append(
                [
                    f"{limit:,}",
                    _stride(limit, part),
                    f"one call in {tally.calls / tally.moved:.1f}",
                    _percent(tally.sent_before),
                    _percent(tally.served),
                    _percent(tally.full),
                    *_bills(tally, sliding),
                ]
            )
    return _table(["limit", "stride", "start moves", "sent before", "cached", "full", *BILLS], rows)


def _limits(figures: Figures) -> Iterator[str]:
    yield "## Other limits"
    yield (
        "The same stride in tokens repeats about as much at every limit, so the same part of a smaller limit "
        "repeats less: there, take a larger part."
    )
    yield _strides(figures, [limit for limit in LIMITS if limit != BAR_LIMIT])


def _sources(figures: Figures) -> Iterator[str]:
    yield "## By source"
    stride = BAR_LIMIT // BAR_PART
    yield (
        f"Windows of {BAR_LIMIT:,} tokens, sliding → with a stride of {stride:,}. Agents first, then chats "
        "without tools."
    )
    rows = []
    for source, about in sorted(figures.sources.items(), key=lambda each: not each[1]["tools"]):
        sliding, stepped = (figures.tally([source], BAR_LIMIT, part) for part in (None, BAR_PART))
        rows.append(
            [
                source,
                f"{about['conversations']:,}",
                f"{about['messages']:,}",
                f"{about['instructions']:,}",
                f"{about['tokens'] / about['calls']:,.0f}",
                f"{_percent(sliding.sent_before)} → {_percent(stepped.sent_before)}",
                f"{_percent(sliding.full)} → {_percent(stepped.full)}",
                _bills(stepped, sliding)[0],
            ]
        )
    heads = ["", "conversations", "messages", "instructions, tokens", "tokens that a call adds"]
    yield _table([*heads, "sent before", "full", BILLS[0]], rows)
    yield from _short_of_the_bar(figures, stride)


def _short_of_the_bar(figures: Figures, stride: int) -> Iterator[str]:
    for source, about in figures.sources.items():
        tally = figures.tally([source], BAR_LIMIT, BAR_PART)
        if tally.sent_before < BAR_REPEATED:
            wider = figures.tally([source], BAR_LIMIT, 2)
            yield (
                f"{source} is below the bar: a call adds {about['tokens'] / about['calls']:,.0f} tokens, "
                f"its largest message has {about['largest']:,}. What adds more than the stride moves the "
                "start every time, and a long message that does not fit leaves room, in the sliding window "
                f"too. With a stride of {BAR_LIMIT // 2:,}, {_percent(wider.sent_before)} were sent before, "
                f"in windows {_percent(wider.full)} full; {stride:,} are too few for such messages."
            )


def _constants(figures: Figures) -> Iterator[str]:
    yield "## Instructions and tools"
    yield (
        "What stands before the window never changes and is repeated in any case, so long instructions "
        f"narrow the difference. Agents' logs, {BAR_LIMIT:,} tokens:"
    )
    rows = []
    for constant in CONSTANTS:
        sliding, stepped = (
            figures.tally(figures.agents, BAR_LIMIT, part, constant=str(constant))
            for part in (None, BAR_PART)
        )
        rows.append(
            [
                f"{constant:,} tokens",
                _percent(sliding.sent_before),
                _percent(stepped.sent_before),
                *_bills(stepped, sliding),
            ]
        )
    heads = ["before the window", "sliding, sent before", f"stride of {BAR_LIMIT // BAR_PART:,}, sent before"]
    yield _table([*heads, *BILLS], rows)


def _alone(figures: Figures) -> Iterator[str]:
    rows = []
    for limit in LIMITS:
        for part in PARTS_OF_LIMIT:
            full, all_calls = (
                figures.tally(figures.sources, limit, part, how=ALONE, full=full) for full in (True, False)
            )
            if full.calls >= LEAST_CALLS:
                shares = [_percent(full.sent_before), _percent(full.full), _percent(all_calls.sent_before)]
                rows.append([f"{limit:,}", _stride(limit, part), f"{full.calls:,}", *shares])
    if rows:
        yield "## Conversations as they are"
        yield (
            "Not chained: all those of all sources that exceed the limit. Most do not exceed it by much, so "
            "their start moves a few times only."
        )
        heads = ["limit", "stride", "calls once full", "sent before", "full", "sent before, all calls"]
        yield _table(heads, rows)


def _impossible(figures: Figures) -> str:
    limits = (
        f"{figures.tally(figures.sources, limit, None, full=False).impossible} at {limit:,} tokens"
        for limit in LIMITS
    )
    return f"Prompts that cannot be, of all sources, chained: {', '.join(limits)}."
