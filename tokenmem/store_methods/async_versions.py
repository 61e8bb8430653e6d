"""The same for AsyncStore, awaited."""

from __future__ import annotations

from tokenmem.docstrings import documented_like
from tokenmem.models import MessageVersion
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.versions import VersionMethods


@documented_like(VersionMethods)
class AsyncVersionMethods(AsyncBaseMethods):
    """AsyncStore's methods for the versions of a message."""

    async def versions(self, conversation_id: str, position: int) -> list[MessageVersion]:
        return await self._run(self._procedures.versions(conversation_id, position))
