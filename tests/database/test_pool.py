"""A store's connections while they are being opened."""

import asyncio
import threading
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from tests.support.stores import Unit, engines_of, texts
from tests.support.threads import in_threads
from tokenmem import AsyncStore, Store, errors


def test_who_waits_for_a_new_connection_gets_one_that_returns(postgres_url: str) -> None:
    """Connecting takes as long as many operations: those who came later do not overtake those who wait."""
    with Store(postgres_url, counter=Unit(), pool_size=4) as store:
        store.upgrade()
        store.append("c", texts(1))  # one connection is there
        engine = engines_of(store).reading
        hold, order = threading.Event(), list[int]()
        event.listen(engine, "do_connect", lambda *_: hold.wait(30) and None)
        event.listen(engine.pool, "checkout", lambda *_: order.append(threading.get_ident()))
        in_threads(12, lambda _: [store.window("c", 10) for _ in range(3)])
        assert len(order) == 36, "with the one connection, while the others are still being opened"
        hold.set()


def test_an_opening_that_fails_is_told_to_one_who_waits(postgres_url: str) -> None:
    with Store(postgres_url, counter=Unit(), pool_size=3) as store:
        store.upgrade()
        store.append("c", texts(1))
        engine = engines_of(store).reading

        def refuse(*_: Any) -> None:
            raise engine.dialect.loaded_dbapi.OperationalError("refused")

        event.listen(engine, "do_connect", refuse)
        failed: list[errors.DatabaseUnavailable] = []

        def use(_: int) -> None:
            for _ in range(20):
                try:
                    store.window("c", 10)
                except errors.DatabaseUnavailable as error:
                    failed.append(error)

        in_threads(6, use)
        assert failed
        event.remove(engine, "do_connect", refuse)
        in_threads(6, lambda _: store.append("c", texts(1)))
        assert store.window("c", 10).last_position == 7
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_loop_that_ends_while_it_connects_keeps_nobody_waiting(postgres_url: str, steps: int) -> None:
    """Whoever waits for a connection in another loop opens it himself."""
    store = AsyncStore(postgres_url, counter=Unit(), pool_size=5, timeout=20)

    async def begin() -> None:
        tasks = [asyncio.ensure_future(store.window("c", 10)) for _ in range(10)]
        for _ in range(steps):
            await asyncio.sleep(0)
        assert tasks

    async def use() -> None:
        await asyncio.gather(*(store.window("c", 10) for _ in range(10)))

    async def prepare() -> None:
        await store.upgrade()
        await store.append("c", texts(1))

    asyncio.run(prepare())
    pool: Any = engines_of(store).reading.pool
    for _ in range(5):
        asyncio.run(begin())
        in_threads(2, lambda _: asyncio.run(use()))
        assert pool.checkedout() == 0
        assert pool._openings == 0
        assert pool._limit.places.used == 0
    asyncio.run(store.close())


def test_an_idle_one_of_the_other_kind_makes_room(postgres_url: str) -> None:
    with Store(postgres_url, counter=Unit(), pool_size=2) as store:
        store.upgrade()
        in_threads(4, lambda number: store.append(f"c{number}", texts(1)))
        working = engines_of(store).reading.pool
        with store.engine.connect() as one, store.engine.connect() as other:
            assert one.execute(sa.text("SELECT 1")).scalar() == other.execute(sa.text("SELECT 1")).scalar()
            assert working.checkedin() == 0  # type: ignore[attr-defined]
        assert store.window("c0", 10).last_position == 1
