"""A database of 50 million messages: `python -m benchmarks.size --engine postgresql --messages 50000000`.

Its bytes on disk, windows and appends in it, `tokenmem verify` on all of it; then, in smaller databases, the
peak memory of the commands that go through everything. docs/size-and-server-cost.md is made of it.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

from benchmarks.pages.size_and_server_cost import write_page
from benchmarks.size import memory
from benchmarks.size.measures import Cold, appends, bytes_on_disk, windows
from benchmarks.size.memory import tokenmem
from benchmarks.support.databases import ENGINES, Database, Workshop, workshop
from benchmarks.support.generated import fill, ids, make_conversations, whole
from benchmarks.support.results import Results
from tokenmem import Store

MESSAGES = 50_000_000
QUICK_MESSAGES = 300_000
LONGEST, LONG, LONG_ONES = 1_000_000, 100_000, 5
LEAST, MOST = 100, 10_000
BYTES_EACH = 800
"""Room to be free for each message: half again as much as the larger of the two takes, with its log."""

COMMAND_SECONDS = 900
PARTS = ("database", "memory")


def lengths_of(messages: int) -> dict[str, int]:
    """How many messages each conversation has: one very long, a few long, the rest between 100 and 10,000."""
    longest = min(LONGEST, messages // 10)
    lengths = [longest, *[min(LONG, longest // 10)] * LONG_ONES]
    source = random.Random(5)
    left = messages - sum(lengths)
    while left > 0:  # as many of 100 to 1,000 as of 1,000 to 10,000
        length = min(left, round(math.exp(source.uniform(math.log(LEAST), math.log(MOST)))))
        lengths.append(length)
        left -= length
    found = dict(zip(ids(len(lengths)), lengths, strict=True))
    order = list(found)
    source.shuffle(order)
    return {id_: found[id_] for id_ in order}


def measure(made: Workshop, results: Results, messages: int) -> None:
    """Fill a database and measure it; what is known is recorded as it comes."""
    check_room(messages)
    with made.database() as database:
        lengths = lengths_of(messages)
        shown: dict[str, Any] = {"messages": messages, "conversations": len(lengths)}
        shown["fill_seconds"] = _filled(database, results, lengths)
        results.record("size", "database", shown | bytes_on_disk(database))
        longest = max(lengths, key=lengths.__getitem__)
        others = random.Random(3).sample(list(lengths.keys() - {longest}), min(200, len(lengths) - 1))
        for name, wanted in {"longest": [longest], "random": others}.items():
            results.progress(f"measuring windows and appends, {name}")
            results.record("size", f"{name} length", sum(lengths[id_] for id_ in wanted) / len(wanted))
            results.record("size", f"{name} windows", windows(database, wanted))
            results.record("size", f"{name} appends", appends(database, wanted))
        results.progress("measuring with a cold cache")
        results.record("size", "cold", Cold(database).measured(longest, others))
        for name, arguments in {
            "verify": ("verify",),
            "purge --dry-run": ("purge", "--older-than", "90d", "--dry-run"),
        }.items():
            results.progress(f"tokenmem {name}")
            results.record("size", name, tokenmem(database, *arguments, seconds=COMMAND_SECONDS))


def check_room(messages: int) -> None:
    """End here rather than fill somebody's disk."""
    free, needed = shutil.disk_usage(tempfile.gettempdir()).free, messages * BYTES_EACH
    if free < needed:
        raise SystemExit(f"{needed / 1e9:.0f} GB are to be free, and {free / 1e9:.0f} are; set TMPDIR")


def _filled(database: Database, results: Results, lengths: dict[str, int]) -> float:
    with Store(database.url) as store:
        store.upgrade()
    started = time.perf_counter()
    make_conversations(database, lengths)
    reported = 0
    for done in fill(database, whole(lengths)):
        if done - reported >= 5_000_000:
            results.progress(f"filled {done:,} messages")
            reported = done
    results.progress("cleaning up")
    database.settle()
    os.sync()  # what is still being written would slow down every commit that is measured
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.size")
    parser.add_argument("--quick", action="store_true", help="small numbers, a page of its own")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated, like --part")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--messages", type=int, help=f"in the large database; {MESSAGES:,} unless given")
    options = parser.parse_args()
    # An exception removes the databases on its way; the default would leave tens of gigabytes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    messages = options.messages or (QUICK_MESSAGES if options.quick else MESSAGES)
    parts = options.part or PARTS
    for engine in options.engine or ENGINES:
        with workshop(engine) as made:
            results = Results(engine, made.version, quick=options.quick)
            if "database" in parts:
                measure(made, results, messages)
            if "memory" in parts:
                memory.run(made, results, quick=options.quick)
    write_page(quick=options.quick)


if __name__ == "__main__":
    main()
