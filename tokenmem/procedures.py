"""What each public operation does, step by step, written once for sync and async.

A procedure is a generator. It yields what has to be waited for, gets the answer sent in, and returns the
result; it does no I/O. Store and AsyncStore run the same procedures, each in its own way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

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
from tokenmem.execution.effects import Count, Procedure, Read, Write, with_retries
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, digest, parse_message, parse_messages
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended, Conversation, LLMCall, Problem, Purged, Window
from tokenmem.operations import append, bulk_create, calls, change, insert, purge, read, recount, verify
from tokenmem.operations.recount import CountedPage
from tokenmem.operations.rows import read_conversation

T = TypeVar("T")
P = ParamSpec("P")


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
        """The same for one owner's conversations only."""
        return replace(self, scope=replace(self.scope, owner=self._owner(checked_name(owner, "owner"))))

    def upgrade(self, revision: str, own_file: bool) -> Procedure[None]:
        """See Store.upgrade. `own_file`: whether a SQLite file's journal is ours to choose."""
        if own_file:
            yield Read(use_write_ahead_log)
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
        """See Store.append."""
        parsed = parse_messages(messages)
        key = optional_name(idempotency_key, "idempotency_key")
        checked_name(conversation_id, "conversation_id")
        pending_of = partial(
            append.PendingAppend,
            owner=self._owner(owner),
            title=optional_name(title, "title"),
            metadata=checked_metadata(metadata),
            key=key,
            digest=digest(parsed) if key else "",
            expected_position=optional_number(expected_position, "expected_position"),
        )
        counting = self.counter if counter is None else resolve_counter(counter)

        def store(counts: list[int], name: str) -> Write:
            pending = pending_of(conversation_id, parsed, counts, name)
            return replace(self.write(append.append, pending), one_statement=len(parsed) <= insert.MANY)

        stored: Appended = yield from self.count_and_write(parsed, counting, store)
        return stored

    def count_and_write(
        self, messages: Sequence[Message], counter: TokenCounter, store: Callable[[list[int], str], Write]
    ) -> Procedure[Any]:
        """Count messages and store them; again where the conversation is counted by another counter.

        Args:
            messages: what to count.
            counter: by which counter at first.
            store: makes the write of the counts and their counter's name.

        Returns:
            What the write did.
        """
        while True:
            counts = yield Count(counter, messages)
            outcome = yield from with_retries(store(counts, counter.name))
            if not isinstance(outcome, append.CounterMismatch):
                return outcome
            counter = self.counter_of(outcome.name, counter)

    def import_conversations(
        self,
        conversations: Iterable[ConversationLine],
        owner: str | None,
        counter: str | TokenCounter | None,
        idempotency_key: str | None,
    ) -> Procedure[list[Appended | None]]:
        """See Store.import_conversations."""
        key = optional_name(idempotency_key, "idempotency_key")
        pending = []
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
            counts = yield Count(counting, parsed)
            pending.append(
                append.PendingAppend(
                    checked_name(each.id, "id"),
                    parsed,
                    counts,
                    counting.name,
                    owner=self._owner(owner if each.owner is None else each.owner),
                    title=optional_name(each.title, "title"),
                    metadata=checked_metadata(each.metadata or None),
                    key=key,
                    digest=digest(parsed) if key else "",
                )
            )
        stored: list[Appended | None] = yield from with_retries(self.write(bulk_create.bulk_create, pending))
        return stored

    def window(
        self, conversation_id: str, token_limit: int, start_on: str, stride: int | None
    ) -> Procedure[Window]:
        """See Store.window."""
        window: Window = yield self.read(
            read.window,
            checked_name(conversation_id, "conversation_id"),
            checked_number(token_limit, "token_limit"),
            checked_choice(start_on, "start_on", STARTS),
            optional_number(stride, "stride", least=1),
        )
        return window

    def messages(
        self,
        conversation_id: str,
        after: int | None,
        before: int | None,
        limit: int | None,
        newest_first: bool,
    ) -> Procedure[list[Message]]:
        """See Store.messages."""
        found: list[Message] = yield self.read(
            read.messages,
            checked_name(conversation_id, "conversation_id"),
            optional_number(after, "after"),
            optional_number(before, "before"),
            optional_number(limit, "limit", least=1),
            bool(newest_first),
        )
        return found

    def calls(
        self, conversation_id: str, after: int | None, limit: int | None, newest_first: bool
    ) -> Procedure[list[LLMCall]]:
        """See Store.calls."""
        found: list[LLMCall] = yield self.read(
            calls.page,
            checked_name(conversation_id, "conversation_id"),
            optional_number(after, "after"),
            optional_number(limit, "limit", least=1),
            bool(newest_first),
        )
        return found

    def conversation(self, conversation_id: str) -> Procedure[Conversation]:
        """See Store.conversation."""
        found: Conversation = yield self.read(
            read_conversation, checked_name(conversation_id, "conversation_id")
        )
        return found

    def conversations(
        self, owner: str | None, after: str | None, limit: int | None
    ) -> Procedure[list[Conversation]]:
        """See Store.conversations."""
        scoped = self if owner is None else self.for_owner(owner)
        found: list[Conversation] = yield scoped.read(
            read.conversations, optional_name(after, "after"), optional_number(limit, "limit", least=1)
        )
        return found

    def update(
        self, conversation_id: str, title: str | None, metadata: JSONObject | None
    ) -> Procedure[Conversation]:
        """See Store.update."""
        changed: Conversation = yield from with_retries(
            self.write(
                change.update,
                checked_name(conversation_id, "conversation_id"),
                optional_name(title, "title"),
                checked_metadata(metadata),
            )
        )
        return changed

    def edit(
        self, conversation_id: str, position: int, message: MessageLike, pinned: bool | None
    ) -> Procedure[Message]:
        """See Store.edit."""
        parsed = parse_message(message)
        checked_name(conversation_id, "conversation_id")
        checked_number(position, "position", least=1)
        optional_flag(pinned, "pinned")
        conversation = yield self.read(read_conversation, conversation_id)
        counting = self.counter_of(conversation.token_counter)
        while True:
            (tokens,) = yield Count(counting, [parsed])
            outcome = yield from with_retries(
                self.write(change.edit, conversation_id, position, parsed, tokens, counting.name, pinned)
            )
            if isinstance(outcome, Message):
                return outcome
            counting = self.counter_of(outcome.name)

    def delete_message(self, conversation_id: str, position: int) -> Procedure[None]:
        """See Store.delete_message."""
        yield from with_retries(
            self.write(
                change.delete_message,
                checked_name(conversation_id, "conversation_id"),
                checked_number(position, "position", least=1),
            )
        )

    def truncate(self, conversation_id: str, after: int) -> Procedure[int]:
        """See Store.truncate."""
        removed: int = yield from with_retries(
            self.write(
                change.truncate,
                checked_name(conversation_id, "conversation_id"),
                checked_number(after, "after"),
            )
        )
        return removed

    def fork(self, conversation_id: str, new_id: str, at: int | None) -> Procedure[Conversation]:
        """See Store.fork."""
        copy: Conversation = yield from with_retries(
            self.write(
                change.fork,
                checked_name(conversation_id, "conversation_id"),
                checked_name(new_id, "new_id"),
                optional_number(at, "at"),
            )
        )
        return copy

    def delete(self, conversation_id: str) -> Procedure[None]:
        """See Store.delete."""
        yield from with_retries(self.write(change.delete, checked_name(conversation_id, "conversation_id")))

    def delete_owner(self, owner: str) -> Procedure[int]:
        """See Store.delete_owner."""
        removed: int = yield from with_retries(self.for_owner(owner).write(change.delete_owner))
        return removed

    def purge(self, older_than: timedelta, dry_run: bool) -> Procedure[Purged]:
        """See Store.purge."""
        checked_age(older_than)
        total, after = Purged(0, 0), ""
        while True:
            step = yield from with_retries(self.write(purge.purge, older_than, after, dry_run))
            total = Purged(
                total.conversations + step.purged.conversations, total.messages + step.purged.messages
            )
            if step.last_id is None:
                return total
            after = step.last_id

    def recount(self, conversation_id: str, counter: str | TokenCounter) -> Procedure[Conversation]:
        """See Store.recount."""
        checked_name(conversation_id, "conversation_id")
        counting = resolve_counter(counter)
        counted: dict[int, CountedPage] = {}  # in order, by the position behind which each begins
        after = 0
        while page := (yield self.read(recount.next_page, conversation_id, after)):
            counted[after] = CountedPage.of(page, (yield Count(counting, page.messages)))
            after = page.last
        while page := (
            yield from with_retries(
                self.write(recount.recount, conversation_id, counting.name, list(counted.values()))
            )
        ):
            counted[page.after] = CountedPage.of(page, (yield Count(counting, page.messages)))
        return (yield from self.conversation(conversation_id))

    def verify(self) -> Procedure[list[Problem]]:
        """See Store.verify."""
        problems: list[Problem] = yield self.read(verify.verify)
        return problems

    def read(
        self,
        operation: Callable[Concatenate[sa.Connection, Scope, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Read:
        """An operation of this store's scope, to be read."""
        return Read(lambda connection: operation(connection, self.scope, *args, **kwargs))

    def write(
        self,
        operation: Callable[Concatenate[sa.Connection, Scope, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Write:
        """The same, to be run in a transaction."""
        return Write(lambda connection: operation(connection, self.scope, *args, **kwargs))

    def _owner(self, owner: str | None) -> str | None:
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
