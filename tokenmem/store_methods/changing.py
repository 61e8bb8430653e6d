"""Store's methods that change what is stored: the data beside a message, and several messages at once."""

from __future__ import annotations

from collections.abc import Iterable

from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended
from tokenmem.store_methods.base import BaseMethods


class ChangingMethods(BaseMethods):
    """Store's methods that change what is stored, each in one transaction."""

    def update_message(
        self, conversation_id: str, position: int, *, metadata: JSONObject | None, merge: bool = False
    ) -> Message:
        """Set the data that you keep beside a message: ratings, notes, the ids of a front end.

        It is no activity: the conversation's `updated_at`, and its place in lists, stay.

        Args:
            conversation_id: the conversation.
            position: of the message.
            metadata: any JSON object: never counted, never sent; None clears what is there.
            merge: put these keys among those that are there. A key that is there is replaced as a whole.

        Returns:
            The message as it is now.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            MessageNotFound: there is no message at the position.
            InvalidArgument: metadata is no JSON object, or there is nothing to merge.
        """
        return self._run(self._procedures.update_message(conversation_id, position, metadata, merge))

    def replace(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        after: int = 0,
        expected_position: int | None = None,
    ) -> Appended:
        """Remove all messages behind a position and store these instead, all of that or nothing.

        Positions are not given again: the new messages come behind the last one that ever was. Pinned
        messages behind `after` go too.

        Args:
            conversation_id: the conversation; it must be there.
            messages: as `append` takes them; none at all only removes.
            after: the messages up to this position stay; 0 replaces all.
            expected_position: the conversation's last_position as the caller has seen it.

        Returns:
            What was stored; where that is nothing, first_position is one above last_position.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            PositionConflict: the conversation is not at expected_position.
            InvalidArgument: `after` is behind the conversation's last position; nothing was removed.
            InvalidMessage: a message cannot be stored; nothing was removed.
            UnknownTokenCounter: the conversation's counter is not known here.
        """
        return self._run(self._procedures.replace(conversation_id, messages, after, expected_position))

    def pop(self, conversation_id: str, *, expected_position: int | None = None) -> Message:
        """Remove the newest message and return it; of several that pop at once each gets another.

        Args:
            conversation_id: the conversation.
            expected_position: the position of the message that is meant: another one is left alone.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            MessageNotFound: there is no message in it.
            PositionConflict: the newest message is not at expected_position.
        """
        return self._run(self._procedures.pop(conversation_id, expected_position))

    def delete_messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = None,
    ) -> list[Message]:
        """Remove the messages with after < position < before, and return them.

        The running totals behind them are closed up. Where the oldest messages go, totals stay as they are,
        as after a purge: `total_tokens` counts from the conversation's first message on.

        Args:
            conversation_id: the conversation.
            after: only those behind this position.
            before: only those before it.
            limit: the oldest so many of these; all of them where it is None. They are held in memory.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: an argument is wrong.
        """
        return self._run(self._procedures.delete_messages(conversation_id, after, before, limit))
