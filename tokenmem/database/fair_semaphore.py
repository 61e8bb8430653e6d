"""A number of places, each for whoever has waited longest: threads and tasks of any event loop alike."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Protocol

from tokenmem.database.sqlalchemy_internals import await_only
from tokenmem.forks import reset_after_fork


class Waiter(Protocol):
    """Somebody in a line.

    Attributes:
        is_served: whether a place is theirs, also where they have not noticed yet.
    """

    is_served: bool

    def wait(self, timeout: float | None) -> bool:
        """Wait for `wake`; False after `timeout` seconds without it."""

    def wake(self) -> bool:
        """Tell whoever waits that a place is theirs; False where nobody can wait any more."""


class FairSemaphore:
    """So many may be at it at once; the others wait in line, and are served in the order in which they came.

    A place that is left is handed to the first in the line and is never free in between: else whoever has
    just left would be back before a thread that has to wake up, and 15 busy callers would starve all others.
    asyncio's and threading's semaphores serve one event loop, or threads, not several of both.

    Args:
        limit: how many.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._empty()
        reset_after_fork(self, FairSemaphore._empty)

    def _empty(self) -> None:
        """As it begins; in a forked child, too, where whoever has a place or waits is not there."""
        self._lock = threading.Lock()
        self._free = self.limit
        self._waiting: deque[Waiter] = deque()

    @property
    def used(self) -> int:
        """How many places are taken."""
        return self.limit - self._free

    def acquire(self, timeout: float | None = None, *, is_async: bool = False) -> bool:
        """Take a place, when it is one's turn.

        Args:
            timeout: seconds to wait at most; None for as long as it takes.
            is_async: whether this runs in a greenlet of SQLAlchemy's, above an event loop that must go on.

        Returns:
            False where there was none in time.
        """
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return True
            waiter = waiter_of(is_async=is_async)
            self._waiting.append(waiter)
        try:
            return waiter.wait(timeout) or not self._has_left(waiter)
        except BaseException:
            if not self._has_left(waiter):
                self.release()
            raise

    def _has_left(self, waiter: Waiter) -> bool:
        """Take a waiter out of the line; False where it has been given a place meanwhile."""
        with self._lock:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            return not waiter.is_served

    def release(self) -> None:
        """Give a place back: to the first in the line."""
        with self._lock:
            while self._waiting:
                waiter = self._waiting.popleft()
                waiter.is_served = waiter.wake()
                if waiter.is_served:
                    return
            # In a forked child what the parent had taken comes back, too.
            self._free = min(self._free + 1, self.limit)


def waiter_of(*, is_async: bool) -> Waiter:
    """Whoever calls, as one who waits: the thread, or the task above whose event loop this greenlet runs."""
    return _Task() if is_async else _Thread()


class _Thread:
    """A thread in the line."""

    def __init__(self) -> None:
        self.is_served = False
        self._sleep = threading.Lock()
        self._sleep.acquire()

    def wait(self, timeout: float | None) -> bool:
        return self._sleep.acquire(timeout=-1 if timeout is None else timeout)

    def wake(self) -> bool:
        self._sleep.release()
        return True


class _Task:
    """A task in the line."""

    def __init__(self) -> None:
        self.is_served = False
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    def wait(self, timeout: float | None) -> bool:
        return await_only(self._wait(timeout))

    async def _wait(self, timeout: float | None) -> bool:
        if timeout is None:
            return await self._future
        expiry = self._loop.call_later(timeout, self._tell, False)
        try:
            return await self._future
        finally:
            expiry.cancel()

    def wake(self) -> bool:
        if self._future.done():
            return False
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._tell(True)
            return True
        try:
            self._loop.call_soon_threadsafe(self._tell, True)
        except RuntimeError:  # the loop has been closed with its tasks
            return False
        return True

    def _tell(self, granted: bool) -> None:
        if not self._future.done():
            self._future.set_result(granted)
