"""Texts that are built to be expensive to count: the work grows as the text does, and no faster."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import Message, TiktokenCounter
from tokenmem.counting import encodings

GROWTH = 3
"""How many times as long the longer text is."""

SLACK = 1.5
"""How many times as much as the text grows the work may grow."""

LONGEST_PIECE = 2 * 24_576
"""Characters that tiktoken is given at once: what it does with these may be more than linear."""


def call(arguments: str) -> Message:
    function = {"name": "f", "arguments": arguments}
    return Message.assistant(None, tool_calls=[{"id": "1", "type": "function", "function": function}])


def parts(count: int) -> Message:
    return Message.user([{"type": "text", "text": "a b"} for _ in range(count)])


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


SHAPES: dict[str, Callable[[int], Message]] = {
    "one letter": lambda n: Message.user("a" * n),
    "spaces": lambda n: Message.user(" " * n),
    "newlines": lambda n: Message.user("\n" * n),
    "spaces and a letter": lambda n: Message.user(" " * (n - 1) + "a"),
    "carriage returns and spaces": lambda n: Message.user("\r \n" * (n // 3)),
    "digits": lambda n: Message.user("7" * n),
    "punctuation": lambda n: Message.user("!" * n),
    "apostrophes": lambda n: Message.user("'s" * (n // 2)),
    "upper and lower case": lambda n: Message.user("aA" * (n // 2)),
    "combining marks": lambda n: Message.user("e" + "\u0301" * (n - 1)),
    "joined emoji": lambda n: Message.user("\U0001f468\u200d" * (n // 2)),
    "ideographs": lambda n: Message.user("\u6f22" * n),
    "astral letters": lambda n: Message.user("\U0001d573" * n),
    "lone surrogates": lambda n: Message.user("\ud800" * n),
    "special tokens": lambda n: Message.user("<|endoftext|>" * (n // 13)),
    "base64": lambda n: Message.user("QUJDREVGR0hJSktMTU5PUA" * (n // 22)),
    "slashes": lambda n: Message.user("/" * n),
    "private use": lambda n: Message.user("\ue000" * n),
    "many parts": lambda n: parts(n // 10),
    "arguments that are spaces": lambda n: call(" " * n),
    "arguments that are deep JSON": lambda n: call(nested(min(n // 2, 400)) + "," * n),
    "arguments that are numbers": lambda n: call(json.dumps(list(range(n // 8)))),
}


class Work:
    """What counting does: calls of functions, and characters handed to tiktoken."""

    def __init__(self) -> None:
        self.calls = self.characters = self.longest = 0

    @property
    def units(self) -> int:
        return self.calls + self.characters

    def profile(self, _frame: Any, event: str, _argument: Any) -> None:
        self.calls += event in ("call", "c_call")

    def encode(self, encoding: Any, text: str) -> list[int]:
        self.characters += len(text)
        self.longest = max(self.longest, len(text))
        found: list[int] = encoding.encode_ordinary(text)
        return found


class Measured:
    """An encoding whose work is noted."""

    def __init__(self, encoding: Any, work: Work) -> None:
        self.encoding = encoding
        self.work = work

    def encode_ordinary(self, text: str) -> list[int]:
        return self.work.encode(self.encoding, text)


def work_for(counter: TiktokenCounter, message: Message) -> Work:
    work, real = Work(), encodings.load_encoding(counter.name)
    with patched(encodings, "_loaded", {counter.name: Measured(real, work)}):
        sys.setprofile(work.profile)
        try:
            counter.count(message)
        finally:
            sys.setprofile(None)
    return work


def seconds_for(counter: TiktokenCounter, message: Message) -> float:
    """The least of some measurements, in seconds of this thread's own."""
    found = []
    for _ in range(5):
        began = time.thread_time()
        counter.count(message)
        found.append(time.thread_time() - began)
    return min(found)


def run(case: Case) -> Outcome:
    """Each shape at some length and at three times that: "timed" by the clock, else by its work."""
    counter = TiktokenCounter()
    worst, failures = 0.0, []
    with case.breaking():
        for name, shape in SHAPES.items():
            short, long = shape(case.size), shape(GROWTH * case.size)
            if case.mode == "timed":
                growth = seconds_for(counter, long) / seconds_for(counter, short)
            else:
                work = work_for(counter, long)
                growth = work.units / work_for(counter, short).units
                if work.longest > LONGEST_PIECE:
                    failures.append(f"{name}: tiktoken is given {work.longest} characters at once")
            worst = max(worst, growth)
            if growth > SLACK * GROWTH:
                failures.append(f"{name}: {GROWTH} times the text takes {growth:.1f} times the work")
    return Outcome(
        operations=2 * len(SHAPES),
        faults=len(SHAPES),
        figures={f"worst growth at {GROWTH} times the text": round(worst, 2)},
        failures=tuple(failures),
    )


@contextmanager
def in_one_piece() -> Iterator[None]:
    """Texts go to tiktoken as they are, however long."""
    with patched(encodings, "_PIECE", 10**9):
        yield


CLASS = FaultClass(
    name="counting_cost",
    claim="Tokens of twenty-two hostile shapes of texts (runs of spaces, of letters, of marks, half "
    "surrogates, deep JSON …) are counted at some length and at three times that. The work grows at "
    "most one and a half times as fast as the text: the calls and the characters given to tiktoken, "
    "and in the long form the time.",
    counts="characters of the shorter text",
    run=run,
    cases=(("none", "work"),),
    only_long=(("none", "timed"),),
    short=50_000,
    long=200_000,
    planted=(PlantedFault("texts counted in one piece", in_one_piece, "none", "work", 50_000, quick=True),),
)
