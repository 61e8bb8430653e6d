"""What a procedure waits for: an operation on the database, or a count of tokens."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from tokenmem.arguments import LARGEST_COST, checked_number
from tokenmem.counting.counters import TokenCounter
from tokenmem.database.driver_errors import WriteConflict
from tokenmem.messages.message import Message

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Read:
    """Run an operation that needs no transaction: one statement, or several that need not agree."""

    operation: Callable[[sa.Connection], Any]


@dataclass(frozen=True, slots=True)
class Write:
    """Run an operation in a transaction of its own, or in the caller's.

    `one_statement` tells that on PostgreSQL it is a single statement, which needs no BEGIN and COMMIT.
    """

    operation: Callable[[sa.Connection], Any]
    one_statement: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """Count the tokens of messages: pure work, but long for long texts."""

    counter: TokenCounter
    messages: Sequence[Message]

    def run(self) -> list[int]:
        """What each message costs, in tokens.

        Raises:
            InvalidArgument: a counter of the caller's returned no whole number, a negative or too large one.
        """
        try:
            counts = [self.counter.count(message) for message in self.messages]
        except StopIteration as error:  # which would end whoever waits, not tell them
            raise RuntimeError(f"the counter {self.counter.name!r} raised StopIteration") from error
        if set(map(type, counts)) != {int} or min(counts) < 0 or max(counts) > LARGEST_COST:
            for tokens in counts:
                checked_number(tokens, f"{self.counter.name}'s count", most=LARGEST_COST)
        return counts

    @property
    def characters(self) -> int:
        """How long the texts are, roughly."""
        return sum(len(message.content or "") for message in self.messages)


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand something to whoever listens to the procedure while it goes on."""

    value: Any


Effect = Any
"""Read, Write, Count or Deliver; or what a runner of its own knows besides."""

Procedure = Generator[Effect, Any, T]

ATTEMPTS = 50
"""How often a write that another process overtook is tried before the caller hears of it."""


def with_retries(write: Write) -> Procedure[Any]:
    """Run a write, again where another process overtook it."""
    for _ in range(ATTEMPTS - 1):
        with suppress(WriteConflict):
            return (yield write)
    return (yield write)
