"""Store's methods for messages: store, load, change and count them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from tokenmem.arguments import Missing
from tokenmem.counting.counters import TokenCounter
from tokenmem.edges import StartOn
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, Unstorable
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended, Conversation, Window
from tokenmem.store_methods.base import BaseMethods


class MessageMethods(BaseMethods):
    """Store's methods for the messages of a conversation."""

    def append(
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
        """Store messages behind the conversation's last, all or none; a new id makes a new conversation.

        Args:
            conversation_id: the application's own id, 1 to 255 characters.
            messages: OpenAI chat messages as dicts, Messages, or messages as the openai package returns them;
                LangChain's too.
            owner: the user or tenant whose conversation it is.
            idempotency_key: a retry with the same key stores nothing and returns what the first one stored.
            keys: in place of `idempotency_key` one key a message: what is known stays where it is, what is
                new goes behind the last, in the given order, and `positions` tells the place of each.
            expected_position: the last position that the caller has seen; 0 for a new conversation. Asked for
                only where something new is stored.
            counter: the token counter of a new conversation, in place of the store's.
            title: of a new conversation.
            metadata: of a new conversation.
            merge_metadata: set these keys of the conversation's metadata, with the messages or not at all;
                keys that are not named stay. A retry with a known key sets none again.
            unstorable: what becomes of a message with NUL characters or halves of surrogate pairs: "refuse"
                it, or "escape" its texts, reversibly; in place of the store's.

        Raises:
            InvalidMessage: a message cannot be stored; nothing was written.
            InvalidArgument: another argument is wrong; nothing was written.
            ConversationNotFound: the conversation is another owner's.
            PositionConflict: the conversation is not at expected_position.
            IdempotencyConflict: a key has stored other messages.
            UnknownTokenCounter: the conversation's counter is not known here.
        """
        return self._run(
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

    def window(
        self,
        conversation_id: str,
        token_limit: int,
        start_on: StartOn = "step",
        stride: int | None = None,
        *,
        fall_back: bool = True,
        missing: Missing = "error",
    ) -> Window:
        """The newest messages that fit the limit, behind the pinned ones; at a cost that the conversation's
        length does not change.

        Args:
            conversation_id: the conversation.
            token_limit: what they may cost together, in tokens.
            start_on: where the window may start: at any "message", at a "step" (never between a tool call
                and its results), or at a "turn" (a user's message; a step where no turn fits).
            stride: move the start in steps of this many tokens, so that prompts share their beginning.
            fall_back: False to raise WindowTooSmall where no turn fits, in place of starting at a step.
            missing: "empty" for a window without messages where there is no such conversation.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            WindowTooSmall: nothing fits.
            InvalidArgument: an argument is wrong.
        """
        return self._run(
            self._procedures.window(conversation_id, token_limit, start_on, stride, fall_back, missing)
        )

    def messages(
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
        """A page of messages, with after < position < before; all of them where limit is None.

        Args:
            conversation_id: the conversation.
            after: only those behind this position.
            before: only those before it.
            limit: how many at most; 0 for none, which only asks whether the conversation is there.
            newest_first: the highest position first.
            payload: False to leave the payloads in the database, for lists: `payload` is None then, and a
                message that has one refuses `to_openai()` and `partial` with InvalidMessage.
            since: only those said at this time or later, by `created_at`, in UTC or with a time zone. It
                filters the page's positions and has no index: where few pass, more than `limit` rows are
                read, at worst all between `after` and `before`. Times order nothing: history that came in
                with old times is left out wherever it stands, and one with a future time is not.
            missing: "empty" for [] where there is no such conversation.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: an argument is wrong.
        """
        return self._run(
            self._procedures.messages(
                conversation_id, after, before, limit, newest_first, payload, since, missing
            )
        )

    def edit(
        self, conversation_id: str, position: int, message: MessageLike, *, pinned: bool | None = None
    ) -> Message:
        """Put another message in the place of the one at a position.

        Args:
            conversation_id: the conversation.
            position: where.
            message: what is to stand there; a pinned place stays pinned, and its metadata stays unless the
                message is a Message with its own.
            pinned: pin or unpin it.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            MessageNotFound: there is no message at the position.
            InvalidMessage: the message cannot be stored; nothing was written.
        """
        return self._run(self._procedures.edit(conversation_id, position, message, pinned))

    def delete_message(self, conversation_id: str, position: int) -> None:
        """Remove one message; its position is not given again.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            MessageNotFound: there is no message at the position.
        """
        return self._run(self._procedures.delete_message(conversation_id, position))

    def truncate(self, conversation_id: str, *, after: int) -> int:
        """Remove the messages behind a position and return how many; their positions are not given again.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.truncate(conversation_id, after))

    def recount(self, conversation_id: str, counter: str | TokenCounter) -> Conversation:
        """Count a conversation anew by another counter, which it keeps from then on; all of it or nothing.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            UnknownTokenCounter: no counter has this name.
        """
        return self._run(self._procedures.recount(conversation_id, counter))
