"""Store's methods for conversations as a whole: look at, copy and remove them."""

from __future__ import annotations

from tokenmem.messages.values import JSONObject
from tokenmem.models import Conversation, Problem
from tokenmem.store_methods.base import BaseMethods


class ConversationMethods(BaseMethods):
    """Store's methods for conversations as a whole."""

    def conversation(self, conversation_id: str) -> Conversation:
        """The conversation's own row, without its messages.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.conversation(conversation_id))

    def conversations(
        self, *, owner: str | None = None, after: str | None = None, limit: int | None = 100
    ) -> list[Conversation]:
        """A page of conversations in the order of their ids, from behind the id `after`."""
        return self._run(self._procedures.conversations(owner, after, limit))

    def update(
        self, conversation_id: str, *, title: str | None = None, metadata: JSONObject | None = None
    ) -> Conversation:
        """Set the title, the metadata, or both; what is None stays.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.update(conversation_id, title, metadata))

    def fork(self, conversation_id: str, new_id: str, *, at: int | None = None) -> Conversation:
        """Copy a conversation up to a position, that included, under a new id.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: it has no such position, or the new id is taken.
        """
        return self._run(self._procedures.fork(conversation_id, new_id, at))

    def delete(self, conversation_id: str) -> None:
        """Remove a conversation and all that belongs to it; what its calls cost stays in `usage`.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.delete(conversation_id))

    def verify(self) -> list[Problem]:
        """Every place where stored totals, counts and positions do not agree; empty where all do."""
        return self._run(self._procedures.verify())
