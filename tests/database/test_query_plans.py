"""No statement on the chat path reads more than it returns, however long the conversation is."""

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.postgres import PostgresServer, driver_url
from tests.support.stores import Direct, Unit, engines_of, statement_text, texts
from tokenmem import Store
from tokenmem.operations import (
    append,
    open_tool_calls,
    read,
    recount,
    removal,
    snapshot,
    start_call,
    stored,
    together,
    verify,
    whole,
    window,
)
from tokenmem.operations.insert import FEW, values
from tokenmem.operations.start_call import PendingCall

LONG = 100_000  # messages of 10 tokens each in the conversation "long"
OTHERS = 200  # conversations of 100 messages beside it
IDLE = 5_000  # conversations without messages: with fewer, to scan that table is the better plan
WINDOW = {"id": "long", "owner": None, "limit": 200, "stride": 1}  # 20 messages
CHANGES = '[{"position": 1, "change": "refused"}]'  # of every call in "long"
FEW_PAGES = 120  # of 8 kB: measured 20 to 40, a tenth of the conversation is more than a hundred times that

FILL = """
INSERT INTO {messages} (conversation_id, position, role, kind, content, token_count, tokens_before, pinned)
SELECT '%s', n, 'user', 'message',
    'a text of some length, neither short nor long', 10, 10 * (n - 1), false FROM %s
"""
HEAD = """
INSERT INTO {conversations} (id, token_counter, last_position, message_count, total_tokens)
VALUES ('%s', 'unit', %d, %d, %d)
"""


def fill(sql: Direct, name: str, count: int, series: str) -> None:
    sql.run(HEAD % (name, count, count, 10 * count))
    sql.run(FILL % (name, series % count))


@pytest.fixture(scope="module")
def postgres_long(postgres_server: PostgresServer) -> Iterator[str]:
    """A database with one long conversation among others; no ANALYZE has run, and none runs by itself."""
    with postgres_server.database() as url:
        with Store(url) as store:
            store.upgrade()
        sql = Direct(url)
        for table in ("messages", "conversations", "append_keys", "llm_calls"):
            sql.run(f"ALTER TABLE {{{table}}} SET (autovacuum_enabled = false)")
        sql.run(
            HEAD.replace("VALUES ('%s', 'unit', %d, %d, %d)", "")
            + (f"SELECT 'other' || n, 'unit', 100, 100, 1000 FROM generate_series(1, {IDLE + OTHERS}) AS n")
        )
        sql.run(
            FILL.replace("'%s'", "'other' || o")
            % (f"generate_series(1, 100) AS n, generate_series(1, {OTHERS}) AS o")
        )
        fill(sql, "long", LONG, "generate_series(1, %d) AS n")
        sql.run(
            "INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest) "
            f"SELECT 'long', 'key' || n, n, n, 'd' FROM generate_series(1, {LONG}) AS n"
        )
        sql.run(
            "INSERT INTO {llm_calls} (conversation_id, number, model, status, reply_position, changes) "
            "SELECT 'long', n, 'm', 'ok', n, CAST(:changes AS json) "
            f"FROM generate_series(1, {LONG // 2}) AS n",
            changes=CHANGES,
        )
        sql.run(f"UPDATE {{conversations}} SET last_call = {LONG // 2} WHERE id = 'long'")
        sql.run("UPDATE {messages} SET pinned = true WHERE conversation_id = 'other1' AND position < 3")
        sql.close()
        yield url


