"""Connections of one store in one process: a number of them, and each goes to whoever has waited longest."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from tokenmem.database.fair_semaphore import FairSemaphore, waiter_of
from tokenmem.database.sqlalchemy_internals import await_only, greenlet_spawn, in_greenlet

IsStale = Callable[[Any], bool]
"""Whether a driver's connection that has been idle can be of no use any more."""


def never_stale(_: object) -> bool:
    """Of a database that is no server, no connection goes stale."""
    return False


class ConnectionLimit:
    """How many connections the pools that share it may have open at once.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.places = FairSemaphore(size)
        self._pools: weakref.WeakSet[FairPool] = weakref.WeakSet()

    def add(self, pool: FairPool) -> None:
        """Have a pool share it."""
        self._pools.add(pool)

    def is_reached(self) -> bool:
        """Whether there are as many connections as may be, or will be with whoever has a place."""
        return self.places.used + sum(pool.checkedin() for pool in self._pools_here()) >= self.places.limit

    def _pools_here(self) -> list[FairPool]:
        # In a forked child those of the parent may still be there: their connections are the parent's.
        return [pool for pool in self._pools if pool.process == os.getpid()]

    def make_room(self, asking: FairPool) -> None:
        """Where there are as many connections as may be, close one of another pool's that is idle."""
        others = [pool for pool in self._pools_here() if pool is not asking]
        for pool in others:
            idle = sum(each.checkedin() for each in others)
            if self.places.used + idle <= self.places.limit or pool.close_one():
                return


class _Seeker:
    """Somebody who has a place and no connection yet.

    Attributes:
        waiter: how to wake them.
        found: the connection, once there is one for them.
        failure: why there is none. Where neither is there, they are to open one themselves.
    """

    def __init__(self, *, is_async: bool) -> None:
        self.waiter = waiter_of(is_async=is_async)
        self.found: ConnectionPoolEntry | None = None
        self.failure: Exception | None = None


