"""How many connections a store opens, who gets them, and what becomes of those that are lost."""

import asyncio
import math
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import StaticPool

from tests.support.stores import Stores, engines_of, pools_of, texts
from tests.support.threads import in_threads
from tokenmem import AsyncStore, Message, Store, errors

pytestmark = pytest.mark.every_variant

TERMINATE = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'tokenmem'"""
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tokenmem'"

on_postgresql = pytest.mark.parametrize("stores", ["postgresql-sync", "postgresql-async"], indirect=True)
on_sqlite = pytest.mark.parametrize("stores", ["sqlite-sync", "sqlite-async"], indirect=True)


# --- how many


@pytest.mark.direct
@on_postgresql
@pytest.mark.parametrize("said_by", ["argument", "URL"])
def test_no_more_connections_than_were_said(stores: Stores, said_by: str) -> None:
    if said_by == "URL":
        store = stores.open(f"{stores.url}?pool_size=2")
    else:
        store = stores.open(f"{stores.url}?pool_size=7", pool_size=2)

    async def all_at_once() -> None:
        await asyncio.gather(*(bare(store).append(f"c{n}", texts(1)) for n in range(20)))

    if stores.is_async:
        stores.loop.run(all_at_once())
    else:
        in_threads(10, lambda number: store.append(f"c{number}", texts(1)))
    most = stores.sql.value(CONNECTIONS + " AND datname = current_database()")
    with store.transaction() as one, store.transaction() as other:  # so many there must be
        one.append("in a transaction", texts(1))
        other.append("in another one", texts(1))
        most = max(most, stores.sql.value(CONNECTIONS + " AND datname = current_database()"))
    assert most == 2


@pytest.mark.direct
@on_postgresql
def test_transactions_of_the_callers_count_too(stores: Stores) -> None:
    store = stores.open(pool_size=1, timeout=0.2)
    store.append("c", texts(1))
    engine = engines_of(bare(store)).public
    assert engine.pool is not engines_of(bare(store)).reading.pool

    def use(connection: Any) -> None:
        connection.exec_driver_sql("SELECT 1")
        assert stores.sql.value(CONNECTIONS + " AND datname = current_database()") == 1

    if stores.is_async:

        async def use_async() -> None:
            async with bare(store).engine.connect() as connection:
                await connection.run_sync(use)
                with pytest.raises(errors.DatabaseUnavailable, match="pool_size"):
                    await bare(store).append("c", texts(1))

        stores.loop.run(use_async())
    else:
        with engine.connect() as connection:
            use(connection)
            with pytest.raises(errors.DatabaseUnavailable, match="pool_size"):
                store.append("c", texts(1))
    assert store.append("c", texts(1)).last_position == 2


def bare(store: Any) -> Any:
    """The store in its own face: an AsyncStore's methods are awaited."""
    return getattr(store, "store", store)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"pool_size": 0}, "pool_size is 0; pass 1 to 10000"),
        ({"pool_size": "3"}, "pool_size is '3'; pass an integer"),
        ({"pool_size": True}, "pool_size is True"),
        ({"timeout": 0}, "timeout is 0; pass seconds above 0"),
        ({"timeout": -1.0}, "timeout is -1.0"),
        ({"timeout": math.nan}, "timeout is nan"),
        ({"timeout": 1e10}, "up to 1000000000, or math.inf"),
        ({"timeout": 10**400}, "timeout is 1000"),
        ({"timeout": "5"}, "timeout is a str; pass seconds"),
    ],
)
def test_numbers_that_are_none(stores: Stores, options: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        stores.open(**options)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("pool_size=many", "pool_size is 'many'; write a number from 1"),
        ("pool_size=0", "pool_size is '0'"),
        ("pool_size=2&pool_size=3", "pool_size stands there twice"),
    ],
)
def test_numbers_in_a_url_that_are_none(stores: Stores, query: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        stores.open(f"{stores.url}?{query}")


@on_postgresql
@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("timeout=soon", "timeout is 'soon'; write seconds"),
        ("timeout=0", "timeout is '0'"),
        ("timeout=nan", "timeout is 'nan'"),
        ("prepare_threshold=-1", "prepare_threshold is '-1'; write a number from 1"),
        ("prepare_threshold=five", "prepare_threshold is 'five'"),
    ],
)
def test_more_of_them_for_postgresql(stores: Stores, query: str, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=text):
        stores.open(f"{stores.url}?{query}")


