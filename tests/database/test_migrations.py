"""The migrations as a library runs them: there and back, on their own, and all at once."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa

from tests.support import programs
from tests.support.postgres import PostgresServer, driver_url
from tokenmem import AsyncStore, Store, errors
from tokenmem.database import migrate
from tokenmem.database.engine import default_schema, open_engine
from tokenmem.database.schema import TABLES, VERSION_TABLE, tables
from tokenmem.database.urls import parse_url

VIEWS = {
    "conversation_overview",
    "message_log",
    "tool_calls",
    "usage_by_day",
    "call_windows",
    "call_log",
    "count_error_by_model",
}
BROKEN = """
import os, sqlalchemy as sa
from alembic import op
revision, down_revision = "tokenmem_broken", "{head}"

def upgrade():
    op.create_table("left_over", sa.Column("id", sa.Integer), schema=op.get_context().version_table_schema)
    op.execute("UPDATE {prefix}conversations SET title = 'half done'")
    {failure}

def downgrade():
    pass
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def schema(engine: sa.Engine) -> str | None:
    return default_schema(engine.dialect.name, None)


def upgrade(engine: sa.Engine, schema: str | None) -> None:
    with engine.begin() as connection:
        migrate.upgrade(connection, schema)


def names(engine: sa.Engine, schema: str | None) -> tuple[set[str], set[str]]:
    inspector = sa.inspect(engine)
    return set(inspector.get_table_names(schema)), set(inspector.get_view_names(schema))


def check(engine: sa.Engine, schema: str | None) -> list[str]:
    with engine.begin() as connection:
        return migrate.check(connection, schema)


def current(engine: sa.Engine, schema: str | None) -> str | None:
    with engine.begin() as connection:
        return migrate.current(connection, schema)


@pytest.mark.parametrize("rows", [0, 3])
def test_up_down_and_up_again(engine: sa.Engine, schema: str | None, rows: int) -> None:
    for _ in range(2):
        upgrade(engine, schema)
        assert names(engine, schema) == ({*TABLES, VERSION_TABLE}, VIEWS)
        assert current(engine, schema) == migrate.head()
        store = Store(engine)
        for number in range(rows):
            store.append(f"c{number}", [{"role": "user", "content": "hi"}], idempotency_key="once")
        assert len(store.conversations()) == rows
        assert store.verify() == []
        with engine.begin() as connection:
            migrate.downgrade(connection, schema, "base")
        assert names(engine, schema) == ({VERSION_TABLE}, set())
        assert current(engine, schema) is None


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(engine: sa.Engine, schema: str | None) -> None:
    store = Store(engine)
    store.upgrade()
    store.append("c1", [{"role": "user", "content": "hi"}])
    store.upgrade()
    assert [message.content for message in store.messages("c1")] == ["hi"]


def test_check_names_what_differs_and_passes_by_what_is_not_ours(
    engine: sa.Engine, schema: str | None
) -> None:
    upgrade(engine, schema)
    assert check(engine, schema) == []
    prefix = f"{schema}." if schema else ""
    for statement in ("CREATE TABLE {}notes (id integer)", "CREATE INDEX notes_by_id ON {}notes (id)"):
        with engine.begin() as connection:
            connection.exec_driver_sql(statement.format(prefix))
    if schema:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE public.messages (id integer)")
    assert check(engine, schema) == []
    with engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {prefix}append_keys DROP COLUMN digest")
        connection.exec_driver_sql(f"ALTER TABLE {prefix}conversations ADD COLUMN colour text")
    differences = check(engine, schema)
    assert len(differences) == 2
    assert any("add_column" in each and "digest" in each for each in differences)
    assert any("remove_column" in each and "colour" in each for each in differences)


def test_check_sees_other_types_and_missing_views(postgres_url: str) -> None:
    engine = open_engine(postgres_url)
    upgrade(engine, "tokenmem")
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP VIEW tokenmem.usage_by_day")
    assert check(engine, "tokenmem") == ["the view usage_by_day is missing"]
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE tokenmem.append_keys ALTER first_position TYPE integer")
    (difference,) = check(engine, "tokenmem")
    assert "first_position" in difference
    engine.dispose()


