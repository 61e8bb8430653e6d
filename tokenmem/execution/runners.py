"""How a store runs effects: on its own engine or on the caller's connection, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import sqlalchemy as sa

from tokenmem.database.driver_errors import translated_errors
from tokenmem.database.engine import begin_write, leave_autocommit
from tokenmem.database.sqlalchemy_internals import greenlet_spawn
from tokenmem.database.statements import commit, is_own, may_bypass_sqlalchemy
from tokenmem.execution.effects import Compute, Deliver, EffectAnswer, Read, Work, Write
from tokenmem.execution.worker import Worker

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)
T = TypeVar("T")
LONG_TEXT = 20_000
"""Characters above which work is done off the event loop: to count them takes 5 ms, the hop 0.1 ms."""


class EffectRunner(Protocol[E_contra]):
    """Runs effects of some kinds, waiting for each."""

    def run(self, effect: E_contra) -> object:
        """Run it and return its answer."""


class AsyncEffectRunner(Protocol[E_contra]):
    """Runs effects of some kinds without blocking the event loop."""

    async def run(self, effect: E_contra) -> object:
        """Run it and return its answer."""


Runner = EffectRunner[Work]
AsyncRunner = AsyncEffectRunner[Work]


class Execution(Generic[E, T]):
    """A procedure on its way: what it does next, and its result at the end.

    What goes wrong in an effect is raised inside the procedure, which knows whether to try again.
    """

    result: T

    def __init__(self, procedure: Generator[E | Deliver, EffectAnswer, T]) -> None:
        self._procedure = procedure
        self._resume: Callable[[], E | Deliver] = partial(next, procedure)

    def next_effect(self) -> E | Deliver | None:
        """The next effect; None at the end, when the result is there."""
        try:
            return self._resume()
        except StopIteration as end:
            self.result = end.value
            return None

    def answer(self, value: object) -> None:
        """Tell it what the effect came to."""
        self._resume = partial(self._procedure.send, value)

    def fail(self, error: BaseException) -> None:
        """Tell it that the effect failed."""
        self._resume = partial(self._procedure.throw, error)


def advance(execution: Execution[E, T], runner: EffectRunner[E]) -> Deliver | None:
    """Run effects up to the next delivery; None where the procedure has come to its end."""
    while (effect := execution.next_effect()) is not None:
        if isinstance(effect, Deliver):
            execution.answer(None)
            return effect
        try:
            execution.answer(runner.run(effect))
        except BaseException as error:
            execution.fail(error)
    return None


async def advance_async(execution: Execution[E, T], runner: AsyncEffectRunner[E]) -> Deliver | None:
    """Run effects up to the next delivery, each awaited; None where the procedure has come to its end."""
    while (effect := execution.next_effect()) is not None:
        if isinstance(effect, Deliver):
            execution.answer(None)
            return effect
        try:
            execution.answer(await runner.run(effect))
        except BaseException as error:
            execution.fail(error)
    return None


def run(execution: Execution[E, T], runner: EffectRunner[E]) -> T:
    """Run a procedure to its end, whatever it delivers."""
    while advance(execution, runner) is not None:
        pass
    return execution.result


async def run_async(execution: Execution[E, T], runner: AsyncEffectRunner[E]) -> T:
    """Run a procedure to its end without blocking the event loop, whatever it delivers."""
    while await advance_async(execution, runner) is not None:
        pass
    return execution.result


class EngineRunner:
    """Effects on an engine's own connections.

    Args:
        engine: for transactions.
        single: for single statements, see `engine.single_statement_engine`.
    """

    def __init__(self, engine: sa.Engine, single: sa.Engine) -> None:
        self.engine = engine
        self.single = single
        self._sqlite = engine.dialect.name == "sqlite"
        # An engine of the caller's is set anew for each use: as an engine's option, a task that is cancelled
        # while it is set would lose the connection.
        self._shared = single is engine and not self._sqlite

    def run(self, effect: Work) -> object:
        """Run one effect."""
        if isinstance(effect, Compute):
            return effect.function()
        with translated_errors(self.engine.url):
            if isinstance(effect, Read) or (effect.one_statement and not self._sqlite):
                with self.single.connect() as connection:
                    if self._shared:
                        connection.execution_options(isolation_level="AUTOCOMMIT")
                    return effect.operation(connection)
            with self.engine.connect() as connection:
                if may_bypass_sqlalchemy(connection):
                    return in_driver_transaction(connection, effect)
                leave_autocommit(connection)
                with connection.begin():
                    begin_write(connection)
                    return effect.operation(connection)

    def dispose(self) -> None:
        """Close the connections."""
        self.single.dispose()
        self.engine.dispose()


def in_driver_transaction(connection: sa.Connection, write: Write[T]) -> T:
    """Run a write in a transaction of the driver's; SQLAlchemy's would take twice as long.

    After an error the pool rolls back, as it does with every connection that returns.
    """
    begin_write(connection)
    result = write.operation(connection)
    commit(connection)
    return result


class BoundRunner:
    """Effects on the caller's connection, inside the caller's transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def run(self, effect: Work) -> object:
        """Run one effect; a write that fails leaves the caller's transaction usable."""
        if isinstance(effect, Compute):
            return effect.function()
        with translated_errors(self.connection.engine.url):
            return in_savepoint(self.connection, effect)


