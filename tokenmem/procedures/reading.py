"""Procedures that read single messages, whole conversations, and what waits in one."""

from __future__ import annotations

from tokenmem.arguments import checked_name, checked_number, optional_number
from tokenmem.execution.effects import Procedure
from tokenmem.messages.message import Message
from tokenmem.models import Conversation, OpenToolCall
from tokenmem.operations import open_tool_calls, stored, whole
from tokenmem.procedures.base import BaseProcedures, unless_missing


class ReadingProcedures(BaseProcedures):
    """Procedures that read a message, a whole conversation, or the calls that wait in one."""

    __slots__ = ()

    def message(self, conversation_id: str, position: int) -> Procedure[Message]:
        """Read one message."""
        return self.read(
            stored.message,
            checked_name(conversation_id, "conversation_id"),
            checked_number(position, "position", least=1),
        )

    def read_whole(
        self, conversation_id: str, limit: int | None, missing: str
    ) -> Procedure[tuple[Conversation | None, list[Message]]]:
        """Read the conversation's row and its messages, both of the same moment."""
        found = self.read(
            whole.read,
            checked_name(conversation_id, "conversation_id"),
            optional_number(limit, "limit"),
        )
        return unless_missing(found, missing, lambda: (None, list[Message]()))

    def open_tool_calls(self, conversation_id: str) -> Procedure[list[OpenToolCall]]:
        """Read the tool calls that have no result."""
        return self.read(open_tool_calls.open_tool_calls, checked_name(conversation_id, "conversation_id"))
