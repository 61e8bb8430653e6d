"""tokenmem against its peers: every work at every length, all of one engine measured in turn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.peers import OURS, peers_of
from benchmarks.peers.filling import conversations, fill
from benchmarks.peers.interface import Peer
from benchmarks.support import texts
from benchmarks.support.databases import Database, Workshop
from benchmarks.support.results import Results
from benchmarks.support.timing import Effort, Subject, compare

WORKS = {
    "window_4000": "load a window of 4,000 tokens",
    "window_128000": "load a window of 128,000 tokens",
    "append": "append an exchange (user and assistant)",
    "turn": "a full turn: append, window of 4,000 tokens, append",
}
MOST_APPENDS = {100: 100, 1_000: 200}
"""Rounds of a work that appends: a conversation must not grow much while it is measured."""


@dataclass(frozen=True)
class Cell:
    """One work on conversations of one size and length."""

    work: str
    size: str
    length: int

    @property
    def key(self) -> str:
        return f"{self.work}/{self.size}/{self.length}"

    @property
    def token_limit(self) -> int:
        return 128_000 if self.work == "window_128000" else 4_000

    def effort(self, effort: Effort) -> Effort:
        if self.work.startswith("window"):
            return effort
        return replace(effort, most=min(effort.most, MOST_APPENDS.get(self.length, 250)))


def subject(key: str, peer: Peer, cell: Cell) -> Subject:
    """The cell's work, done with one library."""
    read, *appended = conversations(cell.size, cell.length)
    numbers = itertools.count()

    def window() -> Any:
        return peer.window(read, cell.token_limit)

    def append() -> Any:
        number = next(numbers)
        return peer.append(appended[number % len(appended)], texts.exchange(cell.size, number))

    def turn() -> None:
        number = next(numbers)
        id_ = appended[number % len(appended)]
        asked, answered = texts.exchange(cell.size, number)
        peer.append(id_, [asked])
        peer.window(id_, cell.token_limit)
        peer.append(id_, [answered])

    async def turn_awaited() -> None:
        number = next(numbers)
        id_ = appended[number % len(appended)]
        asked, answered = texts.exchange(cell.size, number)
        await peer.append(id_, [asked])  # type: ignore[misc]
        await peer.window(id_, cell.token_limit)
        await peer.append(id_, [answered])  # type: ignore[misc]

    works = {"append": append, "turn": turn_awaited if peer.asynchronous else turn}
    return Subject(key, works.get(cell.work, window), peer.asynchronous)


async def measure(peers: Mapping[str, Peer], cell: Cell, effort: Effort) -> dict[str, Any]:
    """Every peer's summary, with its ratio to each of tokenmem's two in this run."""
    subjects = [subject(key, peer, cell) for key, peer in peers.items()]
    return with_ratios(await compare(subjects, cell.effort(effort)))


def with_ratios(summaries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add to each summary how many times slower it is than tokenmem's Store and AsyncStore."""
    for summary in summaries.values():
        if "seconds" in summary:
            summary["slower_than"] = {
                key: summary["seconds"] / summaries[key]["seconds"]
                for key in OURS
                if "seconds" in summaries.get(key, {})
            }
    return summaries


async def opened(
    engine: str, chosen: list[str], workshop: Workshop, stack: ExitStack
) -> tuple[dict[str, Peer], dict[str, Database]]:
    """The peers, open on databases of their own, one for each storage."""
    peers = peers_of(engine, chosen)
    databases: dict[str, Database] = {}
    for peer in peers.values():
        if peer.storage not in databases:
            databases[peer.storage] = stack.enter_context(workshop.database())
        await peer.open(databases[peer.storage])
    return peers, databases


async def run(
    workshop: Workshop,
    results: Results,
    *,
    chosen: list[str],
    works: list[str],
    lengths: Mapping[str, list[int]],
    effort: Effort,
    others: int,
) -> None:
    """Fill the databases, measure every cell, and record it."""
    with ExitStack() as stack:
        peers, databases = await opened(workshop.engine, chosen, workshop, stack)
        for storage, database in databases.items():
            results.progress(f"filling {storage}")
            filler = next(peer for peer in peers.values() if peer.storage == storage)
            await fill(filler, database, lengths, others)
        for size, wanted in lengths.items():
            for length, work in itertools.product(wanted, works):
                cell = Cell(work, size, length)
                results.progress(f"measuring {cell.key}")
                results.record_cell("peers", cell.key, await measure(peers, cell, effort))
        for peer in peers.values():
            await peer.close()
