"""A model around a conversation: the window before every call, and a record of what the model saw."""

from tokenmem.chat.apis.interface import ModelAPI, StreamReader
from tokenmem.chat.apis.replies import Answer
from tokenmem.chat.apis.usage import Usage
from tokenmem.chat.async_chat import AsyncChat
from tokenmem.chat.chat import Chat
from tokenmem.chat.open_turn import AsyncTurn, Turn

__all__ = ["Answer", "AsyncChat", "AsyncTurn", "Chat", "ModelAPI", "StreamReader", "Turn", "Usage"]
