"""What runs have come to, a line of JSON each: `build/torture/COMMIT.jsonl`. A run that is there is done."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "torture"


@dataclass(frozen=True)
class Run:
    """One run that is to be done, or is done.

    Attributes:
        name: the class.
        engine: as of `Case`.
        mode: likewise.
        size: likewise.
        planted: the planted fault; None for none.
    """

    name: str
    engine: str
    mode: str
    size: int
    planted: str | None = None

    def __str__(self) -> str:
        planted = f", planted: {self.planted}" if self.planted else ""
        return f"{self.name} {self.engine} {self.mode} ({self.size}){planted}"

    @property
    def told(self) -> dict[str, Any]:
        return {
            "class": self.name,
            "engine": self.engine,
            "mode": self.mode,
            "size": self.size,
            "planted": self.planted,
        }


class Results:
    """The results for the commit that is checked out."""

    def __init__(self, commit: str | None = None, folder: Path = FOLDER) -> None:
        self.commit = commit or current_commit()
        self._path = folder / f"{self.commit}.jsonl"

    def all(self) -> dict[Run, dict[str, Any]]:
        """The newest outcome of each run."""
        return dict(self._lines())

    def add(self, run: Run, outcome: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run.told, "outcome": outcome, "machine": machine()}) + "\n")

    def _lines(self) -> Iterator[tuple[Run, dict[str, Any]]]:
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                read = json.loads(line)
                told = read["run"]
                run = Run(told["class"], told["engine"], told["mode"], told["size"], told["planted"])
                yield run, read["outcome"] | {"machine": read["machine"]}


def current_commit() -> str:
    """The commit, and whether files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """What it ran on, in a few words."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"
