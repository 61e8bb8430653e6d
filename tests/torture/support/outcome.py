"""What a class of faults is, what it is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.support.stores import Stores, Unit
from tokenmem import Store

Patch = Callable[[], AbstractContextManager[Any]]
"""Breaks something for the time of a block, in this process; found again by its name in others."""


@dataclass(frozen=True)
class Case:
    """What one run of a class is given.

    Attributes:
        engine: "sqlite" or "postgresql"; "none" where no database takes part.
        mode: "sync", "async", or what else the class tells apart.
        size: how many operations, cycles or faults; each class says of what.
        url: a migrated database without rows.
        directory: an empty directory.
        planted: the fault of our own that is to be found; None for none.
    """

    engine: str
    mode: str
    size: int
    url: str
    directory: Path
    planted: Patch | None = None

    @property
    def random(self) -> Random:
        """The same numbers in each run of the same case."""
        return Random(f"{self.engine}/{self.mode}/{self.size}")

    def breaking(self) -> AbstractContextManager[Any]:
        """The planted fault, where there is one."""
        return nullcontext() if self.planted is None else self.planted()

    @contextmanager
    def store(self, url: str | None = None, **options: Any) -> Iterator[Store]:
        """A store, sync or async as the mode says, that must have returned its connections at the end."""
        with self.stores(url) as stores:
            yield stores.open(**{"counter": Unit()} | options)

    @contextmanager
    def stores(self, url: str | None = None) -> Iterator[Stores]:
        mode = self.mode if self.mode in ("sync", "async") else "sync"
        opened = Stores(f"{self.engine}-{mode}", url or self.url)
        yield opened
        opened.close()


@dataclass(frozen=True)
class Outcome:
    """What one run of a class has counted.

    Attributes:
        operations: how many calls of tokenmem there were.
        faults: how many faults were injected.
        acknowledged: how many writes tokenmem said were stored.
        lost: how many of these are not there.
        doubled: how many writes are there more than once.
        problems: how many `verify` found.
        figures: what else was counted, by its name.
        failures: what else must hold and did not, a sentence each.
    """

    operations: int = 0
    faults: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    problems: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def wrong(self) -> list[str]:
        """All that must not be, a sentence each; empty where the class holds."""
        counted = {
            f"{self.lost} acknowledged writes are lost": self.lost,
            f"{self.doubled} writes are stored more than once": self.doubled,
            f"verify finds {self.problems} problems": self.problems,
        }
        return [text for text, count in counted.items() if count] + list(self.failures)


@dataclass(frozen=True)
class PlantedFault:
    """A fault of our own making, which the class must find.

    Attributes:
        name: what is broken, in a few words for the page.
        patch: breaks it.
        engine: where it is tried.
        mode: likewise.
        size: how much it takes to be found, at most.
        quick: whether the short form tries it too.
    """

    name: str
    patch: Patch
    engine: str
    mode: str
    size: int
    quick: bool = False


@dataclass(frozen=True)
class FaultClass:
    """One class of faults.

    Attributes:
        name: for the command and the results.
        claim: what is done and what must hold, a sentence or two for the page.
        counts: what `size` counts, for the page.
        run: does it.
        cases: the engines and modes, each a run.
        short: the size in the short form.
        long: the size in the long form.
        planted: faults of our own that it must find.
        only_long: more of these, which the short form leaves out.
        pending: cases that are not run yet, and why: today they would fail.
        unavailable: why it cannot be run on this machine; empty where it can.
        seconds: after which a run in the long form counts as one that hangs.
    """

    name: str
    claim: str
    counts: str
    run: Callable[[Case], Outcome]
    cases: tuple[tuple[str, str], ...]
    short: int
    long: int
    planted: tuple[PlantedFault, ...] = ()
    only_long: tuple[tuple[str, str], ...] = ()
    pending: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unavailable: Callable[[], str] = lambda: ""
    seconds: int = 1200


SYNC_AND_ASYNC = (("sqlite", "sync"), ("sqlite", "async"), ("postgresql", "sync"), ("postgresql", "async"))
EACH_ENGINE = (("sqlite", "sync"), ("postgresql", "sync"))
