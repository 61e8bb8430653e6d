"""Procedures for messages: store, load, change and count them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial

from tokenmem.arguments import (
    STARTS,
    checked_choice,
    checked_flag,
    checked_metadata,
    checked_name,
    checked_number,
    optional_flag,
    optional_moment,
    optional_name,
    optional_number,
)
from tokenmem.counting.counters import TokenCounter
from tokenmem.execution.effects import Procedure, Write, count
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, digest, parse_message, parse_messages
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended, Conversation, Window
from tokenmem.operations import append, change, insert, keyed, read, recount, removal, window
from tokenmem.operations.append import CounterMismatch
from tokenmem.operations.recount import CountedPage
from tokenmem.operations.rows import read_conversation
from tokenmem.procedures.base import BaseProcedures, checked_unstorable, resolve_counter, unless_missing


class MessageProcedures(BaseProcedures):
    """Procedures for the messages of a conversation."""

    __slots__ = ()

    def append(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        owner: str | None,
        idempotency_key: str | None,
        keys: Sequence[str] | None,
        unstorable: str | None,
        expected_position: int | None,
        counter: str | TokenCounter | None,
        title: str | None,
        metadata: JSONObject | None,
        merge_metadata: JSONObject | None,
    ) -> Procedure[Appended]:
        """Check, count and store messages behind the conversation's last."""
        parsed = parse_messages(
            messages, self.unstorable if unstorable is None else checked_unstorable(unstorable)
        )
        key = optional_name(idempotency_key, "idempotency_key")
        named = None if keys is None else keyed.checked_keys(keys, len(parsed), key)
        checked_name(conversation_id, "conversation_id")
        pending_of = partial(
            append.PendingAppend,
            owner=self.owner_of(owner),
            title=optional_name(title, "title"),
            metadata=checked_metadata(metadata),
            merge_metadata=checked_metadata(merge_metadata, "merge_metadata"),
            key=key,
            digest=digest(parsed) if key else "",
            expected_position=optional_number(expected_position, "expected_position"),
        )
        counting = self.counter if counter is None else resolve_counter(counter)

        def store(counts: list[int], name: str) -> Write[Appended | CounterMismatch]:
            pending = pending_of(conversation_id, parsed, counts, name)
            if named is not None:
                return self.write_of(keyed.append, pending, named)
            return self.write_of(append.append, pending)

        one_statement = len(parsed) <= insert.MANY and not merge_metadata and named is None
        return self.count_and_write(
            parsed,
            counting,
            store,
            one_statement=one_statement,
            is_repeatable=key is not None or named is not None,
        )

    def window(
        self,
        conversation_id: str,
        token_limit: int,
        start_on: str,
        stride: int | None,
        fall_back: bool,
        missing: str,
    ) -> Procedure[Window]:
        """Read the newest messages that fit a limit."""
        found = self.read(
            window.window,
            checked_name(conversation_id, "conversation_id"),
            checked_number(token_limit, "token_limit"),
            checked_choice(start_on, "start_on", STARTS),
            optional_number(stride, "stride", least=1),
            checked_flag(fall_back, "fall_back"),
        )
        return unless_missing(found, missing, lambda: Window((), 0, token_limit, 0, 0, 0))

    def messages(
        self,
        conversation_id: str,
        after: int | None,
        before: int | None,
        limit: int | None,
        newest_first: bool,
        payload: bool,
        since: datetime | None,
        missing: str,
    ) -> Procedure[list[Message]]:
        """Read a page of messages."""
        found = self.read(
            read.messages,
            checked_name(conversation_id, "conversation_id"),
            optional_number(after, "after"),
            optional_number(before, "before"),
            optional_number(limit, "limit"),
            bool(newest_first),
            payload=checked_flag(payload, "payload"),
            since=optional_moment(since, "since"),
        )
        return unless_missing(found, missing, list)

    def edit(
        self, conversation_id: str, position: int, message: MessageLike, pinned: bool | None
    ) -> Procedure[Message]:
        """Check, count and store another message in the place of one."""
        parsed = parse_message(message, self.unstorable)
        checked_name(conversation_id, "conversation_id")
        checked_number(position, "position", least=1)
        optional_flag(pinned, "pinned")
        conversation = yield from self.read(read_conversation, conversation_id)

        def store(counts: list[int], name: str) -> Write[Message | CounterMismatch]:
            return self.write_of(
                change.edit,
                *(conversation_id, position, parsed, counts[0], name, pinned),
                keep_version=self.keep_versions,
            )

        counting = self.counter_of(conversation.token_counter)
        return (yield from self.count_and_write([parsed], counting, store))

    def delete_message(self, conversation_id: str, position: int) -> Procedure[None]:
        """Remove one message."""
        return self.write(
            removal.delete_message,
            checked_name(conversation_id, "conversation_id"),
            checked_number(position, "position", least=1),
        )

    def truncate(self, conversation_id: str, after: int) -> Procedure[int]:
        """Remove the messages behind a position; the result is how many."""
        return self.write(
            removal.truncate,
            checked_name(conversation_id, "conversation_id"),
            checked_number(after, "after"),
        )

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
            yield from self.write_long(
                recount.recount, conversation_id, counting.name, list(counted.values())
            )
        ):
            counted[page.after] = CountedPage.of(page, (yield from count(counting, page.messages)))
        return (yield from self.read(read_conversation, conversation_id))