def test_check_and_current_write_nothing(engine: sa.Engine, schema: str | None) -> None:
    with engine.connect() as connection:
        before = sa.inspect(connection).get_schema_names()
    assert check(engine, schema) == ["Target database is not up to date."]
    assert current(engine, schema) is None
    with engine.connect() as connection:
        assert sa.inspect(connection).get_schema_names() == before
    assert names(engine, schema) == (set(), set())


def test_a_read_only_database_can_be_checked(sqlite_url: str) -> None:
    with Store(sqlite_url) as store:
        store.upgrade()
    file = parse_url(sqlite_url).database
    engine = open_engine(f"sqlite:///file:{file}?mode=ro&uri=true")
    assert check(engine, None) == []
    assert current(engine, None) == migrate.head()
    engine.dispose()


def test_the_schema_in_python_is_the_migrated_one(engine: sa.Engine, schema: str | None) -> None:
    upgrade(engine, schema)
    other = open_engine("sqlite://") if schema is None else engine
    declared = "declared" if schema else None
    with other.begin() as connection:
        if declared:
            connection.exec_driver_sql(f"CREATE SCHEMA {declared}")
        tables(declared).create_all(connection)
    for table in TABLES:
        migrated = description(engine, table, schema)
        assert migrated == description(other, table, declared)
        if schema:
            assert migrated["comment"]
            assert all(column["comment"] for column in migrated["columns"])
    if other is not engine:
        other.dispose()


def description(engine: sa.Engine, table: str, schema: str | None) -> dict[str, Any]:
    """What inspection sees of a table, but for its schema's name and the defaults, which only rows see."""
    inspector = sa.inspect(engine)
    columns = inspector.get_columns(table, schema)
    foreign = [{**key, "referred_schema": None} for key in inspector.get_foreign_keys(table, schema)]
    indexes = inspector.get_indexes(table, schema)
    return {
        "columns": [
            {
                **{name: column.get(name) for name in ("name", "nullable", "comment")},
                "type": str(column["type"]),
            }
            for column in columns
        ],
        "primary key": inspector.get_pk_constraint(table, schema)["constrained_columns"],
        "foreign keys": foreign,
        "indexes": [repr({**index, "dialect_options": redacted(index)}) for index in indexes],
        "comment": inspector.get_table_comment(table, schema)["text"] if schema else None,
    }


def redacted(index: Any) -> dict[str, str]:
    return {name: str(value) for name, value in index.get("dialect_options", {}).items()}


def test_sql_for_a_person_gives_the_same_database(engine: sa.Engine, schema: str | None) -> None:
    url = engine.url
    script = migrate.sql(url, schema)
    assert (url.password or "\n\n\n") not in script
    if schema:
        with psycopg.connect(driver_url(url), autocommit=True) as connection:
            connection.execute(script)
    else:
        assert url.database
        with sqlite3.connect(url.database) as connection:
            connection.executescript(script)
        connection.close()
    assert check(engine, schema) == []
    assert current(engine, schema) == migrate.head()
    assert names(engine, schema) == ({*TABLES, VERSION_TABLE}, VIEWS)
    Store(engine).append("c1", [{"role": "user", "content": "hi"}])


def test_two_schemas_in_one_database(postgres_url: str) -> None:
    with Store(postgres_url) as first, Store(postgres_url, schema="memories") as second:
        first.upgrade()
        second.upgrade()
        second.append("c1", [{"role": "user", "content": "hi"}])
        assert first.conversations() == []
        engine = open_engine(postgres_url)
        for schema in ("tokenmem", "memories"):
            assert check(engine, schema) == []
            assert current(engine, schema) == migrate.head()
        with engine.begin() as connection:
            migrate.downgrade(connection, "memories", "base")
        assert names(engine, "memories") == ({VERSION_TABLE}, set())
        assert check(engine, "tokenmem") == []
        engine.dispose()


@pytest.mark.parametrize(
    "schema", ["a-b", "a b", "Upper", "1st", 'a"b', "a;b", "a.b", "é", "x\n", "x" * 64, "%s", " "]
)
def test_schema_names_that_need_quotes_are_refused(schema: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="schema"):
        Store("postgresql://nobody@127.0.0.1:1/none", schema=schema)


