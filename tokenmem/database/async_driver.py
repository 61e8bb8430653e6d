"""psycopg's connection for asyncio, as tokenmem opens it."""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import Any

import psycopg
from psycopg import waiting
from psycopg.pq import TransactionStatus

from tokenmem.database.kept_tasks import going_on
from tokenmem.errors import DatabaseError

CANCEL_LIMIT = 0.5
"""Seconds that whoever is cancelled waits for the server to stop the statement; it mostly takes a few ms."""


class CancellableConnection(psycopg.AsyncConnection[Any]):
    """A connection on which a cancellation takes half a second at most, also where the server is silent.

    psycopg's own asks the server to stop, waits up to five seconds for that, and as long again for the end.
    """

    async def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """Run a generator of psycopg's; where the task is cancelled, stop the statement or close."""
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, *arguments, **options)
        except asyncio.CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await self._stop(gen)
            raise

    async def _stop(self, gen: Any) -> None:
        # Whoever is cancelled once more does not wait, but it is stopped.
        await asyncio.shield(going_on(self._stopped(gen)))

    async def _stopped(self, gen: Any) -> None:
        try:
            async with asyncio.timeout(CANCEL_LIMIT):
                await self.cancel_safe(timeout=CANCEL_LIMIT)
                await waiting.wait_async(gen, self.pgconn.socket, interval=0.1)
        except psycopg.errors.QueryCanceled:
            pass
        except BaseException as error:  # silent or lost: nobody knows what it holds
            self.pgconn.finish()
            if not isinstance(error, Exception):
                raise


async def connect(*arguments: Any, **options: Any) -> CancellableConnection:
    """Open a connection in the running event loop.

    Raises:
        DatabaseError: it is Windows' default event loop, in which psycopg cannot work.
    """
    check_event_loop(asyncio.get_running_loop(), sys.platform)
    try:
        return await CancellableConnection.connect(*arguments, **options)
    except asyncio.CancelledError as error:
        # The half-open connection is a local variable down there, and the error, which whoever waits for the
        # task keeps, holds it: the server would count it until the garbage collector runs.
        traceback.clear_frames(error.__traceback__)
        raise


def check_event_loop(loop: asyncio.AbstractEventLoop, platform: str) -> None:
    """Check that psycopg can wait in an event loop (its manual, "Asynchronous operations").

    Raises:
        DatabaseError: it cannot.
    """
    if platform == "win32" and "Proactor" in type(loop).__name__:
        raise DatabaseError(
            "PostgreSQL's driver cannot work in ProactorEventLoop, Windows' default; run "
            "`asyncio.run(main(), loop_factory=asyncio.SelectorEventLoop)`, or use Store in threads"
        )
