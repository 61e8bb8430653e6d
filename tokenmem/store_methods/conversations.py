"""Store's methods for conversations as a whole: look at, copy and remove them."""

from __future__ import annotations

from tokenmem.arguments import KEEP, Keep, Order
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
        """A page of conversations: in the order of their ids, or those first that changed last.

        A page costs the same however many conversations there are. By recency it costs besides what was
        active in the half minute before its end; by id, what is hidden between those shown; and with `prefix`
        by recency, what is passed by.

        Args:
            owner: only this owner's.
            order: "id", from behind `after`; or "recent", by `updated_at`, the newest first and at the same
                moment the higher id first. The archive by recency is ordered by `archived_at`.
            after: an id: with order "id", the page begins behind it.
            before: the last conversation of the page before, or its `cursor`: with order "recent", the page
                begins behind it. While others append, a conversation that does not change is listed once.
            prefix: only those whose ids begin with it: a range of the index with order "id", with order
                "recent" a filter.
            archived: False hides the archived ones, True shows them alone; None shows both, by id only.
            limit: at most so many; None for all.

        Raises:
            InvalidArgument: an argument is wrong, or belongs to the other order.
        """
        return self._run(self._procedures.conversations(owner, order, after, before, prefix, archived, limit))

    def update(
        self,
        conversation_id: str,
        *,
        title: str | Keep | None = KEEP,
        metadata: JSONObject | Keep | None = KEEP,
        merge: bool = False,
        keep: bool | None = None,
    ) -> Conversation:
        """Set the title, the metadata or both; what is not given stays.

        Args:
            conversation_id: the conversation.
            title: a name for people; None clears it.
            metadata: a JSON object in the place of the one that is stored; None clears it, to {}.
            merge: set only the keys that `metadata` names: each gets the value given, and the others stay,
                also those that another process sets at the same time.
            keep: whether purges pass it by; None leaves that as it is.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: an argument is wrong; nothing was written.
        """
        return self._run(self._procedures.update(conversation_id, title, metadata, merge, keep))

    def fork(self, conversation_id: str, new_id: str, *, at: int | None = None) -> Conversation:
        """Copy a conversation up to a position, that included, under a new id.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: it has no such position.
            ConversationExists: the new id is taken, be it by another owner.
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
