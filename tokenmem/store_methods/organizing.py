"""Store's methods for where conversations stand: make, put away, move, and look at what was forked."""

from __future__ import annotations

from tokenmem.counting.counters import TokenCounter
from tokenmem.messages.values import JSONObject
from tokenmem.models import Conversation
from tokenmem.store_methods.base import BaseMethods


class OrganizingMethods(BaseMethods):
    """Store's methods for where conversations stand."""

    def create(
        self,
        conversation_id: str,
        *,
        owner: str | None = None,
        counter: str | TokenCounter | None = None,
        title: str | None = None,
        metadata: JSONObject | None = None,
        keep: bool = False,
    ) -> Conversation:
        """Make a conversation without messages. (An append to a new id makes one too.)

        Args:
            conversation_id: the application's own id, 1 to 255 characters; `tokenmem.hashed_id` makes one of
                a longer text.
            owner: the user or tenant whose conversation it is.
            counter: its token counter, in place of the store's.
            title: a name for people.
            metadata: whatever JSON object the application keeps with it.
            keep: whether purges pass it by.

        Raises:
            ConversationExists: the id is taken, be it by another owner; nothing was written.
            InvalidArgument: another argument is wrong; nothing was written.
            UnknownTokenCounter: no counter has this name.
        """
        return self._run(
            self._procedures.create(
                conversation_id, owner=owner, counter=counter, title=title, metadata=metadata, keep=keep
            )
        )

    def archive(self, conversation_id: str) -> Conversation:
        """Hide a conversation from the lists; it stays whole, and may be read and appended to as before.

        One that is archived stays as it is. `updated_at` is left as it is too.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.archive(conversation_id))

    def restore(self, conversation_id: str) -> Conversation:
        """Show an archived conversation in the lists again, where it stood: by its `updated_at`.

        One that is not archived stays as it is.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.restore(conversation_id))

    def move(self, conversation_id: str, *, owner: str | None) -> Conversation:
        """Give a conversation, with its calls and what they cost, to another owner; None: to nobody.

        `updated_at` is left as it is.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: the store is for one owner, and this is another.
        """
        return self._run(self._procedures.move(conversation_id, owner))

    def move_owner(self, old: str, new: str) -> int:
        """Give all conversations of one owner to another, as when a guest signs in; returns how many.

        Some hundreds in each transaction, in the order of their ids: where it was interrupted, call it again.
        What another process has moved to a third owner meanwhile stays there. What calls in removed
        conversations cost moves with the last. `updated_at` is left as it is. A conversation that the old
        owner makes while it runs may stay.

        Args:
            old: whose they are.
            new: whose they will be.

        Raises:
            InvalidArgument: the store is for one owner, and either is another.
        """
        return self._run(self._procedures.move_owner(old, new))

    def branches(self, conversation_id: str) -> list[Conversation]:
        """The conversations that were forked from this one, in the order of their ids, archived ones too.

        They name it as `parent_id` as long as they live: one that is made anew under its id has them too.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.branches(conversation_id))