@pytest.fixture(params=["never analyzed", "analyzed"])
def connection(request: pytest.FixtureRequest, postgres_long: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(driver_url(postgres_long)) as opened:  # a transaction, which ends without a trace
        opened.execute("DELETE FROM pg_statistic WHERE starelid = 'tokenmem.messages'::regclass")
        if request.param == "analyzed":
            opened.execute(
                "ANALYZE tokenmem.messages, tokenmem.conversations, tokenmem.append_keys, tokenmem.llm_calls"
            )
        yield opened
        opened.rollback()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from nodes(inner)


def unlimited(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes that run to their end: those below a LIMIT do not."""
    yield plan
    for inner in plan.get("Plans", []):
        if plan["Node Type"] != "Limit":
            yield from unlimited(inner)


def outline(plan: dict[str, Any], depth: int = 0) -> str:
    """What EXPLAIN shows as text, in brief."""
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    removed = plan.get("Rows Removed by Filter", 0)
    facts = f"rows={plan['Actual Rows']} loops={plan['Actual Loops']} removed={removed} pages={pages}"
    names = " ".join(str(plan.get(key, "")) for key in ("Node Type", "Relation Name", "Index Name"))
    inner = "".join(outline(each, depth + 1) for each in plan.get("Plans", []))
    return f"\n{'  ' * depth}{names} ({facts}){inner}"


def explain(
    connection: psycopg.Connection[Any], statement: Any, parameters: dict[str, Any]
) -> dict[str, Any]:
    text = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement_text(statement, "postgresql")
    row = connection.execute(text, parameters).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]
    return plan


def check(explained: dict[str, Any], rows: int) -> None:
    """No table is scanned, nothing runs in parallel, and few rows and pages are touched."""
    shown = outline(explained["Plan"])
    for node in nodes(explained["Plan"]):
        kind = node["Node Type"]
        assert kind not in ("Seq Scan", "Gather", "Gather Merge", "Materialize"), shown
        assert "Workers Planned" not in node, shown
        if "Scan" in kind and node.get("Relation Name"):
            read_rows = node["Actual Rows"] * node["Actual Loops"]
            read_rows += node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            assert read_rows <= rows, shown
    for node in unlimited(explained["Plan"]):
        if node.get("Relation Name") == "messages":
            # Expected at a third of a conversation, a range is read by a parallel scan where that is long.
            assert node["Plan Rows"] <= LONG / 20, f"{node['Plan Rows']} rows expected{shown}"
    pages = explained["Plan"]["Shared Hit Blocks"] + explained["Plan"]["Shared Read Blocks"]
    assert pages <= FEW_PAGES, shown


def generic_and_custom(
    connection: psycopg.Connection[Any], statement: Any, parameters: dict[str, Any], types: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Plans of the prepared statement: for its first runs, later ones, and for parameters not looked at."""
    text = statement_text(statement, "postgresql")
    names = list(dict.fromkeys(parameters))
    for number, name in enumerate(names, 1):
        text = text.replace(f"%({name})s", f"${number}")
    text = text.replace("%%", "%")
    listed = ", ".join(types[name] for name in names)
    connection.execute(f"PREPARE prepared ({listed}) AS {text}".encode())
    values = ", ".join("NULL" if parameters[name] is None else f"'{parameters[name]}'" for name in names)
    for mode in ("auto", "force_custom_plan", "force_generic_plan"):
        connection.execute(f"SET LOCAL plan_cache_mode = {mode}".encode())
        for _ in range(7 if mode == "auto" else 1):
            row = connection.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE prepared ({values})".encode()
            ).fetchone()
            assert row is not None
            yield row[0][0]
    connection.execute("DEALLOCATE prepared")


TYPES = {
    "position": "bigint",
    "reach": "bigint",
    "behind_all": "bigint",
    "newest": "bigint",
    "last": "bigint",
    "key": "text",
    "seconds": "float",
    "ends_at": "bigint",
    "id": "text",
    "owner": "text",
    "limit": "bigint",
    "stride": "bigint",
    "before": "bigint",
    "after": "bigint",
}


@pytest.mark.parametrize(
    "changed", [{}, {"stride": 50}, {"limit": 0}, {"id": "other1"}, {"id": "none"}], ids=str
)
def test_a_window_reads_its_own_rows(connection: psycopg.Connection[Any], changed: dict[str, Any]) -> None:
    parameters = WINDOW | changed
    check(explain(connection, window.WINDOW, parameters), rows=22)
    for plan in generic_and_custom(connection, window.WINDOW, parameters, TYPES):
        check(plan, rows=22)


SNAPSHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "as it is": ("", {}),
    "a new key": (snapshot._AT_KEY, {"key": "new", "seconds": 15.0}),
    "a known key": (snapshot._AT_KEY, {"key": f"key{LONG}", "seconds": 15.0}),
    "a known key far back": (snapshot._AT_KEY, {"key": "key500", "seconds": 15.0}),
    "what was appended": (snapshot._AT_POSITION, {"ends_at": LONG - 3}),
}


