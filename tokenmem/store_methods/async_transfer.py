"""AsyncStore's methods that move whole conversations. `help` shows the docstrings of Store's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing

from tokenmem.counting.counters import TokenCounter
from tokenmem.docstrings import documented_like
from tokenmem.errors import ConversationNotFound
from tokenmem.execution.effects import Work
from tokenmem.execution.moments import at_one_moment_async
from tokenmem.execution.runners import Execution, advance_async
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.models import Appended
from tokenmem.procedures import Procedures
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.transfer import TransferMethods, checked_ids, scoped


@documented_like(TransferMethods)
class AsyncTransferMethods(AsyncBaseMethods):
    """AsyncStore's methods for conversations that come from elsewhere, or go there."""

    def export(
        self, *, owner: str | None = None, ids: Iterable[str] | None = None, pieces: bool = False
    ) -> AsyncIterator[str]:
        return self._export(scoped(self._procedures, owner), checked_ids(ids), pieces=pieces)

    async def _export(
        self, procedures: Procedures, ids: list[str] | None, *, pieces: bool
    ) -> AsyncIterator[str]:
        """All lines, each whole or in pieces."""
        async for conversation_id in self._ids(procedures, ids):
            text = self._line(procedures, conversation_id)
            try:
                async with aclosing(text):
                    if pieces:
                        async for piece in text:
                            yield piece
                        continue
                    line = "".join([piece async for piece in text])
            except ConversationNotFound:
                if ids is not None:
                    raise
                continue  # removed meanwhile
            yield line

    async def _line(self, procedures: Procedures, conversation_id: str) -> AsyncGenerator[str, None]:
        async with at_one_moment_async(self._runner) as runner:
            execution: Execution[Work, int] = Execution(procedures.export_line(conversation_id))
            while (piece := await advance_async(execution, runner)) is not None:
                yield piece.text

    async def _ids(self, procedures: Procedures, ids: list[str] | None) -> AsyncIterator[str]:
        after = ""
        while ids is None and (found := await self._run(procedures.exported_ids(after))):
            for each in found:
                yield each
            after = found[-1]
        for each in ids or ():
            yield each

    async def import_conversations(
        self,
        conversations: Iterable[ConversationLine],
        *,
        owner: str | None = None,
        counter: str | TokenCounter | None = None,
        idempotency_key: str | None = None,
    ) -> list[Appended | None]:
        return await self._run(
            self._procedures.import_conversations(conversations, owner, counter, idempotency_key)
        )
