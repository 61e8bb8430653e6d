"""LangChain's messages that remember the stored ones they are. Imported only where langchain-core is there.

The classes have the names of LangChain's, so that what prints or serializes them sees no others.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from langchain_core import messages as langchain
from langchain_core.messages import BaseMessage, convert_to_messages
from pydantic import PrivateAttr

from tokenmem.langchain.read_as_dict import ReadAsDict
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject


class _Recalled(ReadAsDict):
    """What LangChain's messages have besides: the stored message's attributes, and its dict."""

    _stored: Message

    @property
    def role(self) -> str:
        """Who speaks, as OpenAI's API names it."""
        return self._stored.role

    @property
    def kind(self) -> str:
        """See Message."""
        return self._stored.kind

    @property
    def position(self) -> int:
        """Its place in the conversation, from 1."""
        return self._stored.position

    @property
    def token_count(self) -> int:
        """Its cost in tokens by the conversation's counter."""
        return self._stored.token_count

    @property
    def created_at(self) -> datetime | None:
        """When it was said, in UTC."""
        return self._stored.created_at

    def to_openai(self) -> JSONObject:
        """The message as OpenAI's API takes it."""
        return self._stored.to_openai()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseMessage):
            same_kind = _langchain_class(self) is _langchain_class(other)
            return same_kind and self.__dict__ == other.__dict__
        if isinstance(other, Message):
            return self._stored == other
        return ReadAsDict.__eq__(self, other)

    def __iter__(self) -> Any:
        return BaseMessage.__iter__(self)  # type: ignore[arg-type]  # as LangChain's own functions expect

    __hash__ = None  # type: ignore[assignment]  # as LangChain's


class HumanMessage(_Recalled, langchain.HumanMessage):
    """What a user said."""

    _stored: Message = PrivateAttr()


class AIMessage(_Recalled, langchain.AIMessage):
    """What a model said."""

    _stored: Message = PrivateAttr()


class SystemMessage(_Recalled, langchain.SystemMessage):
    """Instructions."""

    _stored: Message = PrivateAttr()


class ToolMessage(_Recalled, langchain.ToolMessage):
    """What a tool returned."""

    _stored: Message = PrivateAttr()


class FunctionMessage(_Recalled, langchain.FunctionMessage):
    """What a function returned."""

    _stored: Message = PrivateAttr()


_CLASSES: dict[type[BaseMessage], type[Any]] = {
    langchain.HumanMessage: HumanMessage,
    langchain.AIMessage: AIMessage,
    langchain.SystemMessage: SystemMessage,
    langchain.ToolMessage: ToolMessage,
    langchain.FunctionMessage: FunctionMessage,
}


def as_langchain(message: Message) -> BaseMessage:
    """A stored message as LangChain's message of the same role, which also reads as OpenAI's dict.

    What it held besides when it came in from LangChain (`messages.foreign` keeps it) is there again.
    """
    (converted,) = convert_to_messages([message.to_openai()])
    known = _CLASSES.get(type(converted))
    if known is None:
        return converted
    kept = (message.metadata or {}).get("langchain")
    kept = kept if isinstance(kept, dict) else {}
    again = {name: value for name, value in kept.items() if name in known.model_fields}
    set_before = converted.model_fields_set | again.keys()
    made: Any = known.model_construct(_fields_set=set_before, **{**converted.__dict__, **again})
    made._stored = message
    recalled: BaseMessage = made
    return recalled


def _langchain_class(message: object) -> type:
    return next(kind for kind in type(message).__mro__ if kind.__module__.startswith("langchain_core."))
