"""What a provider's prompt cache finds of a window: `python -m benchmarks.cache LOGS`.

Replays conversations from JSON Lines files against a store, with windows that slide and windows that move in
steps. docs/prompt-cache.md is made of it. Counts only, no clock: the same logs give the same figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.cache.logs import Session, chained, read_sessions
from benchmarks.cache.page import write_page
from benchmarks.cache.plot import write_plot
from benchmarks.cache.replay import Setting, replay
from benchmarks.cache.tally import (
    ALONE,
    BAR_LIMIT,
    CHAINED,
    CONSTANTS,
    LIMITS,
    OWN,
    PARTS_OF_LIMIT,
    Cell,
    Tally,
)
from benchmarks.support.results import Results

LEAST_TOKENS = 2 * max(LIMITS)
"""Of a source: below, its windows would hardly be full."""

Tallies = dict[Cell, Tally]


def measure(directory: Path, results: Results) -> None:
    """Replay every source that is long enough, conversation by conversation and as one chain."""
    sources: dict[str, Any] = {}
    tallies: Tallies = {}
    for source, sessions in read_sessions(directory).items():
        chain = chained(sessions)
        if chain.tokens < LEAST_TOKENS:
            continue
        results.progress(f"{source}: {len(sessions)} conversations, {chain.tokens:,} tokens")
        sources[source] = _described(chain) | {"conversations": len(sessions)}
        _count(chain, CHAINED, LIMITS, tallies)
        for session in sessions:
            length = session.tokens
            _count(session, ALONE, [limit for limit in LIMITS if limit < length], tallies)
    if not sources:
        raise SystemExit(f"no source in {directory}/*.jsonl has {LEAST_TOKENS:,} tokens")
    results.record("cache", "sources", sources)
    results.record("cache", "cells", {cell.key: asdict(tally) for cell, tally in tallies.items()})


def _described(chain: Session) -> dict[str, Any]:
    return {
        "tools": chain.has_tools,
        "instructions": chain.instructions,
        "messages": len(chain.messages),
        "tokens": chain.tokens,
        "largest": max(chain.costs),
        "calls": sum(1 for _ in chain.calls()),
    }


def _count(session: Session, how: str, limits: list[int] | tuple[int, ...], tallies: Tallies) -> None:
    """Replay a session in every setting of these limits, and add its calls to the tallies."""
    parts = {Setting(limit, part and limit // part): part for limit in limits for part in PARTS_OF_LIMIT}
    if not parts:
        return
    for setting, call in replay(session, list(parts)):
        for constant, tokens in _constants(session, setting.limit):
            for full in (False, True) if call.total > setting.limit else (False,):
                cell = Cell(how, session.source, setting.limit, parts[setting], constant, full)
                tallies.setdefault(cell, Tally()).add(call, setting.limit, tokens)


def _constants(session: Session, limit: int) -> Iterator[tuple[str, int]]:
    """What stands before the window, in tokens: the log's own instructions, and made-up ones at one limit."""
    yield OWN, session.instructions
    if limit == BAR_LIMIT:
        for tokens in CONSTANTS:
            yield str(tokens), tokens


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache")
    parser.add_argument(
        "logs", nargs="?", type=Path, help="directory of JSON Lines files, a conversation a line"
    )
    parser.add_argument("--page", action="store_true", help="only write the page from what is known")
    options = parser.parse_args()
    results = Results("sqlite")
    if not options.page:
        if options.logs is None:
            parser.error("name the directory of the logs, or --page")
        measure(options.logs, results)
    try:
        write_plot(results)
    except ModuleNotFoundError:  # the development environment has none; scripts/benchmark makes one that has
        print("no plot without matplotlib: use build/venv-benchmarks/bin/python", file=sys.stderr)
    write_page(results)


if __name__ == "__main__":
    main()
