"""AsyncStore's methods that read single messages and whole conversations, awaited: see Store's."""

from __future__ import annotations

from typing import Literal, overload

from tokenmem.arguments import Missing
from tokenmem.docstrings import documented_like
from tokenmem.messages.message import Message
from tokenmem.models import Conversation, OpenToolCall
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.reading import ReadingMethods


@documented_like(ReadingMethods)
class AsyncReadingMethods(AsyncBaseMethods):
    """AsyncStore's methods that read a message, a whole conversation, or the calls that wait in one."""

    async def message(self, conversation_id: str, position: int) -> Message:
        return await self._run(self._procedures.message(conversation_id, position))

    @overload
    async def read(
        self, conversation_id: str, *, limit: int | None = None, missing: Literal["error"] = "error"
    ) -> tuple[Conversation, list[Message]]: ...

    @overload
    async def read(
        self, conversation_id: str, *, limit: int | None = None, missing: Missing
    ) -> tuple[Conversation | None, list[Message]]: ...

    async def read(
        self, conversation_id: str, *, limit: int | None = None, missing: Missing = "error"
    ) -> tuple[Conversation | None, list[Message]]:
        return await self._run(self._procedures.read_whole(conversation_id, limit, missing))

    async def open_tool_calls(self, conversation_id: str) -> list[OpenToolCall]:
        return await self._run(self._procedures.open_tool_calls(conversation_id))
