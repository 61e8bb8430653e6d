"""Procedures for what stood at a position before."""

from __future__ import annotations

from tokenmem.arguments import checked_name, checked_number
from tokenmem.execution.effects import Procedure
from tokenmem.models import MessageVersion
from tokenmem.operations import versions
from tokenmem.procedures.base import BaseProcedures


class VersionProcedures(BaseProcedures):
    """Procedures for the versions of a message."""

    __slots__ = ()

    def versions(self, conversation_id: str, position: int) -> Procedure[list[MessageVersion]]:
        """Read what stood at a position before what stands there now."""
        return self.read(
            versions.versions,
            checked_name(conversation_id, "conversation_id"),
            checked_number(position, "position", least=1),
        )
