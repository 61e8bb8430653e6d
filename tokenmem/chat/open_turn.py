"""A turn whose model has begun to answer, as `Chat.open` returns it: its text comes, and then its reply."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Self

from tokenmem.chat.effects import Opened
from tokenmem.docstrings import documented_like
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Deliver
from tokenmem.models import LLMCall, Reply


class _Begun:
    """What a turn knows of itself, sync and async."""

    def __init__(self, begun: Deliver | Reply) -> None:
        if not isinstance(begun, Opened):
            raise TypeError("a turn that is opened delivers first that it is")
        self._call = begun.call
        self._reply: Reply | None = None

    @property
    def call(self) -> LLMCall:
        """The record of the call: as it began, and once the reply is there as it ended."""
        return self._call if self._reply is None else self._reply.call

    @property
    def user_position(self) -> int:
        """Where the message stands that the model answers."""
        return self._call.last_position or 0

    @property
    def reply(self) -> Reply:
        """The stored reply.

        Raises:
            InvalidArgument: the turn has not been read to its end, or did not come to it.
        """
        if self._reply is None:
            raise InvalidArgument("the turn has no reply yet: read its text to the end first")
        return self._reply

    def _text_of(self, part: Deliver | Reply) -> str | None:
        """A piece of the text; None at the end, when the reply is there."""
        if isinstance(part, Deliver):
            return part.text
        self._reply = part
        return None

    def __repr__(self) -> str:
        ended = "" if self._reply is None else ", ended"
        return f"<{type(self).__name__} call {self._call.number} of {self._call.conversation_id!r}{ended}>"


class Turn(_Begun):
    """A turn whose question is stored, and which the model has begun to answer.

    Iterating it yields the text as it comes, piece by piece; at its end the reply is stored, and is `reply`.
    Who stops reading cancels the call: close the turn, as the end of a `with` block does.
    """

    def __init__(self, parts: Generator[Deliver | Reply, None, None]) -> None:
        super().__init__(next(parts))
        self._parts = parts

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        text = self._text_of(next(self._parts))
        if text is None:
            raise StopIteration
        return text

    def close(self) -> None:
        """Cancel the call, unless it has ended: what had come of the answer is stored."""
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@documented_like(Turn)
class AsyncTurn(_Begun):
    """A turn of an AsyncChat; everything is as for Turn, awaited.

    Iterating it yields the text as it comes, piece by piece; at its end the reply is stored, and is `reply`.
    Who stops reading cancels the call: `aclose` the turn, as the end of an `async with` block does.
    """

    def __init__(self, begun: Deliver | Reply, parts: AsyncGenerator[Deliver | Reply, None]) -> None:
        super().__init__(begun)
        self._parts = parts

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        text = self._text_of(await anext(self._parts))
        if text is None:
            raise StopAsyncIteration
        return text

    async def aclose(self) -> None:
        """Cancel the call, unless it has ended: what had come of the answer is stored."""
        await self._parts.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
