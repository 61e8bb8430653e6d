"""Procedures for conversations as a whole: look at, copy and remove them."""

from __future__ import annotations

from tokenmem.arguments import checked_metadata, checked_name, optional_name, optional_number
from tokenmem.execution.effects import Procedure
from tokenmem.messages.values import JSONObject
from tokenmem.models import Conversation, Problem
from tokenmem.operations import change, read, verify
from tokenmem.operations.rows import read_conversation
from tokenmem.procedures.base import BaseProcedures


class ConversationProcedures(BaseProcedures):
    """Procedures for conversations as a whole."""

    __slots__ = ()

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

    def verify(self) -> Procedure[list[Problem]]:
        """Find every place where stored totals, counts and positions do not agree."""
        return self.read(verify.verify)
