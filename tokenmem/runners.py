"""How a store runs the steps of a procedure: on its own engine or the caller's connection, in two colours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from tokenmem.steps import Count, Procedure, Read, Step, Write

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


def run(procedure: Procedure[T], runner: Runner) -> T:
    """Run a procedure to its end."""
    resume: Callable[[], Step] = partial(next, procedure)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            resume = partial(procedure.send, runner.step(step))
        except TryAgain as overtaken:
            resume = partial(procedure.throw, overtaken)


async def run_async(procedure: Procedure[T], runner: AsyncRunner) -> T:
    """The same, awaited."""
    resume: Callable[[], Step] = partial(next, procedure)
    while True:
        try:
            step = resume()
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            resume = partial(procedure.send, await runner.step(step))
        except TryAgain as overtaken:
            resume = partial(procedure.throw, overtaken)


class EngineRunner:
    """Steps on an engine's own connections."""

    def __init__(self, engine: sa.Engine, *, own: bool) -> None:
        self.engine = engine
        self.single = single_statement_engine(engine, own=own)

    def step(self, step: Step) -> Any:
        """Run one step."""
        if isinstance(step, Count):
            return step.run()
        single = needs_no_transaction(step, self.engine.dialect)
        with (
            translated_errors(self.engine.url),
            self.single.connect() if single else self.engine.begin() as connection,
        ):
            return in_turn(connection, step)


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
            return in_savepoint(self.connection, step)


def in_savepoint(connection: sa.Connection, step: Read | Write) -> Any:
    """Run an operation in the transaction at hand, a write in a savepoint of it."""
    if isinstance(step, Read):
        return step.operation(connection)
    begin_write(connection)  # without it SQLite's driver would commit with the savepoint
    with connection.begin_nested():
        return step.operation(connection)


class AsyncEngineRunner:
    """Steps on an AsyncEngine's connections."""

    def __init__(self, engine: AsyncEngine, *, own: bool) -> None:
        self.engine = engine
        self.single = async_single_statement_engine(engine, own=own)

    async def step(self, step: Step) -> Any:
        """Run one step."""
        if isinstance(step, Count):
            return await count_aside(step)
        single = needs_no_transaction(step, self.engine.dialect)
        with translated_errors(self.engine.url):
            async with self.single.connect() if single else self.engine.begin() as connection:
                return await connection.run_sync(in_turn, step)


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
            return await self.connection.run_sync(in_savepoint, step)


async def count_aside(step: Count) -> Any:
    """Count long texts in a thread, short ones at once."""
    return await asyncio.to_thread(step.run) if step.characters > LONG_TEXT else step.run()
