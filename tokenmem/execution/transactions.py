"""Transactions that a store opens itself, sync and async, and savepoints inside of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import get_ident
from typing import Protocol, TypeVar

import sqlalchemy as sa

from tokenmem.database.checkout import Checkout
from tokenmem.database.deadlines import Deadline
from tokenmem.database.driver_errors import translated_errors
from tokenmem.database.engine import begin_write, leave_autocommit, restart_as_write
from tokenmem.database.kept_tasks import going_on
from tokenmem.database.sqlalchemy_internals import greenlet_spawn
from tokenmem.database.statements import DriverConnection
from tokenmem.errors import DatabaseError, InvalidArgument
from tokenmem.execution.effects import Compute, Work
from tokenmem.execution.runners import (
    AsyncBoundRunner,
    AsyncRunner,
    BoundRunner,
    EngineRunner,
    GreenletRunner,
    Runner,
    ThreadRunner,
    check_transaction_is_possible,
    compute_aside,
    in_savepoint,
)
from tokenmem.execution.worker import Worker

T = TypeVar("T")

ROLLBACK_LIMIT = 1.0
"""Seconds that a server has for a rollback; after them the connection is closed, which rolls back as well."""


class Hop(Protocol):
    """Runs a function where the connection may be used, and waits for it without blocking the event loop."""

    def __call__(self, function: Callable[..., T], /, *arguments: object) -> Awaitable[T]:
        """Run it."""


class TransactionRunner(BoundRunner):
    """Effects inside a transaction of ours, or inside a savepoint of a transaction.

    Args:
        connection: which is in the transaction.
        transaction: what is committed or rolled back at the end.
        checkout: what returns the connection; None where it is not ours to return.
        answer_timeout: seconds that the server may be silent; None for without limit.
    """

    def __init__(
        self,
        connection: sa.Connection,
        transaction: sa.Transaction,
        *,
        checkout: Checkout | None = None,
        answer_timeout: float | None = None,
    ) -> None:
        super().__init__(connection)
        self._transaction = transaction
        self._checkout = checkout
        self.answer_timeout = answer_timeout
        self._ended = False

    def run(self, effect: Work) -> object:
        """Run one effect; a write that fails leaves the transaction usable."""
        if isinstance(effect, Compute):
            return effect.function()
        self.check()
        with translated_errors(self.connection.engine.url), self._deadline(self.answer_timeout):
            return in_savepoint(self.connection, effect)

    def check(self) -> None:
        """Check that what is written now becomes part of the transaction.

        Raises:
            InvalidArgument: its block has ended.
            DatabaseError: the database has rolled it back on its own.
        """
        if self._ended:
            raise InvalidArgument("this store's transaction has ended; use the store that opened it")
        if not _is_alive(self.connection):
            raise DatabaseError(
                "the database has rolled the transaction back after an earlier error; leave its block and "
                "begin again"
            )

    def commit(self) -> None:
        """Commit; where that fails, nothing was stored.

        Raises:
            DatabaseError: the database refused, or has rolled it back before.
        """
        try:
            self.check()
            with translated_errors(self.connection.engine.url), self._deadline(self.answer_timeout):
                self._transaction.commit()
        except BaseException:
            self.roll_back()
            raise
        self._end()

    def roll_back(self) -> None:
        """Roll back, also where the connection is lost: that has done it."""
        limit = None if self.answer_timeout is None else min(self.answer_timeout, ROLLBACK_LIMIT)
        try:
            with self._deadline(limit):
                self._transaction.rollback()
        except Exception:  # what the connection holds now nobody knows
            self.connection.invalidate()
        finally:
            self._end()

    def _deadline(self, seconds: float | None) -> Deadline:
        return Deadline(self.connection, None if self.connection.invalidated else seconds)

    def _end(self) -> None:
        self._ended = True
        if self._checkout is not None:
            self._checkout.close()


def _is_alive(connection: sa.Connection) -> bool:
    """Whether the driver is still in the transaction. A COMMIT of a failed one would say nothing."""
    if connection.closed or connection.invalidated:
        return False
    driver: DriverConnection = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return bool(driver.in_transaction)
    return bool(driver.info.transaction_status.name not in ("INERROR", "UNKNOWN"))


def begin(runner: EngineRunner | BoundRunner, thread: int | None = None) -> TransactionRunner:
    """A transaction on a connection of the engine's, or a savepoint in the transaction that is under way.

    Args:
        runner: where.
        thread: whose it will be, where another one begins it.
    """
    if isinstance(runner, EngineRunner):
        with translated_errors(runner.url):
            return _begun(runner, thread)
    answer_timeout = None
    if isinstance(runner, TransactionRunner):
        runner.check()
        answer_timeout = runner.answer_timeout
    else:
        check_transaction_is_possible(runner.connection)
    connection = runner.connection
    with translated_errors(connection.engine.url):
        begin_write(connection)  # without it SQLite's driver would commit with the savepoint
        return TransactionRunner(connection, connection.begin_nested(), answer_timeout=answer_timeout)


def _begun(runner: EngineRunner, thread: int | None) -> TransactionRunner:
    checkout = runner.checkout(runner.engines.writing, thread)
    connection = checkout.open()
    try:
        with Deadline(connection, runner.answer_timeout):
            leave_autocommit(connection)
            transaction = connection.begin()
            restart_as_write(connection)
    except BaseException:
        checkout.close()
        raise
    return TransactionRunner(connection, transaction, checkout=checkout, answer_timeout=runner.answer_timeout)


@contextmanager
def transaction_of(runner: Runner) -> Iterator[TransactionRunner]:
    """A transaction: committed at the end of the block, rolled back where that raises."""
    if not isinstance(runner, (EngineRunner, BoundRunner)):
        raise TypeError(f"{type(runner).__name__} has no connections")
    opened = begin(runner)
    try:
        yield opened
    except BaseException:
        opened.roll_back()
        raise
    opened.commit()


class Place:
    """Where a transaction's connection may be used, by one task after the other.

    Args:
        hop: to there.
        interruptible: whether a cancellation may end what runs there: psycopg then cancels the statement, but
            aiosqlite lets it go on, so that it has to be waited for.
    """

    def __init__(self, hop: Hop, *, interruptible: bool) -> None:
        self._hop = hop
        self._interruptible = interruptible
        self._turns = asyncio.Lock()

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run it when it is its turn."""
        work = self._in_turn(function, *arguments)
        return await (work if self._interruptible else asyncio.shield(going_on(work)))

    async def finish(self, function: Callable[[], None]) -> None:
        """Run it to its end, and wait for that also where whoever waits is cancelled."""
        task = going_on(self._in_turn(function))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                await asyncio.wait([task])
            raise

    def later(self, function: Callable[[], None]) -> None:
        """Run it when all else has been done; nobody waits."""
        going_on(self._in_turn(function))

    async def _in_turn(self, function: Callable[..., T], *arguments: object) -> T:
        async with self._turns:
            return await self._hop(function, *arguments)