def in_savepoint(connection: sa.Connection, effect: Read[T] | Write[T]) -> T:
    """Run an operation in the transaction at hand, a write in a savepoint of it."""
    if isinstance(effect, Read):
        if is_own(connection.engine) and not connection.in_transaction():
            connection.begin()  # the driver begins one, and the caller's commit or rollback is to end it
        return effect.operation(connection)
    begin_write(connection)  # without it SQLite's driver would commit with the savepoint
    with connection.begin_nested():
        return effect.operation(connection)


class GreenletRunner:
    """Effects of another runner, whose engines are asynchronous ones' inner engines.

    One greenlet for each effect, in which SQLAlchemy waits for the driver: its AsyncConnection starts four.
    """

    def __init__(self, runner: EngineRunner) -> None:
        self.runner = runner

    async def run(self, effect: Work) -> object:
        """Run one effect."""
        if isinstance(effect, Compute):
            return await compute_aside(effect)
        return await greenlet_spawn(self.runner.run, effect)

    async def close(self, *, dispose: bool) -> None:
        """Close the connections, if they are ours to dispose of."""
        if dispose:
            await greenlet_spawn(self.runner.dispose)


class ThreadRunner:
    """Effects of another runner in worker threads: one hop an effect, where aiosqlite hops at every call.

    Two threads, so that a window does not wait behind a writer that waits for another process.
    """

    def __init__(self, runner: EngineRunner) -> None:
        self.runner = runner
        self._reader, self._writer = Worker(), Worker()

    async def run(self, effect: Work) -> object:
        """Run one effect."""
        if isinstance(effect, Compute):
            return await compute_aside(effect)
        worker = self._reader if isinstance(effect, Read) else self._writer
        return await worker.run(self.runner.run, effect)

    async def read_aside(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function that reads in the thread of the reads."""
        return await self._reader.run(function, *arguments)

    async def close(self, *, dispose: bool) -> None:
        """End the threads, if there are any, when they have done what they were given."""
        await self._reader.close()
        await self._writer.close()
        if dispose:
            self.runner.dispose()


class AsyncBoundRunner:
    """Effects on the caller's AsyncConnection, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def run(self, effect: Work) -> object:
        """Run one effect; a write that fails leaves the caller's transaction usable."""
        if isinstance(effect, Compute):
            return await compute_aside(effect)
        with translated_errors(self.connection.engine.url):
            return await self.connection.run_sync(in_savepoint, effect)


async def compute_aside(effect: Compute[T]) -> T:
    """Do long work in a thread, short work at once."""
    return await asyncio.to_thread(effect.function) if effect.characters > LONG_TEXT else effect.function()
