"""Statements pass SQLAlchemy by where nobody would notice, and only there."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.stores import Unit, texts
from tokenmem import Store, errors


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    with Store(database_url, counter=Unit()) as opened:
        opened.upgrade()
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
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(database_url)
    store = Store(engine, counter=Unit())
    store.upgrade()
    seen = through_sqlalchemy(monkeypatch)
    use(store)
    assert named(seen, "INSERT INTO", "least_before", "DELETE FROM")
    engine.dispose()


def test_a_connection_of_the_callers_sees_every_statement(
    store: Store, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(database_url)
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
    for engine in (store.engine, store._connections.single):
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
    pool: Any = store._connections.single.pool
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


def test_the_drivers_error_is_ours(store: Store) -> None:
    with store.engine.begin() as connection:
        schema = "tokenmem." if connection.dialect.name == "postgresql" else ""
        for view in ("conversation_overview", "message_log", "tool_calls", "usage_by_day", "call_windows"):
            connection.exec_driver_sql(f"DROP VIEW {schema}{view}")
        connection.exec_driver_sql(f"DROP TABLE {schema}messages")
    with pytest.raises(errors.SchemaOutOfDate) as caught:
        store.window("c", 10)
    assert caught.value.__cause__ is None
