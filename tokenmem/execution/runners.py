"""How a store runs effects: on its own engine or on the caller's connection, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import sqlalchemy as sa

from tokenmem.database.driver_errors import translated_errors
from tokenmem.database.engine import begin_write, leave_autocommit
from tokenmem.database.sqlalchemy_internals import greenlet_spawn
from tokenmem.database.statements import commit, is_own, may_bypass_sqlalchemy
from tokenmem.execution.effects import Count, Deliver, Effect, Procedure, Read, Write
from tokenmem.execution.worker import Worker

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
LONG_TEXT = 20_000
"""Characters above which tokens are counted off the event loop: some 5 ms, against 0.1 ms for the hop."""


class Runner(Protocol):
    """Runs effects, waiting for each."""

    def run(self, effect: Effect) -> Any:
        """Run it and return its answer."""


class AsyncRunner(Protocol):
    """Runs effects without blocking the event loop."""

    async def run(self, effect: Effect) -> Any:
        """Run it and return its answer."""


class Execution(Generic[T]):
    """A procedure on its way: what it does next, and its result at the end.

    What goes wrong in a effect is raised inside the procedure, which knows whether to try again.
    """

    def __init__(self, procedure: Procedure[T]) -> None:
        self.procedure = procedure
        self.result: Any = None
        self._resume: Callable[[], Effect] = partial(next, procedure)

    def next_effect(self) -> Effect | None:
        """The next effect; None at the end."""
        try:
            return self._resume()
        except StopIteration as end:
            self.result = end.value
            return None

    def answer(self, value: Any) -> None:
        """Tell it what the effect came to."""
        self._resume = partial(self.procedure.send, value)

    def fail(self, error: BaseException) -> None:
        """Tell it that the effect failed."""
        self._resume = partial(self.procedure.throw, error)


def advance(execution: Execution[Any], runner: Runner) -> Deliver | None:
    """Run effects up to the next delivery; None where the procedure has come to its end."""
    while (effect := execution.next_effect()) is not None:
        if type(effect) is Deliver:
            execution.answer(None)
            return effect
        try:
            execution.answer(runner.run(effect))
        except BaseException as error:
            execution.fail(error)
    return None


async def advance_async(execution: Execution[Any], runner: AsyncRunner) -> Deliver | None:
    """The same, awaited."""
    while (effect := execution.next_effect()) is not None:
        if type(effect) is Deliver:
            execution.answer(None)
            return effect
        try:
            execution.answer(await runner.run(effect))
        except BaseException as error:
            execution.fail(error)
    return None


def run(procedure: Procedure[T], runner: Runner) -> T:
    """Run a procedure to its end, whatever it delivers."""
    execution = Execution(procedure)
    while advance(execution, runner) is not None:
        pass
    result: T = execution.result
    return result


async def run_async(procedure: Procedure[T], runner: AsyncRunner) -> T:
    """The same, awaited."""
    execution = Execution(procedure)
    while await advance_async(execution, runner) is not None:
        pass
    result: T = execution.result
    return result


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

    def run(self, effect: Effect) -> Any:
        """Run one effect."""
        if isinstance(effect, Count):
            return effect.run()
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


def in_driver_transaction(connection: sa.Connection, write: Write) -> Any:
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

    def run(self, effect: Effect) -> Any:
        """Run one effect; a write that fails leaves the caller's transaction usable."""
        if isinstance(effect, Count):
            return effect.run()
        with translated_errors(self.connection.engine.url):
            return in_savepoint(self.connection, effect)


def in_savepoint(connection: sa.Connection, effect: Read | Write) -> Any:
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

    async def run(self, effect: Effect) -> Any:
        """Run one effect."""
        if isinstance(effect, Count):
            return await count_aside(effect)
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
        self._workers = {Read: Worker(), Write: Worker()}

    async def run(self, effect: Effect) -> Any:
        """Run one effect."""
        if isinstance(effect, Count):
            return await count_aside(effect)
        return await self._workers[type(effect)].run(self.runner.run, effect)

    async def close(self, *, dispose: bool) -> None:
        """End the threads, if there are any, when they have done what they were given."""
        for worker in self._workers.values():
            await worker.close()
        if dispose:
            self.runner.dispose()


class AsyncBoundRunner:
    """Effects on the caller's AsyncConnection, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def run(self, effect: Effect) -> Any:
        """Run one effect; a write that fails leaves the caller's transaction usable."""
        if isinstance(effect, Count):
            return await count_aside(effect)
        with translated_errors(self.connection.engine.url):
            return await self.connection.run_sync(in_savepoint, effect)


async def count_aside(effect: Count) -> Any:
    """Count long texts in a thread, short ones at once."""
    return await asyncio.to_thread(effect.run) if effect.characters > LONG_TEXT else effect.run()