class FairPool(Pool):
    """A pool of SQLAlchemy's that serves threads and tasks in the order in which they came.

    SQLAlchemy's own has no order: whoever returns a connection has it again before the others wake up. It
    also closes what returns beyond `pool_size`, so that under load many operations connect anew. And its
    queue for asyncio belongs to one event loop; psycopg's connections belong to none while they are idle, so
    that here a task of any loop takes any of them (docs/adr/0018).

    Args:
        creator: opens a connection.
        limit: shared with other pools.
        pool_timeout: seconds to wait for a connection; None for as long as it takes.
        is_stale: asked before a connection that was idle is used; where it is stale, it is opened anew.
        opens_aside: whether connecting takes long. Then it is done aside, so that whoever waits for it has a
            connection that returns meanwhile, before those who came later.
        **options: SQLAlchemy's.
    """

    def __init__(
        self,
        creator: Any,
        limit: ConnectionLimit | None = None,
        pool_timeout: float | None = None,
        is_stale: IsStale = never_stale,
        opens_aside: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(creator, **options)
        self._limit = ConnectionLimit(1) if limit is None else limit
        self._timeout = pool_timeout
        self._is_stale = is_stale
        self._opens_aside = opens_aside
        self._lock = threading.Lock()
        self._idle: list[ConnectionPoolEntry] = []
        self._in_use: set[ConnectionPoolEntry] = set()
        self._seekers: deque[_Seeker] = deque()
        self._openings = 0
        self._tasks: set[asyncio.Task[None]] = set()  # else nobody would hold those that open connections
        self.process = os.getpid()
        self._is_disposed = False
        self._first = FairSemaphore(1)
        self._has_connected = False
        self._limit.add(self)

    def _do_get(self) -> ConnectionPoolEntry:
        places = self._limit.places
        if not places.acquire(self._timeout, is_async=self._dialect.is_async):
            raise exc.TimeoutError(f"all {places.limit} connections were in use for {self._timeout:g} s")
        try:
            record = self._found()
            if self._is_stale is not never_stale:
                driver = record.driver_connection
                if driver is not None and self._is_stale(driver):
                    record.invalidate()  # SQLAlchemy connects anew
        except BaseException:
            places.release()
            raise
        self._in_use.add(record)
        return record

    def _found(self) -> ConnectionPoolEntry:
        """The connection used last, with its statements prepared and its pages at hand; else a new one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            is_alone = not self._opens_aside or self._limit.places.used == 1
            if not is_alone:
                seeker = _Seeker(is_async=self._dialect.is_async)
                self._seekers.append(seeker)
                opens = self._openings < len(self._seekers)
                self._openings += opens
        if is_alone:
            return self._opened()
        if opens:
            self._open_aside()
        return self._awaited(seeker)

    def _awaited(self, seeker: _Seeker) -> ConnectionPoolEntry:
        try:
            in_time = seeker.waiter.wait(self._timeout)
        except BaseException:
            if not self._has_left(seeker) and seeker.found is not None:
                self._hand_on(seeker.found)
            raise
        if not in_time and self._has_left(seeker):
            raise exc.TimeoutError(f"no connection was there after {self._timeout:g} s")
        if seeker.failure is not None:
            raise seeker.failure
        return seeker.found or self._opened()  # whoever opened one for the line has been cancelled

    def _has_left(self, seeker: _Seeker) -> bool:
        """Take a seeker out of the line; False where it has been answered meanwhile."""
        with self._lock:
            if seeker in self._seekers:
                self._seekers.remove(seeker)
            return not seeker.waiter.is_served

    def _open_aside(self) -> None:
        """Have a connection opened, for whoever is first in the line when it is there."""
        if self._dialect.is_async:
            task = asyncio.get_running_loop().create_task(greenlet_spawn(self._open_for_line))
            self._tasks.add(task)
            task.add_done_callback(self._opening_ended)
        else:
            threading.Thread(target=self._open_for_line, daemon=True).start()

    def _opening_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # with its loop, perhaps before it has begun
            with self._lock:
                self._openings -= 1
                self._answer(None)

    def _open_for_line(self) -> None:
        try:
            record = self._opened()
        except Exception as error:
            with self._lock:
                self._openings -= 1
                self._answer(None, error)
        else:
            with self._lock:
                self._openings -= 1
            self._hand_on(record, is_new=True)

    def _answer(self, record: ConnectionPoolEntry | None, failure: Exception | None = None) -> bool:
        """Answer the first seeker who can still hear it; the lock is held."""
        while self._seekers:
            seeker = self._seekers.popleft()
            seeker.found, seeker.failure = record, failure
            seeker.waiter.is_served = seeker.waiter.wake()
            if seeker.waiter.is_served:
                return True
        return False

    def _hand_on(self, record: ConnectionPoolEntry, *, is_new: bool = False) -> None:
        """Give a connection to the first in the line, or keep it, if it is not one too many by now."""
        with self._lock:
            is_taken = bool(self._seekers) and self._answer(record)
            if not is_taken and not self._is_disposed and not (is_new and self._limit.is_reached()):
                self._idle.append(record)
                is_taken = True
        if not is_taken:
            record.close()

    def _opened(self) -> ConnectionPoolEntry:
        self._limit.make_room(self)
        if self._has_connected:
            return self._create_connection()
        # With the first one SQLAlchemy learns about the server, under a lock that belongs to one event loop.
        if not self._first.acquire(self._timeout, is_async=self._dialect.is_async):
            raise exc.TimeoutError(f"the first connection was not there after {self._timeout:g} s")
        try:
            record = self._create_connection()
            self._has_connected = True
        finally:
            self._first.release()
        return record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._in_use.discard(record)
        try:
            self._hand_on(record)
        finally:
            self._limit.places.release()

    def close_one(self) -> bool:
        """Close the connection that has been idle longest; False where none is."""
        with self._lock:
            if not self._idle:
                return False
            record = self._idle.pop(0)
        record.close()
        return True

    def dispose(self) -> None:
        """Close what is idle now, and what is in use when it returns; open no more."""
        self._is_disposed = True
        if self._tasks and in_greenlet():
            await_only(self._stop_opening())
        while self.close_one():
            pass

    async def _stop_opening(self) -> None:
        """End the tasks of this event loop that open connections; those of others close what they open."""
        loop = asyncio.get_running_loop()
        tasks = [task for task in self._tasks.copy() if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def recreate(self) -> FairPool:
        """A pool like this one with no connections yet."""
        return type(self)(
            self._creator,
            self._limit,
            self._timeout,
            self._is_stale,
            self._opens_aside,
            recycle=self._recycle,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            pre_ping=self._pre_ping,
            _dispatch=self.dispatch,
            dialect=self._dialect,
        )

    def status(self) -> str:
        """How many connections there are, for people."""
        return f"{self.checkedout()} in use, {self.checkedin()} idle, {self.size()} at most"

    def size(self) -> int:
        """How many there may be, with those of the pools that share the limit."""
        return self._limit.places.limit

    def checkedin(self) -> int:
        """How many are idle."""
        return len(self._idle)

    def checkedout(self) -> int:
        """How many are in use."""
        return len(self._in_use)
