"""Conversation history for LLM applications: SQL rows of your own, loaded within a token budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenmem import errors
    from tokenmem.arguments import KEEP
    from tokenmem.async_store import AsyncStore
    from tokenmem.chat import AsyncChat, AsyncTurn, Chat, Turn
    from tokenmem.counting.counters import TiktokenCounter, TokenCounter, TranscriptCounter
    from tokenmem.ids import hashed_id
    from tokenmem.langchain.chain import ConversationChain
    from tokenmem.langchain.chat_memory import ChatMemory
    from tokenmem.langchain.memory import ConversationTokenBufferMemory
    from tokenmem.langchain.openai_models import OpenAIChat, OpenAICompletion
    from tokenmem.messages.calls import ToolCall
    from tokenmem.messages.message import Message
    from tokenmem.models import (
        Appended,
        Conversation,
        LLMCall,
        MessageVersion,
        OpenToolCall,
        Problem,
        Purged,
        Reply,
        Usage,
        Window,
    )
    from tokenmem.store import Store

__version__ = "0.1.0"

# Names are imported when they are first used, so that `import tokenmem` costs next to nothing.
_MODULES = {
    "Appended": "models",
    "AsyncChat": "chat",
    "AsyncStore": "async_store",
    "AsyncTurn": "chat",
    "Chat": "chat",
    "ChatMemory": "langchain.chat_memory",
    "Conversation": "models",
    "ConversationChain": "langchain.chain",
    "ConversationTokenBufferMemory": "langchain.memory",
    "KEEP": "arguments",
    "LLMCall": "models",
    "Message": "messages.message",
    "MessageVersion": "models",
    "OpenAIChat": "langchain.openai_models",
    "OpenAICompletion": "langchain.openai_models",
    "OpenToolCall": "models",
    "Problem": "models",
    "Purged": "models",
    "Reply": "models",
    "Store": "store",
    "TiktokenCounter": "counting.counters",
    "TokenCounter": "counting.counters",
    "ToolCall": "messages.calls",
    "TranscriptCounter": "counting.counters",
    "Turn": "chat",
    "Usage": "models",
    "Window": "models",
    "errors": "",
    "hashed_id": "ids",
}

__all__ = [
    "KEEP",
    "Appended",
    "AsyncChat",
    "AsyncStore",
    "AsyncTurn",
    "Chat",
    "ChatMemory",
    "Conversation",
    "ConversationChain",
    "ConversationTokenBufferMemory",
    "LLMCall",
    "Message",
    "MessageVersion",
    "OpenAIChat",
    "OpenAICompletion",
    "OpenToolCall",
    "Problem",
    "Purged",
    "Reply",
    "Store",
    "TiktokenCounter",
    "TokenCounter",
    "ToolCall",
    "TranscriptCounter",
    "Turn",
    "Usage",
    "Window",
    "errors",
    "hashed_id",
]


if not TYPE_CHECKING:  # to a type checker a name that is not imported above does not exist

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if not _MODULES[name]:
            return importlib.import_module(f"{__name__}.{name}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
