"""What `PRAGMA secure_delete` costs on SQLite: `python -m benchmarks.secure_delete`.

One file for each setting, filled alike; the settings take turns, round by round, in one process, so that
whatever else the machine does disturbs all of them. The figures are medians, and ratios to "off".
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import event

from benchmarks.support import texts
from tokenmem import Message, Store

SETTINGS = ("OFF", "FAST", "ON")
CONVERSATIONS = 200
MESSAGES = 40


class File:
    """A store on a file of its own with one setting."""

    def __init__(self, directory: Path, setting: str, said: list[str]) -> None:
        self.store = Store(f"sqlite:///{directory / setting}.db")
        for engine in (self.store.engine,):
            event.listen(engine, "connect", lambda raw, _: raw.execute(f"PRAGMA secure_delete = {setting}"))
        self.store.upgrade()
        self.said = said
        self.made = 0
        for _ in range(CONVERSATIONS):
            self.fill()

    def fill(self, owner: str | None = None) -> str:
        name = f"c{self.made}"
        self.made += 1
        messages = [Message.user(self.said[(self.made + n) % len(self.said)]) for n in range(MESSAGES)]
        self.store.append(name, messages, owner=owner)
        return name

    def append(self, number: int) -> None:
        message = Message.user(self.said[number % len(self.said)])
        self.store.append(f"c{number % CONVERSATIONS}", [message, message])

    def edit(self, number: int) -> None:
        place = number % CONVERSATIONS
        said = Message.user(self.said[(number + 7) % len(self.said)])
        self.store.edit(f"c{place}", 1 + number % MESSAGES, said)

    def delete_message(self, number: int) -> None:
        self.store.pop(f"c{number % CONVERSATIONS}")

    def delete(self, _: int) -> None:
        self.store.delete(self.doomed.pop())

    def prepare(self, work: str, runs: int) -> None:
        self.doomed = [self.fill() for _ in range(runs)] if work == "delete" else []


WORKS = ("append", "edit", "delete_message", "delete")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=10, help="of a work on one file in a round")
    parser.add_argument("--directory", help="where the files are made; a disk, to be like one in use")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.directory) as directory:
        said = [str(each["content"]) for each in texts.messages("250")]
        files = {setting: File(Path(directory), setting, said) for setting in SETTINGS}
        taken: dict[str, dict[str, list[float]]] = {work: {each: [] for each in SETTINGS} for work in WORKS}
        for round_ in range(chosen.rounds):
            for work in WORKS:
                for setting in SETTINGS[round_ % 3 :] + SETTINGS[: round_ % 3]:
                    file = files[setting]
                    file.prepare(work, chosen.runs)
                    do: Callable[[int], None] = getattr(file, work)
                    begun = time.perf_counter()
                    for run in range(chosen.runs):
                        do(round_ * chosen.runs + run)
                    taken[work][setting].append((time.perf_counter() - begun) / chosen.runs)
        print("| work | off | fast | on | fast / off | on / off |\n|---|---|---|---|---|---|")
        for work in WORKS:
            medians = [statistics.median(taken[work][each]) * 1e3 for each in SETTINGS]
            ratios = [
                statistics.median([a / b for a, b in zip(taken[work][each], taken[work]["OFF"], strict=True)])
                for each in SETTINGS[1:]
            ]
            figures = " | ".join(f"{each:.2f} ms" for each in medians)
            print(f"| {work} | {figures} | " + " | ".join(f"{each:.2f}" for each in ratios) + " |")
        for file in files.values():
            file.store.close()


if __name__ == "__main__":
    sys.exit(main())
