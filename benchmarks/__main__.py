"""The benchmarks' command: `scripts/benchmark [--quick]`. See docs/performance.md for what it measures."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import warnings
from dataclasses import dataclass

from benchmarks.bulk import measure as bulk
from benchmarks.imports import measure as imports
from benchmarks.listing import measure as listing
from benchmarks.overhead import measure as overhead
from benchmarks.pages.performance import PARTS, write_page
from benchmarks.pages.performance_plot import write_plots
from benchmarks.peers import KEYS, comparison, large
from benchmarks.processes import measure as processes
from benchmarks.storage import measure as storage
from benchmarks.support.databases import ENGINES, Workshop, workshop
from benchmarks.support.results import Results
from benchmarks.support.timing import Effort
from benchmarks.turn import measure as chat

LENGTHS = (100, 1_000, 10_000, large.MESSAGES)


@dataclass(frozen=True)
class Scale:
    """How much to measure."""

    effort: Effort
    lengths: dict[str, list[int]]
    others: int
    process_rounds: int
    process_seconds: float
    bulk_messages: int
    bulk_rounds: int
    storage_conversations: int
    import_rounds: int
    listed_conversations: int
    listing_appends: int


FULL = Scale(
    Effort(),
    {"250": list(LENGTHS), "mix": [100, 1_000, 10_000]},
    others=1_000,
    process_rounds=5,
    process_seconds=3.0,
    bulk_messages=1_000_000,
    bulk_rounds=10,
    storage_conversations=200,
    import_rounds=20,
    listed_conversations=1_000_000,
    listing_appends=20_000,
)
QUICK = Scale(
    Effort(seconds=0.1, least=3, most=100, warm_up_seconds=0.1),
    {"250": [100, 1_000, 10_000]},
    others=100,
    process_rounds=2,
    process_seconds=1.0,
    bulk_messages=20_000,
    bulk_rounds=5,
    storage_conversations=10,
    import_rounds=3,
    listed_conversations=50_000,
    listing_appends=2_000,
)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two minutes in place of two hours")
    parser.add_argument("--page", action="store_true", help="only write the page from what is known")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated, like the rest")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--subject", action="append", choices=KEYS, help="tokenmem is always among them")
    parser.add_argument("--work", action="append", choices=comparison.WORKS)
    parser.add_argument("--length", action="append", type=int, choices=LENGTHS)
    parser.add_argument("--size", action="append", choices=FULL.lengths)
    return parser.parse_args()


async def measure(workshop: Workshop, options: argparse.Namespace) -> None:
    """Measure the chosen parts on one engine."""
    results = Results(workshop.engine, workshop.version, quick=options.quick)
    scale = QUICK if options.quick else FULL
    parts = options.part or PARTS
    works = options.work or list(comparison.WORKS)
    chosen = options.subject or []
    lengths = {
        size: [length for length in known if not options.length or length in options.length]
        for size, known in scale.lengths.items()
        if not options.size or size in options.size
    }
    if "imports" in parts:
        imports.run(results, rounds=scale.import_rounds)
    if "overhead" in parts:
        await overhead.run(
            workshop, results, lengths=lengths, works=works, effort=scale.effort, others=scale.others
        )
    if "chat" in parts:
        await chat.run(workshop, results, effort=scale.effort)
    if "processes" in parts:
        processes.run(workshop, results, rounds=scale.process_rounds, seconds=scale.process_seconds)
    if "bulk" in parts:
        bulk.run(workshop, results, messages=scale.bulk_messages, rounds=scale.bulk_rounds)
    if "listing" in parts:
        await listing.run(
            workshop,
            results,
            conversations=scale.listed_conversations,
            effort=scale.effort,
            appends=scale.listing_appends,
        )
    if "storage" in parts:
        await storage.run(workshop, results, chosen=chosen, conversations=scale.storage_conversations)
    if "peers" in parts:
        await _peers(workshop, results, chosen, works, lengths, scale)


async def _peers(
    workshop: Workshop,
    results: Results,
    chosen: list[str],
    works: list[str],
    lengths: dict[str, list[int]],
    scale: Scale,
) -> None:
    short = {size: [each for each in known if each < large.MESSAGES] for size, known in lengths.items()}
    if any(short.values()):
        await comparison.run(
            workshop,
            results,
            chosen=chosen,
            works=works,
            lengths={size: known for size, known in short.items() if known},
            effort=scale.effort,
            others=scale.others,
        )
    if large.MESSAGES in lengths.get("250", []):
        await large.run(workshop, results, chosen=chosen, works=works, effort=scale.effort)


def main() -> None:
    options = parsed()
    warnings.simplefilter("ignore")  # of the peers' dependencies
    logging.disable(logging.WARNING)
    if not options.page:
        for engine in options.engine or ENGINES:
            with workshop(engine) as made:
                asyncio.run(measure(made, options))
    try:
        write_plots(quick=options.quick)
        write_page(quick=options.quick)
    except ModuleNotFoundError as error:  # the development environment has no peers and nothing that plots
        print(
            f"no page without {error.name}: run scripts/benchmark, whose environment has it", file=sys.stderr
        )


if __name__ == "__main__":
    main()
