"""Alembic's own command line: on our migrations, and in a user's project beside them."""

import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support import programs
from tokenmem import Store
from tokenmem.database import migrate
from tokenmem.database.engine import default_schema, open_engine
from tokenmem.database.schema import TABLES, VERSION_TABLE, VIEWS
from tokenmem.database.urls import parse_url

ROOT = Path(__file__).parents[2]

NOTES = """
import sqlalchemy as sa
target_metadata = sa.MetaData()
sa.Table("notes", target_metadata, sa.Column("id", sa.Integer, primary_key=True))
"""
# What the documentation tells users of SQLite, and of include_schemas=True, to add to their env.py.
INCLUDE_NAME = """
from tokenmem.database.schema import DEFAULT_SCHEMA, TABLES, VERSION_TABLE

def include_name(name, type_, parent_names):
    if type_ == "schema":
        return name != DEFAULT_SCHEMA
    return type_ != "table" or name not in (*TABLES, VERSION_TABLE)
"""


def alembic(directory: Path, *arguments: str, url: str = "", schema: str = "") -> str:
    """Run the real command in a directory and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOKENMEM_")}
    environment |= {"TOKENMEM_URL": url, "TOKENMEM_SCHEMA": schema}
    finished = programs.run("-m", "alembic", *arguments, env=environment, cwd=directory)
    assert finished.code == 0, finished.out + finished.err
    return finished.out


def ours(directory: Path, *arguments: str, url: str = "", schema: str = "") -> str:
    return alembic(directory, "-c", str(ROOT / "alembic.ini"), *arguments, url=url, schema=schema)


def test_the_commands_of_the_repository(database_url: str, tmp_path: Path) -> None:
    assert ours(tmp_path, "upgrade", "head", url=database_url) == ""
    assert ours(tmp_path, "current", url=database_url) == f"{migrate.head()} (head)\n"
    assert "No new upgrade operations" in ours(tmp_path, "check", url=database_url)
    with Store(database_url) as store:
        store.append("c1", [{"role": "user", "content": "hi"}])
    script = ours(tmp_path, "upgrade", "head", "--sql", url=database_url)
    assert [view for view in VIEWS if not re.search(rf"CREATE VIEW (tokenmem\.)?{view} \(", script)] == []
    if parse_url(database_url).get_backend_name() == "sqlite":  # as Store.upgrade leaves it
        with sqlite3.connect(parse_url(database_url).database or "") as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()
    ours(tmp_path, "downgrade", "base", url=database_url)
    assert ours(tmp_path, "current", url=database_url) == ""
    engine = open_engine(database_url)
    assert sa.inspect(engine).get_table_names(default_schema(engine.dialect.name, None)) == [VERSION_TABLE]
    engine.dispose()


def test_without_a_url_the_file_lies_where_the_store_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours(tmp_path, "upgrade", "head")
    assert [path.name for path in tmp_path.glob("*.db")] == ["tokenmem.db"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENMEM_URL", raising=False)
    with Store() as store:
        assert store.conversations() == []


def test_another_schema_from_the_environment(postgres_url: str, tmp_path: Path) -> None:
    ours(tmp_path, "upgrade", "head", url=postgres_url, schema="memories")
    assert "No new upgrade operations" in ours(tmp_path, "check", url=postgres_url, schema="memories")
    with Store(postgres_url, schema="memories") as store:
        assert store.conversations() == []


def test_sql_without_a_server_and_with_a_password_that_needs_care(tmp_path: Path) -> None:
    url = "postgres://ann:p%25%40ss%2Fword@nowhere.invalid/chat"
    script = ours(tmp_path, "upgrade", "head", "--sql", url=url)
    assert "CREATE SCHEMA IF NOT EXISTS tokenmem;" in script
    assert "@" not in script


class Project:
    """A user's own small Alembic project, as `alembic init` makes it."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        directory.mkdir()
        alembic(directory, "init", "migrations")
        ini = directory / "alembic.ini"
        shown = parse_url(url).render_as_string(hide_password=False).replace("%", "%%")
        lines = [
            f"sqlalchemy.url = {shown}" if line.startswith("sqlalchemy.url") else line
            for line in ini.read_text().splitlines()
        ]
        ini.write_text("\n".join(lines))
        self._replace("target_metadata = None", NOTES)

    def configure(self, code: str, options: str) -> None:
        self._replace("def run_migrations_offline", f"{code}\n\ndef run_migrations_offline")
        self._replace("target_metadata=target_metadata", f"target_metadata=target_metadata, {options}")

    def _replace(self, old: str, new: str) -> None:
        file = self.directory / "migrations" / "env.py"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def run(self, *arguments: str) -> str:
        return alembic(self.directory, *arguments)

    def revision(self) -> str:
        """Let it compare the database with its tables, and return the migration that it writes."""
        self.run("revision", "--autogenerate", "-m", "notes")
        (written,) = (self.directory / "migrations" / "versions").glob("*_notes.py")
        return written.read_text()


@pytest.fixture
def shared(database_url: str) -> Iterator[sa.Engine]:
    """A database in which tokenmem's tables are already."""
    engine = open_engine(database_url)
    Store(engine).upgrade()
    yield engine
    engine.dispose()


def use_beside_ours(project: Project, shared: sa.Engine) -> None:
    """The project sees only its own tables, we only ours, and both stay whole."""
    schema = default_schema(shared.dialect.name, None)
    written = project.revision()
    assert "create_table('notes'" in written
    assert "drop" not in written.partition("def downgrade")[0]
    project.run("upgrade", "head")
    assert "No new upgrade operations" in project.run("check")
    with shared.begin() as connection:
        assert migrate.check(connection, schema) == []
        assert migrate.current(connection, schema) == migrate.head()
        assert connection.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar() == 1
        migrate.downgrade(connection, schema, "base")
    assert "No new upgrade operations" in project.run("check")
    assert {"notes", "alembic_version"} <= set(sa.inspect(shared).get_table_names())


def test_a_users_project_as_alembic_makes_it(postgres_url: str, tmp_path: Path) -> None:
    engine = open_engine(postgres_url)
    Store(engine).upgrade()
    use_beside_ours(Project(tmp_path / "project", postgres_url), engine)
    engine.dispose()


def test_a_users_project_that_leaves_our_names_out(
    shared: sa.Engine, database_url: str, tmp_path: Path
) -> None:
    project = Project(tmp_path / "project", database_url)
    schemas = shared.dialect.name == "postgresql"
    project.configure(INCLUDE_NAME, f"include_name=include_name, include_schemas={schemas}")
    use_beside_ours(project, shared)


def test_on_sqlite_a_project_that_does_not_would_drop_our_tables(sqlite_url: str, tmp_path: Path) -> None:
    with Store(sqlite_url) as store:
        store.upgrade()
    written = Project(tmp_path / "project", sqlite_url).revision()
    assert [name for name in TABLES if f"op.drop_table('{name}')" not in written] == []
