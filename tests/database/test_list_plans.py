"""A list by recency reads its own rows and the busy ones at its end, however many conversations there are."""

import itertools
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.database.test_query_plans import explain, generic_and_custom, nodes, outline, steps_of
from tests.support.postgres import PostgresServer, driver_url
from tests.support.stores import Direct, statement_text
from tokenmem import Store
from tokenmem.operations import lists
from tokenmem.operations.rows import as_stored

COUNT = 100_000  # conversations of ann's, one a second; every other one has changed since it was made
AWAY = 1_000  # of ann's, archived
OTHERS = 2_000  # of other owners', at the same times
START = datetime(2026, 1, 1, tzinfo=UTC)
LIMIT = 50
BUSY = 40  # conversations that are stamped within half a minute before the end of a page, and some
FEW_PAGES = 600  # of 8 kB; the whole table has some thousand

FILL = """
INSERT INTO {conversations} (id, owner, token_counter, last_position, message_count, total_tokens,
    created_at, updated_at, recent_at, archived_at)
SELECT '%(name)s' || n, %(owner)s, 'unit', 1, 1, 1, %(made)s, %(changed)s,
    CASE WHEN n %% 2 = 0 THEN %(changed)s END, %(archived)s FROM %(series)s
"""
POSTGRESQL = {
    "made": "timestamptz '2026-01-01 00:00:00Z' + make_interval(secs => n)",
    "later": "timestamptz '2026-01-01 00:00:00Z' + make_interval(secs => n + 7 * (1 - n % 2))",
    "series": "generate_series(1, %d) AS n",
}
SQLITE = {
    "made": "strftime('%Y-%m-%dT%H:%M:%fZ', '2026-01-01', '+' || n || ' seconds')",
    "later": "strftime('%Y-%m-%dT%H:%M:%fZ', '2026-01-01', '+' || (n + 7 * (1 - n % 2)) || ' seconds')",
    "series": """(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d)
        SELECT n FROM s)""",
}


def fill(sql: Direct, words: dict[str, str], count: int) -> None:
    made, later = words["made"], words["later"]
    for name, owner, number, archived in (
        ("a", "'ann'", count, "NULL"),
        ("away", "'ann'", AWAY, later),
        ("o", "'other' || n % 100", OTHERS, "NULL"),
        ("n", "NULL", OTHERS, "NULL"),
    ):
        sql.run(
            FILL
            % {
                "name": name,
                "owner": owner,
                "made": made,
                "changed": later,
                "archived": archived,
                "series": words["series"] % number,
            }
        )


