"""What a later revision costs: made-up ones change tables and views, there and back."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.later_revisions import LaterRevisions
from tests.support.postgres import driver_url
from tokenmem import Store, errors
from tokenmem.database import migrate
from tokenmem.database.engine import default_schema, open_engine

CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
}


class Database:
    """A database at the first revision with a conversation in it, and a newer tokenmem's migrations."""

    def __init__(self, url: str, directory: Path) -> None:
        self.engine = open_engine(url)
        self.schema = default_schema(self.engine.dialect.name, None)
        self.prefix = f"{self.schema}." if self.schema else ""
        self.later = LaterRevisions(directory)
        self.store = Store(self.engine)
        self.store.upgrade()
        self.store.append("c1", [{"role": "system", "content": "Be brief."}, CALL])

    def upgrade(self) -> None:
        with self.later.known():
            self.store.upgrade()

    def downgrade(self, revision: str = "-1") -> None:
        with self.later.known(), self.engine.begin() as connection:
            migrate.downgrade(connection, self.schema, revision)

    def run(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.format(self.prefix))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(query.format(self.prefix))]

    def texts(self) -> list[str]:
        return [text for (text,) in self.rows("SELECT text FROM {}message_log ORDER BY position")]

    def views(self) -> dict[str, str]:
        inspector = sa.inspect(self.engine)
        names = inspector.get_view_names(self.schema)
        return {name: inspector.get_view_definition(name, self.schema) for name in names}

    def columns(self, name: str) -> list[str]:
        return [each["name"] for each in sa.inspect(self.engine).get_columns(name, self.schema)]


@pytest.fixture
def database(database_url: str, tmp_path: Path) -> Iterator[Database]:
    database = Database(database_url, tmp_path / "later")
    yield database
    database.engine.dispose()


@pytest.fixture
def postgres(postgres_url: str, tmp_path: Path) -> Iterator[Database]:
    database = Database(postgres_url, tmp_path / "later")
    yield database
    database.engine.dispose()


def test_a_views_other_text_is_one_file_beside_the_revision(database: Database) -> None:
    before = database.views()
    text = database.later.text("message_log").replace("|| '(' ||", "|| ' (' ||")
    revision = database.later.add(message_log=text)
    for _ in range(2):
        database.upgrade()
        assert database.texts() == ["Be brief.", "look ({})"]
        with database.engine.begin() as connection:
            assert migrate.current(connection, database.schema) == revision
        changed = database.views()
        assert {name for name in before if changed[name] != before[name]} == {"message_log"}
        database.downgrade()
        assert database.views() == before


def test_a_table_and_a_view_get_a_column(database: Database) -> None:
    before = database.views()
    text = database.later.text("call_log").replace("changes\n)", "changes, region\n)")
    text = text.replace("CAST(l.changes AS text)", "CAST(l.changes AS text), l.region")
    database.later.add(
        upgrade='op.add_column("llm_calls", sa.Column("region", sa.Text()), schema=schema)',
        downgrade='op.drop_column("llm_calls", "region", schema=schema)',
        call_log=text,
    )
    for _ in range(2):
        database.upgrade()
        assert database.columns("call_log")[-2:] == ["changes", "region"]
        assert database.rows("SELECT region FROM {}call_log") == []
        database.downgrade()
        assert database.views() == before
        assert "region" not in database.columns("llm_calls")
    assert database.store.verify() == []
    assert len(database.store.messages("c1")) == 2


def test_what_views_share_is_one_file_too(database: Database) -> None:
    text = database.later.text("calls_of_message").replace(
        "ELSE '[]' END", "WHEN false THEN '[]' ELSE '[]' END"
    )
    database.later.add(calls_of_message=text)
    before = database.views()
    database.upgrade()
    changed = database.views()
    assert {name for name in before if changed[name] != before[name]} <= {"message_log", "tool_calls"}
    if database.schema is None:  # PostgreSQL folds the constant
        assert changed["tool_calls"].count("WHEN false") == 1
    assert database.rows("SELECT name FROM {}tool_calls") == [("look",)]


def test_a_view_may_begin_and_end(database: Database) -> None:
    loud = "-- Aloud\nCREATE VIEW {loud_log} (text) AS\nSELECT upper(content) FROM {messages}\n"
    database.later.add(tool_calls="", loud_log=loud)
    database.later.add(loud_log="")
    before = database.views()
    database.upgrade()
    assert set(before) - set(database.views()) == {"tool_calls"}
    database.downgrade()
    assert database.rows("SELECT text FROM {}loud_log WHERE text IS NOT NULL") == [("BE BRIEF.",)]
    database.downgrade()
    assert database.views() == before


def test_rights_and_views_on_top_stay_while_columns_do(postgres: Database) -> None:
    postgres.run(
        "GRANT SELECT ON {}message_log TO PUBLIC",
        "CREATE VIEW public.said AS SELECT text FROM {}message_log WHERE role <> 'tool'",
    )
    text = postgres.later.text("message_log").replace("|| '(' ||", "|| ' (' ||")
    postgres.later.add(message_log=text)
    appended = text.replace("metadata\n)", "metadata, now\n)").replace(
        "CAST(m.metadata AS text)\n", "CAST(m.metadata AS text), now()\n"
    )
    postgres.later.add(message_log=appended)
    postgres.upgrade()
    assert postgres.columns("message_log")[-1] == "now"
    assert postgres.rows("SELECT has_table_privilege('public', '{}message_log', 'SELECT')") == [(True,)]
    assert postgres.rows("SELECT text FROM public.said ORDER BY 1") == [("Be brief.",), ("look ({})",)]


