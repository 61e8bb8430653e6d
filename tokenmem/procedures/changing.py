"""Procedures that change what is stored: the data beside a message, and several messages at once."""

from __future__ import annotations

from collections.abc import Iterable

from tokenmem.arguments import (
    checked_flag,
    checked_metadata,
    checked_name,
    checked_number,
    optional_number,
)
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Procedure, Write
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, parse_messages
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended
from tokenmem.operations import message_metadata, removal, replace
from tokenmem.operations.append import CounterMismatch
from tokenmem.operations.rows import read_conversation
from tokenmem.procedures.base import BaseProcedures


class ChangingProcedures(BaseProcedures):
    """Procedures that change what is stored, each in one transaction under the conversation's lock."""

    __slots__ = ()

    def update_message(
        self, conversation_id: str, position: int, metadata: JSONObject | None, merge: bool
    ) -> Procedure[Message]:
        """Set or merge the data beside a message."""
        if checked_flag(merge, "merge") and metadata is None:
            raise InvalidArgument("metadata is None; to clear it leave out merge, to merge pass a dict")
        return self.write(
            message_metadata.update_message,
            checked_name(conversation_id, "conversation_id"),
            checked_number(position, "position", least=1),
            checked_metadata(metadata),
            merge,
        )

    def replace(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        after: int,
        expected_position: int | None,
    ) -> Procedure[Appended]:
        """Check, count and store messages in the place of all behind a position."""
        checked_name(conversation_id, "conversation_id")
        checked_number(after, "after")
        optional_number(expected_position, "expected_position")
        parsed = parse_messages(messages, self.unstorable, may_be_empty=True)
        conversation = yield from self.read(read_conversation, conversation_id)

        def store(counts: list[int], name: str) -> Write[Appended | CounterMismatch]:
            return self.write_of(
                replace.replace, conversation_id, parsed, counts, name, after, expected_position
            )

        counting = self.counter_of(conversation.token_counter)
        return (yield from self.count_and_write(parsed, counting, store))

    def pop(self, conversation_id: str, expected_position: int | None) -> Procedure[Message]:
        """Remove the newest message; the result is that message."""
        return self.write(
            removal.pop,
            checked_name(conversation_id, "conversation_id"),
            optional_number(expected_position, "expected_position", least=1),
        )

    def delete_messages(
        self, conversation_id: str, after: int | None, before: int | None, limit: int | None
    ) -> Procedure[list[Message]]:
        """Remove the messages between two positions; the result are these messages."""
        return self.write(
            removal.delete_messages,
            checked_name(conversation_id, "conversation_id"),
            optional_number(after, "after"),
            optional_number(before, "before"),
            optional_number(limit, "limit"),
        )
