"""AsyncStore's methods for where conversations stand, awaited. `help` shows the docstrings of Store's."""

from __future__ import annotations

from tokenmem.counting.counters import TokenCounter
from tokenmem.docstrings import documented_like
from tokenmem.messages.values import JSONObject
from tokenmem.models import Conversation
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.organizing import OrganizingMethods


@documented_like(OrganizingMethods)
class AsyncOrganizingMethods(AsyncBaseMethods):
    """AsyncStore's methods for where conversations stand."""

    async def create(
        self,
        conversation_id: str,
        *,
        owner: str | None = None,
        counter: str | TokenCounter | None = None,
        title: str | None = None,
        metadata: JSONObject | None = None,
        keep: bool = False,
    ) -> Conversation:
        return await self._run(
            self._procedures.create(
                conversation_id, owner=owner, counter=counter, title=title, metadata=metadata, keep=keep
            )
        )

    async def archive(self, conversation_id: str) -> Conversation:
        return await self._run(self._procedures.archive(conversation_id))

    async def restore(self, conversation_id: str) -> Conversation:
        return await self._run(self._procedures.restore(conversation_id))

    async def move(self, conversation_id: str, *, owner: str | None) -> Conversation:
        return await self._run(self._procedures.move(conversation_id, owner))

    async def move_owner(self, old: str, new: str) -> int:
        return await self._run(self._procedures.move_owner(old, new))

    async def branches(self, conversation_id: str) -> list[Conversation]:
        return await self._run(self._procedures.branches(conversation_id))
