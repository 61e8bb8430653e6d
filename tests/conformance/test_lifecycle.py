"""Opening, closing, engines of the caller's own, databases in memory, and many tasks at once."""

import asyncio
import gc
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.stores import Facade, Stores, Unit, pools_of, texts
from tokenmem import AsyncStore, Message, Store, errors

pytestmark = pytest.mark.every_variant


def test_a_store_is_a_context_manager(stores: Stores) -> None:
    with stores.open() as store:
        store.append("c1", [Message.user("x")])
    assert sum(pool.checkedin() for pool in pools_of(stores.open())) == 0
    assert stores.open().conversation("c1").message_count == 1


def test_close_ends_the_connections_and_may_be_repeated(stores: Stores) -> None:
    store = stores.open()
    store.append("c1", [Message.user("x")])
    assert sum(pool.checkedin() for pool in pools_of(store)) == 1
    store.close()
    assert sum(pool.checkedin() for pool in pools_of(store)) == 0
    store.close()
    assert store.conversation("c1").message_count == 1  # a closed store opens anew


def test_what_a_store_derived_does_not_close_it(stores: Stores) -> None:
    store = stores.open()
    with store.for_owner("ann") as ann:
        ann.append("c1", [Message.user("x")])
    assert sum(pool.checkedin() for pool in pools_of(store)) == 1
    assert ann.conversation("c1").owner == "ann"


def test_an_engine_of_the_callers_own(stores: Stores) -> None:
    engine = stores.engine()
    with stores.open(engine, counter=Unit()) as store:
        store.upgrade()
        store.append("c1", texts(1, 2))
        assert store.window("c1", 2).first_position == 2
        with pytest.raises(errors.ConversationNotFound):
            store.append("c1", texts(1), owner="x")
        (pool,) = pools_of(store)
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)
    assert pool.checkedin() == 1, "close has closed what is not its own"
    if stores.is_async:
        stores.loop.run(engine.dispose())
    else:
        engine.dispose()


def test_an_async_store_takes_a_plain_engine_for_sqlite(stores: Stores) -> None:
    engine = sa.create_engine(stores.url)
    if stores.variant == "postgresql-async":
        with pytest.raises(errors.InvalidArgument, match="create_async_engine"):
            stores.open(engine)
    else:
        stores.open(engine).append("c1", [Message.user("x")])
    engine.dispose()


def test_the_engine_of_a_store(stores: Stores) -> None:
    """What the types say: an Engine, or an AsyncEngine, which on SQLite is only there if it was given."""
    store: Any = stores.open()
    if stores.variant == "sqlite-async":
        with pytest.raises(errors.InvalidArgument, match="aiosqlite"):
            store.store.engine  # noqa: B018
        engine = stores.engine()
        assert stores.open(engine).store.engine is engine  # type: ignore[attr-defined]
        stores.loop.run(engine.dispose())
    elif stores.is_async:
        assert isinstance(store.store.engine, AsyncEngine)
    else:
        assert isinstance(store.engine, sa.Engine)


