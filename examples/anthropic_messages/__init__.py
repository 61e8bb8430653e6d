"""Anthropic's Messages API behind a Chat: a provider with a form of its own, to copy and change.

    ANTHROPIC_API_KEY=… python -m examples.anthropic_messages "When does the night train leave?"

It streams, calls tools, and marks what the provider's prompt cache may keep. Not here: thinking blocks, whose
signatures would have to be sent back, and the provider's own tools.
"""

from examples.anthropic_messages.api import AnthropicMessages
from examples.anthropic_messages.client import APIError, AsyncClient, Client

__all__ = ["APIError", "AnthropicMessages", "AsyncClient", "Client"]
