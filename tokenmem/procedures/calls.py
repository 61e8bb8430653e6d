"""Procedures for the calls of models."""

from __future__ import annotations

from dataclasses import replace

from tokenmem.arguments import checked_name, optional_number
from tokenmem.execution.effects import Procedure, with_retries
from tokenmem.models import LLMCall
from tokenmem.operations import calls, record_call
from tokenmem.procedures.base import BaseProcedures, unless_missing
from tokenmem.procedures.checked_calls import checked_call


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
        return unless_missing(found, missing, list)

    def record_call(self, conversation_id: str, **told: object) -> Procedure[LLMCall]:
        """Put a call on record that the application has made itself."""
        write = self.write_of(record_call.record_call, checked_call(conversation_id, **told))
        return with_retries(replace(write, one_statement=True))
