"""What the arguments of a turn may be, sync and async."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenmem.chat.tools import Results, result_messages
from tokenmem.chat.turn import TurnRequest
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, parse_messages
from tokenmem.messages.values import JSONObject

UserMessage = str | Sequence[JSONObject] | MessageLike
"""What a user says: a text, content parts, or a whole message."""


def asked_with(
    conversation_id: str,
    message: UserMessage | None,
    key: str | None,
    options: Mapping[str, Any],
    *,
    stream: bool = False,
) -> TurnRequest:
    """A turn that begins with what the user says, or, with None, with what is there.

    Raises:
        InvalidMessage: it cannot be stored.
    """
    if message is None:
        return TurnRequest(conversation_id, None, key, stream, options)
    if isinstance(message, str) or (isinstance(message, (list, tuple)) and message):
        message = Message.user(message)
    return TurnRequest(conversation_id, parse_messages([message]), key, stream, options)  # type: ignore[list-item]


def answered_with(
    conversation_id: str,
    results: Results,
    key: str | None,
    options: Mapping[str, Any],
    *,
    stream: bool = False,
) -> TurnRequest:
    """A turn that begins with tool results.

    Raises:
        InvalidMessage: one of them is no tool result, or cannot be stored.
        InvalidArgument: two answer the same call.
    """
    return TurnRequest(conversation_id, result_messages(results), key, stream, options)
