"""What procedures on every subject are made of: the store's counter and scope, and ways to read and write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Concatenate, ParamSpec, Self, TypeVar, get_args

import sqlalchemy as sa

from tokenmem.arguments import MISSING, checked_choice, checked_name, optional_name
from tokenmem.counting.counters import TokenCounter, counter_named
from tokenmem.database.statements import Scope
from tokenmem.errors import ConversationNotFound, InvalidArgument, UnknownTokenCounter
from tokenmem.execution.effects import Procedure, Read, Write, count, perform, with_retries
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import Unstorable
from tokenmem.operations.append import CounterMismatch

E = TypeVar("E")
T = TypeVar("T")
P = ParamSpec("P")
Operation = Callable[Concatenate[sa.Connection, Scope, P], T]
"""A function of a connection and a scope, as `operations` has them."""


@dataclass(frozen=True, slots=True)
class BaseProcedures:
    """What all procedures of a store share.

    A class for one subject derives from it with `__slots__ = ()`: Procedures derives from several of them,
    which Python allows only where no more than one has slots of its own.

    Attributes:
        counter: the counter of new conversations.
        scope: the schema and the owner that every statement carries.
        keep_versions: whether edits keep what they replace.
        unstorable: what becomes of messages with characters that databases cannot hold.
    """

    counter: TokenCounter
    scope: Scope = field(default_factory=Scope)
    keep_versions: bool = True
    unstorable: Unstorable = "refuse"

    def for_owner(self, owner: str) -> Self:
        """The procedures of a store for one owner's conversations only."""
        return replace(self, scope=replace(self.scope, owner=self.owner_of(checked_name(owner, "owner"))))

    def read(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Procedure[T]:
        """Run an operation of this store's scope that only reads."""
        return perform(self.read_of(operation, *args, **kwargs))

    def read_of(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Read[T]:
        """An operation of this store's scope as an effect, which only reads."""
        return Read(lambda connection: operation(connection, self.scope, *args, **kwargs))

    def read_long(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Procedure[T]:
        """Run one that takes longer the more there is: the store's timeout is not for it."""
        return perform(replace(self.read_of(operation, *args, **kwargs), takes_long=True))

    def write_long(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Procedure[T]:
        """The same for one that writes, in a transaction, again where another process came first."""
        return with_retries(replace(self.write_of(operation, *args, **kwargs), takes_long=True))

    def write(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Procedure[T]:
        """Run an operation of this store's scope in a transaction, again where another process came first."""
        return with_retries(self.write_of(operation, *args, **kwargs))

    def write_of(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Write[T]:
        """An operation of this store's scope as an effect, to be run in a transaction."""
        return Write(lambda connection: operation(connection, self.scope, *args, **kwargs))

    def count_and_write(
        self,
        messages: Sequence[Message],
        counter: TokenCounter,
        store: Callable[[list[int], str], Write[T | CounterMismatch]],
        *,
        one_statement: bool = False,
        is_repeatable: bool = False,
    ) -> Procedure[T]:
        """Count messages and write them; again where the conversation is counted by another counter.

        Args:
            messages: what to count.
            counter: by which counter at first.
            store: makes the write of the counts and their counter's name.
            one_statement: whether that is a single statement on PostgreSQL.
            is_repeatable: whether it stores nothing twice, also where nobody knows what became of it.

        Returns:
            What the write did.
        """
        while True:
            counts = yield from count(counter, messages)
            write = replace(
                store(counts, counter.name), one_statement=one_statement, is_repeatable=is_repeatable
            )
            outcome = yield from with_retries(write)
            if not isinstance(outcome, CounterMismatch):
                return outcome
            counter = self.counter_of(outcome.name, counter)

    def owner_of(self, owner: str | None) -> str | None:
        """The owner asked for, or the scope's; a store for one owner does not act for another."""
        mine = self.scope.owner
        if mine is not None and owner not in (None, mine):
            raise InvalidArgument(f"this store is for owner {mine!r}; it cannot act for {owner!r}")
        return mine or optional_name(owner, "owner")

    def counter_of(self, name: str, *known: TokenCounter) -> TokenCounter:
        """The counter of this name: the store's, one of the known, or a shipped one.

        Raises UnknownTokenCounter where it is neither.
        """
        for counter in (self.counter, *known):
            if counter.name == name:
                return counter
        found = counter_named(name)
        if found.name != name:  # an object of somebody's own, called like a model
            raise UnknownTokenCounter(
                f"the conversation is counted by {name!r}, which is not the shipped {found.name!r}; "
                f"open the store with that counter, Store(counter=…), or recount the conversation"
            )
        return found


def unless_missing(procedure: Procedure[T], missing: str, empty: Callable[[], E]) -> Procedure[T | E]:
    """A procedure; where `missing` is "empty" and the conversation is not there, what `empty` makes instead.

    Raises:
        InvalidArgument: `missing` is none of its choices.
    """
    is_error = checked_choice(missing, "missing", MISSING) == "error"
    try:
        return (yield from procedure)
    except ConversationNotFound:
        if is_error:
            raise
        return empty()


def checked_unstorable(value: object) -> Unstorable:
    """What becomes of messages with characters that databases cannot hold.

    Raises:
        InvalidArgument: it is neither "refuse" nor "escape".
    """
    checked_choice(value, "unstorable", get_args(Unstorable))
    return "escape" if value == "escape" else "refuse"


def resolve_counter(counter: str | TokenCounter) -> TokenCounter:
    """A counter by its name, or the caller's own.

    Raises:
        InvalidArgument: it is neither.
        UnknownTokenCounter: no shipped counter has this name.
    """
    if isinstance(counter, str):
        return counter_named(counter)
    if isinstance(counter, TokenCounter):
        checked_name(counter.name, "the counter's name")
        return counter
    raise InvalidArgument(f"counter is a {type(counter).__name__}; pass a name or a TokenCounter")