def test_an_engine_of_the_callers_has_its_own_size(stores: Stores) -> None:
    with pytest.raises(errors.InvalidArgument, match="create_engine"):
        stores.open(stores.engine(), pool_size=3)


@on_postgresql
@pytest.mark.parametrize("threshold", ["0", "none", "1"])
def test_prepared_statements_are_switched_in_the_url(stores: Stores, threshold: str) -> None:
    store = stores.open(f"{stores.url}?prepare_threshold={threshold}&pool_size=1")
    for _ in range(8):
        store.append("c", texts(1))
        store.window("c", 100)
    assert prepared_in(stores, store) is (threshold == "1")


def prepared_in(stores: Stores, store: Any) -> bool:
    """Whether the store's one connection has prepared statements on the server."""
    engine = engines_of(bare(store)).reading
    record = engine.pool._idle[-1]  # type: ignore[attr-defined]
    return bool(record.driver_connection._prepared._names)


# --- who gets them


@pytest.mark.direct
@on_postgresql
def test_a_connection_goes_to_whoever_has_waited_longest(stores: Stores) -> None:
    if not stores.is_async:
        pytest.skip("threads are tried with the semaphore, where the order in which they came is known")
    store = bare(stores.open())
    served: list[str] = []

    def note(*_: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task.get_name())

    for pool in pools_of(store):
        event.listen(pool, "checkout", note)

    async def main() -> None:
        await store.append("c", texts(1))
        await asyncio.gather(*(store.window("c", 100) for _ in range(20)))  # so that all are connected
        served.clear()

        async def task() -> None:
            for _ in range(2):
                await store.window("c", 100)

        await asyncio.gather(*(asyncio.create_task(task(), name=str(n)) for n in range(1000)))

    stores.loop.run(main())
    # Whoever has just been given one and whoever finds one idle may change places before they go on.
    size = pools_of(store)[0].size()
    assert all(abs(int(name) - place) <= size for place, name in enumerate(served[:1000]))
    assert len(served) == 2000


@pytest.mark.direct
@on_postgresql
def test_one_store_in_several_event_loops(stores: Stores) -> None:
    if not stores.is_async:
        pytest.skip("a Store knows no event loops")
    store = AsyncStore(stores.url, pool_size=3)
    appended = [0]

    async def work(number: int) -> None:
        await asyncio.gather(*(store.append(f"c{number}", texts(1)) for _ in range(8)))
        async with store.transaction() as bound:
            await bound.append(f"c{number}", texts(1))
        assert (await store.window(f"c{number}", 10**6)).last_position == 9
        appended[0] += 9

    def loops(number: int) -> None:
        for again in range(4):
            asyncio.run(work(4 * number + again))
            if number == 0:
                assert stores.sql.value(CONNECTIONS + " AND datname = current_database()") <= 3

    in_threads(5, loops)
    assert appended == [20 * 9]
    asyncio.run(store.close())
    assert stores.sql.value("SELECT count(*) FROM {messages}") == 180


# --- what is lost


@on_postgresql
def test_connections_that_were_closed_while_idle_are_noticed(stores: Stores) -> None:
    store = stores.open()
    for number in range(1, 6):
        store.append("c", texts(1))
        stores.sql.rows(TERMINATE)
        assert store.append("c", texts(1)).last_position == 3 * number - 1
        stores.sql.rows(TERMINATE)
        assert len(store.messages("c")) == 3 * number - 1
        stores.sql.rows(TERMINATE)
        with store.transaction() as bound:
            bound.append("c", texts(1))
    assert store.verify() == []


