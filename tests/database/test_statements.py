"""Statements pass SQLAlchemy by where nobody would notice, and only there."""

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.postgres import driver_url
from tests.support.stores import Unit, engines_of, texts
from tokenmem import Appended, Store, errors
from tokenmem.database.schema import VIEWS
from tokenmem.messages.json_lines import ConversationLine


@pytest.fixture
def store(ready_url: str) -> Iterator[Store]:
    with Store(ready_url, counter=Unit()) as opened:
        yield opened


def use(store: Store) -> None:
    store.append("c", texts(1, 2))
    store.window("c", 10)
    store.truncate("c", after=1)


def through_sqlalchemy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    original = sa.Connection.exec_driver_sql

    def note(self: sa.Connection, statement: str, *args: Any, **kwargs: Any) -> Any:
        seen.append(statement)
        return original(self, statement, *args, **kwargs)

    monkeypatch.setattr(sa.Connection, "exec_driver_sql", note)
    return seen


def named(statements: list[str], *tables: str) -> bool:
    return all(any(table in statement for statement in statements) for table in tables)


def test_an_engine_of_ours_passes_by(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = through_sqlalchemy(monkeypatch)
    use(store)
    assert not named(seen, "messages")


def test_an_engine_of_the_callers_sees_every_statement(
    ready_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(ready_url)
    store = Store(engine, counter=Unit())
    seen = through_sqlalchemy(monkeypatch)
    use(store)
    assert named(seen, "INSERT INTO", "least_before", "DELETE FROM")
    engine.dispose()


def test_a_connection_of_the_callers_sees_every_statement(
    store: Store, ready_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(ready_url)
    seen = through_sqlalchemy(monkeypatch)
    with engine.begin() as connection:
        use(store.bind(connection))
    assert named(seen, "INSERT INTO", "least_before", "DELETE FROM")
    engine.dispose()


@pytest.mark.parametrize("event", ["before_cursor_execute", "after_cursor_execute"])
def test_a_listener_sees_every_statement(store: Store, event: str) -> None:
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.append(statement)

    store.append("c", texts(1))  # so that connections are open when the listener comes
    for engine in {engines_of(store).reading, engines_of(store).writing}:
        sa.event.listen(engine, event, note)
    use(store)
    assert named(seen, "INSERT INTO", "least_before", "DELETE FROM")


def test_a_log_sees_every_statement_but_no_text(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "sqlalchemy.engine"):
        store.append("c", [{"role": "user", "content": "7 secret words"}])
        store.window("c", 10)
    assert "least_before" in caplog.text
    assert "secret" not in caplog.text


def test_an_interrupted_statement_leaves_no_connection_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(store)
    pool: Any = store._connections.engines.reading.pool
    before = pool.checkedin()
    original = sa.pool._ConnectionFairy.cursor

    class Interrupted:
        def __init__(self, cursor: Any) -> None:
            self.cursor = cursor

        def execute(self, *args: Any) -> None:
            self.cursor.execute(*args)
            raise KeyboardInterrupt

        def close(self) -> None:
            self.cursor.close()

    with monkeypatch.context() as patch:
        patch.setattr(sa.pool._ConnectionFairy, "cursor", lambda fairy: Interrupted(original(fairy)))
        with pytest.raises(KeyboardInterrupt):
            store.window("c", 10)
    assert pool.checkedout() == 0
    assert pool.checkedin() == before
    assert store.window("c", 10).token_count == 1


def test_the_drivers_error_is_ours(database_url: str) -> None:
    with Store(database_url) as store:
        store.upgrade()
        with store.engine.begin() as connection:
            schema = "tokenmem." if connection.dialect.name == "postgresql" else ""
            for view in VIEWS:
                connection.exec_driver_sql(f"DROP VIEW {schema}{view}")
            connection.exec_driver_sql(f"DROP TABLE {schema}messages")
        with pytest.raises(errors.SchemaOutOfDate) as caught:
            store.window("c", 10)
        assert caught.value.__cause__ is None


def test_the_callers_commit_ends_what_a_bound_read_began(store: Store) -> None:
    store.append("c", texts(1))
    with store.engine.connect() as connection:
        bound = store.bind(connection)
        bound.conversations()
        assert connection.in_transaction()
        connection.commit()
        driver: Any = connection.connection.driver_connection
        if connection.dialect.name == "postgresql":
            assert driver.info.transaction_status.name == "IDLE"
            connection.execution_options(isolation_level="REPEATABLE READ")
            assert bound.conversation("c").last_position == 1
            store.append("c", texts(1))
            assert bound.conversation("c").last_position == 1
            connection.commit()
        assert bound.conversation("c").last_position == store.conversation("c").last_position


def test_a_bound_read_that_fails_can_be_rolled_back(postgres_url: str) -> None:
    with Store(postgres_url) as store, store.engine.connect() as connection:
        with pytest.raises(errors.SchemaOutOfDate):
            store.bind(connection).conversations()
        connection.rollback()
        store.upgrade()
        assert store.bind(connection).conversations() == []


BLOCKED = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
OURS = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'tokenmem'"
)


def test_a_lost_connection_orphans_no_other(postgres_url: str) -> None:
    with Store(postgres_url, counter=Unit()) as store, psycopg.connect(driver_url(postgres_url)) as other:
        store.upgrade()
        store.append("c", texts(1))
        other.autocommit = True
        with ThreadPoolExecutor(5) as pool, psycopg.connect(driver_url(postgres_url)) as locker:
            locker.execute("SELECT 1 FROM tokenmem.conversations FOR UPDATE")
            waiting = [pool.submit(store.append, "c", texts(1)) for _ in range(5)]
            while len(pids := other.execute(BLOCKED).fetchall()) < 5:
                time.sleep(0.01)
            other.execute("SELECT pg_terminate_backend(%s)", pids[0])
            locker.rollback()
            lost = [each for each in waiting if each.exception()]
        assert [type(each.exception()) for each in lost] == [errors.DatabaseUnavailable]
        assert store.append("c", texts(1)).last_position == 6
        store.close()
        for _ in range(500):
            if (left := other.execute(OURS).fetchone()) == (0,):
                break
            time.sleep(0.01)
        assert left == (0,)


@pytest.mark.parametrize("count", [300, 2])
def test_an_append_is_all_or_nothing_on_an_engine_that_commits_every_statement(
    postgres_url: str, count: int
) -> None:
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    store = Store(engine, counter=Unit())
    store.upgrade()
    store.append("c", texts(5))
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE tokenmem.messages ADD CHECK (conversation_id = 'd' OR position < 3)"
        )
    with pytest.raises(errors.DatabaseError):
        store.append("c", texts(*[1] * count))
    assert store.conversation("c").last_position == 1
    assert store.append("d", texts(*[1] * count)).last_position == count
    assert store.verify() == []
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert driver.autocommit
    engine.dispose()


@pytest.mark.parametrize("listened", [False, True])
def test_an_import_of_nothing_new(ready_url: str, listened: bool) -> None:
    engine = sa.create_engine(ready_url)
    if listened:
        sa.event.listen(engine, "before_cursor_execute", lambda *_: None)
    store = Store(engine, counter=Unit())
    line = ConversationLine("c", texts(1, 2))
    assert store.import_conversations([line]) == [Appended(1, 2, 3, 3)]
    assert store.import_conversations([line]) == [None]
    engine.dispose()
