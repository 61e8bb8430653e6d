"""How a chat runs the effects of a turn, sync and async: the database's by its store, the others itself."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from tokenmem.callables import is_async, is_left_unawaited
from tokenmem.chat.apis.event_text import body_of, is_json_stream
from tokenmem.chat.apis.interface import Endpoint, Response
from tokenmem.chat.blocking_stream import StreamInThreads
from tokenmem.chat.effects import END, Ask, Close, Invocation, Invoke, KeepAlive, Next, Pause, TurnWork
from tokenmem.chat.heartbeat import BEAT, Call, heart
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Compute, Read, Write
from tokenmem.execution.runners import LONG_TEXT, AsyncRunner, Runner

T = TypeVar("T")


class ModelRunner:
    """Effects of one turn, waiting for each.

    Args:
        store: runs the database's effects.
        endpoint: sends a request to the model.
    """

    def __init__(self, store: Runner, endpoint: Endpoint) -> None:
        self._store = store
        self._endpoint = endpoint
        self._beating: Call | None = None

    def run(self, effect: TurnWork) -> object:
        """Run one effect."""
        match effect:
            case Read() | Write() | Compute():
                return self._store.run(effect)
            case Ask():
                return self.ask(effect)
            case Next():
                return self.next(effect)
            case Invoke():
                return self.invoke(effect)
            case Close():
                self.close_stream(effect)
            case Pause():
                time.sleep(effect.seconds)
            case KeepAlive():
                self.keep_alive(effect)
        return None

    def ask(self, effect: Ask) -> object:
        """Send a request to the model."""
        answer = self._endpoint(**effect.request)
        if is_left_unawaited(answer):
            raise InvalidArgument("the model can only be awaited; use AsyncChat")
        return _read_json(answer)

    def next(self, effect: Next) -> object:
        """The next event of a stream."""
        return next(effect.stream, END)

    def close_stream(self, effect: Close) -> None:
        """Close a stream; that it cannot be closed changes nothing."""
        close = getattr(effect.stream, "close", None)
        with suppress(Exception):
            if callable(close):
                close()

    def keep_alive(self, effect: KeepAlive) -> None:
        """Start to say that the call is running, or stop."""
        self.close()
        if effect.write is not None:
            self._beating = heart.start(self._store, effect.write)

    def invoke(self, effect: Invoke) -> list[object]:
        """Call functions, one after the other."""
        return [_returned(invocation) for invocation in effect.invocations]

    def close(self) -> None:
        """Say no more that the call is running."""
        if self._beating is not None:
            heart.stop(self._beating)
            self._beating = None


def _read_json(answer: Response) -> Response:
    """What a model answered; where it was asked for a stream and answers with JSON, that."""
    return body_of(answer, answer.response.read()) if is_json_stream(answer) else answer


async def _read_json_async(answer: Response) -> Response:
    """The same of a stream that is awaited."""
    if not is_json_stream(answer) or not hasattr(answer, "__anext__"):
        return answer
    return body_of(answer, await answer.response.aread())


def _returned(invocation: Invocation) -> object:
    try:
        answer = invocation.call()
    except Exception as error:
        return error
    if is_left_unawaited(answer):
        return InvalidArgument("the function can only be awaited; use AsyncChat")
    return answer


class AsyncModelRunner:
    """Effects of one turn, without blocking the event loop.

    A transaction that has begun is never left half way: a cancellation waits until it has ended, and comes at
    the next effect that is not the database's, where the turn can still record it.

    Args:
        store: runs the database's effects.
        endpoint: sends a request to the model.
        blocking: whether that blocks, and needs a thread.
    """

    def __init__(self, store: AsyncRunner, endpoint: Endpoint, *, blocking: bool) -> None:
        self._store = store
        self._endpoint = endpoint
        self._blocking = blocking
        self._cancelled: asyncio.CancelledError | None = None
        self._in_threads: StreamInThreads | None = None
        self._beating: asyncio.TimerHandle | None = None
        self._beats: set[asyncio.Task[None]] = set()  # else nobody would hold the one that is under way

    async def run(self, effect: TurnWork) -> object:
        """Run one effect."""
        match effect:
            case Read():
                return await self._store.run(effect)
            case Write():
                return await self._to_its_end(self._store.run(effect))
            case Compute():  # a part of a reply is counted before it is stored
                is_short = effect.characters <= LONG_TEXT
                return effect.function() if is_short else await self._to_its_end(self._store.run(effect))
            case Ask():
                return await self.ask(effect)
            case Next():
                return await self.next(effect)
            case Invoke():
                return await self.invoke(effect)
            case Close():
                await self.close_stream(effect)
            case Pause():
                self.raise_cancelled()
                await asyncio.sleep(effect.seconds)
            case KeepAlive():
                self.keep_alive(effect)
        return None

    def raise_cancelled(self) -> None:
        """Raise the cancellation that has been held back."""
        if self._cancelled is not None:
            cancelled, self._cancelled = self._cancelled, None
            raise cancelled

    async def _to_its_end(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as cancelled:
                self._cancelled = cancelled
        return task.result()

    async def ask(self, effect: Ask) -> object:
        """Send a request to the model."""
        self.raise_cancelled()
        if self._blocking:
            answer = await asyncio.to_thread(_call, lambda: _read_json(self._endpoint(**effect.request)))
        else:
            answer = self._endpoint(**effect.request)
        answer = await answer if inspect.isawaitable(answer) else answer
        return await _read_json_async(answer)

    async def next(self, effect: Next) -> object:
        """The next event of a stream."""
        self.raise_cancelled()
        return await anext(self._awaitable(effect.stream), END)

    async def close_stream(self, effect: Close) -> None:
        """Close a stream; that it cannot be closed changes nothing."""
        stream = self._awaitable(effect.stream)
        close = getattr(stream, "close", None) or getattr(stream, "aclose", None)
        with suppress(Exception):
            if callable(close):
                await self._to_its_end(close())

    def _awaitable(self, stream: Response) -> AsyncIterator[object]:
        """A stream, or, where its events would block, the same in threads."""
        if hasattr(stream, "__anext__"):
            events: AsyncIterator[object] = stream
            return events
        if self._in_threads is None or self._in_threads.stream is not stream:
            self._in_threads = StreamInThreads(stream)
        return self._in_threads

    def keep_alive(self, effect: KeepAlive) -> None:
        """Start to say that the call is running, or stop."""
        self.close()
        if effect.write is not None:
            self._beat_later(effect.write)

    def _beat_later(self, write: Write[None]) -> None:
        loop = asyncio.get_running_loop()
        self._beating = loop.call_later(BEAT, lambda: self._beats.add(loop.create_task(self._beat(write))))

    async def _beat(self, write: Write[None]) -> None:
        with suppress(Exception):  # a call outlives a database that is away for a while
            await self._store.run(write)
        self._beats.clear()
        if self._beating is not None:
            self._beat_later(write)

    async def invoke(self, effect: Invoke) -> list[object]:
        """Call functions, all at once; those that would block in threads."""
        self.raise_cancelled()
        return list(await asyncio.gather(*map(_returned_async, effect.invocations)))

    def close(self) -> None:
        """Say no more that the call is running."""
        if self._beating is not None:
            self._beating.cancel()
            self._beating = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, when a sign of life that is under way has been written: the store may be closed next."""
        self.close()
        for beat in list(self._beats):
            await self._to_its_end(beat)
        if error is None:
            self.raise_cancelled()


def _call(function: Callable[[], object]) -> object:
    """Call a function in a thread: no future takes a StopIteration, so who awaits it would wait for ever."""
    try:
        return function()
    except StopIteration as error:
        raise RuntimeError("the function raised StopIteration") from error


async def _returned_async(invocation: Invocation) -> object:
    try:
        if is_async(invocation.function):
            answer = invocation.call()
        else:
            answer = await asyncio.to_thread(_call, invocation.call)
        return await answer if inspect.isawaitable(answer) else answer
    except Exception as error:
        return error