@on_postgresql
def test_a_pooler_that_loses_prepared_statements_is_noticed(stores: Stores) -> None:
    """As PgBouncer does that knows nothing of them: the next statement finds another server connection."""
    store = stores.open(f"{stores.url}?pool_size=1&prepare_threshold=1")
    for _ in range(4):
        store.append("c", texts(1))
        store.window("c", 100)
    record = engines_of(bare(store)).reading.pool._idle[-1]  # type: ignore[attr-defined]
    record.driver_connection.pgconn.exec_(b"DEALLOCATE ALL")
    assert store.append("c", texts(1)).last_position == 5
    assert store.window("c", 100).last_position == 5
    for _ in range(4):
        store.append("c", texts(1))
    assert not prepared_in(stores, store)


@on_sqlite
def test_a_read_that_fails_while_fetching_keeps_no_writer_out(stores: Stores) -> None:
    store = stores.open(f"{stores.url}?timeout=1")
    store.append("c", texts(*[1] * 50))
    stores.sql.run("UPDATE messages SET content = CAST(x'ff' AS text) WHERE position = 40")
    for _ in range(3):
        with pytest.raises(errors.DatabaseError):
            store.messages("c")
        store.append("other", texts(1))


# --- engines of the caller's


@on_sqlite
def test_an_engine_with_one_connection_for_all(stores: Stores) -> None:
    """SQLAlchemy's recipe for a database in memory: its StaticPool gives all the same connection at once."""
    if stores.is_async:
        from sqlalchemy.ext.asyncio import create_async_engine

        engine: Any = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        store = AsyncStore(engine)

        async def main() -> int:
            await store.upgrade()
            done = await asyncio.gather(
                *(store.append(f"c{i % 4}", texts(*[1] * (1 if i % 3 else 30))) for i in range(60))
            )
            assert await store.verify() == []
            stored = sum(each.message_count for each in await store.conversations())
            await engine.dispose()
            assert stored == sum(each.last_position - each.first_position + 1 for each in done)
            return stored

        assert asyncio.run(main()) == 640
        return
    engine = sa.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    plain, other = Store(engine), Store(engine)
    plain.upgrade()
    in_threads(
        8, lambda n: [(other if k % 2 else plain).append(f"c{n % 4}", texts(*[1] * 5)) for k in range(10)]
    )
    with plain.transaction() as bound:
        bound.append("c0", texts(1))
    assert plain.verify() == []
    assert sum(each.message_count for each in plain.conversations()) == 401
    engine.dispose()


def test_there_is_no_transaction_to_join_in_autocommit(stores: Stores) -> None:
    store = stores.open()
    engine = stores.engine(isolation_level="AUTOCOMMIT")

    def append() -> None:
        with engine.connect() as connection:
            store.bind(connection).append("c", [Message.user("x")])

    async def append_async() -> None:
        async with engine.connect() as connection:
            await bare(store).bind(connection).append("c", [Message.user("x")])

    try:
        with pytest.raises(errors.InvalidArgument, match="AUTOCOMMIT"):
            stores.loop.run(append_async()) if stores.is_async else append()
    finally:
        stores.loop.run(engine.dispose()) if stores.is_async else engine.dispose()
    assert stores.sql.value("SELECT count(*) FROM {messages}") == 0


@pytest.mark.parametrize("stores", ["sqlite-sync", "postgresql-sync"], indirect=True)
def test_what_an_outer_transaction_rolls_back_is_gone(stores: Stores) -> None:
    """As fixtures of tests do: every commit inside is a savepoint's."""
    store = stores.open()
    with store.engine.connect() as connection:
        outer = connection.begin()
        for number in range(3):
            with connection.begin_nested():
                connection.exec_driver_sql("SELECT 1")
                store.bind(connection).append("c", texts(number + 1))
        with store.bind(connection).transaction() as inner:
            inner.append("c", texts(4))
        assert store.bind(connection).window("c", 100).last_position == 4
        outer.rollback()
    assert store.conversations() == []
    assert store.append("c", texts(1)).last_position == 1
