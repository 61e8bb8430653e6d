"""How a store runs effects: on its own engine or on the caller's connection, sync and async."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from tokenmem.database.checkout import Checkout, turns_on
from tokenmem.database.deadlines import Deadline
from tokenmem.database.driver_errors import is_of_lost_preparation, translated_errors
from tokenmem.database.engine import Engines, begin_write, leave_autocommit, restart_as_write
from tokenmem.database.sqlalchemy_internals import commits_every_statement, greenlet_spawn
from tokenmem.database.statements import commit, is_own, may_bypass_sqlalchemy, roll_back
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Compute, Deliver, EffectAnswer, Read, Work, Write
from tokenmem.execution.worker import Worker
from tokenmem.forks import inside_sqlite

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


REPEATS = 2
"""How often an operation is tried again whose connection was lost, or whose statements a pooler had lost."""


class EngineRunner:
    """Effects on engines' own connections.

    Args:
        engines: of the store.
    """

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self.url = engines.public.url
        self._is_sqlite = engines.public.dialect.name == "sqlite"
        # An engine of the caller's is set anew for each use: as an engine's option, a task that is cancelled
        # while it is set would lose the connection.
        self._is_shared = not engines.is_own and not self._is_sqlite
        self._turns = turns_on(engines.public)
        self.answer_timeout = None if self._is_sqlite else engines.settings.answer_timeout

    def run(self, effect: Work) -> object:
        """Run one effect, again where that can store nothing twice and the connection was to blame."""
        if isinstance(effect, Compute):
            return effect.function()
        with translated_errors(self.url):
            for _ in range(REPEATS):
                try:
                    return self._attempt(effect)
                except exc.DBAPIError as error:
                    if not self._may_repeat(effect, error):
                        raise
            return self._attempt(effect)

    def _attempt(self, effect: Read[object] | Write[object]) -> object:
        is_plain = isinstance(effect, Read) or (effect.one_statement and not self._is_sqlite)
        perform = self._perform if is_plain else self._perform_in_transaction
        with self.checkout(self.engines.reading if is_plain else self.engines.writing) as connection:
            if self.answer_timeout is None or effect.takes_long:
                return perform(connection, effect)
            with Deadline(connection, self.answer_timeout):
                return perform(connection, effect)

    def _perform(self, connection: sa.Connection, effect: Read[object] | Write[object]) -> object:
        if self._is_shared:
            connection.execution_options(isolation_level="AUTOCOMMIT")
        return effect.operation(connection)

    def _perform_in_transaction(
        self, connection: sa.Connection, effect: Read[object] | Write[object]
    ) -> object:
        leave_autocommit(connection)
        if may_bypass_sqlalchemy(connection):
            return in_driver_transaction(connection, effect)
        with connection.begin():
            restart_as_write(connection)
            return effect.operation(connection)

    def checkout(self, engine: sa.Engine, thread: int | None = None) -> Checkout:
        """A connection, for `with`; `thread` is whose it is where another one opens it."""
        gate = self.engines.gate if engine is self.engines.writing else None
        return Checkout(engine, self._is_sqlite, self._turns, gate, thread)

    def _may_repeat(self, effect: Read[object] | Write[object], error: exc.DBAPIError) -> bool:
        if is_of_lost_preparation(error.orig) and self.engines.is_own:
            self.engines.settings.preparation.is_off = True
            return True  # the server did not come to running it
        return error.connection_invalidated and (isinstance(effect, Read) or effect.is_repeatable)

    def dispose(self) -> None:
        """Close the connections."""
        self.engines.dispose()


def in_driver_transaction(connection: sa.Connection, write: Read[T] | Write[T]) -> T:
    """Run a write in a transaction of the driver's; SQLAlchemy's would take twice as long."""
    try:
        begin_write(connection)
        result = write.operation(connection)
        commit(connection)
    except BaseException:
        roll_back(connection)
        raise
    return result


class BoundRunner:
    """Effects on the caller's connection, inside the caller's transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def run(self, effect: Work) -> object:
        """Run one effect; a write that fails leaves the caller's transaction usable."""
        if isinstance(effect, Compute):
            return effect.function()
        with translated_errors(self.connection.engine.url), inside_sqlite():
            return in_callers_transaction(self.connection, effect)


def in_callers_transaction(connection: sa.Connection, effect: Read[T] | Write[T]) -> T:
    """Run an operation in the transaction of a connection that is the caller's."""
    if isinstance(effect, Write):
        check_transaction_is_possible(connection)
    return in_savepoint(connection, effect)


def check_transaction_is_possible(connection: sa.Connection) -> None:
    """Check that what is written on a connection of the caller's waits for the caller's commit.

    Raises:
        InvalidArgument: it commits every statement by itself.
    """
    if commits_every_statement(connection):
        raise InvalidArgument(
            "the connection is in AUTOCOMMIT mode, in which there is no transaction to join; take one "
            "without isolation_level='AUTOCOMMIT', or use the store itself"
        )


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
            return await self.connection.run_sync(in_callers_transaction, effect)


async def compute_aside(effect: Compute[T]) -> T:
    """Do long work in a thread, short work at once."""
    return await asyncio.to_thread(effect.function) if effect.characters > LONG_TEXT else effect.function()
