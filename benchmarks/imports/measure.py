"""What `import tokenmem` costs a process, and that it imports nothing that a chat may not need."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from benchmarks.support.results import Results

STATEMENTS = {
    "import tokenmem": "import tokenmem",
    "from tokenmem import Store": "from tokenmem import Store",
    "from tokenmem import AsyncStore": "from tokenmem import AsyncStore",
    "import sqlalchemy": "import sqlalchemy",
}
NOT_IMPORTED = ("openai", "alembic", "tiktoken")


def run(results: Results, *, rounds: int) -> None:
    """Wall time above the bare interpreter's, all in turn; what stands in sys.modules afterwards."""
    results.progress("measuring the import of the package")
    times: dict[str, list[float]] = {name: [] for name in ("pass", *STATEMENTS)}
    for round_number in range(rounds + 1):
        for name in times:
            taken = _seconds(STATEMENTS.get(name, "pass"))
            if round_number:  # the first may have to compile
                times[name].append(taken)
    for name, statement in STATEMENTS.items():
        above = [taken - bare for taken, bare in zip(times[name], times["pass"], strict=True)]
        value = {"seconds": statistics.median(above), "also_imported": _modules(statement)}
        results.record("imports", name, value)


def _seconds(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def _modules(statement: str) -> list[str]:
    """Those of NOT_IMPORTED that it imports after all."""
    program = (
        f"{statement}\nimport json, sys\nprint(json.dumps([m for m in {NOT_IMPORTED} if m in sys.modules]))"
    )
    printed = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    found: list[str] = json.loads(printed.stdout)
    return found
