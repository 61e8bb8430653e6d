"""AsyncStore's methods for messages, awaited. `help` shows the docstrings of Store's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from tokenmem.arguments import Missing
from tokenmem.counting.counters import TokenCounter
from tokenmem.docstrings import documented_like
from tokenmem.edges import StartOn
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, Unstorable
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended, Conversation, Window
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.messages import MessageMethods


@documented_like(MessageMethods)
class AsyncMessageMethods(AsyncBaseMethods):
    """AsyncStore's methods for the messages of a conversation."""

    async def append(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        owner: str | None = None,
        idempotency_key: str | None = None,
        keys: Sequence[str] | None = None,
        expected_position: int | None = None,
        counter: str | TokenCounter | None = None,
        title: str | None = None,
        metadata: JSONObject | None = None,
        merge_metadata: JSONObject | None = None,
        unstorable: Unstorable | None = None,
    ) -> Appended:
        return await self._run(
            self._procedures.append(
                conversation_id,
                messages,
                owner=owner,
                idempotency_key=idempotency_key,
                keys=keys,
                unstorable=unstorable,
                expected_position=expected_position,
                counter=counter,
                title=title,
                metadata=metadata,
                merge_metadata=merge_metadata,
            )
        )

    async def window(
        self,
        conversation_id: str,
        token_limit: int,
        start_on: StartOn = "step",
        stride: int | None = None,
        *,
        fall_back: bool = True,
        missing: Missing = "error",
    ) -> Window:
        return await self._run(
            self._procedures.window(conversation_id, token_limit, start_on, stride, fall_back, missing)
        )

    async def messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
        payload: bool = True,
        since: datetime | None = None,
        missing: Missing = "error",
    ) -> list[Message]:
        return await self._run(
            self._procedures.messages(
                conversation_id, after, before, limit, newest_first, payload, since, missing
            )
        )

    async def edit(
        self, conversation_id: str, position: int, message: MessageLike, *, pinned: bool | None = None
    ) -> Message:
        return await self._run(self._procedures.edit(conversation_id, position, message, pinned))

    async def delete_message(self, conversation_id: str, position: int) -> None:
        return await self._run(self._procedures.delete_message(conversation_id, position))

    async def truncate(self, conversation_id: str, *, after: int) -> int:
        return await self._run(self._procedures.truncate(conversation_id, after))

    async def recount(self, conversation_id: str, counter: str | TokenCounter) -> Conversation:
        return await self._run(self._procedures.recount(conversation_id, counter))
