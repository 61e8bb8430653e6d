"""This checkout against another commit, in one run: `python -m benchmarks.commits main`.

Each side is a process of its own with a database of its own, on the same server; they take turns, round by
round, so that whatever else the machine does disturbs both. Both run in this environment. `HEAD` as the
commit shows how much two equal sides differ.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.support import texts
from benchmarks.support.databases import ENGINES, NAMES, Database, Workshop, workshop
from benchmarks.support.results import REPOSITORY

WORKS = {
    "window": "window of 4,000 tokens",
    "long window": "window of 128,000 tokens",
    "append": "append of an exchange",
    "keyed append": "append of an exchange with a key",
    "turn": "turn of Chat",
}
WRITES = ("append", "keyed append", "turn")
ROUNDS = 40
WARM_UP = 20
"""Runs that are dropped: psycopg prepares at the sixth, PostgreSQL settles on a plan after five more."""

ROUND_SECONDS = 0.05
"""Of one work on one side in a round, about: short, so that both sides meet the same disturbances."""

LEAST, MOST = 3, 50
"""Runs of a work in a round."""


class Failed(Exception):
    """A side cannot do a work."""


class Side:
    """One commit's process."""

    def __init__(self, name: str, checkout: Path, database: Database) -> None:
        self._name = name
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("side.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(checkout)},
        )
        answer = self._ask({"url": database.url, "messages": texts.messages("250")})
        package = Path(answer["package"])
        if package != (checkout / "tokenmem").resolve():
            raise SystemExit(f"{package} was imported in place of the one in {checkout}")
        database.settle()

    def run(self, work: str, times: int) -> float:
        """Do it so many times; the median, in seconds.

        Raises:
            Failed: the tokenmem of this side raised.
        """
        answer = self._ask({"work": work, "times": times})
        if "failed" in answer:
            raise Failed(f"{self._name}: {answer['failed']}")
        taken: list[float] = answer["seconds"]
        return statistics.median(taken)

    def close(self) -> None:
        if self._process.stdin:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise SystemExit(f"{self._name} has ended; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass
class Comparison:
    """What was measured of one work: each round's median of both sides, in seconds."""

    work: str
    times: int
    base: list[float] = field(default_factory=list)
    here: list[float] = field(default_factory=list)
    failed: str = ""

    def add_round(self, base: Side, here: Side) -> None:
        """Measure once more, the other side first than before."""
        sides = [(base, self.base), (here, self.here)]
        for side, medians in reversed(sides) if len(self.base) % 2 else sides:
            medians.append(side.run(self.work, self.times))

    def columns(self) -> tuple[str, ...]:
        """Milliseconds of both, the median of the rounds' ratios, and between what half of these lie."""
        if self.failed:
            return (self.failed,)
        ratios = [here / base for here, base in zip(self.here, self.base, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        taken = (f"{statistics.median(times) * 1000:.3f}" for times in (self.base, self.here))
        return (*taken, f"{ratio:.3f}", f"{low:.3f} to {high:.3f}")


def compared(base: Side, here: Side, works: Sequence[str], rounds: int) -> list[Comparison]:
    """Every work in every round, a little of each side in turn."""
    found = [_warmed_up(base, here, work) for work in works]
    for _ in range(rounds):
        for comparison in found:
            if not comparison.failed:
                try:
                    comparison.add_round(base, here)
                except Failed as error:
                    comparison.failed = str(error)
    return found


def _warmed_up(base: Side, here: Side, work: str) -> Comparison:
    """A comparison that knows how many runs are a round."""
    try:
        taken = [side.run(work, WARM_UP) for side in (base, here)]
    except Failed as error:
        return Comparison(work, 0, failed=str(error))
    return Comparison(work, max(LEAST, min(MOST, round(ROUND_SECONDS / min(taken)))))


def measure(made: Workshop, base: Path, rounds: int) -> Iterator[tuple[str, ...]]:
    """The rows of one engine's table: everything on disk, then what writes without waiting for the disk."""
    for waiting in (True, False):
        with ExitStack() as stack:
            sides = []
            for name, checkout in (("base", base), ("here", REPOSITORY)):
                database = stack.enter_context(made.database() if waiting else made.without_waiting())
                side = Side(name, checkout, database)
                stack.callback(side.close)
                sides.append(side)
            base_side, here_side = sides
            for comparison in compared(base_side, here_side, list(WORKS) if waiting else WRITES, rounds):
                name = WORKS[comparison.work] + ("" if waiting else ", not waiting for the disk")
                yield name, *comparison.columns()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The commit in a worktree, which is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="tokenmem-commit-") as directory:
        path = Path(directory).resolve() / "base"
        git = ("git", "-C", str(REPOSITORY), "worktree")
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.commits", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("base", help="the other commit, as git knows it")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS} unless given; two at least")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("a spread takes two rounds at least")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exit removes the worktree on its way
    with checked_out(options.base) as base:
        for engine in options.engine or ENGINES:
            with workshop(engine) as made:
                print(f"\n{NAMES[engine]} {made.version}, {options.rounds} rounds")
                heads = (f"{options.base}, ms", "here, ms", "ratio", "half of the rounds")
                for name, *columns in chain([("", *heads)], measure(made, base, options.rounds)):
                    print(f"{name:60}" + "".join(f"{column:>20}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