class ThreadPlace(Place):
    """A thread of the transaction's own.

    In the store's one for writes, whoever writes meanwhile would wait for the transaction's lock on the file,
    and keep the thread from ever ending the transaction.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker.run, interruptible=True)  # the thread itself goes on to the end
        self._worker = worker

    def later(self, function: Callable[[], None]) -> None:
        """Run it when all else has been done; no event loop is needed for that."""
        self._worker.give(function)


class AsyncTransactionRunner:
    """Effects inside a transaction, of several tasks one after the other.

    Args:
        runner: runs them.
        place: where.
    """

    def __init__(self, runner: TransactionRunner, place: Place) -> None:
        self.runner = runner
        self.place = place

    async def run(self, effect: Work) -> object:
        """Run one effect; a write that fails leaves the transaction usable."""
        if isinstance(effect, Compute):
            return await compute_aside(effect)
        return await self.place.run(self.runner.run, effect)


@asynccontextmanager
async def async_transaction_of(runner: AsyncRunner) -> AsyncIterator[AsyncTransactionRunner]:
    """A transaction: committed at the end of the block, rolled back where that raises or is cancelled."""
    if isinstance(runner, ThreadRunner):
        worker = Worker()
        try:
            async with _transaction_at(ThreadPlace(worker), runner.runner) as opened:
                yield opened
        finally:
            worker.end()
        return
    place, inner = _place_of(runner)
    async with _transaction_at(place, inner) as opened:
        yield opened


def _place_of(runner: AsyncRunner) -> tuple[Place, EngineRunner | BoundRunner]:
    """Where the connection may be used, and what begins the transaction."""
    if isinstance(runner, AsyncTransactionRunner):
        return runner.place, runner.runner
    if isinstance(runner, GreenletRunner):
        dialect = runner.runner.engines.public.dialect
        return Place(greenlet_spawn, interruptible=dialect.name != "sqlite"), runner.runner
    if isinstance(runner, AsyncBoundRunner):
        connection = runner.connection.sync_connection
        if connection is None:
            raise InvalidArgument("the connection has not been opened; await it, or use `async with`")
        place = Place(greenlet_spawn, interruptible=connection.dialect.name != "sqlite")
        return place, BoundRunner(connection)
    raise TypeError(f"{type(runner).__name__} has no connections")


@asynccontextmanager
async def _transaction_at(
    place: Place, runner: EngineRunner | BoundRunner
) -> AsyncIterator[AsyncTransactionRunner]:
    opening = _Opening(runner)
    try:
        opened = await place.run(opening.begin)
    except BaseException:
        place.later(opening.undo)  # it may go on to its end although nobody waits any more
        raise
    try:
        yield AsyncTransactionRunner(opened, place)
    except BaseException:
        await place.finish(opened.roll_back)
        raise
    await place.finish(opened.commit)


class _Opening:
    """A transaction that is being begun, perhaps for nobody."""

    def __init__(self, runner: EngineRunner | BoundRunner) -> None:
        self._runner = runner
        self._thread = get_ident()
        self._opened: TransactionRunner | None = None

    def begin(self) -> TransactionRunner:
        self._opened = begin(self._runner, self._thread)
        return self._opened

    def undo(self) -> None:
        if self._opened is not None:
            self._opened.roll_back()
