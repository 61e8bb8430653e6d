"""psycopg's connection for asyncio, as tokenmem opens it."""

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.postgres import driver_url
from tests.torture.support.proxy import Proxy
from tokenmem import AsyncStore, Message, errors
from tokenmem.database import async_driver
from tokenmem.database.driver_internals import begin_names_anywhere


class ProactorEventLoop(asyncio.SelectorEventLoop):
    """Called as Windows' default loop is."""


@pytest.mark.parametrize(
    ("kind", "platform", "is_refused"),
    [
        (ProactorEventLoop, "win32", True),
        (asyncio.SelectorEventLoop, "win32", False),
        (ProactorEventLoop, "linux", False),
    ],
)
def test_windows_default_loop_is_refused_with_the_remedy(kind: Any, platform: str, is_refused: bool) -> None:
    loop = kind()
    try:
        if is_refused:
            with pytest.raises(errors.DatabaseError, match="SelectorEventLoop"):
                async_driver.check_event_loop(loop, platform)
        else:
            async_driver.check_event_loop(loop, platform)
    finally:
        loop.close()


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancelled_statement_is_stopped_on_the_server(postgres_url: str, times: int) -> None:
    async def main() -> None:
        connection = await async_driver.connect(driver_url(postgres_url), autocommit=True)
        watcher = await async_driver.connect(driver_url(postgres_url), autocommit=True)
        task = asyncio.create_task(connection.execute("SELECT pg_sleep(1000)"))  # type: ignore[arg-type]
        sleeping = (
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
        )
        while (await (await watcher.execute(sleeping)).fetchone())[0] != 1:  # type: ignore[index]
            await asyncio.sleep(0.01)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        while (await (await watcher.execute(sleeping)).fetchone())[0] != 0:  # type: ignore[index]
            await asyncio.sleep(0.01)
        await connection.close()
        await watcher.close()

    asyncio.run(main())


def test_names_of_prepared_statements_begin_somewhere_else_each_time(postgres_url: str) -> None:
    """The one name of psycopg's that it does not document is there, and does what we use it for."""

    async def main() -> set[bytes]:
        names: set[bytes] = set()
        for _ in range(2):
            connection = await async_driver.connect(driver_url(postgres_url), autocommit=True)
            begin_names_anywhere(connection)
            await connection.execute("SELECT 1", prepare=True)
            names.update(connection._prepared._names.values())
            await connection.close()
        return names

    names = asyncio.run(main())
    assert len(names) == 2
    assert b"_pg3_0" not in names


@pytest.mark.parametrize("end", ["the loop", "close()"])
def test_a_connection_that_is_being_opened_ends_with(postgres_url: str, end: str) -> None:
    """Not when the garbage collector comes to it: until then the server would count it."""
    with Proxy(postgres_url) as proxy, no_collection(), asyncio.Runner() as runner:
        store = AsyncStore(proxy.url, pool_size=3)

        async def begin() -> list[asyncio.Task[Any]]:
            await store.upgrade()
            proxy.set_mode("black hole")
            # One has the connection that there is, the other waits for one that is opened aside.
            tasks = [asyncio.create_task(store.append(name, [Message.user("x")])) for name in ("c1", "c2")]
            while proxy.connections < 2:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return tasks

        cancelled = runner.run(begin())
        if end == "close()":
            runner.run(store.close())
        else:
            runner.close()
        proxy.set_mode("pass")
        until = time.monotonic() + 10
        while proxy.connections and time.monotonic() < until:
            time.sleep(0.01)
        assert proxy.connections == 0
        del cancelled  # their errors hold what was there when they were raised


@contextmanager
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
