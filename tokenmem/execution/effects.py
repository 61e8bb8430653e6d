"""What a procedure waits for: an operation on the database, or pure work that may be long."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import sqlalchemy as sa

from tokenmem.arguments import LARGEST_COST, checked_number
from tokenmem.counting.counters import TokenCounter
from tokenmem.database.driver_errors import WriteConflict
from tokenmem.messages.message import Message

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Read(Generic[T_co]):
    """Run an operation that needs no transaction: one statement, or several that need not agree.

    `takes_long` tells that the time it takes grows with the database: the store's timeout is not for it.
    """

    operation: Callable[[sa.Connection], T_co]
    takes_long: bool = False


@dataclass(frozen=True, slots=True)
class Write(Generic[T_co]):
    """Run an operation in a transaction of its own, or in the caller's.

    `one_statement` tells that on PostgreSQL it is a single statement, which needs no BEGIN and COMMIT;
    `is_repeatable` that it stores nothing twice, also where nobody knows whether it has been stored before;
    `takes_long` that the time it takes grows with the database: the store's timeout is not for it.
    """

    operation: Callable[[sa.Connection], T_co]
    one_statement: bool = False
    is_repeatable: bool = False
    takes_long: bool = False


@dataclass(frozen=True, slots=True)
class Compute(Generic[T_co]):
    """Do pure work, such as counting tokens: off the event loop where the texts it reads are long.

    Attributes:
        function: what to do.
        characters: how long the texts are, roughly.
    """

    function: Callable[[], T_co]
    characters: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """Hand a piece of text to whoever listens to the procedure while it goes on."""

    text: str


Work = Read[object] | Write[object] | Compute[object]
"""What every runner does; one that asks models does some more (`chat.effects`)."""

Effect = Work | Deliver

EffectAnswer = Any
"""What an effect came to: it depends on the effect, and whoever yields it gives it its type."""

Procedure = Generator[Effect, EffectAnswer, T]
"""Yields effects, gets the answer to each sent in, and returns its result.

What is sent in depends on the effect: `perform`, `count` and `with_retries` give it its type.
"""

ATTEMPTS = 50
"""How often a write that another process overtook is tried before the caller hears of it."""


def perform(effect: Read[T] | Write[T] | Compute[T]) -> Procedure[T]:
    """Wait for an effect and return what it came to."""
    answer: T = yield effect
    return answer


def with_retries(write: Write[T]) -> Procedure[T]:
    """Run a write, again where another process overtook it."""
    for _ in range(ATTEMPTS - 1):
        with suppress(WriteConflict):
            return (yield from perform(write))
    return (yield from perform(write))


def count(counter: TokenCounter, messages: Sequence[Message]) -> Procedure[list[int]]:
    """Count messages: what each of them costs, in tokens.

    Raises:
        InvalidArgument: a counter of the caller's returned no integer, or a negative or too large one.
    """
    return perform(Compute(lambda: count_each(counter, messages), characters_of(messages)))


def count_each(counter: TokenCounter, messages: Sequence[Message]) -> list[int]:
    """What each message costs, in tokens; at once, wherever it is called. Raises as `count` does."""
    try:
        counts = [counter.count(message) for message in messages]
    except StopIteration as error:  # which would end whoever waits, not tell them
        raise RuntimeError(f"the counter {counter.name!r} raised StopIteration") from error
    if counts and (set(map(type, counts)) != {int} or min(counts) < 0 or max(counts) > LARGEST_COST):
        for tokens in counts:
            checked_number(tokens, f"{counter.name}'s count", most=LARGEST_COST)
    return counts


def characters_of(messages: Sequence[Message]) -> int:
    """How long the messages' texts are, in characters."""
    return sum(len(message.content or "") for message in messages)
