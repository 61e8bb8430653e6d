"""A model around a conversation: the window before every call, and a record of what the model saw."""

from tokenmem.chat.async_chat import AsyncChat
from tokenmem.chat.chat import Chat

__all__ = ["AsyncChat", "Chat"]
