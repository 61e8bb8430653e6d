"""What the measurements of server cost do: fill a database as it comes in a service, append exchanges."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.support import texts
from benchmarks.support.databases import Database
from benchmarks.support.generated import Part, fill, ids, make_conversations, whole
from tokenmem import Store

LIMITS = (4_000, 128_000)
OTHERS = 1_000
SPREAD = 2_500
"""Newest messages of each measured conversation that came in turn with others': more than a window holds."""

BETWEEN = 20
"""Messages of other conversations between two of these: more than fit on a page."""


@dataclass(frozen=True)
class Scale:
    """How much to measure.

    Attributes:
        lengths: of the conversations whose windows and appends are measured.
        counted_appends: appends over which pages are counted.
        log_appends: appends over which the log is read, behind a checkpoint and far from one.
        hot_appends: appends that update the rows of few and of many conversations.
        index_appends: appends to conversations in turn, after which the index is looked at.
    """

    lengths: tuple[int, ...]
    counted_appends: int
    log_appends: tuple[int, int]
    hot_appends: int
    index_appends: int


FULL = Scale((100, 10_000, 1_000_000), 200, (500, 10_000), 20_000, 200_000)
QUICK = Scale((100, 10_000, 100_000), 50, (200, 1_000), 1_000, 5_000)


def append_exchanges(store: Store, wanted: Sequence[str], count: int, seed: int = 0) -> None:
    """Append so many exchanges of 250 characters each, to a conversation at random each time."""
    source = random.Random(seed)
    for number in range(count):
        store.append(source.choice(wanted), texts.exchange("250", number))


def fill_as_it_comes(database: Database, lengths: Sequence[int]) -> dict[int, str]:
    """Conversations of these lengths among others, the newest messages in turn with theirs.

    Returns the conversation of each length.
    """
    found = ids(len(lengths) + OTHERS)
    measured = dict(zip(lengths, found, strict=False))
    others = found[len(lengths) :]
    before = {length: max(0, length - SPREAD) for length in lengths}
    parts = list(whole({id_: before[length] for length, id_ in measured.items()}))
    made = dict.fromkeys(others, 0)
    for turn in range(1, SPREAD + 1):
        for length, id_ in measured.items():
            if before[length] + turn <= length:
                parts.append(Part(id_, before[length] + turn, 1))
        for between in range(BETWEEN):
            other = others[(BETWEEN * turn + between) % OTHERS]
            made[other] += 1
            parts.append(Part(other, made[other], 1))
    make_conversations(database, {id_: length for length, id_ in measured.items()} | made)
    for _ in fill(database, parts):
        pass
    return measured
