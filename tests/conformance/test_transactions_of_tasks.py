"""AsyncStore.transaction(): cancelled, shared by tasks, and beside other tasks; with every kind of driver."""
# ruff: noqa: PT012 - what raises is a block of several statements

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.stores import Databases, Unit, pools_of, texts
from tokenmem import AsyncStore, errors


class Failed(Exception):
    """What a block of the tests raises."""


@pytest.fixture(params=["sqlite", "aiosqlite", "sqlite in memory", "postgresql", "postgresql, a caller's"])
def on_loop(
    request: pytest.FixtureRequest, databases: Databases, tmp_path: Path
) -> Callable[[Callable[[AsyncStore], Awaitable[None]]], None]:
    """Runs a test in an event loop, with a store of two messages; at the end no connection is in use."""
    name = request.param.partition(" ")[0].partition(",")[0]
    url = databases.of(name.replace("aio", ""), tmp_path)

    def run(test: Callable[[AsyncStore], Awaitable[None]]) -> None:
        async def with_store() -> None:
            engine: Any = url
            if request.param == "sqlite in memory":
                engine = "sqlite://"
            elif request.param != name or name == "aiosqlite":
                engine = create_async_engine(databases.sql(url).url.replace("sqlite:", "sqlite+aiosqlite:"))
            async with AsyncStore(engine, counter=Unit()) as store:
                await store.upgrade()
                await store.append("c1", texts(1, 2))
                await asyncio.wait_for(test(store), 45)
                for _ in range(100):
                    if not any(pool.checkedout() for pool in pools_of(store)):
                        break
                    await asyncio.sleep(0.02)
                assert not any(pool.checkedout() for pool in pools_of(store))
            if engine is not url and not isinstance(engine, str):
                await engine.dispose()

        asyncio.run(with_store())

    return run


async def said(store: AsyncStore) -> list[int]:
    return [message.token_count for message in await store.messages("c1")]


def test_others_of_the_store_are_not_in_it(on_loop: Any) -> None:
    async def test(store: AsyncStore) -> None:
        async with store.transaction() as bound:
            await bound.append("c1", texts(3))
            other = asyncio.create_task(store.append("c1", texts(4)))
            reader = asyncio.create_task(said(store))
            ticks = 0
            for _ in range(20):
                await asyncio.sleep(0.01)
                ticks += 1
            assert ticks == 20, "the event loop goes on"
            assert not other.done(), "it waits for the transaction"
            await bound.append("c1", texts(5))
        stored = await other
        assert stored.first_position == 5
        assert await reader in ([1, 2], [1, 2, 3, 5], [1, 2, 3, 5, 4])
        assert await said(store) == [1, 2, 3, 5, 4]

    on_loop(test)


def test_what_is_written_beside_survives_a_rollback(on_loop: Any) -> None:
    async def test(store: AsyncStore) -> None:
        other = None
        with pytest.raises(Failed):
            async with store.transaction() as bound:
                await bound.append("c1", texts(3))
                other = asyncio.create_task(store.append("c1", texts(4)))
                await asyncio.sleep(0.1)
                raise Failed
        assert other is not None
        await other
        assert await said(store) == [1, 2, 4]

    on_loop(test)


def test_cancellation_rolls_back(on_loop: Any) -> None:
    async def test(store: AsyncStore) -> None:
        begun = asyncio.Event()

        async def work() -> None:
            async with store.transaction() as bound:
                await bound.append("c1", texts(3))
                begun.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await said(store) == [1, 2]
        await asyncio.wait_for(store.append("c1", texts(4)), 10)
        assert await said(store) == [1, 2, 4]

    on_loop(test)


def test_cancellation_in_the_midst_of_a_statement_or_of_opening_rolls_back(on_loop: Any) -> None:
    async def test(store: AsyncStore) -> None:
        async def work() -> None:
            async with store.transaction() as bound:
                for _ in range(50):
                    await bound.append("c1", texts(*range(1, 30)))
                await asyncio.sleep(60)

        for step in range(24):
            task = asyncio.create_task(work())
            for _ in range(step // 2):
                await asyncio.sleep(0)
            await asyncio.sleep(0.002 * (step % 6))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.wait_for(store.append("c1", texts(4)), 20)
        assert await said(store) == [1, 2, 4]
        assert await store.verify() == []

    on_loop(test)


def test_one_that_waits_to_begin_can_be_cancelled(on_loop: Any) -> None:
    async def test(store: AsyncStore) -> None:
        async with store.transaction() as bound:
            await bound.append("c1", texts(3))

            async def second() -> None:
                async with store.transaction() as other:
                    await other.append("c1", texts(4))

            waiting = asyncio.create_task(second())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(waiting, 10)
        await asyncio.wait_for(store.append("c1", texts(5)), 20)
        assert await said(store) == [1, 2, 3, 5]

    on_loop(test)


def test_tasks_may_share_a_transaction(on_loop: Any) -> None:
    async def test(store: AsyncStore) -> None:
        async with store.transaction() as bound:
            found = await asyncio.gather(
                *(bound.append("c1", texts(n)) for n in range(3, 20)),
                bound.append("c1", texts(99), expected_position=1234),
                *(bound.messages("c1") for _ in range(5)),
                return_exceptions=True,
            )
            assert [type(each) for each in found if isinstance(each, Exception)] == [errors.PositionConflict]
        assert sorted(await said(store)) == list(range(1, 20))
        assert await store.verify() == []

    on_loop(test)


def test_a_transaction_leaves_no_thread(on_loop: Any) -> None:
    async def test(store: AsyncStore) -> None:
        await said(store)
        before = threading.active_count()
        for number in range(10):
            async with store.transaction() as bound:
                await bound.append("c1", texts(number))
        deadline = time.monotonic() + 10
        while threading.active_count() > before + 1 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        assert threading.active_count() <= before + 1

    on_loop(test)
