"""AsyncStore's methods for conversations as a whole, awaited. `help` shows the docstrings of Store's."""

from __future__ import annotations

from tokenmem.arguments import KEEP, Keep, Order
from tokenmem.docstrings import documented_like
from tokenmem.messages.values import JSONObject
from tokenmem.models import Conversation, Problem
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.conversations import ConversationMethods


@documented_like(ConversationMethods)
class AsyncConversationMethods(AsyncBaseMethods):
    """AsyncStore's methods for conversations as a whole."""

    async def conversation(self, conversation_id: str) -> Conversation:
        return await self._run(self._procedures.conversation(conversation_id))

    async def conversations(
        self,
        *,
        owner: str | None = None,
        order: Order = "id",
        after: str | None = None,
        before: Conversation | str | None = None,
        prefix: str | None = None,
        archived: bool | None = False,
        limit: int | None = 100,
    ) -> list[Conversation]:
        return await self._run(
            self._procedures.conversations(owner, order, after, before, prefix, archived, limit)
        )

    async def update(
        self,
        conversation_id: str,
        *,
        title: str | Keep | None = KEEP,
        metadata: JSONObject | Keep | None = KEEP,
        merge: bool = False,
        keep: bool | None = None,
    ) -> Conversation:
        return await self._run(self._procedures.update(conversation_id, title, metadata, merge, keep))

    async def fork(self, conversation_id: str, new_id: str, *, at: int | None = None) -> Conversation:
        return await self._run(self._procedures.fork(conversation_id, new_id, at))

    async def delete(self, conversation_id: str) -> None:
        return await self._run(self._procedures.delete(conversation_id))

    async def verify(self) -> list[Problem]:
        return await self._run(self._procedures.verify())