@pytest.mark.parametrize("with_newest_reply", [False, True])
@pytest.mark.parametrize("name", SNAPSHOTS)
def test_what_a_turn_reads(connection: psycopg.Connection[Any], name: str, with_newest_reply: bool) -> None:
    end, more = SNAPSHOTS[name]
    parameters = WINDOW | more
    statement = snapshot._statement(end, with_newest_reply=with_newest_reply)
    check(explain(connection, statement, parameters), rows=22)
    for plan in generic_and_custom(connection, statement, parameters, TYPES):
        check(plan, rows=22)


@pytest.mark.parametrize("repeats", [False, True])
def test_what_a_turn_writes(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch, repeats: bool
) -> None:
    """The message, its key, and the call; or the call alone, of a known key."""
    seen: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(
        together.Statement, "fetch", lambda self, _, __, parameters: seen.append((self, parameters)) or []
    )
    call = PendingCall(
        "m", 1, 2, 3, "told", "[]", "digest", repeats=repeats, known_call=7, dead_call=7, anyway=True
    )
    messages = [] if repeats else texts(10)
    pending = append.PendingAppend("long", messages, [10] * len(messages), "unit", key="key7", digest="d")
    dialect = type("Dialect", (), {"name": "postgresql"})
    start_call.start(type("Connection", (), {"dialect": dialect})(), None, pending, call, is_new=False)  # type: ignore[arg-type]
    monkeypatch.undo()
    ((statement, parameters),) = seen
    connection.execute("DELETE FROM tokenmem.append_keys WHERE conversation_id = 'long' AND key = 'key7'")
    check(explain(connection, statement, parameters), rows=2)


def test_a_window_with_pinned_messages_far_back(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "UPDATE tokenmem.messages SET pinned = true WHERE conversation_id = 'long' AND position IN (1, 50000)"
    )
    check(explain(connection, window.WINDOW, WINDOW), rows=25)
    for plan in generic_and_custom(connection, window.WINDOW, WINDOW, TYPES):
        check(plan, rows=25)


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_window_walks_in_a_small_table_of_long_messages(postgres_url: str, analyzed: bool) -> None:
    with Store(postgres_url) as store:
        store.upgrade()
    with psycopg.connect(driver_url(postgres_url), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO tokenmem.conversations"
            " (id, token_counter, last_position, message_count, total_tokens)"
            " SELECT 'c' || o, 'unit', 12, 12, 12000 FROM generate_series(1, 1000) AS o"
        )
        connection.execute(
            "INSERT INTO tokenmem.messages"
            " (conversation_id, position, role, kind, content, token_count, tokens_before)"
            " SELECT 'c' || o, n, 'user', 'message', repeat('x', 4000), 1000, 1000 * (n - 1)"
            " FROM generate_series(1, 12) AS n, generate_series(1, 1000) AS o"
        )
        if analyzed:
            connection.execute("ANALYZE tokenmem.messages, tokenmem.conversations")
        parameters = {"id": "c5", "owner": None, "limit": 1000, "stride": 1}
        check(explain(connection, window.WINDOW, parameters), rows=2)
        with connection.transaction():
            for plan in generic_and_custom(connection, window.WINDOW, parameters, TYPES):
                check(plan, rows=2)


# Before any ANALYZE PostgreSQL takes the range for few rows, reads it all and sorts: that is not guarded.
@pytest.mark.parametrize("connection", ["analyzed"], indirect=True)
@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("after", [0, 50_000, 99_000])
def test_a_page_of_messages_reads_its_own_rows(
    connection: psycopg.Connection[Any], newest_first: bool, after: int
) -> None:
    page = {"id": "long", "owner": None, "after": after, "before": 2**62, "limit": 20}
    statement = read._PAGES[newest_first]
    check(explain(connection, statement, page), rows=22)
    for plan in generic_and_custom(connection, statement, page, TYPES):
        check(plan, rows=22)


