"""What is asked of a turn: the caller's arguments, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tokenmem.arguments import checked_name, optional_name, optional_number
from tokenmem.chat.structured import ResponseFormat
from tokenmem.errors import InvalidMessage
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike, Unstorable, parse_messages
from tokenmem.messages.values import JSONObject

UserMessage = str | Sequence[JSONObject] | MessageLike
"""What a user says: a string, content parts, or a whole message."""

Check = Callable[[Sequence[Message], int], None]
"""Raises where a turn's messages do not follow those before them; is also told where the newest reply begins,
0 where there is none."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What is asked of a turn.

    Attributes:
        conversation_id: the conversation.
        messages: what is stored first; without any, the model is asked with what is there.
        key: the idempotency key, or None.
        expected_position: the last position that the caller has seen, or None.
        options: further parameters of the request to the model.
        stream: whether the text is delivered as it comes.
        opens: whether it is told, before any text, that the model has begun to answer; when streaming.
        check: raises where the messages do not follow those before them; nothing is stored then.
        given: the messages as the caller gave them, where they are cut: a repeated request has the same.
        resumes: the key is known, and whatever messages it has stored are meant.
        metadata: what the caller gives with each of the calls, as JSON text; or None.
        claims: it answers a message that is there, and of two that do so at once one has to look anew.
        response_format: the class of which the reply is to be an object, or None.
    """

    conversation_id: str
    messages: Sequence[Message] = ()
    key: str | None = None
    expected_position: int | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    stream: bool = False
    opens: bool = False
    check: Check | None = None
    given: Sequence[Message] = ()
    resumes: bool = False
    metadata: str | None = None
    claims: bool = False
    response_format: ResponseFormat | None = None

    def __post_init__(self) -> None:
        checked_name(self.conversation_id, "conversation_id")
        optional_name(self.key, "idempotency_key")
        optional_number(self.expected_position, "expected_position")


def user_messages(message: UserMessage | None, unstorable: Unstorable) -> list[Message]:
    """What a user says as the messages of a turn; none where the model is asked with what is there.

    Args:
        message: what the user says.
        unstorable: what the store does about characters that databases cannot hold.

    Raises:
        InvalidMessage: it cannot be stored.
    """
    if message is None:
        return []
    if isinstance(message, (list, tuple)) and any(
        isinstance(part, dict) and "role" in part for part in message
    ):
        raise InvalidMessage(
            "message is a list of messages; pass one, or append them to the store and send without a message"
        )
    if isinstance(message, str) or (isinstance(message, (list, tuple)) and message):
        return parse_messages([Message.user(message)], unstorable)
    listed: list[MessageLike] = [message]  # type: ignore[list-item]  # an empty list, which is refused there
    return parse_messages(listed, unstorable)
