"""AsyncStore's methods for the calls of models, awaited. `help` shows the docstrings of Store's."""

from __future__ import annotations

from tokenmem.arguments import Missing
from tokenmem.docstrings import documented_like
from tokenmem.models import LLMCall
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.calls import CallMethods


@documented_like(CallMethods)
class AsyncCallMethods(AsyncBaseMethods):
    """AsyncStore's methods for the model calls of a conversation."""

    async def calls(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
        missing: Missing = "error",
    ) -> list[LLMCall]:
        return await self._run(self._procedures.calls(conversation_id, after, limit, newest_first, missing))
