"""How a store runs the steps of a procedure: on its own engine or the caller's connection, in two colours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tokenmem.engine import (
    TryAgain,
    async_single_statement_engine,
    begin_write,
    single_statement_engine,
    translated_errors,
)
from tokenmem.procedures import Count, Procedure, Read, Step, Write

T = TypeVar("T")
Operation = Callable[[sa.Connection], Any]

ATTEMPTS = 50
"""How often a write that another process overtook is repeated before the caller hears of it."""

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


def run(procedure: Procedure[T], runner: Runner) -> T:
    """Run a procedure to its end."""
    answer = None
    while True:
        try:
            step = procedure.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = runner.step(step)


async def run_async(procedure: Procedure[T], runner: AsyncRunner) -> T:
    """The same, awaited."""
    answer = None
    while True:
        try:
            step = procedure.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        answer = await runner.step(step)


class EngineRunner:
    """Steps on an engine's own connections."""

    def __init__(self, engine: sa.Engine, *, own: bool) -> None:
        self.engine = engine
        self.single = single_statement_engine(engine, own=own)

    def step(self, step: Step) -> Any:
        """Run one step; a write that another process overtook is repeated."""
        if isinstance(step, Count):
            return step.run()
        for attempt in range(ATTEMPTS):
            try:
                with translated_errors(self.engine.url), self._connection(step) as connection:
                    return in_turn(connection, step)
            except TryAgain:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError  # the loop returns or raises

    @contextmanager
    def _connection(self, step: Read | Write) -> Iterator[sa.Connection]:
        if needs_no_transaction(step, self.engine.dialect):
            with self.single.connect() as connection:
                yield connection
        else:
            with self.engine.begin() as connection:
                yield connection


def needs_no_transaction(step: Read | Write, dialect: sa.Dialect) -> bool:
    """A single statement is a transaction of its own. (On SQLite an append is several.)"""
    return isinstance(step, Read) or (step.one_statement and dialect.name == "postgresql")


def in_turn(connection: sa.Connection, step: Read | Write) -> Any:
    """Run an operation; on SQLite a write first waits for its turn."""
    if isinstance(step, Write):
        begin_write(connection)
    return step.operation(connection)


class BoundRunner:
    """Steps on the caller's connection, inside the caller's transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def step(self, step: Step) -> Any:
        """Run one step; a write that fails leaves the caller's transaction usable."""
        if isinstance(step, Count):
            return step.run()
        with translated_errors(self.connection.engine.url):
            if isinstance(step, Read):
                return step.operation(self.connection)
            return in_savepoints(self.connection, step.operation)


def in_savepoints(connection: sa.Connection, operation: Operation) -> Any:
    """Run a write in a savepoint of the transaction at hand, again where another process overtook it."""
    begin_write(connection)  # without it SQLite's driver would commit with the savepoint
    for attempt in range(ATTEMPTS):
        try:
            with connection.begin_nested():
                return operation(connection)
        except TryAgain:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError  # the loop returns or raises


class AsyncEngineRunner:
    """Steps on an AsyncEngine's connections."""

    def __init__(self, engine: AsyncEngine, *, own: bool) -> None:
        self.engine = engine
        self.single = async_single_statement_engine(engine, own=own)

    async def step(self, step: Step) -> Any:
        """Run one step; a write that another process overtook is repeated."""
        if isinstance(step, Count):
            return await count_aside(step)
        for attempt in range(ATTEMPTS):
            try:
                with translated_errors(self.engine.url):
                    async with self._connection(step) as connection:
                        return await connection.run_sync(in_turn, step)
            except TryAgain:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError  # the loop returns or raises

    @asynccontextmanager
    async def _connection(self, step: Read | Write) -> AsyncIterator[AsyncConnection]:
        if needs_no_transaction(step, self.engine.dialect):
            async with self.single.connect() as connection:
                yield connection
        else:
            async with self.engine.begin() as connection:
                yield connection


class ThreadRunner:
    """Steps of another runner in worker threads: one hop a step, where aiosqlite hops at every call.

    Two threads, so that a window does not wait behind a writer that waits for another process.
    """

    def __init__(self, runner: EngineRunner) -> None:
        self.runner = runner
        self._process = 0
        self._workers: dict[type, ThreadPoolExecutor] = {}

    async def step(self, step: Step) -> Any:
        """Run one step."""
        if isinstance(step, Count):
            return await count_aside(step)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker(type(step)), self.runner.step, step)

    def _worker(self, kind: type) -> ThreadPoolExecutor:
        if self._process != os.getpid():  # a forked child has no threads of its parent's
            self._workers = {
                each: ThreadPoolExecutor(1, thread_name_prefix="tokenmem") for each in (Read, Write)
            }
            self._process = os.getpid()
        return self._workers[kind]

    def close(self) -> None:
        """End the threads, if there are any, when they have done what they were given."""
        if self._process == os.getpid():
            for worker in self._workers.values():
                worker.shutdown(wait=True)
            self._process = 0


class AsyncBoundRunner:
    """Steps on the caller's AsyncConnection, inside the caller's transaction."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def step(self, step: Step) -> Any:
        """Run one step; a write that fails leaves the caller's transaction usable."""
        if isinstance(step, Count):
            return await count_aside(step)
        with translated_errors(self.connection.engine.url):
            if isinstance(step, Read):
                return await self.connection.run_sync(step.operation)
            return await self.connection.run_sync(in_savepoints, step.operation)


async def count_aside(step: Count) -> Any:
    """Count long texts in a thread, short ones at once."""
    return await asyncio.to_thread(step.run) if step.characters > LONG_TEXT else step.run()
