"""LangChain's messages that remember the stored ones they are. Imported only where langchain-core is there.

The classes have the names of LangChain's, so that what prints or serializes them sees no others.
"""

from __future__ import annotations

import copy
import json
from datetime import datetime
from typing import Any

from langchain_core import messages as langchain
from langchain_core.messages import BaseMessage, convert_to_messages, convert_to_openai_messages
from pydantic import PrivateAttr

from tokenmem.langchain.read_as_dict import ReadAsDict
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import parse_message
from tokenmem.messages.values import JSONObject


class _Recalled(ReadAsDict):
    """What LangChain's messages have besides: the stored message's attributes, and its dict."""

    _stored: Message | None
    _loaded: dict[str, Any] | None

    @property
    def stored(self) -> Message:
        """The message as it is stored; where it was made or changed since, what it is now, unstored."""
        if self._stored is not None and self.__dict__ == self._loaded:
            return self._stored
        itself: Any = self  # one of LangChain's messages
        said: Any = convert_to_openai_messages(itself)
        return parse_message(said)

    @property
    def role(self) -> str:
        """Who speaks, as OpenAI's API names it."""
        return self.stored.role

    @property
    def kind(self) -> str:
        """See Message."""
        return self.stored.kind

    @property
    def position(self) -> int:
        """Its place in the conversation, from 1; 0 while it is not stored as it is."""
        return self.stored.position

    @property
    def token_count(self) -> int:
        """Its cost in tokens by the conversation's counter; 0 while it is not stored as it is."""
        return self.stored.token_count

    @property
    def created_at(self) -> datetime | None:
        """When it was said, in UTC; None while it is not stored as it is."""
        return self.stored.created_at

    def to_openai(self) -> JSONObject:
        """The message as OpenAI's API takes it."""
        return self.stored.to_openai()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseMessage):
            same_kind = _langchain_class(self) is _langchain_class(other)
            return same_kind and self.__dict__ == other.__dict__
        if isinstance(other, Message):
            return self.stored == other
        return ReadAsDict.__eq__(self, other)

    def __iter__(self) -> Any:
        return BaseMessage.__iter__(self)  # type: ignore[arg-type]  # as LangChain's own functions expect

    __hash__ = None  # type: ignore[assignment]  # as LangChain's


class HumanMessage(_Recalled, langchain.HumanMessage):
    """What a user said."""

    _stored: Message | None = PrivateAttr(default=None)
    _loaded: dict[str, Any] | None = PrivateAttr(default=None)


class AIMessage(_Recalled, langchain.AIMessage):
    """What a model said."""

    _stored: Message | None = PrivateAttr(default=None)
    _loaded: dict[str, Any] | None = PrivateAttr(default=None)


class SystemMessage(_Recalled, langchain.SystemMessage):
    """Instructions."""

    _stored: Message | None = PrivateAttr(default=None)
    _loaded: dict[str, Any] | None = PrivateAttr(default=None)


class ToolMessage(_Recalled, langchain.ToolMessage):
    """What a tool returned."""

    _stored: Message | None = PrivateAttr(default=None)
    _loaded: dict[str, Any] | None = PrivateAttr(default=None)


class FunctionMessage(_Recalled, langchain.FunctionMessage):
    """What a function returned."""

    _stored: Message | None = PrivateAttr(default=None)
    _loaded: dict[str, Any] | None = PrivateAttr(default=None)


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
    converted = _converted(message)
    known = _CLASSES.get(type(converted))
    if known is None:
        return converted
    kept = (message.metadata or {}).get("langchain")
    kept = kept if isinstance(kept, dict) else {}
    again = {name: value for name, value in kept.items() if name in known.model_fields}
    set_before = converted.model_fields_set | again.keys()
    made: Any = known.model_construct(_fields_set=set_before, **{**converted.__dict__, **again})
    made._stored, made._loaded = message, copy.deepcopy(made.__dict__)
    recalled: BaseMessage = made
    return recalled


def _converted(message: Message) -> BaseMessage:
    """A stored message as LangChain's; whatever is stored can be loaded."""
    said = message.to_openai()
    calls = said.pop("tool_calls", None) if message.role == "assistant" else None
    try:
        (converted,) = convert_to_messages([said])
    except Exception:  # a role or a content of which LangChain makes no message
        return langchain.ChatMessage(role=message.role, content=message.content or "")
    if isinstance(calls, list) and isinstance(converted, langchain.AIMessage):
        for call in calls:
            _add_call(converted, call)
    return converted


def _add_call(message: langchain.AIMessage, call: object) -> None:
    """Add a tool call; one whose arguments are no JSON object is an invalid one, as LangChain has it."""
    fields: Any = call if isinstance(call, dict) else {}
    called: Any = fields.get("function") or fields.get("custom")
    called = called if isinstance(called, dict) else {}
    name, id_ = called.get("name") or "", fields.get("id")
    given = called.get("arguments", called.get("input"))
    try:
        arguments = json.loads(given) if given else {}
    except (TypeError, ValueError):
        arguments = None
    if isinstance(arguments, dict) and "function" in fields:
        message.tool_calls.append({"name": name, "args": arguments, "id": id_, "type": "tool_call"})
    else:
        message.invalid_tool_calls.append(
            {"name": name, "args": str(given), "id": id_, "error": None, "type": "invalid_tool_call"}
        )


def _langchain_class(message: object) -> type:
    return next(kind for kind in type(message).__mro__ if kind.__module__.startswith("langchain_core."))
