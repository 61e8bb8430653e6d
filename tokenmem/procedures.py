"""What each public method does, written once for sync and async.

A procedure is a generator. It yields what has to be waited for, gets the answer sent in, and returns the
result; it does no I/O. Store and AsyncStore run the same procedures, each in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from tokenmem.arguments import (
    STARTS,
    checked_age,
    checked_choice,
    checked_metadata,
    checked_name,
    checked_number,
    optional_flag,
    optional_name,
    optional_number,
)
from tokenmem.counting.counters import TokenCounter, counter_named
from tokenmem.database import migrate
from tokenmem.database.engine import use_write_ahead_log
from tokenmem.database.statements import Scope
from tokenmem.errors import InvalidArgument, UnknownTokenCounter
from tokenmem.execution.effects import Procedure, Read, Write, count, perform, with_retries
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, digest, parse_message, parse_messages
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended, Conversation, LLMCall, Problem, Purged, Window
from tokenmem.operations import (
    append,
    bulk_create,
    calls,
    change,
    insert,
    purge,
    read,
    recount,
    verify,
    window,
)
from tokenmem.operations.append import CounterMismatch
from tokenmem.operations.recount import CountedPage
from tokenmem.operations.rows import read_conversation

T = TypeVar("T")
P = ParamSpec("P")
Operation = Callable[Concatenate[sa.Connection, Scope, P], T]
"""A function of a connection and a scope, as `operations` has them."""


@dataclass(frozen=True, slots=True)
class Procedures:
    """The procedures of one store.

    Attributes:
        counter: the counter of new conversations.
        scope: the schema and the owner that every statement carries.
    """

    counter: TokenCounter
    scope: Scope = field(default_factory=Scope)

    def for_owner(self, owner: str) -> Procedures:
        """The procedures of a store for one owner's conversations only."""
        return replace(self, scope=replace(self.scope, owner=self.owner_of(checked_name(owner, "owner"))))

    def upgrade(self, revision: str, own_file: bool) -> Procedure[None]:
        """Create or migrate the tables. `own_file`: whether a SQLite file's journal is ours to choose."""
        if own_file:
            yield from perform(Read(use_write_ahead_log))
        yield from with_retries(
            Write(lambda connection: migrate.upgrade(connection, self.scope.schema, revision))
        )

    def append(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        owner: str | None,
        idempotency_key: str | None,
        expected_position: int | None,
        counter: str | TokenCounter | None,
        title: str | None,
        metadata: JSONObject | None,
    ) -> Procedure[Appended]:
        """Check, count and store messages behind the conversation's last."""
        parsed = parse_messages(messages)
        key = optional_name(idempotency_key, "idempotency_key")
        checked_name(conversation_id, "conversation_id")
        pending_of = partial(
            append.PendingAppend,
            owner=self.owner_of(owner),
            title=optional_name(title, "title"),
            metadata=checked_metadata(metadata),
            key=key,
            digest=digest(parsed) if key else "",
            expected_position=optional_number(expected_position, "expected_position"),
        )
        counting = self.counter if counter is None else resolve_counter(counter)

        def store(counts: list[int], name: str) -> Write[Appended | CounterMismatch]:
            return self.write_of(append.append, pending_of(conversation_id, parsed, counts, name))

        return self.count_and_write(parsed, counting, store, one_statement=len(parsed) <= insert.MANY)

    def count_and_write(
        self,
        messages: Sequence[Message],
        counter: TokenCounter,
        store: Callable[[list[int], str], Write[T | CounterMismatch]],
        *,
        one_statement: bool = False,
    ) -> Procedure[T]:
        """Count messages and write them; again where the conversation is counted by another counter.

        Args:
            messages: what to count.
            counter: by which counter at first.
            store: makes the write of the counts and their counter's name.
            one_statement: whether that is a single statement on PostgreSQL.

        Returns:
            What the write did.
        """
        while True:
            counts = yield from count(counter, messages)
            write = replace(store(counts, counter.name), one_statement=one_statement)
            outcome = yield from with_retries(write)
            if not isinstance(outcome, CounterMismatch):
                return outcome
            counter = self.counter_of(outcome.name, counter)

    def import_conversations(
        self,
        conversations: Iterable[ConversationLine],
        owner: str | None,
        counter: str | TokenCounter | None,
        idempotency_key: str | None,
    ) -> Procedure[list[Appended | None]]:
        """Check, count and store whole conversations whose ids are new."""
        key = optional_name(idempotency_key, "idempotency_key")
        new = []
        if not isinstance(conversations, Iterable):
            raise InvalidArgument(f"conversations is a {type(conversations).__name__}; pass a list of them")
        for each in conversations:
            if not isinstance(each, ConversationLine):
                raise InvalidArgument(
                    f"a conversation is a {type(each).__name__}; "
                    f"pass what tokenmem.messages.parse_line returns"
                )
            parsed = parse_messages(each.messages)
            named = counter or each.token_counter
            counting = self.counter if named is None else resolve_counter(named)
            counts = yield from count(counting, parsed)
            new.append(
                append.PendingAppend(
                    checked_name(each.id, "id"),
                    parsed,
                    counts,
                    counting.name,
                    owner=self.owner_of(owner if each.owner is None else each.owner),
                    title=optional_name(each.title, "title"),
                    metadata=checked_metadata(each.metadata or None),
                    key=key,
                    digest=digest(parsed) if key else "",
                )
            )
        return (yield from self.write(bulk_create.bulk_create, new))

    def window(
        self, conversation_id: str, token_limit: int, start_on: str, stride: int | None
    ) -> Procedure[Window]:
        """Read the newest messages that fit a limit."""
        return self.read(
            window.window,
            checked_name(conversation_id, "conversation_id"),
            checked_number(token_limit, "token_limit"),
            checked_choice(start_on, "start_on", STARTS),
            optional_number(stride, "stride", least=1),
        )

    def messages(
        self,
        conversation_id: str,
        after: int | None,
        before: int | None,
        limit: int | None,
        newest_first: bool,
    ) -> Procedure[list[Message]]:
        """Read a page of messages."""
        return self.read(
            read.messages,
            checked_name(conversation_id, "conversation_id"),
            optional_number(after, "after"),
            optional_number(before, "before"),
            optional_number(limit, "limit", least=1),
            bool(newest_first),
        )

    def calls(
        self, conversation_id: str, after: int | None, limit: int | None, newest_first: bool
    ) -> Procedure[list[LLMCall]]:
        """Read a page of the conversation's model calls."""
        return self.read(
            calls.page,
            checked_name(conversation_id, "conversation_id"),
            optional_number(after, "after"),
            optional_number(limit, "limit", least=1),
            bool(newest_first),
        )

    def conversation(self, conversation_id: str) -> Procedure[Conversation]:
        """Read the conversation's own row."""
        return self.read(read_conversation, checked_name(conversation_id, "conversation_id"))

    def conversations(
        self, owner: str | None, after: str | None, limit: int | None
    ) -> Procedure[list[Conversation]]:
        """Read a page of conversations, in the order of their ids."""
        scoped = self if owner is None else self.for_owner(owner)
        return scoped.read(
            read.conversations, optional_name(after, "after"), optional_number(limit, "limit", least=1)
        )

    def update(
        self, conversation_id: str, title: str | None, metadata: JSONObject | None
    ) -> Procedure[Conversation]:
        """Set the conversation's title, its metadata, or both."""
        return self.write(
            change.update,
            checked_name(conversation_id, "conversation_id"),
            optional_name(title, "title"),
            checked_metadata(metadata),
        )

    def edit(
        self, conversation_id: str, position: int, message: MessageLike, pinned: bool | None
    ) -> Procedure[Message]:
        """Check, count and store another message in the place of one."""
        parsed = parse_message(message)
        checked_name(conversation_id, "conversation_id")
        checked_number(position, "position", least=1)
        optional_flag(pinned, "pinned")
        conversation = yield from self.read(read_conversation, conversation_id)

        def store(counts: list[int], name: str) -> Write[Message | CounterMismatch]:
            return self.write_of(change.edit, conversation_id, position, parsed, counts[0], name, pinned)

        counting = self.counter_of(conversation.token_counter)
        return (yield from self.count_and_write([parsed], counting, store))

    def delete_message(self, conversation_id: str, position: int) -> Procedure[None]:
        """Remove one message."""
        return self.write(
            change.delete_message,
            checked_name(conversation_id, "conversation_id"),
            checked_number(position, "position", least=1),
        )

    def truncate(self, conversation_id: str, after: int) -> Procedure[int]:
        """Remove the messages behind a position; the result is how many."""
        return self.write(
            change.truncate,
            checked_name(conversation_id, "conversation_id"),
            checked_number(after, "after"),
        )

    def fork(self, conversation_id: str, new_id: str, at: int | None) -> Procedure[Conversation]:
        """Copy a conversation up to a position under a new id."""
        return self.write(
            change.fork,
            checked_name(conversation_id, "conversation_id"),
            checked_name(new_id, "new_id"),
            optional_number(at, "at"),
        )

    def delete(self, conversation_id: str) -> Procedure[None]:
        """Remove a conversation and all that belongs to it."""
        return self.write(change.delete, checked_name(conversation_id, "conversation_id"))

    def delete_owner(self, owner: str) -> Procedure[int]:
        """Remove all of an owner's conversations; the result is how many."""
        return self.for_owner(owner).write(change.delete_owner)

    def purge(self, older_than: timedelta, dry_run: bool) -> Procedure[Purged]:
        """Delete what is older than an age, some conversations a transaction."""
        checked_age(older_than)
        total, after = Purged(0, 0), ""
        while True:
            batch = yield from self.write(purge.purge, older_than, after, dry_run)
            total = Purged(
                total.conversations + batch.purged.conversations, total.messages + batch.purged.messages
            )
            if batch.last_id is None:
                return total
            after = batch.last_id

    def recount(self, conversation_id: str, counter: str | TokenCounter) -> Procedure[Conversation]:
        """Count a conversation by another counter, page by page, then write all of it at once."""
        checked_name(conversation_id, "conversation_id")
        counting = resolve_counter(counter)
        counted: dict[int, CountedPage] = {}  # in order, by the position behind which each begins
        after = 0
        while page := (yield from self.read(recount.next_page, conversation_id, after)):
            counted[after] = CountedPage.of(page, (yield from count(counting, page.messages)))
            after = page.last
        while page := (
            yield from self.write(recount.recount, conversation_id, counting.name, list(counted.values()))
        ):
            counted[page.after] = CountedPage.of(page, (yield from count(counting, page.messages)))
        return (yield from self.conversation(conversation_id))

    def verify(self) -> Procedure[list[Problem]]:
        """Find every place where stored totals, counts and positions do not agree."""
        return self.read(verify.verify)

    def read(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Procedure[T]:
        """Run an operation of this store's scope that only reads."""
        return perform(Read(lambda connection: operation(connection, self.scope, *args, **kwargs)))

    def write(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Procedure[T]:
        """Run an operation of this store's scope in a transaction, again where another process came first."""
        return with_retries(self.write_of(operation, *args, **kwargs))

    def write_of(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> Write[T]:
        """An operation of this store's scope as an effect, to be run in a transaction."""
        return Write(lambda connection: operation(connection, self.scope, *args, **kwargs))

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
