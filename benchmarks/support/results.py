"""What was measured, as JSON files, so that a part can be measured again and the page made from all."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (
    *("tokenmem", "sqlalchemy", "psycopg", "tiktoken", "asyncpg", "aiosqlite"),
    *("langchain-community", "langchain-core", "langchain-postgres", "openai-agents", "llama-index-core"),
    *("google-adk", "langgraph", "langgraph-checkpoint-postgres", "langgraph-checkpoint-sqlite"),
)


class Results:
    """One engine's results: a file for each part."""

    def __init__(self, engine: str, engine_version: str = "", *, quick: bool = False) -> None:
        self.engine = engine
        self._engine_version = engine_version
        self._directory = directory(quick=quick)
        self._started = time.monotonic()
        self._directory.mkdir(parents=True, exist_ok=True)

    def part(self, name: str) -> dict[str, Any]:
        """What is known of a part; empty where it has not been measured."""
        path = self._path(name)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def record_cell(
        self, part: str, key: str, summaries: dict[str, dict[str, Any]], *, whole: bool = False
    ) -> None:
        """Put a cell's summaries in the place of the same subjects' older ones, or of all."""
        known = self.part(part)
        cells = known.setdefault("cells", {})
        cells[key] = summaries if whole else cells.get(key, {}) | summaries
        self._write(part, known)

    def record(self, part: str, key: str, value: Any) -> None:
        """Put a value in the place of the older one."""
        self._write(part, self.part(part) | {key: value})

    def progress(self, text: str) -> None:
        print(
            f"{time.monotonic() - self._started:7.1f} s  {self.engine}: {text}", file=sys.stderr, flush=True
        )

    def _write(self, part: str, value: dict[str, Any]) -> None:
        value["machine"] = machine(self._engine_version)
        self._path(part).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    def _path(self, part: str) -> Path:
        return self._directory / f"{part}-{self.engine}.json"


def directory(*, quick: bool) -> Path:
    """Where the results of a run are; a quick run's stay apart, so that it spoils no others."""
    return REPOSITORY / "build" / ("benchmarks-quick" if quick else "benchmarks")


def documents(*, quick: bool) -> Path:
    """Where the page and the plots are."""
    return directory(quick=True) if quick else REPOSITORY / "docs"


def machine(engine_version: str) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "measured": datetime.now(UTC).date().isoformat(),
        "processors": os.cpu_count(),
        "processor": _processor(),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "sync_milliseconds": _sync_milliseconds(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "engine_version": engine_version,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


@cache
def _sync_milliseconds() -> float:
    """What a durable commit waits for at least: 8 kB made durable on the disk that the data lies on."""
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(100):
            started = time.perf_counter()
            os.write(file.fileno(), b"x" * 8192)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1000, 2)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
