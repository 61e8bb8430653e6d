"""The caller's own transaction."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from tests.support.stores import Stores, Unit, positions, texts
from tokenmem import Message, Store, errors

pytestmark = pytest.mark.every_variant


@pytest.fixture
def counted(stores: Stores) -> Store:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2), owner="ann")
    stores.sql.run("DROP TABLE IF EXISTS orders")
    stores.sql.run("CREATE TABLE orders (number integer PRIMARY KEY)")
    return store


def orders(stores: Stores) -> list[int]:
    return [row[0] for row in stores.sql.rows("SELECT number FROM orders ORDER BY number")]


def test_commit_keeps_both_the_messages_and_the_callers_rows(stores: Stores, counted: Store) -> None:
    with stores.transaction(counted) as mine:
        mine.execute("INSERT INTO orders VALUES (7)")
        appended = mine.store.append("c1", texts(3))
        mine.store.append("c2", texts(4))
        assert appended.first_position == 3
        assert mine.store.window("c1", 5).first_position == 2
        assert orders(stores) == []
        assert positions(counted.messages("c1")) == [1, 2]
        mine.commit()
    assert orders(stores) == [7]
    assert positions(counted.messages("c1")) == [1, 2, 3]
    assert counted.verify() == []


def test_rollback_keeps_neither(stores: Stores, counted: Store) -> None:
    before = stores.sql.counts()
    with stores.transaction(counted) as mine:
        mine.execute("INSERT INTO orders VALUES (7)")
        mine.store.append("c1", texts(3), idempotency_key="k")
        mine.store.edit("c1", 1, texts(9)[0])
        mine.store.fork("c1", "copy")
        mine.store.delete("c1")
        mine.rollback()
    assert orders(stores) == []
    assert stores.sql.counts() == before
    assert [m.token_count for m in counted.messages("c1")] == [1, 2]
    assert counted.verify() == []


def test_leaving_without_a_word_rolls_back(stores: Stores, counted: Store) -> None:
    with stores.transaction(counted) as mine:
        mine.store.append("c1", texts(3))
    assert positions(counted.messages("c1")) == [1, 2]


def test_a_write_that_fails_leaves_the_transaction_usable(stores: Stores, counted: Store) -> None:
    with stores.transaction(counted) as mine:
        mine.execute("INSERT INTO orders VALUES (1)")
        mine.store.append("c1", texts(3), idempotency_key="k")
        with pytest.raises(errors.PositionConflict):
            mine.store.append("c1", texts(4), expected_position=99)
        with pytest.raises(errors.IdempotencyConflict):
            mine.store.append("c1", texts(4), idempotency_key="k")
        with pytest.raises(errors.InvalidMessage):
            mine.store.append("c1", [{"role": "nobody", "content": "x"}])
        with pytest.raises(errors.InvalidArgument):
            mine.store.fork("c1", "c1")
        with pytest.raises(errors.ConversationNotFound):
            mine.store.delete("none")
        with pytest.raises(errors.ConversationNotFound):
            mine.store.window("none", 10)
        with pytest.raises(errors.WindowTooSmall):
            mine.store.window("c1", 0)
        mine.execute("INSERT INTO orders VALUES (2)")
        mine.store.append("c1", texts(5))
        mine.commit()
    assert orders(stores) == [1, 2]
    assert [m.token_count for m in counted.messages("c1")] == [1, 2, 3, 5]
    assert counted.verify() == []


def test_a_statement_that_the_database_refuses_leaves_it_usable(stores: Stores, counted: Store) -> None:
    if stores.dialect == "postgresql":
        stores.sql.run("ALTER TABLE {messages} ADD CONSTRAINT no CHECK (position < 3)")
    else:
        stores.sql.run(
            "CREATE TRIGGER no BEFORE INSERT ON messages WHEN NEW.position > 2 "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    try:
        with stores.transaction(counted) as mine:
            mine.execute("INSERT INTO orders VALUES (1)")
            with pytest.raises(errors.DatabaseError):
                mine.store.append("c1", texts(3))
            mine.store.append("c2", texts(3))
            mine.commit()
    finally:
        if stores.dialect == "postgresql":
            stores.sql.run("ALTER TABLE {messages} DROP CONSTRAINT no")
    assert orders(stores) == [1]
    assert counted.conversation("c1").last_position == 2
    assert counted.conversation("c2").last_position == 1
    assert counted.verify() == []


def test_every_operation_runs_in_the_transaction(stores: Stores, counted: Store) -> None:
    with stores.transaction(counted) as mine:
        bound = mine.store
        bound.append("c2", texts(3), idempotency_key="k")
        assert bound.append("c2", texts(3), idempotency_key="k").replayed
        bound.append("c2", texts(4, 5))
        assert bound.update("c2", title="T").title == "T"
        assert bound.edit("c2", 1, texts(6)[0]).token_count == 6
        bound.delete_message("c2", 2)
        assert bound.truncate("c2", after=2) == 1
        assert bound.recount("c2", Unit("ten", factor=10)).total_tokens == 60
        assert bound.fork("c2", "c3").message_count == 1
        assert [found.id for found in bound.conversations()] == ["c1", "c2", "c3"]
        assert bound.delete_owner("ann") == 1
        assert bound.verify() == []
        mine.rollback()
    assert [found.id for found in counted.conversations()] == ["c1"]


def test_the_owner_stays_with_the_transaction(stores: Stores, counted: Store) -> None:
    counted.append("c2", texts(1), owner="bob")
    with stores.transaction(counted.for_owner("ann")) as mine:
        mine.store.append("c1", texts(3))
        with pytest.raises(errors.ConversationNotFound):
            mine.store.append("c2", texts(3))
        with pytest.raises(errors.ConversationNotFound):
            mine.store.for_owner("ann").window("c2", 100)
        mine.commit()
    assert counted.conversation("c1").message_count == 3


def test_closing_a_bound_store_closes_nothing(stores: Stores, counted: Store) -> None:
    with stores.transaction(counted) as mine:
        with mine.store as bound:
            bound.append("c1", texts(3))
        mine.store.append("c1", texts(4))
        mine.commit()
    assert counted.conversation("c1").message_count == 4


def test_two_transactions_on_two_conversations(stores: Stores, counted: Store) -> None:
    """On PostgreSQL they do not wait for each other; SQLite has one writer at a time."""
    if stores.dialect == "sqlite":
        with stores.transaction(counted) as first:
            first.store.append("a", texts(1))
            first.commit()
        with stores.transaction(counted) as second:
            second.store.append("b", texts(1))
            second.commit()
    else:
        with stores.transaction(counted) as first, stores.transaction(counted) as second:
            first.store.append("a", texts(1))
            second.store.append("b", texts(1))
            second.commit()
            first.commit()
    assert [found.id for found in counted.conversations()] == ["a", "b", "c1"]


def test_a_connection_of_the_wrong_kind_is_refused(stores: Stores, counted: Store) -> None:
    other = "postgresql" if stores.dialect == "sqlite" else "sqlite"
    with pytest.raises(errors.InvalidArgument, match="Connection"):
        counted.bind("a connection")  # type: ignore[arg-type]
    if not stores.is_async:
        with pytest.raises(errors.InvalidArgument, match="pass a Connection"):
            counted.bind(stores.sql.engine)  # type: ignore[arg-type]
        if other == "sqlite":
            engine = sa.create_engine("sqlite://")
            with engine.connect() as connection, pytest.raises(errors.InvalidArgument, match="sqlite"):
                counted.bind(connection)
            engine.dispose()
    else:
        with stores.sql.engine.connect() as sync, pytest.raises(errors.InvalidArgument, match="AsyncConn"):
            counted.bind(sync)


def test_messages_bound_are_read_back_as_they_went_in(stores: Stores, counted: Store) -> None:
    message = {"role": "user", "content": "1 🙂", "x": [-0.0, None, {"b": 1, "a": 2}]}
    with stores.transaction(counted) as mine:
        mine.store.append("c9", [message])
        assert repr(mine.store.messages("c9")[0].to_openai()["x"]) == repr(message["x"])
        mine.commit()
    assert counted.messages("c9")[0] == Message(
        "user",
        "1 🙂",
        payload={"role": "user", "x": [-0.0, None, {"b": 1, "a": 2}]},
        position=1,
        token_count=1,
        created_at=counted.messages("c9")[0].created_at,
    )


def test_an_engine_that_begins_each_transaction_itself(stores: Stores, counted: Store) -> None:
    """SQLAlchemy's documented recipe for SQLite: a write must not begin as a read, or it could not go on."""
    if stores.variant != "sqlite-sync":
        assert counted.verify() == []
        return
    engine = sa.create_engine(stores.url, connect_args={"timeout": 60})
    sa.event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    store = Store(engine, counter=Unit())
    with ThreadPoolExecutor(4) as pool:
        titles = [f"{number}" for number in range(80)]
        assert len(list(pool.map(lambda title: store.update("c1", title=title), titles))) == 80
    store.append("c1", texts(3))
    assert store.verify() == []
    engine.dispose()
