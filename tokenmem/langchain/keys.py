"""Values by name as a chain is given them: what may be missing, and what must be text."""

from __future__ import annotations

from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.messages.values import check_text


class MissingKey(InvalidArgument, KeyError):
    """A key that was chosen is not there: where LangChain raises a KeyError."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # a KeyError's would be in quotation marks


def checked_text(value: object, where: str) -> str:
    """What a person or a model said, where it can be stored.

    Raises:
        InvalidMessage: it is no text, or both databases cannot hold it; the message names `where`.
    """
    if not isinstance(value, str):
        raise InvalidMessage(f"{where} is a {type(value).__name__}; pass a string")
    check_text(value, where)
    return str(value)
