"""store.transaction(): all that a block writes, or nothing; and what happens beside it meanwhile."""
# ruff: noqa: PT012 - what raises is a block of several statements

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.stores import Facade, Stores, Unit, pools_of, positions, texts
from tokenmem import AsyncChat, Chat, Store, errors

pytestmark = pytest.mark.every_variant


class Failed(Exception):
    """What a block of the tests raises."""


@pytest.fixture(params=["own engine", "the caller's"])
def counted(request: pytest.FixtureRequest, stores: Stores) -> Any:
    """A store on its own engine, and on one of the caller's; in it a conversation of two messages."""
    engine = None if request.param == "own engine" else stores.engine()
    store = stores.open(engine, counter=Unit())
    store.append("c1", texts(1, 2), owner="ann")
    yield store
    if engine is not None:
        for pool in pools_of(store):
            assert pool.checkedout() == 0
        disposed = engine.dispose()
        if stores.is_async:
            stores.loop.run(disposed)


def costs(store: Store, conversation_id: str = "c1") -> list[int]:
    return [m.token_count for m in store.messages(conversation_id, limit=None, missing="empty")]


def test_commit(counted: Store) -> None:
    with counted.transaction() as bound:
        assert type(bound) is type(counted)
        assert costs(bound) == [1, 2], "it may read before it writes"
        bound.append("c1", texts(3))
        bound.append("c2", texts(4), idempotency_key="k")
        bound.pop("c1")
        bound.append("c1", texts(*range(1, 301)))
        assert bound.conversation("c1").message_count == 302
        assert bound.verify() == []
        assert costs(counted) == [1, 2]
        assert costs(counted, "c2") == []
    assert costs(counted) == [1, 2, *range(1, 301)]
    assert costs(counted, "c2") == [4]
    assert counted.append("c2", texts(4), idempotency_key="k").replayed
    assert counted.verify() == []


def test_an_error_rolls_back(counted: Store, stores: Stores) -> None:
    before = stores.sql.counts()
    for error in (Failed, KeyboardInterrupt, StopIteration):
        with pytest.raises((error, RuntimeError)), counted.transaction() as bound:
            bound.append("c1", texts(3))
            bound.replace("c1", texts(4))
            bound.delete("c1")
            raise error
        assert stores.sql.counts() == before
    assert costs(counted) == [1, 2]
    counted.append("c1", texts(3))
    assert counted.verify() == []


def test_a_write_that_fails_leaves_the_others(counted: Store) -> None:
    with counted.transaction() as bound:
        bound.append("c1", texts(3))
        for operation, kind in (
            (lambda: bound.append("c1", texts(4), expected_position=99), errors.PositionConflict),
            (lambda: bound.replace("c1", texts(4), expected_position=99), errors.PositionConflict),
            (lambda: bound.message("c1", 99), errors.MessageNotFound),
            (lambda: bound.window("none", 9), errors.ConversationNotFound),
            (lambda: bound.update_message("c1", 99, metadata={}), errors.MessageNotFound),
        ):
            with pytest.raises(kind):
                operation()
        bound.append("c1", texts(5))
    assert costs(counted) == [1, 2, 3, 5]


