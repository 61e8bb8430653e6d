"""Transactions that a store opens itself, sync and async, and savepoints inside of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypeVar

import sqlalchemy as sa

from tokenmem.database.driver_errors import translated_errors
from tokenmem.database.engine import begin_write, leave_autocommit, restart_as_write
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
    compute_aside,
    in_savepoint,
)
from tokenmem.execution.worker import Worker

T = TypeVar("T")


class Hop(Protocol):
    """Runs a function where the connection may be used, and waits for it without blocking the event loop."""

    def __call__(self, function: Callable[..., T], /, *arguments: object) -> Awaitable[T]:
        """Run it."""


class TransactionRunner(BoundRunner):
    """Effects inside a transaction of ours, or inside a savepoint of a transaction.

    Args:
        connection: which is in the transaction.
        transaction: what is committed or rolled back at the end.
        closes: whether the connection is ours to return.
    """

    def __init__(self, connection: sa.Connection, transaction: sa.Transaction, *, closes: bool) -> None:
        super().__init__(connection)
        self._transaction = transaction
        self._closes = closes
        self._ended = False

    def run(self, effect: Work) -> object:
        """Run one effect; a write that fails leaves the transaction usable."""
        if isinstance(effect, Compute):
            return effect.function()
        self.check()
        with translated_errors(self.connection.engine.url):
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
            with translated_errors(self.connection.engine.url):
                self._transaction.commit()
        except BaseException:
            self.roll_back()
            raise
        self._end()

    def roll_back(self) -> None:
        """Roll back, also where the connection is lost: that has done it."""
        try:
            self._transaction.rollback()
        except Exception:  # what the connection holds now nobody knows
            self.connection.invalidate()
        finally:
            self._end()

    def _end(self) -> None:
        self._ended = True
        if self._closes:
            self.connection.close()


def _is_alive(connection: sa.Connection) -> bool:
    """Whether the driver is still in the transaction. A COMMIT of a failed one would say nothing."""
    if connection.closed or connection.invalidated:
        return False
    driver: DriverConnection = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        return bool(driver.in_transaction)
    return bool(driver.info.transaction_status.name not in ("INERROR", "UNKNOWN"))


def begin(runner: EngineRunner | BoundRunner) -> TransactionRunner:
    """A transaction on a connection of the engine's, or a savepoint in the transaction that is under way."""
    if isinstance(runner, EngineRunner):
        with translated_errors(runner.engine.url):
            return _begun(runner.engine.connect())
    if isinstance(runner, TransactionRunner):
        runner.check()
    connection = runner.connection
    with translated_errors(connection.engine.url):
        begin_write(connection)  # without it SQLite's driver would commit with the savepoint
        return TransactionRunner(connection, connection.begin_nested(), closes=False)


def _begun(connection: sa.Connection) -> TransactionRunner:
    try:
        leave_autocommit(connection)
        transaction = connection.begin()
        restart_as_write(connection)
    except BaseException:
        connection.close()
        raise
    return TransactionRunner(connection, transaction, closes=True)


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


class AsyncTransactionRunner:
    """Effects inside a transaction, of several tasks one after the other.

    Args:
        runner: runs them.
        hop: to where the connection may be used.
        turns: whoever holds it may use the connection.
    """

    def __init__(self, runner: TransactionRunner, hop: Hop, turns: asyncio.Lock) -> None:
        self.runner = runner
        self.hop = hop
        self.turns = turns

    async def run(self, effect: Work) -> object:
        """Run one effect; a write that fails leaves the transaction usable."""
        if isinstance(effect, Compute):
            return await compute_aside(effect)
        async with self.turns:
            return await self.hop(self.runner.run, effect)


@asynccontextmanager
async def async_transaction_of(runner: AsyncRunner) -> AsyncIterator[AsyncTransactionRunner]:
    """A transaction: committed at the end of the block, rolled back where that raises or is cancelled."""
    if isinstance(runner, ThreadRunner):
        async with _in_thread(runner.runner) as in_thread:
            yield in_thread
        return
    inner, hop, turns = _place_of(runner)
    async with turns:
        opened = await hop(begin, inner)
    async with _ended(AsyncTransactionRunner(opened, hop, turns)) as in_greenlets:
        yield in_greenlets


def _place_of(runner: AsyncRunner) -> tuple[EngineRunner | BoundRunner, Hop, asyncio.Lock]:
    """What begins the transaction, how to reach its connection, and whose turn it is to use that."""
    if isinstance(runner, AsyncTransactionRunner):
        return runner.runner, runner.hop, runner.turns
    if isinstance(runner, GreenletRunner):
        return runner.runner, greenlet_spawn, asyncio.Lock()
    if isinstance(runner, AsyncBoundRunner):
        connection = runner.connection.sync_connection
        if connection is None:
            raise InvalidArgument("the connection has not been opened; await it, or use `async with`")
        return BoundRunner(connection), greenlet_spawn, asyncio.Lock()
    raise TypeError(f"{type(runner).__name__} has no connections")


@asynccontextmanager
async def _in_thread(runner: EngineRunner) -> AsyncIterator[AsyncTransactionRunner]:
    """In a thread of the transaction's own.

    In the store's one for writes, whoever writes meanwhile would wait for the transaction's lock on the file,
    and keep the thread from ever ending the transaction.
    """
    worker, opening = Worker(), _Opening(runner)
    try:
        try:
            opened = await worker.run(opening.begin)
        except BaseException:
            worker.give(opening.undo)  # of one that is cancelled the thread goes on to its end
            raise
        async with _ended(AsyncTransactionRunner(opened, worker.run, asyncio.Lock())) as runs:
            yield runs
    finally:
        worker.end()


class _Opening:
    """A transaction that a thread begins, perhaps for nobody."""

    def __init__(self, runner: EngineRunner) -> None:
        self._runner = runner
        self._opened: TransactionRunner | None = None

    def begin(self) -> TransactionRunner:
        self._opened = begin(self._runner)
        return self._opened

    def undo(self) -> None:
        if self._opened is not None:
            self._opened.roll_back()


@asynccontextmanager
async def _ended(runner: AsyncTransactionRunner) -> AsyncIterator[AsyncTransactionRunner]:
    try:
        yield runner
    except BaseException:
        await _to_its_end(_in_turn(runner, runner.runner.roll_back))
        raise
    await _to_its_end(_in_turn(runner, runner.runner.commit))


async def _in_turn(runner: AsyncTransactionRunner, function: Callable[[], None]) -> None:
    async with runner.turns:
        await runner.hop(function)


_ending: set[asyncio.Task[None]] = set()
"""The event loop itself holds tasks only weakly."""


async def _to_its_end(work: Coroutine[object, object, None]) -> None:
    """Wait for work that goes on to its end also where whoever waits is cancelled."""
    task = asyncio.ensure_future(work)
    _ending.add(task)
    task.add_done_callback(_ending.discard)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # it is looked at, though the cancellation goes first
        raise
