"""What `memory.chat_memory` is: a conversation's messages, as LangChain's chat histories have them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tokenmem.counting.counters import TranscriptCounter
from tokenmem.errors import ConversationNotFound
from tokenmem.langchain.recalled import recalled
from tokenmem.langchain.stored_conversation import StoredConversation
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike

_LINES = TranscriptCounter("cl100k_base")
"""Writes lines as LangChain's histories do, which know no prefixes of a memory's."""


class ChatMemory:
    """The messages of a memory's conversation: those that it would load are read, any can be added.

    On an AsyncStore only the async methods work. Each raises what the memory's raise.

    Args:
        memory: the memory.
    """

    def __init__(self, memory: StoredConversation) -> None:
        self._memory = memory

    @property
    def messages(self) -> list[Any]:
        """The newest messages that fit the memory's limit, as the memory returns messages.

        All of them are in the store: `memory.store.messages(memory.conversation_id)`.
        """
        return recalled(self._memory.newest())

    @messages.setter
    def messages(self, messages: Sequence[MessageLike]) -> None:
        """Have these messages alone in the conversation."""
        store, memory = self._memory.sync_store(), self._memory
        with store.transaction() as bound:
            with suppress(ConversationNotFound):
                bound.delete(memory.conversation_id)
            if messages:
                bound.append(memory.conversation_id, messages, counter=memory.counter)

    def add_message(self, message: MessageLike) -> None:
        """Append a message: tokenmem's, LangChain's, or OpenAI's as a dict."""
        self.add_messages([message])

    def add_messages(self, messages: Sequence[MessageLike]) -> None:
        """Append messages, all or none.

        Raises:
            InvalidMessage: one cannot be stored; nothing was written.
        """
        if messages:
            self._memory.append(messages)

    def add_user_message(self, message: str | MessageLike) -> None:
        """Append what a user said."""
        self.add_message(Message.user(message) if isinstance(message, str) else message)

    def add_ai_message(self, message: str | MessageLike) -> None:
        """Append what a model said."""
        self.add_message(Message.assistant(message) if isinstance(message, str) else message)

    def clear(self) -> None:
        """Remove the conversation from the database, if it is there."""
        self._memory.clear()

    async def aget_messages(self) -> list[Any]:
        """What `messages` holds, on either store."""
        return recalled(await self._memory.anewest())

    async def aadd_messages(self, messages: Sequence[MessageLike]) -> None:
        """Append messages, all or none, on either store."""
        if messages:
            await self._memory.aappend(messages)

    async def aclear(self) -> None:
        """Remove the conversation from the database, if it is there, on either store."""
        await self._memory.aclear()

    def __str__(self) -> str:
        return "\n".join(map(_LINES.line, self._memory.newest()))
