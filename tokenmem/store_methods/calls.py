"""Store's methods for the calls of models."""

from __future__ import annotations

from tokenmem.arguments import Missing
from tokenmem.models import LLMCall
from tokenmem.store_methods.base import BaseMethods


class CallMethods(BaseMethods):
    """Store's methods for the model calls of a conversation."""

    def calls(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
        missing: Missing = "error",
    ) -> list[LLMCall]:
        """A page of the model calls of a conversation, in the order of their numbers.

        Args:
            conversation_id: the conversation.
            after: only those with a higher number.
            limit: how many at most; all of them where it is None.
            newest_first: the highest number first.
            missing: "empty" for [] where there is no such conversation.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.calls(conversation_id, after, limit, newest_first, missing))
