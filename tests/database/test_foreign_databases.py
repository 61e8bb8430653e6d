"""Databases of other applications: refused before anything in them changes."""

import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.database.test_driver_errors import fails, on_postgresql, on_sqlite
from tests.support.commands import environment
from tests.support.postgres import PostgresServer
from tests.support.stores import Stores
from tokenmem import Message, Store, errors
from tokenmem.database.preflight import names
from tokenmem.database.schema import VERSION_TABLE

REPOSITORY = Path(__file__).parents[2]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def made(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def files_beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.glob(f"{path.name}*"))


FOREIGN = {
    "messages": ("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)",),
    "Messages": ('CREATE TABLE "Messages" (id INTEGER PRIMARY KEY, body TEXT)',),
    "a view": ("CREATE TABLE notes (a)", "CREATE VIEW message_log AS SELECT * FROM notes"),
    "an index": ("CREATE TABLE notes (a)", "CREATE INDEX conversations_by_owner ON notes (a)"),
    "revisions of somebody else": (
        f"CREATE TABLE {VERSION_TABLE} (version_num TEXT)",
        f"INSERT INTO {VERSION_TABLE} VALUES ('1975ea83b712')",
    ),
    "a newer tokenmem": (
        f"CREATE TABLE {VERSION_TABLE} (version_num TEXT)",
        f"INSERT INTO {VERSION_TABLE} VALUES ('tokenmem_9999')",
        "CREATE TABLE schema_settings (name TEXT, value TEXT)",
        "INSERT INTO schema_settings VALUES ('oldest_revision', 'tokenmem_9998')",
    ),
}


@on_sqlite
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_refused_stays_as_it_is(stores: Stores, tmp_path: Path, kind: str) -> None:
    path = made(tmp_path / "foreign.db", *FOREIGN[kind])
    before = digest(path)
    store = stores.open(f"sqlite:///{path}")
    fails(store.upgrade, errors.SchemaOutOfDate)
    store.close()
    assert digest(path) == before
    assert files_beside(path) == ["foreign.db"]


@on_sqlite
@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(4096), b"hello\n", b"{}" * 9000])
def test_what_is_no_database_stays_as_it_is(stores: Stores, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    store = stores.open(f"sqlite:///{path}")
    fails(store.upgrade, errors.DatabaseError, match="not a database; name another file")
    store.close()
    assert path.read_bytes() == content
    assert files_beside(path) == ["notes.txt"]


@on_sqlite
def test_an_empty_file_and_one_with_other_tables_are_taken(stores: Stores, tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    used = made(tmp_path / "used.db", "CREATE TABLE notes (a)", "INSERT INTO notes VALUES (1)")
    for path in (empty, used):
        store = stores.open(f"sqlite:///{path}")
        store.upgrade()
        store.append("c1", [Message.user("x")])
        store.close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with closing(sqlite3.connect(used)) as connection:
        assert connection.execute("SELECT a FROM notes").fetchall() == [(1,)]


def test_the_error_names_what_is_there_and_the_remedy(tmp_path: Path) -> None:
    path = made(tmp_path / "foreign.db", *FOREIGN["messages"])
    with Store(f"sqlite:///{path}") as store, pytest.raises(errors.SchemaOutOfDate) as caught:
        store.upgrade()
    assert "the table messages, but no table tokenmem_alembic_version" in str(caught.value)
    assert str(caught.value).endswith("nothing was changed; name another file")


def test_alembics_own_command_line_refuses_too(tmp_path: Path) -> None:
    path = made(tmp_path / "foreign.db", *FOREIGN["messages"])
    before = digest(path)
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    url = f"sqlite:///{path}"
    result = subprocess.run(command, capture_output=True, text=True, env=environment(url), cwd=REPOSITORY)
    assert result.returncode != 0
    assert "another application's" in result.stderr
    assert digest(path) == before


@on_postgresql
def test_a_schema_of_another_application(stores: Stores, postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE public.messages (id integer)")
        store = stores.open(url, schema="public")
        error = fails(store.upgrade, errors.SchemaOutOfDate, match="the table messages")
        assert 'schema="tokenmem_store"' in str(error)
        stores.open(url).upgrade()  # beside them, in a schema of its own
        with engine.connect() as connection:
            assert sa.inspect(connection).get_table_names("public") == ["messages"]
        engine.dispose()
        store.close()


def test_the_names_are_those_that_an_upgrade_makes(ready_url: str) -> None:
    engine = sa.create_engine(ready_url)
    schema = None if engine.dialect.name == "sqlite" else "tokenmem"
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        tables = {name for name in inspector.get_table_names(schema) if name != VERSION_TABLE}
        indexes = {each["name"] for table in tables for each in inspector.get_indexes(table, schema)}
        assert names() == tables | indexes | set(inspector.get_view_names(schema))
    engine.dispose()


ENCODINGS = ["LATIN1", "LATIN9", "EUC_JP", "WIN1251"]


def in_encoding(server: PostgresServer, encoding: str) -> str:
    """The URL of an empty database in this encoding, which goes with the server's other ones."""
    url = server.create_database()
    admin = sa.create_engine(server.admin_url, isolation_level="AUTOCOMMIT")
    name = sa.make_url(url).database
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}")
        connection.exec_driver_sql(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
        )
    admin.dispose()
    return url


@on_postgresql
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoding_that_cannot_hold_every_text(
    stores: Stores, postgres_server: PostgresServer, encoding: str
) -> None:
    store = stores.open(in_encoding(postgres_server, encoding))
    error = fails(store.upgrade, errors.DatabaseError, match=f"encoding is {encoding}")
    assert "ENCODING 'UTF8'" in str(error)
    engine = sa.create_engine(store.engine.url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        assert "tokenmem" not in sa.inspect(connection).get_schema_names()
    engine.dispose()
    store.close()


@on_postgresql
def test_without_an_encoding_texts_come_back(stores: Stores, postgres_server: PostgresServer) -> None:
    """SQL_ASCII converts nothing: what the connection writes in UTF-8 it reads in UTF-8."""
    url = in_encoding(postgres_server, "SQL_ASCII")
    store = stores.open(url)
    store.upgrade()
    text = "żółć 火车 🚂 \u2028"
    given = {"role": "user", "content": [{"type": "text", "text": text}], "name": text}
    store.append("c-火", [{"role": "user", "content": text}, given], title=text, metadata={text: text})
    assert [message.to_openai() for message in store.messages("c-火")][1] == given
    assert store.conversation("c-火").metadata == {text: text}
    engine = sa.create_engine(url, connect_args={"client_encoding": "utf8"})
    with engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT text FROM tokenmem.message_log ORDER BY position")
        assert [row[0] for row in found] == [text, text]
    engine.dispose()
    store.close()


def test_a_connection_in_an_encoding_of_its_own_is_refused(postgres_server: PostgresServer) -> None:
    """Nobody converts what it says to what another connection reads."""
    options = {"client_encoding": "latin1"}
    engine = sa.create_engine(in_encoding(postgres_server, "SQL_ASCII"), connect_args=options)
    with Store(engine) as store:
        fails(store.upgrade, errors.DatabaseError, match="client_encoding")
    engine.dispose()
