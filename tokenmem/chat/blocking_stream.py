"""A stream that blocks, read without blocking the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import suppress

_END = object()


class StreamInThreads:
    """The events of an iterator, each waited for in a thread.

    A task that is cancelled meanwhile does not wait for the thread, which closes the stream when it has its
    event.

    Args:
        stream: is iterated by one thread at a time.
    """

    def __init__(self, stream: Iterator[object]) -> None:
        self.stream = stream
        self._is_left = False
        self._in_use = threading.Lock()

    def __aiter__(self) -> StreamInThreads:
        return self

    async def __anext__(self) -> object:
        """The next event."""
        event = await asyncio.to_thread(self._next)
        if event is _END:
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """Close the stream, or have it closed by the thread that waits for an event."""
        self._is_left = True
        await asyncio.to_thread(self._close)

    def _next(self) -> object:
        with self._in_use:
            event = _END if self._is_left else next(self.stream, _END)
        if self._is_left:
            self._close()
        return event

    def _close(self) -> None:
        close = getattr(self.stream, "close", None)
        if not callable(close) or not self._in_use.acquire(blocking=False):
            return  # the thread that has it finds out that the stream is left, and closes it
        try:
            with suppress(Exception):
                close()
        finally:
            self._in_use.release()
