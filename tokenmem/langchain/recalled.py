"""Messages as a memory loads them: for templates of LangChain's messages, and for those that take dicts.

Where langchain-core has been imported they are its messages (`recalled_as_langchain`), else tokenmem's. Both
can be read as the dicts that OpenAI's API takes: `message["role"]`, `dict(message)`, `{**message}`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from tokenmem.chat.prompt import no_result_for, sendable
from tokenmem.langchain.read_as_dict import ReadAsDict
from tokenmem.messages.conversions import chat_messages, has_chat_form
from tokenmem.messages.items import is_item
from tokenmem.messages.message import Message, is_role_and_content
from tokenmem.messages.parsing import parse_message
from tokenmem.messages.values import JSONObject


class RecalledMessage(Message, ReadAsDict):
    """A Message that a memory has loaded; it equals the Message itself."""

    __slots__ = ()

    def to_openai(self) -> JSONObject:
        """The message as OpenAI's API takes it."""
        return Message.to_openai(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Message):
            return _fields(self) == _fields(other)
        return ReadAsDict.__eq__(self, other)

    __hash__ = Message.__hash__


def _fields(message: Message) -> tuple[Any, ...]:
    return tuple(getattr(message, name) for name in Message.__slots__)


def recalled(messages: Sequence[Message]) -> list[Any]:
    """Messages of a window in the form in which a memory loads them, each as a model can be sent it.

    Args:
        messages: the window's.
    """
    sent = messages
    if not all(map(is_role_and_content, messages)):
        sent = list(_with_roles(sendable(list(filter(has_chat_form, messages)), no_result_for(0))))
    if "langchain_core.messages" in sys.modules:  # who has LangChain's templates has imported it
        from tokenmem.langchain.recalled_as_langchain import as_langchain

        return list(map(as_langchain, sent))
    return [RecalledMessage(*_fields(message)) for message in sent]


def _with_roles(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages, and for items of the Responses API chat messages that say the same.

    Calls that stand next to each other are one reply's: one message, behind which its results may stand.
    """
    for are_calls, run in groupby(
        messages, key=lambda message: is_item(message) and message.kind == "tool_call"
    ):
        group = list(run)
        for items in [group] if are_calls else [[message] for message in group]:
            yield _as_chat_message(items) if is_item(items[0]) else items[0]


def _as_chat_message(items: Sequence[Message]) -> Message:
    first = items[0]
    (said,) = chat_messages(items) or [{"role": first.role, "content": first.content or ""}]
    return replace(
        parse_message(said),
        position=first.position,
        token_count=sum(item.token_count for item in items),
        created_at=first.created_at,
        metadata=first.metadata,
    )
