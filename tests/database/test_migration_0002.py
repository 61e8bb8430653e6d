"""From the first schema, with rows in every table, to the one of model calls and back."""

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.postgres import driver_url
from tokenmem import Store
from tokenmem.database import migrate
from tokenmem.database.engine import default_schema, open_engine
from tokenmem.database.schema import VIEWS

BEFORE, AFTER = "tokenmem_0001", "tokenmem_0002"

ROWS = [
    "INSERT INTO {}conversations (id, owner, title, metadata, token_counter, last_position, message_count,"
    " total_tokens) VALUES ('c1', 'ann', 'Trip', '{{\"a\":-0.0}}', 'o200k_base', 3, 3, 30)",
    "INSERT INTO {}messages (conversation_id, position, tokens_before, token_count, pinned, role, kind,"
    " content, payload) VALUES ('c1', 1, 0, 10, true, 'system', 'message', 'Be brief.', NULL),"
    " ('c1', 2, 10, 10, false, 'assistant', 'tool_call', NULL,"
    ' \'{{"role":"assistant","content":null,"tool_calls":[{{"id":"a","function":{{"name":"look"}}}}]}}\'),'
    " ('c1', 3, 20, 10, false, 'tool', 'tool_result', 'a house',"
    ' \'{{"role":"tool","tool_call_id":"a"}}\')',
    "INSERT INTO {}llm_calls (conversation_id, number, model, first_position, last_position, window_tokens,"
    " input_tokens, status, error) VALUES ('c1', 1, 'm', 1, 3, 30, 32, 'ok', NULL),"
    " ('c1', 2, 'm', NULL, NULL, NULL, NULL, 'error', 'no such model')",
    "INSERT INTO {}append_keys (conversation_id, key, first_position, last_position, digest)"
    " VALUES ('c1', 'once', 1, 3, 'd')",
]
OLD_TABLES = {"conversations": "id", "messages": "position", "llm_calls": "number", "append_keys": "key"}
# What a store of the newer version writes.
NEWER_ROWS = [
    "INSERT INTO {}call_prompts (conversation_id, digest, instructions, tools)"
    " VALUES ('c1', 'd', 'Be kind.', '[]')",
    "UPDATE {}llm_calls SET alive_at = created_at, reply_messages = 1, prompt_digest = 'd' WHERE number = 2",
    "UPDATE {}append_keys SET call_number = 2",
]


class Database:
    """A database at the first schema, with rows in every table."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = open_engine(url)
        self.schema = default_schema(self.engine.dialect.name, None)
        self.prefix = f"{self.schema}." if self.schema else ""
        self.to(BEFORE)
        self.run(*ROWS)

    def to(self, revision: str) -> None:
        with self.engine.begin() as connection:
            older = migrate.current(connection, self.schema) == AFTER and revision == BEFORE
        with self.engine.begin() as connection:
            (migrate.downgrade if older else migrate.upgrade)(connection, self.schema, revision)

    def run(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.format(self.prefix))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query.format(self.prefix))]

    def columns(self) -> dict[str, list[str]]:
        inspector = sa.inspect(self.engine)
        tables = inspector.get_table_names(self.schema)
        return {
            table: [each["name"] for each in inspector.get_columns(table, self.schema)] for table in tables
        }

    def contents(self, columns: dict[str, list[str]]) -> dict[str, list[tuple[Any, ...]]]:
        return {
            table: self.rows(f"SELECT {', '.join(columns[table])} FROM {{}}{table} ORDER BY {key}")
            for table, key in OLD_TABLES.items()
        }

    def views(self) -> dict[str, str]:
        """Their texts: PostgreSQL writes each in its own way, SQLite keeps the lines as they came."""
        inspector = sa.inspect(self.engine)
        names = inspector.get_view_names(self.schema)
        texts = {name: inspector.get_view_definition(name, self.schema) for name in names}
        return {name: re.sub(r"\s+", " ", text) for name, text in texts.items()}


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.engine.dispose()


def test_there_and_back_every_row_stays_and_every_view_is_as_it_was(database: Database) -> None:
    columns, views = database.columns(), database.views()
    contents = database.contents(columns)
    assert all(contents.values())
    for _ in range(2):
        database.to(AFTER)
        assert database.contents(columns) == contents
        assert set(database.views()) == set(VIEWS)
        assert all(database.views()[name] != views[name] for name in ("message_log", "tool_calls"))
        database.run(*NEWER_ROWS)
        with database.engine.begin() as connection:
            assert migrate.check(connection, database.schema) == []
        database.to(BEFORE)
        assert database.contents(columns) == contents
        assert (database.columns(), database.views()) == (columns, views)


def test_the_rows_of_before_read_as_calls_that_have_ended(database: Database) -> None:
    views = {name: f"SELECT * FROM {{}}{name} ORDER BY 1, 2" for name in ("message_log", "tool_calls")}
    before = {name: database.rows(query) for name, query in views.items()}
    database.to(AFTER)
    assert {name: database.rows(query) for name, query in views.items()} == before
    assert database.rows("SELECT number, status, reply_messages, instructions, tools FROM {}call_log") == [
        (1, "ok", None, None, None),
        (2, "error", None, None, None),
    ]
    store = Store(database.engine)
    assert store.verify() == []
    store.append("c1", [{"role": "user", "content": "go on"}], idempotency_key="twice")
    assert database.rows("SELECT key, call_number FROM {}append_keys ORDER BY 1") == [
        ("once", None),
        ("twice", None),
    ]


def test_rights_on_the_views_and_views_on_top_of_them_stay(postgres_url: str) -> None:
    database = Database(postgres_url)
    database.run(
        "GRANT SELECT ON {}message_log TO PUBLIC",
        "CREATE VIEW public.said AS SELECT text FROM {}message_log WHERE role <> 'tool'",
    )
    for revision in (AFTER, BEFORE):
        database.to(revision)
        assert database.rows("SELECT has_table_privilege('public', '{}message_log', 'SELECT')") == [(True,)]
        assert database.rows("SELECT text FROM public.said ORDER BY 1") == [("Be brief.",), ("look()",)]
    database.engine.dispose()


def test_a_delete_that_has_begun_ends_before_the_tables_change(postgres_url: str) -> None:
    database = Database(postgres_url)
    failures: list[BaseException] = []

    def migrated() -> None:
        try:
            database.to(AFTER)
        except BaseException as error:
            failures.append(error)

    with psycopg.connect(driver_url(postgres_url)) as writer:
        writer.execute("SELECT 1 FROM tokenmem.conversations WHERE id = 'c1' FOR UPDATE")
        writer.execute("DELETE FROM tokenmem.append_keys WHERE conversation_id = 'c1'")
        migration = threading.Thread(target=migrated)
        migration.start()
        with psycopg.connect(driver_url(postgres_url), autocommit=True) as observer:
            waiting = (
                "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'tokenmem.conversations'::regclass"
            )
            while migration.is_alive() and not observer.execute(waiting.encode()).fetchone():
                time.sleep(0.01)
        for table in ("llm_calls", "messages"):
            writer.execute(f"DELETE FROM tokenmem.{table} WHERE conversation_id = 'c1'".encode())
        writer.execute("DELETE FROM tokenmem.conversations WHERE id = 'c1'")
    migration.join()
    assert failures == []
    assert Store(database.engine).conversations() == []
    database.engine.dispose()
