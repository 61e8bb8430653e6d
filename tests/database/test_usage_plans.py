"""What calls have cost since a day: only conversations that have changed since are read, and their calls."""

import sqlite3
from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pytest

from tests.database.test_query_plans import explain, nodes, outline, steps_of
from tests.support.postgres import PostgresServer, driver_url
from tests.support.stores import Direct, statement_text
from tokenmem import Store
from tokenmem.database.statements import Scope
from tokenmem.operations import usage

MANY = 20_000
"""Conversations that have not changed for long, of which half are archived."""

SINCE = date(2026, 3, 1)
ACTIVE = 12  # three conversations in each of four states


def fill(sql: Direct, many: int) -> None:
    postgres = sql.engine.dialect.name == "postgresql"
    series = (
        "generate_series(1, {}) AS s(n)"
        if postgres
        else "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {}) SELECT n FROM s)"
    )
    old, young = "'2026-02-01T00:00:00.000Z'", "'2026-03-02T00:00:00.000Z'"
    if postgres:
        old, young = f"CAST({old} AS timestamptz)", f"CAST({young} AS timestamptz)"
    columns = "id, owner, token_counter, last_position, message_count, total_tokens, created_at, updated_at"
    for name, moment, count in (("old", old, many), ("young", young, ACTIVE)):
        sql.run(
            f"INSERT INTO {{conversations}} ({columns}, recent_at, archived_at)"
            f" SELECT '{name}' || n, 'ann', 'unit', 0, 0, 0, {old}, {moment},"
            f" CASE WHEN n % 4 < 2 THEN {moment} END, CASE WHEN n % 2 = 0 THEN {old} END"
            f" FROM {series.format(count)}"
        )
        # One that has not changed since it was made, was made then.
        sql.run(
            f"UPDATE {{conversations}} SET created_at = {moment}"
            f" WHERE id LIKE '{name}%' AND recent_at IS NULL"
        )
        sql.run(
            "INSERT INTO {llm_calls} (conversation_id, number, model, status, input_tokens, created_at)"
            f" SELECT '{name}' || n, 1, 'm', 'ok', 5, {moment} FROM {series.format(count)}"
        )


def statement(by: str, owner: str | None) -> Any:
    return usage._USAGES[by, owner is not None, True]


@pytest.fixture(scope="module")
def postgres_many(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        with Store(url) as store:
            store.upgrade()
        sql = Direct(url)
        fill(sql, MANY)
        sql.close()
        with psycopg.connect(driver_url(url), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE tokenmem.conversations, tokenmem.llm_calls, tokenmem.messages")
        yield url


@pytest.mark.parametrize("by", usage.KEYS)
@pytest.mark.parametrize("owner", ["ann", None])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_postgresql_reads_what_has_changed_since(
    postgres_many: str, by: str, owner: str | None, mode: str
) -> None:
    request = usage._request("postgresql", Scope("tokenmem", owner), SINCE, None)
    with psycopg.connect(driver_url(postgres_many)) as connection:
        connection.prepare_threshold = 0  # prepared at once, so that the mode counts
        connection.execute(f"SET plan_cache_mode = {mode}".encode())
        explained = explain(connection, statement(by, owner), request)
        shown = outline(explained["Plan"])
        for node in nodes(explained["Plan"]):
            name = node.get("Relation Name")
            if name in ("conversations", "llm_calls") and node["Actual Loops"]:
                assert node["Node Type"] != "Seq Scan", shown
                read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
                assert read <= ACTIVE, shown
        connection.rollback()
    with Store(postgres_many) as store:
        assert [line.calls for line in store.usage(owner=owner, since=SINCE)] == [ACTIVE]


@pytest.fixture(scope="module")
def sqlite_many(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    urls = {}
    for many in (20, MANY):
        urls[many] = f"sqlite:///{tmp_path_factory.mktemp('usage') / 'many.db'}"
        with Store(urls[many]) as store:
            store.upgrade()
        sql = Direct(urls[many])
        fill(sql, many)
        sql.close()
    return urls


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("owner", ["ann", None])
def test_sqlite_takes_as_many_steps_for_many_as_for_few(
    sqlite_many: dict[int, str], owner: str | None, analyzed: bool
) -> None:
    request = usage._request("sqlite", Scope(None, owner), SINCE, None)
    if analyzed:
        for url in sqlite_many.values():
            with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
                connection.execute("ANALYZE")
            connection.close()
    few, rows = steps_of(sqlite_many[20], statement("day", owner), request)
    many, rows_of_many = steps_of(sqlite_many[MANY], statement("day", owner), request)
    assert rows == rows_of_many == 1
    assert many <= 1.1 * few
    assert "messages" in statement_text(statement("day", owner), "sqlite")