def test_processes_that_start_at_once(database_url: str) -> None:
    program = "import sys\nfrom tokenmem import Store\nwith Store(sys.argv[1]) as s: s.upgrade()"
    finished = programs.run_at_once([("-c", program, database_url)] * 4, env=os.environ)
    assert [(each.code, each.err) for each in finished] == [(0, "")] * 4
    engine = open_engine(database_url)
    assert check(engine, default_schema(engine.dialect.name, None)) == []
    engine.dispose()


def test_threads_that_start_at_once(database_url: str, tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def start(url: str) -> None:
        try:
            with Store(url) as store:
                store.upgrade()
        except BaseException as error:
            failures.append(error)

    urls = [database_url] * 4 + [f"sqlite:///{tmp_path}/{number}.db" for number in range(3)]
    threads = [threading.Thread(target=start, args=[url]) for url in urls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_tasks_that_start_at_once(database_url: str) -> None:
    async def start() -> list[BaseException | None]:
        stores = [AsyncStore(database_url) for _ in range(4)]
        answers = await asyncio.gather(*(store.upgrade() for store in stores), return_exceptions=True)
        for store in stores:
            await store.close()
        return answers

    assert asyncio.run(start()) == [None] * 4


def broken_migrations(directory: Path, schema: str | None, failure: str) -> Path:
    shutil.copytree(migrate.directory(), directory, ignore=shutil.ignore_patterns("__pycache__"))
    text = BROKEN.format(head=migrate.head(), prefix=f"{schema}." if schema else "", failure=failure)
    (directory / "versions" / "9999_broken.py").write_text(text)
    return directory


@pytest.mark.parametrize("start", ["empty", "head"])
def test_a_failing_migration_leaves_nothing_half_done(
    engine: sa.Engine, schema: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    store = Store(engine)
    if start == "head":
        store.upgrade()
        store.append("c1", [{"role": "user", "content": "hi"}], title="whole")
    before = names(engine, schema), current(engine, schema)
    broken = broken_migrations(tmp_path / "broken", schema, "raise RuntimeError('broken')")
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "directory", lambda: broken)
        with pytest.raises(RuntimeError, match="broken"):
            store.upgrade()
    assert (names(engine, schema), current(engine, schema)) == before
    store.upgrade()
    assert check(engine, schema) == []
    assert [conversation.title for conversation in store.conversations()] == ["whole"] * (start == "head")


def test_a_migration_that_is_killed_leaves_nothing_half_done(
    engine: sa.Engine, schema: str | None, tmp_path: Path
) -> None:
    broken = broken_migrations(tmp_path / "broken", schema, "os._exit(9)")
    program = (
        "import sys, pathlib; from tokenmem import Store; from tokenmem.database import migrate; "
        "migrate.directory = lambda: pathlib.Path(sys.argv[2]); Store(sys.argv[1]).upgrade()"
    )
    url = engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", program, url, str(broken)], check=False)
    assert done.returncode == 9
    assert names(engine, schema) == (set(), set())
    upgrade(engine, schema)
    assert check(engine, schema) == []


@pytest.fixture
def plain_user(postgres_server: PostgresServer, postgres_url: str) -> Iterator[sa.URL]:
    """The database's URL for a user who may create nothing in it."""
    name = f"tokenmem_user_{uuid4().hex}"
    password = "p%40 s:/@%"
    with psycopg.connect(driver_url(postgres_url), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())
        try:
            yield parse_url(postgres_url).set(username=name, password=password)
        finally:
            connection.execute(f"DROP OWNED BY {name} CASCADE".encode())
            connection.execute(f"DROP ROLE {name}".encode())


def test_a_user_who_may_create_nothing_needs_a_schema_of_their_own(
    postgres_url: str, plain_user: sa.URL
) -> None:
    store = Store(plain_user)
    with pytest.raises(errors.DatabaseError, match="permission denied") as caught:
        store.upgrade()
    assert plain_user.password not in str(caught.value)
    with psycopg.connect(driver_url(postgres_url), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA tokenmem AUTHORIZATION {plain_user.username}".encode())
    store.upgrade()
    store.append("c1", [{"role": "user", "content": "hi"}])
    assert store.verify() == []
    store.close()