def test_where_they_do_not_a_view_on_top_is_named_and_nothing_is_done(postgres: Database) -> None:
    postgres.run("CREATE VIEW public.said AS SELECT text FROM {}message_log")
    text = postgres.later.text("message_log").replace("role, kind,", "kind, role,")
    postgres.later.add(message_log=text.replace("m.role, m.kind,", "m.kind, m.role,"))
    with pytest.raises(errors.DatabaseError, match=r"message_log.* said reads it"):
        postgres.upgrade()
    assert postgres.columns("message_log")[2:4] == ["role", "kind"]
    postgres.run("DROP VIEW public.said")
    postgres.upgrade()
    assert postgres.columns("message_log")[2:4] == ["kind", "role"]
    assert postgres.rows("SELECT role, kind FROM {}message_log WHERE position = 1") == [("system", "message")]
    postgres.downgrade()
    assert postgres.columns("message_log")[2:4] == ["role", "kind"]


def test_a_column_of_another_type_wants_the_view_made_anew(database: Database) -> None:
    text = database.later.text("conversation_overview").replace(
        "(SELECT count(*)", "(SELECT CAST(count(*) AS integer)"
    )
    assert "integer" in text
    database.later.add(conversation_overview=text)
    file = next((database.later.directory / "versions").glob("*_later.py"))
    original = file.read_text()
    if database.schema:
        with pytest.raises(errors.DatabaseError, match="data type"):
            database.upgrade()
    file.write_text(original.replace("views(revision)", 'views(revision, rebuild=["conversation_overview"])'))
    for _ in range(2):
        database.upgrade()
        assert database.rows("SELECT calls FROM {}conversation_overview") == [(0,)]
        database.downgrade()
        assert database.rows("SELECT calls FROM {}conversation_overview") == [(0,)]


def test_the_comment_of_a_view_changes_with_it(postgres: Database) -> None:
    text = postgres.later.text("tool_calls")
    postgres.later.add(tool_calls=text.replace(text.splitlines()[0], "-- What the tools' calls were: all"))
    comment = "SELECT obj_description('{}tool_calls'::regclass)"
    before = postgres.rows(comment)
    postgres.upgrade()
    assert postgres.rows(comment) == [("What the tools' calls were: all",)]
    postgres.downgrade()
    assert postgres.rows(comment) == before


def test_sql_for_a_person_has_later_revisions_too(database_url: str, tmp_path: Path) -> None:
    later = LaterRevisions(tmp_path / "later")
    later.add(message_log=later.text("message_log").replace("|| '(' ||", "|| ' (' ||"))
    engine = open_engine(database_url)
    with later.known():
        script = migrate.sql(engine.url, default_schema(engine.dialect.name, None))
    if engine.dialect.name == "postgresql":
        assert "CREATE OR REPLACE VIEW tokenmem.message_log" in script
        with psycopg.connect(driver_url(database_url), autocommit=True) as connection:
            connection.execute(script)
    else:
        with sqlite3.connect(engine.url.database or "") as file:
            file.executescript(script)
        file.close()
    prefix = "tokenmem." if engine.dialect.name == "postgresql" else ""
    Store(engine).append("c1", [CALL])
    with engine.begin() as reader:
        assert reader.exec_driver_sql(f"SELECT text FROM {prefix}message_log").scalar() == "look ({})"
    engine.dispose()


def test_a_delete_that_has_begun_ends_before_the_tables_change(postgres: Database) -> None:
    postgres.later.add(
        upgrade='op.add_column("messages", sa.Column("mood", sa.JSON()), schema=schema)',
        downgrade='op.drop_column("messages", "mood", schema=schema)',
    )
    failures: list[BaseException] = []

    def migrated() -> None:
        try:
            postgres.store.upgrade()
        except BaseException as error:
            failures.append(error)

    url = postgres.engine.url
    with postgres.later.known(), psycopg.connect(driver_url(url)) as writer:
        writer.execute("SELECT 1 FROM tokenmem.conversations WHERE id = 'c1' FOR UPDATE")
        writer.execute("DELETE FROM tokenmem.append_keys WHERE conversation_id = 'c1'")
        migration = threading.Thread(target=migrated)
        migration.start()
        with psycopg.connect(driver_url(url), autocommit=True) as observer:
            waiting = (
                b"SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'tokenmem.conversations'::regclass"
            )
            while migration.is_alive() and not observer.execute(waiting).fetchone():
                time.sleep(0.01)
        for table in (b"llm_calls", b"messages"):
            writer.execute(b"DELETE FROM tokenmem." + table + b" WHERE conversation_id = 'c1'")
        writer.execute("DELETE FROM tokenmem.conversations WHERE id = 'c1'")
        writer.commit()
        migration.join()
    assert failures == []
    assert postgres.columns("messages")[-1] == "mood"
    assert postgres.store.conversations() == []