AT_THE_END: dict[str, tuple[Any, dict[str, Any], int]] = {
    "message": (stored._MESSAGE, {"id": "long", "owner": None, "position": 70_000}, 1),
    "newest messages": (whole._READ, {"id": "long", "owner": None, "limit": 20}, 20),
    "open calls": (
        open_tool_calls._NEWEST_STEPS,
        {"id": "long", "owner": None, "reach": 200, "behind_all": 2**62},
        200,
    ),
    "newest message": (removal._NEWEST, {"id": "long", "newest": LONG}, 1),
    "whether any is before": (removal._IS_ANY_BETWEEN, {"id": "long", "after": 0, "before": 70_000}, 1),
    "whether any is behind": (
        removal._IS_ANY_BETWEEN,
        {"id": "long", "after": 70_000, "before": LONG + 1},
        1,
    ),
    "tokens from": (removal._TOKENS_FROM, {"id": "long", "after": 50_000, "last": LONG}, 1),
}


# As for pages: before any ANALYZE a range may be taken for few rows, read as a whole, and sorted.
@pytest.mark.parametrize("connection", ["analyzed"], indirect=True)
@pytest.mark.parametrize("name", AT_THE_END)
def test_what_looks_at_one_end_reads_little(connection: psycopg.Connection[Any], name: str) -> None:
    statement, parameters, rows = AT_THE_END[name]
    check(explain(connection, statement, parameters), rows=rows + 2)
    for plan in generic_and_custom(connection, statement, parameters, TYPES):
        check(plan, rows=rows + 2)


@pytest.mark.parametrize("count", [2, FEW + 1])
@pytest.mark.parametrize("take", [append.TAKE_ANY, append._TAKE_EXISTING])
def test_an_append_uses_the_primary_keys(connection: psycopg.Connection[Any], take: str, count: int) -> None:
    messages = texts(*[10] * count)
    head: dict[str, Any] = {
        "id": "long",
        "owner": None,
        "title": None,
        "metadata": None,
        "token_counter": "unit",
        "count": count,
        "tokens": 10 * count,
        "key": "k",
        "digest": "d",
        "expected": LONG,
        "first_revision": 1,
    }
    statement = together.as_one(take, count, (append.STORE_KEY,), "")
    before = connection.execute("SELECT count(*) FROM tokenmem.messages").fetchone()
    explained = explain(connection, statement, head | values(messages, [10] * count, beside=False))
    after = connection.execute("SELECT count(*) - %s FROM tokenmem.messages", [count]).fetchone()
    assert after == before
    check(explained, rows=2)


def test_an_append_is_one_statement(postgres_long: str) -> None:
    with Store(postgres_long, counter=Unit()) as store:
        sent: list[str] = []
        sa.event.listen(
            store._connections.engines.reading,
            "before_cursor_execute",
            lambda *args: sent.append(args[2]),
            named=False,
        )
        commits: list[Any] = []
        sa.event.listen(store._connections.engines.reading, "commit", commits.append)
        store.append("other2", texts(10, 10), idempotency_key="k", expected_position=100)
        assert len(sent) == 1, sent
        assert commits == []
        store.window("other2", 100, stride=10)
        assert len(sent) == 2, sent


# --- SQLite: the plan, and the number of steps that its virtual machine takes


def sqlite_database(directory: Any, count: int) -> str:
    url = f"sqlite:///{directory / f'{count}.db'}"
    with Store(url) as store:
        store.upgrade()
    sql = Direct(url)
    series = "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < %d) SELECT n FROM s)"
    fill(sql, "long", count, series)
    fill(sql, "other", 100, series)
    sql.run(
        "INSERT INTO {llm_calls} (conversation_id, number, model, status, reply_position, changes)"
        f" SELECT 'long', n, 'm', 'ok', n, :changes FROM {series % (count // 10)}",
        changes=CHANGES,
    )
    sql.close()
    return url


