"""Connections of one store in one process: a number of them, and each goes to whoever has waited longest."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from sqlalchemy import exc
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from tokenmem.database.fair_semaphore import FairSemaphore

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

    def make_room(self, asking: FairPool) -> None:
        """Where there are as many connections as may be, close one of another pool's that is idle."""
        others = [pool for pool in self._pools if pool is not asking]
        for pool in others:
            idle = sum(each.checkedin() for each in others)
            if self.places.used + idle <= self.places.limit or pool.close_one():
                return


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
        **options: SQLAlchemy's.
    """

    def __init__(
        self,
        creator: Any,
        limit: ConnectionLimit | None = None,
        pool_timeout: float | None = None,
        is_stale: IsStale = never_stale,
        **options: Any,
    ) -> None:
        super().__init__(creator, **options)
        self._limit = ConnectionLimit(1) if limit is None else limit
        self._timeout = pool_timeout
        self._is_stale = is_stale
        self._idle: list[ConnectionPoolEntry] = []
        self._in_use: set[ConnectionPoolEntry] = set()
        self._is_disposed = False
        self._first = FairSemaphore(1)
        self._has_connected = False
        self._limit.add(self)

    def _do_get(self) -> ConnectionPoolEntry:
        places = self._limit.places
        if not places.acquire(self._timeout, is_async=self._dialect.is_async):
            raise exc.TimeoutError(f"all {places.limit} connections were in use for {self._timeout:g} s")
        try:
            record = self._idle_one() or self._opened()
        except BaseException:
            places.release()
            raise
        self._in_use.add(record)
        return record

    def _idle_one(self) -> ConnectionPoolEntry | None:
        """The connection used last: its statements are prepared and its pages at hand."""
        try:
            record = self._idle.pop()
        except IndexError:
            return None
        if record.driver_connection is not None and self._is_stale(record.driver_connection):
            record.invalidate()  # whoever takes it connects anew
        return record

    def _opened(self) -> ConnectionPoolEntry:
        self._limit.make_room(self)
        if self._has_connected:
            return self._create_connection()
        # With the first one SQLAlchemy learns about the server, under a lock that belongs to one event loop.
        is_async = self._dialect.is_async
        if not self._first.acquire(self._timeout, is_async=is_async):
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
            if self._is_disposed:
                record.close()
            else:
                self._idle.append(record)
        finally:
            self._limit.places.release()

    def close_one(self) -> bool:
        """Close the connection that has been idle longest; False where none is."""
        try:
            self._idle.pop(0).close()
        except IndexError:
            return False
        return True

    def dispose(self) -> None:
        """Close what is idle now, and what is in use when it returns."""
        self._is_disposed = True
        while self.close_one():
            pass

    def recreate(self) -> FairPool:
        """A pool like this one with no connections yet."""
        return type(self)(
            self._creator,
            self._limit,
            self._timeout,
            self._is_stale,
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