@pytest.fixture(scope="module")
def postgres_filled(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.database() as url:
        with Store(url) as store:
            store.upgrade()
        sql = Direct(url)
        sql.run("ALTER TABLE {conversations} SET (autovacuum_enabled = false)")
        fill(sql, POSTGRESQL, COUNT)
        sql.close()
        yield url


@pytest.fixture(params=["never analyzed", "analyzed"])
def connection(request: pytest.FixtureRequest, postgres_filled: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(driver_url(postgres_filled)) as opened:
        if request.param == "analyzed":
            opened.execute("ANALYZE tokenmem.conversations")
        yield opened
        opened.rollback()


PLACES = {
    "first page": (datetime.max.replace(tzinfo=UTC), ""),
    "middle": (START + timedelta(seconds=COUNT // 2), "x"),
    "end": (START + timedelta(seconds=20), "x"),
}


def request_for(place: str, owner: str | None, dialect: str) -> dict[str, Any]:
    moment, name = PLACES[place]
    return {
        "owner": owner,
        "moment": as_stored(moment, dialect),
        "before_id": name,
        "earliest": as_stored(lists._EARLIEST, dialect),
        "limit": LIMIT,
    }


TYPES = {
    "owner": "text",
    "moment": "timestamptz",
    "before_id": "text",
    "earliest": "timestamptz",
    "limit": "bigint",
    "first": "text",
    "behind": "text",
}
CASES = list(itertools.product(PLACES, (None, "ann"), (False, True)))


def check(explained: dict[str, Any]) -> None:
    """Few rows are read, by an index, and nothing is scanned or run in parallel."""
    shown = outline(explained["Plan"])
    for node in nodes(explained["Plan"]):
        assert node["Node Type"] not in ("Seq Scan", "Gather", "Gather Merge"), shown
        if "Scan" in node["Node Type"] and node.get("Relation Name"):
            read = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
            assert read <= LIMIT + 3 * BUSY, shown
    pages = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
    assert pages <= FEW_PAGES, shown


# Before any ANALYZE PostgreSQL takes all owners' changed ones for few and sorts them: that is not guarded.
@pytest.mark.parametrize(("place", "owner", "archived"), CASES)
def test_a_page_by_recency_reads_few_rows(
    connection: psycopg.Connection[Any],
    place: str,
    owner: str | None,
    archived: bool,
    request: pytest.FixtureRequest,
) -> None:
    if owner is None and "never analyzed" in request.node.name:
        return
    statement = lists._LISTED_NEWEST_FIRST[archived, owner is not None, False]
    parameters = request_for(place, owner, "postgresql")
    if owner is None:
        del parameters["owner"]
    if archived:
        del parameters["earliest"]
    check(explain(connection, statement, parameters))
    for plan in generic_and_custom(connection, statement, parameters, TYPES):
        check(plan)


# As with pages of messages, ranges by id are guarded once the table has been analyzed.
@pytest.mark.parametrize("connection", ["analyzed"], indirect=True)
@pytest.mark.parametrize("archived", [None, False])
@pytest.mark.parametrize("prefix", ["", "a5"])
@pytest.mark.parametrize("owner", [None, "ann"])
def test_a_page_by_id_reads_few_rows(
    connection: psycopg.Connection[Any], owner: str | None, prefix: str, archived: bool | None
) -> None:
    statement = lists._LISTED_BY_ID[owner is not None, archived, bool(prefix), ">="]
    parameters: dict[str, Any] = {"owner": owner, "first": prefix or "a", "behind": "a6", "limit": LIMIT}
    if owner is None:
        del parameters["owner"]
    if not prefix:
        del parameters["behind"]
    check(explain(connection, statement, parameters))
    for plan in generic_and_custom(connection, statement, parameters, TYPES):
        check(plan)


def test_forks_are_found_by_their_index(connection: psycopg.Connection[Any]) -> None:
    connection.execute("UPDATE tokenmem.conversations SET parent_id = 'a1', forked_at = 1 WHERE id < 'a1002'")
    check(explain(connection, lists._FORKS, {"id": "a1", "owner": None}))


@pytest.fixture(scope="module")
def sqlite_filled(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    directory = tmp_path_factory.mktemp("lists")
    urls = {}
    for count in (1_000, COUNT):
        urls[count] = f"sqlite:///{directory / f'{count}.db'}"
        with Store(urls[count]) as store:
            store.upgrade()
        sql = Direct(urls[count])
        fill(sql, SQLITE, count)
        sql.close()
    return urls


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize(("place", "owner", "archived"), CASES)
def test_sqlite_searches_the_lists_index(
    sqlite_filled: dict[int, str], place: str, owner: str | None, archived: bool, analyzed: bool
) -> None:
    statement = lists._LISTED_NEWEST_FIRST[archived, owner is not None, False]
    parameters = request_for(place, owner, "sqlite")
    connection = sqlite3.connect(sqlite_filled[COUNT].removeprefix("sqlite:///"), isolation_level=None)
    try:
        if analyzed:
            connection.execute("BEGIN")
            connection.execute("ANALYZE")
        text = "EXPLAIN QUERY PLAN " + statement_text(statement, "sqlite")
        plan = [row[3] for row in connection.execute(text, parameters)]
        named = {"conversations_archived"} if archived else {"conversations_made", "conversations_changed"}
        found = [step for step in plan if " c " in step and not step.endswith("SCAN c")]
        for step in found:
            assert step.startswith("SEARCH"), plan
            assert any(f"USING INDEX {name}" in step or f"COVERING INDEX {name}" in step for name in named), (
                plan
            )
        assert len(found) == (1 if archived else 3), plan
    finally:
        connection.close()


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("owner", [None, "ann"])
def test_sqlite_takes_as_many_steps_with_1_000_as_with_100_000(
    sqlite_filled: dict[int, str], owner: str | None, archived: bool
) -> None:
    statement = lists._LISTED_NEWEST_FIRST[archived, owner is not None, False]
    parameters = request_for("first page", owner, "sqlite")
    short, rows = steps_of(sqlite_filled[1_000], statement, parameters)
    long, rows_of_long = steps_of(sqlite_filled[COUNT], statement, parameters)
    assert rows == rows_of_long == LIMIT
    assert long <= 1.1 * short
