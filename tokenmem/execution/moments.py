"""Several reads that show the database as it was at one moment, whatever others write meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import get_ident

import sqlalchemy as sa

from tokenmem.database.deadlines import Deadline
from tokenmem.database.driver_errors import translated_errors
from tokenmem.database.sqlalchemy_internals import greenlet_spawn
from tokenmem.database.statements import DriverConnection
from tokenmem.execution.effects import Work
from tokenmem.execution.runners import (
    AsyncRunner,
    BoundRunner,
    EngineRunner,
    GreenletRunner,
    Runner,
    ThreadRunner,
)
from tokenmem.execution.transactions import Hop


@contextmanager
def at_one_moment(runner: Runner, thread: int | None = None) -> Iterator[Runner]:
    """A runner whose reads agree, on a connection that is held until the block ends.

    In the caller's transaction reads agree as far as that lets them. `thread` is whose block it is, where
    another one begins it.
    """
    if not isinstance(runner, EngineRunner):
        yield runner
        return
    checkout = runner.checkout(runner.engines.reading, thread)
    with translated_errors(runner.url):
        connection = checkout.open()
    try:
        with translated_errors(runner.url), Deadline(connection, runner.answer_timeout):
            _begin(connection)
        yield BoundRunner(connection)
    finally:
        checkout.close()


def _begin(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ")
    connection.begin()
    if connection.dialect.name == "sqlite":
        driver: DriverConnection = connection.connection.driver_connection
        if not driver.in_transaction:  # the driver of an engine of the caller's begins nothing for a SELECT
            connection.exec_driver_sql("BEGIN")


@asynccontextmanager
async def at_one_moment_async(runner: AsyncRunner) -> AsyncIterator[AsyncRunner]:
    """The same for an AsyncStore's runner."""
    if not isinstance(runner, (GreenletRunner, ThreadRunner)):
        yield runner
        return
    hop: Hop = greenlet_spawn if isinstance(runner, GreenletRunner) else runner.read_aside
    moment = at_one_moment(runner.runner, get_ident())
    bound = await hop(moment.__enter__)
    try:
        yield _Waiting(bound, hop)
    finally:
        await hop(moment.__exit__, None, None, None)


class _Waiting:
    """A runner that blocks, run without blocking the event loop."""

    def __init__(self, runner: Runner, hop: Hop) -> None:
        self.runner = runner
        self.hop = hop

    async def run(self, effect: Work) -> object:
        """Run one effect."""
        return await self.hop(self.runner.run, effect)
