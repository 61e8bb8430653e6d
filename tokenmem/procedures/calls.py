"""Procedures for the calls of models."""

from __future__ import annotations

from tokenmem.arguments import checked_name, optional_number
from tokenmem.execution.effects import Procedure
from tokenmem.models import LLMCall
from tokenmem.operations import calls
from tokenmem.procedures.base import BaseProcedures, unless_missing


class CallProcedures(BaseProcedures):
    """Procedures for the model calls of a conversation."""

    __slots__ = ()

    def calls(
        self, conversation_id: str, after: int | None, limit: int | None, newest_first: bool, missing: str
    ) -> Procedure[list[LLMCall]]:
        """Read a page of the conversation's model calls."""
        found = self.read(
            calls.page,
            checked_name(conversation_id, "conversation_id"),
            optional_number(after, "after"),
            optional_number(limit, "limit", least=1),
            bool(newest_first),
        )
        return unless_missing(found, missing, [])