def test_an_error_of_the_database_is_ours(counted: Store, stores: Stores) -> None:
    if stores.dialect == "postgresql":
        stores.sql.run("ALTER TABLE {messages} ADD CONSTRAINT no CHECK (token_count < 9)")
    else:
        stores.sql.run(
            "CREATE TRIGGER no BEFORE INSERT ON messages WHEN NEW.token_count > 8 "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    try:
        with counted.transaction() as bound:
            bound.append("c1", texts(3))
            with pytest.raises(errors.DatabaseError):
                bound.append("c1", texts(9))
            bound.append("c1", texts(4))
        with pytest.raises(errors.DatabaseError), counted.transaction() as bound:
            bound.append("c1", texts(5))
            bound.append("c1", texts(9))
    finally:
        if stores.dialect == "postgresql":
            stores.sql.run("ALTER TABLE {messages} DROP CONSTRAINT no")
    assert costs(counted) == [1, 2, 3, 4]


def test_savepoints(counted: Store) -> None:
    with counted.transaction() as bound:
        bound.append("c1", texts(3))
        with bound.transaction() as inner:
            inner.append("c1", texts(4))
            with pytest.raises(Failed), inner.transaction() as innermost:
                innermost.append("c1", texts(5))
                raise Failed
            assert costs(inner) == [1, 2, 3, 4]
        with pytest.raises(Failed), bound.transaction() as inner:
            inner.append("c1", texts(6))
            with inner.transaction() as innermost:
                innermost.append("c1", texts(7))
            raise Failed
        bound.append("c1", texts(8))
        assert costs(counted) == [1, 2]
    assert costs(counted) == [1, 2, 3, 4, 8]
    assert positions(counted.messages("c1")) == [1, 2, 3, 4, 5]
    with pytest.raises(Failed), counted.transaction() as bound:
        with bound.transaction() as inner:
            inner.append("c1", texts(9))
        raise Failed
    assert costs(counted) == [1, 2, 3, 4, 8]
    assert counted.verify() == []


def test_a_savepoint_in_the_callers_transaction(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1))
    with stores.transaction(store) as mine:
        with mine.store.transaction() as bound:
            bound.append("c1", texts(2))
        with pytest.raises(Failed), mine.store.transaction() as bound:
            bound.append("c1", texts(3))
            raise Failed
        assert costs(mine.store) == [1, 2]
        assert costs(store) == [1]
        mine.commit()
    assert costs(store) == [1, 2]
    with stores.transaction(store) as mine:
        with mine.store.transaction() as bound:
            bound.append("c1", texts(4))
        mine.rollback()
    assert costs(store) == [1, 2]


def test_the_owner_goes_along(counted: Store) -> None:
    counted.append("c2", texts(1), owner="bob")
    with counted.for_owner("ann").transaction() as bound:
        bound.append("c1", texts(3))
        for store in (bound, counted.for_owner("ann")):
            with pytest.raises(errors.ConversationNotFound):
                store.read("c2")
        with bound.transaction() as inner, pytest.raises(errors.ConversationNotFound):
            inner.pop("c2")
        with pytest.raises(errors.InvalidArgument):
            bound.for_owner("bob")
    with counted.transaction() as bound:
        bound.for_owner("bob").pop("c2")
    assert costs(counted) == [1, 2, 3]
    assert costs(counted, "c2") == []


def test_a_store_whose_block_has_ended_says_so(counted: Store) -> None:
    with counted.transaction() as bound:
        with bound.transaction() as inner:
            inner.append("c1", texts(3))
        with pytest.raises(errors.InvalidArgument, match="has ended"):
            inner.append("c1", texts(4))
        bound.append("c1", texts(5))
    for operation in (lambda: bound.append("c1", texts(6)), lambda: bound.messages("c1")):
        with pytest.raises(errors.InvalidArgument, match="has ended"):
            operation()
    with pytest.raises(errors.InvalidArgument, match="has ended"), bound.transaction():
        pass
    assert costs(counted) == [1, 2, 3, 5]


def test_closing_it_closes_nothing(counted: Store) -> None:
    with counted.transaction() as bound:
        with bound as again:
            again.append("c1", texts(3))
        bound.append("c1", texts(4))
    assert costs(counted) == [1, 2, 3, 4]


def test_no_model_is_called_in_one(counted: Store, stores: Stores) -> None:
    with counted.transaction() as bound:
        kind: Any = AsyncChat if stores.is_async else Chat
        held = bound.store if isinstance(bound, Facade) else bound
        with pytest.raises(errors.InvalidArgument, match="held while the model thinks"):
            kind(held, lambda _: "", model="m", token_limit=9)


def test_the_file_is_locked_at_once(counted: Store, stores: Stores) -> None:
    """What is read first in a block is still so when it is written."""
    if stores.dialect != "sqlite":
        return
    with counted.transaction() as bound:
        assert costs(bound) == [1, 2]
        other = sa.create_engine(stores.url, connect_args={"timeout": 0.05})
        with pytest.raises(errors.DatabaseUnavailable, match="locked"):
            Store(other, counter=Unit()).append("c1", texts(9))
        other.dispose()
        bound.append("c1", texts(3))
    assert costs(counted) == [1, 2, 3]


