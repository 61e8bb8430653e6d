"""A model around a conversation: the window before every call, and a record of what the model saw."""

from tokenmem.chat.asynchronous import AsyncChat
from tokenmem.chat.sync import Chat

__all__ = ["AsyncChat", "Chat"]
