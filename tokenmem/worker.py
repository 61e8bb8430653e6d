"""A thread that runs functions for event loops."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

Job = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class Worker:
    """One thread, which does what it is given in that order.

    An executor does the same in four thirds of the time. What has been given is done to its end, also when
    nobody waits for it any more, when the worker is forgotten, and when the interpreter ends.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        thread = threading.Thread(target=_work, args=(self._jobs,), name="tokenmem", daemon=True)
        thread.start()
        self.close = weakref.finalize(self, _end, self._jobs, thread)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run the function in the thread and return what it returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((loop, future, function, arguments))
        return await future


def _work(jobs: SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        loop, future, function, arguments = job
        result, failure = None, None
        try:
            result = function(*arguments)
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_tell, future, result, failure)
        # While waiting for the next one, hold nothing of this one.
        del job, loop, future, function, arguments, result, failure


def _tell(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.cancelled():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


def _end(jobs: SimpleQueue[Job | None], thread: threading.Thread) -> None:
    jobs.put(None)
    if thread is not threading.current_thread():
        thread.join()
