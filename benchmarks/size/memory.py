"""Time and peak memory of `tokenmem` commands at two sizes: does it grow with the database?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.support.databases import Database, Workshop
from benchmarks.support.generated import fill, ids, make_conversations, whole
from benchmarks.support.results import Results
from tokenmem import Store

PEAK = Path(__file__).with_name("peak.py")
SECONDS = 300
SIZES = (100_000, 1_000_000)
QUICK_SIZES = (5_000, 50_000)
MESSAGES_EACH = 1_000
SHAPES = ("in one conversation", f"in conversations of {MESSAGES_EACH:,}")
OLDER_THAN = "90d"
"""Half of each conversation is a year old."""

OTHER_COUNTER = "cl100k_base"


def run(workshop: Workshop, results: Results, *, quick: bool) -> None:
    """Every command on a long conversation and on many short ones, both sizes."""
    found: dict[str, Any] = {}
    for shape in SHAPES:
        for messages in QUICK_SIZES if quick else SIZES:
            results.progress(f"commands on {messages:,} messages {shape}")
            found.setdefault(shape, {})[f"{messages}"] = _commands(workshop, results, messages, shape)
            results.record("memory", "shapes", found)


def tokenmem(database: Database, *arguments: str, seconds: float = SECONDS) -> dict[str, Any]:
    """Run a command of tokenmem's; its seconds and bytes at its peak, or how it failed."""
    command = [sys.executable, "-m", "tokenmem", *arguments, "--url", database.url]
    done = subprocess.run(
        [sys.executable, "-S", str(PEAK), str(seconds), *command], capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _commands(workshop: Workshop, results: Results, messages: int, shape: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with TemporaryDirectory(prefix="tokenmem-export-") as directory:
        file = str(Path(directory) / "export.jsonl")
        steps: dict[str, tuple[str, ...]] = {
            "db current": ("db", "current"),
            "verify": ("verify",),
            "export": ("export", "--output", file),
            "purge --dry-run": ("purge", "--older-than", OLDER_THAN, "--dry-run"),
            "recount": ("recount", "--all", "--counter", OTHER_COUNTER),
            "purge": ("purge", "--older-than", OLDER_THAN),
        }
        with workshop.database() as database:
            _fill(database, messages, shape)
            for name, arguments in steps.items():
                results.progress(f"  {name}")
                found[name] = tokenmem(database, *arguments)
            found["correct"] = _agrees(database)
        if "failed" not in found["export"]:
            with workshop.database() as database:
                _migrate(database)
                results.progress("  import")
                found["import"] = tokenmem(database, "import", file)
                found["correct"] = found["correct"] and _agrees(database)
    return found


def _migrate(database: Database) -> None:
    with Store(database.url) as store:
        store.upgrade()


def _fill(database: Database, messages: int, shape: str) -> None:
    _migrate(database)
    each = messages if shape == SHAPES[0] else MESSAGES_EACH
    lengths = dict.fromkeys(ids(messages // each), each)
    make_conversations(database, lengths)
    for _ in fill(database, whole(lengths, old_share=0.5)):
        pass
    database.settle()


def _agrees(database: Database) -> bool:
    """Whether all totals are right behind the commands."""
    with Store(database.url) as store:
        return not store.verify()
