"""Time several subjects round by round, so that whatever else the machine does disturbs all alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

WARM_UP_ROUNDS = 15
"""Rounds that are dropped: psycopg prepares at the fifth, PostgreSQL settles on a plan after five more."""

SLOW_SECONDS = 10.0
"""A subject whose first round takes longer is measured by that round alone."""

COLLECT_SECONDS = 0.5
"""Timed work after which garbage is collected, between rounds: never while the clock runs."""


@dataclass(frozen=True)
class Subject:
    """What is timed: a call, or a coroutine on the running event loop."""

    name: str
    operation: Callable[[], Any]
    asynchronous: bool = False


@dataclass(frozen=True)
class Effort:
    """How long to measure each subject."""

    seconds: float = 2.0
    least: int = 3
    most: int = 1_000
    warm_up_seconds: float = 1.0

    @property
    def warm_up_rounds(self) -> int:
        return min(WARM_UP_ROUNDS, self.most)


@dataclass
class _Course:
    """One subject's times so far."""

    subject: Subject
    effort: Effort
    times: list[float] = field(default_factory=list)
    warm_up: list[float] = field(default_factory=list)
    failure: str | None = None

    @property
    def is_warm(self) -> bool:
        if self.warm_up and self.warm_up[0] > SLOW_SECONDS:
            return True
        return (
            len(self.warm_up) >= self.effort.warm_up_rounds or sum(self.warm_up) > self.effort.warm_up_seconds
        )

    @property
    def is_done(self) -> bool:
        if self.failure or (self.warm_up and self.warm_up[0] > SLOW_SECONDS):
            return True
        count = len(self.times)
        return count >= self.effort.most or (
            count >= self.effort.least and sum(self.times) >= self.effort.seconds
        )

    async def run(self) -> float:
        try:
            taken = await timed(self.subject)
        except MemoryError:
            self.failure = "out of memory"
            return 0.0
        except Exception as error:  # a peer that cannot do it says so in the table
            self.failure = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:120]}"
            return 0.0
        (self.times if self.is_warm else self.warm_up).append(taken)
        return taken

    def summary(self) -> dict[str, Any]:
        if self.failure:
            return {"failed": self.failure}
        times = self.times or self.warm_up
        low, high = times[0], times[0]
        if len(times) > 1:
            deciles = statistics.quantiles(times, n=10, method="inclusive")
            low, high = deciles[0], deciles[-1]
        return {"seconds": statistics.median(times), "low": low, "high": high, "rounds": len(times)}


async def timed(subject: Subject) -> float:
    """Run it once and return the seconds that it took; what it returned is freed after the clock stopped."""
    if subject.asynchronous:
        started = time.perf_counter()
        result = await subject.operation()
    else:
        started = time.perf_counter()
        result = subject.operation()
    taken = time.perf_counter() - started
    del result
    return taken


async def compare(subjects: Sequence[Subject], effort: Effort) -> dict[str, dict[str, Any]]:
    """Median seconds of each subject and where 10 % and 90 % of its times lie, all measured in turn."""
    courses = [_Course(subject, effort) for subject in subjects]
    order = random.Random(0)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        since_collection = 0.0
        while running := [course for course in courses if not course.is_done]:
            order.shuffle(running)  # nobody always follows the one that has just warmed or emptied the caches
            for course in running:
                since_collection += await course.run()
                if since_collection > COLLECT_SECONDS:
                    gc.collect()
                    since_collection = 0.0
    finally:
        gc.enable()
        gc.unfreeze()
    return {course.subject.name: course.summary() for course in courses}
