"""Conversation history for LLM applications: SQL rows of your own, loaded within a token budget."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenmem import errors
    from tokenmem.async_store import AsyncStore
    from tokenmem.chain import ConversationChain
    from tokenmem.chat import AsyncChat, Chat
    from tokenmem.llms import OpenAIChat, OpenAICompletion
    from tokenmem.memory import ConversationTokenBufferMemory
    from tokenmem.models import (
        Appended,
        Conversation,
        LLMCall,
        Message,
        Problem,
        Reply,
        ToolCall,
        Window,
    )
    from tokenmem.store import Store
    from tokenmem.tokens import TiktokenCounter, TokenCounter, TranscriptCounter

__version__ = "0.1.0"

# Names are imported when they are first used, so that `import tokenmem` costs next to nothing.
_MODULES = {
    "Appended": "models",
    "AsyncChat": "chat",
    "AsyncStore": "async_store",
    "Chat": "chat",
    "Conversation": "models",
    "ConversationChain": "chain",
    "ConversationTokenBufferMemory": "memory",
    "LLMCall": "models",
    "Message": "models",
    "OpenAIChat": "llms",
    "OpenAICompletion": "llms",
    "Problem": "models",
    "Reply": "models",
    "Store": "store",
    "TiktokenCounter": "tokens",
    "TokenCounter": "tokens",
    "ToolCall": "models",
    "TranscriptCounter": "tokens",
    "Window": "models",
    "errors": "",
}

__all__ = [
    "Appended",
    "AsyncChat",
    "AsyncStore",
    "Chat",
    "Conversation",
    "ConversationChain",
    "ConversationTokenBufferMemory",
    "LLMCall",
    "Message",
    "OpenAIChat",
    "OpenAICompletion",
    "Problem",
    "Reply",
    "Store",
    "TiktokenCounter",
    "TokenCounter",
    "ToolCall",
    "TranscriptCounter",
    "Window",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if not _MODULES[name]:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