def test_a_store_refuses_an_async_engine(stores: Stores) -> None:
    if stores.is_async:
        engine = stores.engine()
        with pytest.raises(errors.InvalidArgument, match="AsyncStore"):
            Store(engine)
        stores.loop.run(engine.dispose())
    else:
        with pytest.raises(errors.InvalidArgument, match="not a database URL"):
            stores.open(object())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter?2@host:bad/db",
        "postgresql://user:hunter@2@host:bad/db",
        "postgresql://user:hun/ter2@host:bad/db",
        "postgresql:user:hunter2",
        "postgresql:/user:hunter2/host",
        "user:hunter2@host",
    ],
)
def test_a_wrong_url_shows_no_password(stores: Stores, url: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        stores.open(url)
    assert "hun" not in str(caught.value)


def test_a_url_may_be_an_object(stores: Stores) -> None:
    assert stores.open(sa.make_url(stores.url)).conversations() == []


def test_a_schema_of_another_name(stores: Stores) -> None:
    if stores.dialect == "sqlite":
        with pytest.raises(errors.InvalidArgument, match="schema 'other'"):
            stores.open(schema="other")
        return
    stores.sql.run("DROP SCHEMA IF EXISTS other CASCADE")
    other = stores.open(schema="other")
    with pytest.raises(errors.SchemaOutOfDate, match="upgrade"):
        other.conversations()
    other.upgrade()
    other.append("c1", [Message.user("x")])
    assert stores.open().conversations() == []
    assert stores.sql.value("SELECT count(*) FROM other.messages") == 1
    for wrong in ("Other", "a-b", "1a", "", "a" * 64, 'a"; DROP', 5):
        if wrong:
            with pytest.raises(errors.InvalidArgument, match="schema"):
                stores.open(schema=wrong)


def test_a_database_in_memory(stores: Stores) -> None:
    store = stores.open("sqlite://", counter=Unit())
    store.upgrade()
    store.append("c1", texts(1, 2))
    assert store.window("c1", 2).first_position == 2
    assert store.for_owner("ann").conversations() == []
    assert store.edit("c1", 1, texts(5)[0]).token_count == 5
    assert store.recount("c1", Unit("ten", factor=10)).total_tokens == 70
    with pytest.raises(errors.SchemaOutOfDate):
        stores.open("sqlite://").conversations()


def test_upgrade_may_be_repeated(stores: Stores) -> None:
    store = stores.open()
    store.append("c1", [Message.user("x")])
    store.upgrade()
    store.upgrade("head")
    assert store.conversation("c1").message_count == 1
    with pytest.raises(errors.SchemaOutOfDate, match="nonsense"):
        store.upgrade("nonsense")


def test_a_database_of_a_newer_tokenmem(stores: Stores) -> None:
    table = "tokenmem_alembic_version"
    table = table if stores.dialect == "sqlite" else f"tokenmem.{table}"
    old = stores.sql.value(f"SELECT version_num FROM {table}")
    stores.sql.run(f"UPDATE {table} SET version_num = 'tokenmem_9999'")
    try:
        with pytest.warns(RuntimeWarning, match="tokenmem_9999.*nothing was done"):
            stores.open().upgrade()
    finally:
        stores.sql.run(f"UPDATE {table} SET version_num = '{old}'")


def test_a_store_shows_no_password(stores: Stores) -> None:
    url = sa.make_url(stores.url)
    if stores.dialect == "postgresql":
        url = url.set(password="hunter2-secret")
    store = stores.open(url)
    assert type(store).__name__ in ("Store", "Facade")
    assert repr(store).startswith("<AsyncStore " if stores.is_async else "<Store ")
    assert "hunter2" not in repr(store)


def test_many_tasks_share_one_async_store(stores: Stores) -> None:
    store: Any = stores.open()
    asynchronous = store.store if isinstance(store, Facade) else AsyncStore(stores.url)

    async def work(number: int) -> list[int]:
        found = []
        for turn in range(4):
            pair = [Message.user(f"{number} {turn}"), Message.assistant(f"{number} {turn}")]
            found.append((await asynchronous.append("c1", pair)).first_position)
            assert (await asynchronous.window("c1", 100)).token_count <= 100
        return found

    async def everybody() -> list[list[int]]:
        found = await asyncio.gather(*(work(number) for number in range(20)))
        await asynchronous.close()
        return found

    firsts = sorted(first for found in stores.loop.run(everybody()) for first in found)
    assert firsts == list(range(1, 160, 2))
    stored = store.messages("c1", limit=None)
    assert all(stored[i].content == stored[i + 1].content for i in range(0, 160, 2))
    assert store.verify() == []


def test_a_cancelled_task_leaves_no_connection_behind(stores: Stores) -> None:
    store: Any = stores.open()
    store.append("c1", [Message.user("x")])
    if not isinstance(store, Facade):
        assert store.verify() == []
        return

    async def cancel_at_any_moment() -> None:
        for number in range(60):
            work = (
                store.store.window("c1", 100) if number % 3 else store.store.edit("c1", 1, Message.user("y"))
            )
            task = asyncio.create_task(work)
            await asyncio.sleep(number % 15 / 10_000)  # up to the time that the whole takes
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    stores.loop.run(cancel_at_any_moment())
    gc.collect()  # a connection that was dropped warns now
    assert store.append("c1", [Message.user("the last")]).last_position == 2
    assert store.verify() == []


def test_the_default_database(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMEM_URL", stores.url)
    stores.open().append("c1", [Message.user("x")])
    kind: Any = AsyncStore if stores.is_async else Store
    opened = kind()
    store: Any = Facade(opened, stores.loop) if stores.is_async else opened
    assert store.conversation("c1").message_count == 1
    store.close()
    monkeypatch.delenv("TOKENMEM_URL")
    assert repr(kind()) == f"<{kind.__name__} sqlite:///tokenmem.db>"