@pytest.fixture(scope="module")
def sqlite_urls(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    directory = tmp_path_factory.mktemp("plans")
    return {count: sqlite_database(directory, count) for count in (100, LONG)}


SQLITE_STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "window": (window.WINDOW, WINDOW),
    "stepped window": (window.WINDOW, WINDOW | {"stride": 50}),
    "what a turn reads": (snapshot._statement("", with_newest_reply=True), WINDOW),
    "what a repeated turn reads": (
        snapshot._statement(snapshot._AT_KEY, with_newest_reply=False),
        WINDOW | {"key": "none", "seconds": 15.0},
    ),
    "oldest page": (
        read._PAGES[False],
        {"id": "long", "owner": None, "after": 0, "before": 2**62, "limit": 20},
    ),
    **{name: (statement, parameters) for name, (statement, parameters, _) in AT_THE_END.items()},
    "newest page": (
        read._PAGES[True],
        {"id": "long", "owner": None, "after": 0, "before": 2**62, "limit": 20},
    ),
}


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("name", SQLITE_STATEMENTS)
def test_sqlite_searches_the_primary_key(sqlite_urls: dict[int, str], name: str, analyzed: bool) -> None:
    statement, parameters = SQLITE_STATEMENTS[name]
    connection = sqlite3.connect(sqlite_urls[LONG].removeprefix("sqlite:///"), isolation_level=None)
    try:
        if analyzed:
            connection.execute("BEGIN")
            connection.execute("ANALYZE")
        plan = [
            row[3]
            for row in connection.execute(
                "EXPLAIN QUERY PLAN " + statement_text(statement, "sqlite"), parameters
            )
        ]
        words = [step.split() for step in plan if step.startswith(("SEARCH", "SCAN"))]
        touching = [step for step in words if "KEY" in step or step[1] in ("e", "messages")]
        assert touching, plan
        assert all(step[0] == "SEARCH" and "KEY" in step for step in touching), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan
    finally:
        connection.close()


def steps_of(url: str, statement: Any, parameters: dict[str, Any]) -> tuple[int, int]:
    """How many instructions SQLite's virtual machine takes for a statement, and the rows that come."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    try:
        text = statement_text(statement, "sqlite")
        connection.execute(text, parameters).fetchall()  # the schema is read once
        connection.set_progress_handler(count, 1)
        rows = connection.execute(text, parameters).fetchall()
        return steps, len(rows)
    finally:
        connection.close()


@pytest.mark.parametrize("name", sorted(SQLITE_STATEMENTS.keys() - AT_THE_END.keys()))
def test_sqlite_takes_as_many_steps_at_100_messages_as_at_100_000(
    sqlite_urls: dict[int, str], name: str
) -> None:
    statement, parameters = SQLITE_STATEMENTS[name]
    short, rows = steps_of(sqlite_urls[100], statement, parameters)
    long, rows_of_long = steps_of(sqlite_urls[LONG], statement, parameters)
    assert rows == rows_of_long > 0
    assert long <= 1.1 * short < 100 * (rows + 5)


@pytest.mark.parametrize("name", AT_THE_END)
def test_sqlite_looks_at_one_end_of_100_000_messages(sqlite_urls: dict[int, str], name: str) -> None:
    statement, parameters, _ = AT_THE_END[name]
    steps, rows = steps_of(sqlite_urls[LONG], statement, parameters)
    assert rows > 0
    assert steps < 30 * open_tool_calls.REACH


def test_sqlite_appends_in_as_many_statements_as_ever(sqlite_urls: dict[int, str]) -> None:
    steps: dict[int, int] = {}
    for count, url in sqlite_urls.items():
        with Store(url, counter=Unit()) as store:
            store.append("long", texts(10))  # connects and prepares
            taken: list[int] = []
            writing = engines_of(store).writing
            with writing.connect() as connection:
                driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(lambda taken=taken: taken.append(1), 1)
            sent: list[str] = []
            sa.event.listen(writing, "before_cursor_execute", lambda *args, s=sent: s.append(args[2]))
            store.append("long", texts(10, 10))
            driver.set_progress_handler(None, 0)
            assert [text.split()[0] for text in sent] == ["BEGIN", "INSERT", "INSERT"]
            steps[count] = len(taken)
    assert steps[LONG] <= 1.1 * steps[100]


@pytest.mark.parametrize("name", ["verify", "recount"])
def test_sqlite_takes_steps_in_proportion_to_what_it_looks_at(sqlite_urls: dict[int, str], name: str) -> None:
    """One of two conversations, and one page of a long one: what else there is makes no difference."""
    page = json.dumps(
        [{"position": n, "token_count": 10, "tokens_before": 10 * n - 10} for n in range(1, 51)]
    )
    statement, parameters = {
        "verify": (verify._VERIFY, {"owner": None, "after": "", "last": "lon"}),
        "recount": (recount._COUNT_MESSAGES["sqlite"], {"id": "long", "rows": page}),
    }[name]
    short, _ = steps_of(sqlite_urls[100], statement, parameters)
    long, _ = steps_of(sqlite_urls[LONG], statement, parameters)
    assert long <= short * 1.1
