"""Every name of SQLAlchemy's that it does not document is there, and does what we use it for."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc

from tokenmem.database import sqlalchemy_internals
from tokenmem.database.engine import open_engine
from tokenmem.database.sqlalchemy_internals import (
    await_only,
    commits_every_statement,
    driver_error,
    greenlet_spawn,
    in_greenlet,
    is_disconnect,
    is_observed,
    mark_pool_as_old,
    message_of,
    reserved_words,
)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


def test_all_of_them_are_tried_here() -> None:
    assert set(sqlalchemy_internals.__all__) <= globals().keys()


@pytest.mark.parametrize("listened_to", ["before_cursor_execute", "after_cursor_execute"])
def test_who_listens_to_statements_is_seen(engine: sa.Engine, listened_to: str) -> None:
    with engine.connect() as connection:
        assert not is_observed(connection)
    event.listen(engine, listened_to, lambda *_: None)
    with engine.connect() as connection:
        assert is_observed(connection)


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_a_connection_in_autocommit_is_seen(database_url: str, level: str) -> None:
    plain, set_once = sa.create_engine(database_url), sa.create_engine(database_url, isolation_level=level)
    with plain.connect() as one, set_once.connect() as other:
        assert not commits_every_statement(one)
        one.execution_options(isolation_level=level)
        assert commits_every_statement(one) is commits_every_statement(other) is (level == "AUTOCOMMIT")
    plain.dispose()
    set_once.dispose()


def test_who_logs_statements_is_seen(engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    with engine.connect() as connection:
        assert not is_observed(connection)
    with caplog.at_level(logging.INFO, logger="sqlalchemy.engine"), engine.connect() as connection:
        assert is_observed(connection)


def test_connections_as_old_as_a_lost_one_are_replaced(engine: sa.Engine) -> None:
    with engine.connect() as first, engine.connect() as second:
        old = {each.connection.driver_connection for each in (first, second)}
        mark_pool_as_old(first, RuntimeError("lost"))
    with engine.connect() as first, engine.connect() as second:
        assert old.isdisjoint({each.connection.driver_connection for each in (first, second)})


def failure(cursor: Any, text: str) -> BaseException:
    try:
        cursor.execute(text)
    except Exception as error:
        return error
    raise AssertionError("the statement did not fail")


def test_a_lost_connection_is_told_from_a_wrong_statement(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        assert not is_disconnect(connection, failure(cursor, "SELECT nothing FROM nowhere"), cursor)
        connection.connection.driver_connection.close()  # type: ignore[union-attr]
        assert is_disconnect(connection, failure(cursor, "SELECT 1"), cursor)
        connection.invalidate()


@pytest.mark.parametrize("lost", [True, False])
def test_a_drivers_error_is_wrapped_as_sqlalchemy_does(engine: sa.Engine, lost: bool) -> None:
    with engine.connect() as connection:
        error = failure(connection.connection.cursor(), "SELECT nothing FROM nowhere")
        wrapped = driver_error(connection, "SELECT nothing FROM nowhere", error, lost=lost)
        assert isinstance(wrapped, (exc.ProgrammingError, exc.OperationalError))
        assert wrapped.orig is error
        assert wrapped.connection_invalidated is lost
        assert wrapped.hide_parameters


def test_an_errors_own_words() -> None:
    error = exc.StatementError("what happened", "SELECT :said", {"said": "a secret"}, RuntimeError("why"))
    assert message_of(error) == "what happened"
    assert "SELECT" in str(error), "which says more"


def test_words_that_postgresql_reserves() -> None:
    assert {"select", "user", "window"} <= reserved_words()
    assert "tokenmem" not in reserved_words()


def test_a_greenlet_waits_where_plain_code_cannot() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    def plain() -> tuple[bool, int]:
        return in_greenlet(), await_only(answer())

    async def main() -> tuple[bool, int]:
        return await greenlet_spawn(plain)

    assert asyncio.run(main()) == (True, 42)
    assert not in_greenlet()
