"""A thread that runs functions for event loops."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from tokenmem.forks import reset_after_fork

T = TypeVar("T")

Job = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[..., object], tuple[object, ...]]
"""The loop and the future that wait, the function and its arguments; each job's result has its own type."""

Jobs = SimpleQueue[Job | None]

_threads: dict[threading.Thread, Jobs] = {}


class Worker:
    """One thread, which does what it is given in that order; it starts with the first job.

    An executor does the same in four thirds of the time. What has begun is done to its end, also when nobody
    waits for it any more, when the worker is forgotten, and when the interpreter ends; what has not begun
    when whoever waits for it is cancelled is not done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        reset_after_fork(self, Worker._forget_thread)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run the function in the thread and return what it returns, or raise what it raises."""
        return await self.give(function, *arguments)

    def give(self, function: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        """Have the function run in the thread, whether anybody waits for what comes of it or not."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._lock:
            if self._thread is None:
                self._start()
            self._jobs.put((loop, future, function, arguments))
        return future

    def _start(self) -> None:
        self._jobs: Jobs = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name="tokenmem", daemon=True)
        self._thread.start()
        _threads[self._thread] = self._jobs
        # Nobody is to wait where a worker is forgotten: that may be anywhere, in an event loop too.
        self._end = weakref.finalize(self, self._jobs.put, None)

    async def close(self) -> None:
        """Let the thread end when it has done what it was given, and wait for that."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._end()
            await asyncio.to_thread(thread.join)

    def end(self) -> None:
        """Let the thread end when it has done what it was given; nobody waits for that."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._end()

    def _forget_thread(self) -> None:
        """In a forked child: the thread is the parent's, and so may be whoever holds the lock."""
        self._lock = threading.Lock()
        if self._thread is not None:
            self._thread = None
            self._end.detach()


def _work(jobs: Jobs) -> None:
    while (job := jobs.get()) is not None:
        loop, future, function, arguments = job
        if future.cancelled():
            del job, loop, future, function, arguments
            continue
        result, failure = None, None
        try:
            result = function(*arguments)
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_tell, future, result, failure)
        # While waiting for the next one, hold nothing of this one.
        del job, loop, future, function, arguments, result, failure
    _threads.pop(threading.current_thread(), None)


def _tell(future: asyncio.Future[T], result: T, failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


def _end_all() -> None:
    """At the interpreter's end: what has been given is still done."""
    for thread, jobs in list(_threads.items()):
        if thread.is_alive():  # in a forked child the parent's threads are not
            jobs.put(None)
            thread.join()


atexit.register(_end_all)