def test_an_engine_that_begins_each_transaction_itself(stores: Stores) -> None:
    """SQLAlchemy's documented recipe for SQLite begins without the write lock."""
    store = stores.open(counter=Unit())
    store.append("c1", texts(1))
    if stores.variant != "sqlite-sync":
        return
    engine = sa.create_engine(stores.url, connect_args={"timeout": 60})
    sa.event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    mine = Store(engine, counter=Unit())

    def add_one(_: int) -> None:
        with mine.transaction() as bound:
            said = int(str(bound.messages("c1", newest_first=True, limit=1)[0].content).split()[0])
            bound.append("c1", texts(said + 1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(40)))
    assert costs(store) == list(range(1, 42))
    engine.dispose()


def test_an_engine_in_autocommit(stores: Stores) -> None:
    engine = stores.engine(isolation_level="AUTOCOMMIT")
    store = stores.open(engine, counter=Unit())
    with pytest.raises(Failed), store.transaction() as bound:
        bound.append("c1", texts(1))
        with bound.transaction() as inner:
            inner.append("c1", texts(2))
        raise Failed
    assert costs(store) == []
    with store.transaction() as bound:
        bound.append("c1", texts(1))
    assert costs(store) == [1]
    disposed = engine.dispose()
    if stores.is_async:
        stores.loop.run(disposed)


def test_read_then_write_by_several_at_once(stores: Stores) -> None:
    """On SQLite a block is alone; on PostgreSQL whoever has changed the conversation first."""
    store = stores.open(counter=Unit())
    store.append("c1", texts(1), metadata={"n": 0})

    def count_up(bound: Any) -> Any:
        said = bound.messages("c1", newest_first=True, limit=1)
        return said, lambda found: texts(int(str(found[0].content).split()[0]) + 1)

    if not stores.is_async:

        def work(_: int) -> None:
            with store.transaction() as bound:
                bound.update("c1", title="mine")  # which locks it on PostgreSQL
                found, following = count_up(bound)
                bound.append("c1", following(found))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(24)))
    else:

        async def work_async() -> None:
            async with store.store.transaction() as bound:  # type: ignore[attr-defined]
                await bound.update("c1", title="mine")
                found, following = count_up(bound)
                await bound.append("c1", following(await found))

        async def all_of_them() -> None:
            await asyncio.gather(*(work_async() for _ in range(24)))

        stores.loop.run(all_of_them())
    assert costs(store) == list(range(1, 26))


def test_the_transaction_that_the_database_has_ended_stores_nothing(stores: Stores) -> None:
    """A COMMIT of a failed transaction rolls back, and PostgreSQL says nothing of it."""
    if stores.dialect != "postgresql":
        return
    store = stores.open(counter=Unit())
    store.append("c1", texts(1))
    stores.sql.run("ALTER TABLE {messages} RENAME COLUMN payload TO gone")
    try:
        with (
            pytest.raises(errors.DatabaseError, match="rolled the transaction back"),
            store.transaction() as bound,
        ):
            bound.update("c1", title="T")
            with pytest.raises(errors.SchemaOutOfDate):
                bound.messages("c1")
    finally:
        stores.sql.run("ALTER TABLE {messages} RENAME COLUMN gone TO payload")
    assert store.conversation("c1").title is None
    store.append("c1", texts(2))


def test_a_lost_connection_is_an_error_and_a_rollback(stores: Stores) -> None:
    if stores.dialect != "postgresql":
        return
    store = stores.open(counter=Unit())
    store.append("c1", texts(1))
    with pytest.raises(errors.DatabaseUnavailable), store.transaction() as bound:
        bound.append("c1", texts(2))
        stores.sql.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
        )
        bound.append("c1", texts(3))
    assert costs(store) == [1]
    with pytest.raises(errors.DatabaseError), store.transaction() as bound:
        bound.append("c1", texts(2))
        stores.sql.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
        )
    assert costs(store) == [1]
