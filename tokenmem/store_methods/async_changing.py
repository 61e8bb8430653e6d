"""AsyncStore's methods that change what is stored, awaited. `help` shows the docstrings of Store's."""

from __future__ import annotations

from collections.abc import Iterable

from tokenmem.docstrings import documented_like
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.changing import ChangingMethods


@documented_like(ChangingMethods)
class AsyncChangingMethods(AsyncBaseMethods):
    """AsyncStore's methods that change what is stored, each in one transaction."""

    async def update_message(
        self, conversation_id: str, position: int, *, metadata: JSONObject | None, merge: bool = False
    ) -> Message:
        return await self._run(self._procedures.update_message(conversation_id, position, metadata, merge))

    async def replace(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        after: int = 0,
        expected_position: int | None = None,
    ) -> Appended:
        return await self._run(self._procedures.replace(conversation_id, messages, after, expected_position))

    async def pop(self, conversation_id: str, *, expected_position: int | None = None) -> Message:
        return await self._run(self._procedures.pop(conversation_id, expected_position))

    async def delete_messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[Message]:
        return await self._run(self._procedures.delete_messages(conversation_id, after, before, limit))
