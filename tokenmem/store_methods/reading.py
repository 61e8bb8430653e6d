"""Store's methods that read single messages, whole conversations, and what waits in one."""

from __future__ import annotations

from typing import Literal, overload

from tokenmem.arguments import Missing
from tokenmem.messages.message import Message
from tokenmem.models import Conversation, OpenToolCall
from tokenmem.store_methods.base import BaseMethods


class ReadingMethods(BaseMethods):
    """Store's methods that read a message, a whole conversation, or the calls that wait in one."""

    def message(self, conversation_id: str, position: int) -> Message:
        """The message at a position.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            MessageNotFound: there is no message at the position.
        """
        return self._run(self._procedures.message(conversation_id, position))

    @overload
    def read(
        self, conversation_id: str, *, limit: int | None = None, missing: Literal["error"] = "error"
    ) -> tuple[Conversation, list[Message]]: ...

    @overload
    def read(
        self, conversation_id: str, *, limit: int | None = None, missing: Missing
    ) -> tuple[Conversation | None, list[Message]]: ...

    def read(
        self, conversation_id: str, *, limit: int | None = None, missing: Missing = "error"
    ) -> tuple[Conversation | None, list[Message]]:
        """The conversation and its messages, both as they were at one moment, whoever appends meanwhile.

        Args:
            conversation_id: the conversation.
            limit: only the newest so many messages; all of them where it is None. They come in order.
            missing: "empty" for (None, []) where there is no such conversation.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: an argument is wrong.
        """
        return self._run(self._procedures.read_whole(conversation_id, limit, missing))

    def open_tool_calls(self, conversation_id: str) -> list[OpenToolCall]:
        """The tool calls that have no result yet, in order, with their positions; of either API.

        Only the newest 200 messages are looked through, so that the cost does not grow with the
        conversation: what was left open before them is not found. The view `tool_calls` finds it too.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.open_tool_calls(conversation_id))
