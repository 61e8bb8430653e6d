"""Every error that tokenmem raises.

    TokenmemError
    ├── InvalidArgument         (also a ValueError)
    │   ├── ConversationExists
    │   ├── InvalidMessage
    │   └── MessageNotFound     (also a LookupError)
    ├── ConversationNotFound    (also a LookupError)
    ├── WindowTooSmall
    ├── PositionConflict
    ├── IdempotencyConflict
    ├── UnknownTokenCounter
    ├── SchemaOutOfDate
    ├── DatabaseError
    │   └── DatabaseUnavailable   worth another try
    ├── ModelError
    ├── TooManyModelCalls
    └── MissingExtra            (also an ImportError)

A message names the value that was wrong and what to do about it. It never carries the text of a
conversation's messages, nor a password.
"""

from __future__ import annotations

from functools import partial
from typing import Self

__all__ = [
    "ConversationExists",
    "ConversationNotFound",
    "DatabaseError",
    "DatabaseUnavailable",
    "IdempotencyConflict",
    "InvalidArgument",
    "InvalidMessage",
    "MessageNotFound",
    "MissingExtra",
    "ModelError",
    "PositionConflict",
    "SchemaOutOfDate",
    "TokenmemError",
    "TooManyModelCalls",
    "UnknownTokenCounter",
    "WindowTooSmall",
]


class TokenmemError(Exception):
    """The base of every error that tokenmem raises."""


class InvalidArgument(TokenmemError, ValueError):
    """An argument is of a wrong type or out of its range; nothing was written."""


class InvalidMessage(InvalidArgument):
    """A message cannot be stored without loss, or its role or content is not one that models take."""


class ConversationExists(InvalidArgument):
    """The id of a new conversation is taken, by whomever; nothing was written."""


class ConversationNotFound(TokenmemError, LookupError):
    """No conversation has this id, or it belongs to another owner."""


class MessageNotFound(InvalidArgument, LookupError):
    """The conversation has no message at this position, or none at all."""


class WindowTooSmall(TokenmemError):
    """Not even the newest step of the conversation fits the token limit.

    Attributes:
        conversation_id: the conversation.
        position: the newest message at which a window could start; where the pinned messages alone do not
            fit, the last of those.
        token_count: what it would cost from there on with the pinned messages, in tokens, so that a limit of
            as much is enough; or what the pinned ones cost.
        token_limit: the limit that was asked for, in tokens.
    """

    def __init__(
        self, conversation_id: str, *, position: int, token_count: int, token_limit: int, detail: str
    ) -> None:
        super().__init__(f"conversation {conversation_id!r}: {detail}")
        self._detail = detail
        self.conversation_id = conversation_id
        self.position = position
        self.token_count = token_count
        self.token_limit = token_limit

    # An error must reach the parent of a worker process.
    def __reduce__(self) -> tuple[partial[Self], tuple[()]]:
        given = {"position": self.position, "token_count": self.token_count, "token_limit": self.token_limit}
        return partial(type(self), self.conversation_id, **given, detail=self._detail), ()


class PositionConflict(TokenmemError):
    """The conversation is not at the position that the caller expected.

    Attributes:
        conversation_id: the conversation.
        expected_position: what the caller passed.
        last_position: where the conversation is.
    """

    def __init__(
        self, conversation_id: str, *, expected_position: int, last_position: int, detail: str | None = None
    ) -> None:
        super().__init__(
            f"conversation {conversation_id!r}: {detail}"
            if detail is not None
            else f"conversation {conversation_id!r} is at position {last_position}, not at "
            f"{expected_position}; read what is there and decide again"
        )
        self._detail = detail
        self.conversation_id = conversation_id
        self.expected_position = expected_position
        self.last_position = last_position

    def __reduce__(self) -> tuple[partial[Self], tuple[()]]:
        positions = {"expected_position": self.expected_position, "last_position": self.last_position}
        return partial(type(self), self.conversation_id, **positions, detail=self._detail), ()


class IdempotencyConflict(TokenmemError):
    """This idempotency key has stored other messages in this conversation before."""


class UnknownTokenCounter(TokenmemError):
    """No token counter has this name, or its data cannot be had here."""


class SchemaOutOfDate(TokenmemError):
    """The database lacks tokenmem's tables, or has them from another version."""


class DatabaseError(TokenmemError):
    """The database refused the statement."""


class DatabaseUnavailable(DatabaseError):
    """The database cannot be reached or opened, or asked us to come back later.

    Nothing of the operation was stored, unless the connection was lost during the commit itself: repeat
    it with an `idempotency_key` and it is stored once. (A purge keeps the batches that it had finished.)
    """


class ModelError(TokenmemError):
    """A model's answer ended before it was complete, says that it failed, or is none.

    What the openai package raises reaches the caller unchanged; this is for what it does not notice.

    Attributes:
        code: the provider's code of what went wrong, where it tells one: 502, "server_error".
        arrived: what had arrived of a whole answer that failed, until that is stored.
    """

    code: int | str | None
    arrived: object

    def __init__(self, *told: object, code: int | str | None = None) -> None:
        super().__init__(*told)
        self.code = code
        self.arrived = None


class TooManyModelCalls(TokenmemError):
    """`run` has called the model as often as it was allowed to, and the model still calls tools.

    All that was said is stored; the last calls have no results.
    """


class MissingExtra(TokenmemError, ImportError):
    """An optional part of tokenmem is not installed; the message names the command that installs it."""
