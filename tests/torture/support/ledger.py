"""What writers tried and what they were told is stored, kept outside of the database.

A ledger is a file of one writer's. Each line is written by one system call, so that it stays when the writer
is killed: what it says was acknowledged had been acknowledged.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tokenmem import Message, Store


class Ledger:
    """The ledger of one writer."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def attempt(self, conversation_id: str, key: str) -> None:
        os.write(self._file, f"tries {conversation_id} {key}\n".encode())

    def acknowledge(self, conversation_id: str, key: str, first_position: int) -> None:
        os.write(self._file, f"stored {conversation_id} {key} {first_position}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def exchange(key: str) -> list[Message]:
    """Two messages that are stored together or not at all; they cost different numbers of tokens."""
    return [Message.user(f"{len(key)} asks {key}"), Message.assistant(f"7 answers {key}")]


@dataclass
class Entries:
    """What all ledgers say.

    Attributes:
        tried: the conversation of each key.
        stored: the first position of each key that was acknowledged; of a retry, what each was told.
    """

    tried: dict[str, str] = field(default_factory=dict)
    stored: dict[str, set[int]] = field(default_factory=dict)

    @property
    def unknown(self) -> dict[str, str]:
        """What was tried and never acknowledged."""
        return {key: name for key, name in self.tried.items() if key not in self.stored}


def read_ledgers(paths: Iterable[Path]) -> Entries:
    entries = Entries()
    for path in filter(Path.exists, paths):  # a writer has none before it has begun
        for line in path.read_text().splitlines():
            kind, conversation_id, key, *position = line.split()
            entries.tried.setdefault(key, conversation_id)
            if kind == "stored":
                entries.stored.setdefault(key, set()).add(int(position[0]))
    return entries


@dataclass(frozen=True)
class Settled:
    """The database beside the ledgers.

    Attributes:
        acknowledged: how many appends were acknowledged.
        lost: how many of these are not where the writer was told.
        doubled: how many appends are there more than once.
        halves: how many are there without their other half, or not side by side.
        unacknowledged: how many are stored of which the writer did not learn.
        foreign: how many texts nobody has written.
        problems: how many `verify` found.
    """

    acknowledged: int
    lost: int
    doubled: int
    halves: int
    unacknowledged: int
    foreign: int
    problems: int

    @property
    def failures(self) -> tuple[str, ...]:
        found = {f"{self.halves} appends are stored in half": self.halves}
        found[f"{self.foreign} messages are stored that nobody wrote"] = self.foreign
        return tuple(text for text, count in found.items() if count)


def settle(store: Store, entries: Entries) -> Settled:
    """Compare everything stored with everything told."""
    asks: dict[str, list[tuple[str, int]]] = {}
    answers: Counter[tuple[str, str, int]] = Counter()
    foreign = 0
    for conversation_id in sorted(set(entries.tried.values())):
        for message in store.messages(conversation_id, limit=None, missing="empty"):
            _, verb, key = str(message.content).split()
            if entries.tried.get(key) != conversation_id:
                foreign += 1
            elif verb == "asks":
                asks.setdefault(key, []).append((conversation_id, message.position))
            else:
                answers[key, conversation_id, message.position] += 1
    whole = {
        key: [at for at in places if answers[key, at[0], at[1] + 1] == 1] for key, places in asks.items()
    }
    complete = sum(map(len, whole.values()))
    lost = sum(
        {at for _, at in whole.get(key, [])} != told if len(whole.get(key, [])) < 2 else False
        for key, told in entries.stored.items()
    )
    return Settled(
        acknowledged=len(entries.stored),
        lost=lost,
        doubled=sum(len(places) > 1 for places in asks.values()),
        halves=sum(map(len, asks.values())) + answers.total() - 2 * complete,
        unacknowledged=len(whole.keys() & entries.unknown.keys()),
        foreign=foreign,
        problems=len(store.verify()),
    )
