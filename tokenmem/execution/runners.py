"""How a store runs the steps of a procedure: on its own engine or the caller's connection, in two colours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.util import greenlet_spawn

from tokenmem.database.driver_errors import translated_errors
from tokenmem.database.engine import begin_write, leave_autocommit
from tokenmem.database.statements import commit, is_own, passes_by
from tokenmem.execution.effects import Count, Deliver, Procedure, Read, Step, Write
from tokenmem.execution.worker import Worker

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
LONG_TEXT = 20_000
"""Characters above which tokens are counted off the event loop: some 5 ms, against 0.1 ms for the hop."""


class Runner(Protocol):
    """Runs steps, waiting for each."""

    def step(self, step: Step) -> Any:
        """Run it and return its answer."""


class AsyncRunner(Protocol):
    """Runs steps without blocking the event loop."""

    async def step(self, step: Step) -> Any:
        """Run it and return its answer."""


class Course(Generic[T]):
    """A procedure on its way: what it does next, and its result at the end.

    What goes wrong in a step is raised inside the procedure, which knows whether to try again.
    """

    def __init__(self, procedure: Procedure[T]) -> None:
        self.procedure = procedure
        self.result: Any = None
        self._resume: Callable[[], Step] = partial(next, procedure)

    def next_step(self) -> Step | None:
        """The next step; None at the end."""
        try:
            return self._resume()
        except StopIteration as end:
            self.result = end.value
            return None

    def answer(self, value: Any) -> None:
        """Tell it what the step came to."""
        self._resume = partial(self.procedure.send, value)

    def fail(self, error: BaseException) -> None:
        """Tell it that the step failed."""
        self._resume = partial(self.procedure.throw, error)


def advance(course: Course[Any], runner: Runner) -> Deliver | None:
    """Run steps up to the next delivery; None where the procedure has come to its end."""
    while (step := course.next_step()) is not None:
        if type(step) is Deliver:
            course.answer(None)
            return step
        try:
            course.answer(runner.step(step))
        except BaseException as error:
            course.fail(error)
    return None


async def advance_async(course: Course[Any], runner: AsyncRunner) -> Deliver | None:
    """The same, awaited."""
    while (step := course.next_step()) is not None:
        if type(step) is Deliver:
            course.answer(None)
            return step
        try:
            course.answer(await runner.step(step))
        except BaseException as error:
            course.fail(error)
    return None


def run(procedure: Procedure[T], runner: Runner) -> T:
    """Run a procedure to its end, whatever it delivers."""
    course = Course(procedure)
    while advance(course, runner) is not None:
        pass
    result: T = course.result
    return result


async def run_async(procedure: Procedure[T], runner: AsyncRunner) -> T:
    """The same, awaited."""
    course = Course(procedure)
    while await advance_async(course, runner) is not None:
        pass
    result: T = course.result
    return result


class EngineRunner:
    """Steps on an engine's own connections.

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

    def step(self, step: Step) -> Any:
        """Run one step."""
        if isinstance(step, Count):
            return step.run()
        with translated_errors(self.engine.url):
            if isinstance(step, Read) or (step.one_statement and not self._sqlite):
                with self.single.connect() as connection:
                    if self._shared:
                        connection.execution_options(isolation_level="AUTOCOMMIT")
                    return step.operation(connection)
            with self.engine.connect() as connection:
                if passes_by(connection):
                    return in_turn(connection, step)
                leave_autocommit(connection)
                with connection.begin():
                    begin_write(connection)
                    return step.operation(connection)

    def dispose(self) -> None:
        """Close the connections."""
        self.single.dispose()
        self.engine.dispose()


def in_turn(connection: sa.Connection, write: Write) -> Any:
    """Run a write in a transaction of the driver's; SQLAlchemy's would take twice as long.

    After an error the pool rolls back, as it does with every connection that returns.
    """
    begin_write(connection)
    result = write.operation(connection)
    commit(connection)
    return result


class BoundRunner:
    """Steps on the caller's connection, inside the caller's transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def step(self, step: Step) -> Any:
        """Run one step; a write that fails leaves the caller's transaction usable."""
        if isinstance(step, Count):
            return step.run()
        with translated_errors(self.connection.engine.url):
            return in_savepoint(self.connection, step)


def in_savepoint(connection: sa.Connection, step: Read | Write) -> Any:
    """Run an operation in the transaction at hand, a write in a savepoint of it."""
    if isinstance(step, Read):
        if is_own(connection.engine) and not connection.in_transaction():
            connection.begin()  # the driver begins one, and the caller's commit or rollback is to end it
        return step.operation(connection)
    begin_write(connection)  # without it SQLite's driver would commit with the savepoint
    with connection.begin_nested():
        return step.operation(connection)


class GreenletRunner:
    """Steps of another runner, whose engines are asynchronous ones' inner engines.

    One greenlet a step, inside of which SQLAlchemy waits for the driver: its own AsyncConnection starts four.
    """

    def __init__(self, runner: EngineRunner) -> None:
        self.runner = runner

    async def step(self, step: Step) -> Any:
        """Run one step."""
        if isinstance(step, Count):
            return await count_aside(step)
        return await greenlet_spawn(self.runner.step, step)

    async def close(self, *, dispose: bool) -> None:
        """Close the connections, if they are ours to dispose of."""
        if dispose:
            await greenlet_spawn(self.runner.dispose)


class ThreadRunner:
    """Steps of another runner in worker threads: one hop a step, where aiosqlite hops at every call.

    Two threads, so that a window does not wait behind a writer that waits for another process.
    """

    def __init__(self, runner: EngineRunner) -> None:
        self.runner = runner
        self._workers = {Read: Worker(), Write: Worker()}

    async def step(self, step: Step) -> Any:
        """Run one step."""
        if isinstance(step, Count):
            return await count_aside(step)
        return await self._workers[type(step)].run(self.runner.step, step)

    async def close(self, *, dispose: bool) -> None:
        """End the threads, if there are any, when they have done what they were given."""
        for worker in self._workers.values():
            await worker.close()
        if dispose:
            self.runner.dispose()


class AsyncBoundRunner:
    """Steps on the caller's AsyncConnection, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def step(self, step: Step) -> Any:
        """Run one step; a write that fails leaves the caller's transaction usable."""
        if isinstance(step, Count):
            return await count_aside(step)
        with translated_errors(self.connection.engine.url):
            return await self.connection.run_sync(in_savepoint, step)


async def count_aside(step: Count) -> Any:
    """Count long texts in a thread, short ones at once."""
    return await asyncio.to_thread(step.run) if step.characters > LONG_TEXT else step.run()
