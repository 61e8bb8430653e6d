"""Whatever goes wrong below, the user gets one of tokenmem's errors, and no text that people said."""

import socket
import sqlite3
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.stores import VARIANTS, Databases, Direct, Stores, pools_of
from tokenmem import AsyncStore, Message, Store, errors
from tokenmem.database import migrate

SECRET = "marker-7f3a9"
PASSWORD = "hunter2-2b81"

on_sqlite = pytest.mark.parametrize("stores", [name for name in VARIANTS if "sqlite" in name], indirect=True)
on_postgresql = pytest.mark.parametrize(
    "stores", [name for name in VARIANTS if "postgresql" in name], indirect=True
)


def said(error: BaseException) -> str:
    return f"{error}\n{error!r}\n{''.join(traceback.format_exception(error))}"


def fails(
    operation: Callable[[], Any],
    kind: type[errors.TokenmemError] = errors.DatabaseError,
    match: str | None = None,
) -> errors.TokenmemError:
    """The error that an operation raises: of this kind, with this text, and with no secret in it."""
    with pytest.raises(kind, match=match) as caught:
        operation()
    everything = said(caught.value)
    assert SECRET not in everything
    assert PASSWORD not in everything
    assert type(caught.value).__module__.startswith("tokenmem."), "the driver's own error"
    return caught.value


def append(store: Store) -> Callable[[], Any]:
    message = {"role": "user", "content": SECRET, "extra": SECRET}
    return lambda: store.append("c1", [message], title=SECRET, metadata={"x": SECRET})


def each(store: Store) -> list[Callable[[], Any]]:
    """A read of one statement, a write, and a migration."""
    return [store.conversations, append(store), store.upgrade]


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://root:{p}@host/db",
        "postgresql+asyncpg://u:{p}@host/db",
        "postgresql://u:{p}@host:port/db",
        "sqlite:///a\0b",
        "sqlite:///a\ud800b",
        "postgresql://u:{p}@host/a\ud800b",
        "sqlite:///x.db?timeout=soon",
        "sqlite:///x.db?plugin=nonsense",
        "http://example.com/",
        5,
        b"sqlite://",
        ["sqlite://"],
    ],
)
@pytest.mark.parametrize("kind", [Store, AsyncStore])
def test_a_wrong_url(kind: Any, url: Any) -> None:
    url = url.format(p=PASSWORD) if isinstance(url, str) else url
    fails(lambda: kind(url), errors.InvalidArgument)


def test_nobody_listens_at_the_port(stores: Stores) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        store = stores.open(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/db")
        for operation in each(store):
            fails(operation, errors.DatabaseUnavailable, f"{port}.*check that the server runs")


def test_an_option_that_the_driver_does_not_know(stores: Stores) -> None:
    store = stores.open(f"postgresql://u:{PASSWORD}@127.0.0.1:1/db?nonsense=1")
    for operation in each(store):
        fails(operation, match="nonsense")


def test_no_such_database_and_no_such_user(stores: Stores, databases: Databases) -> None:
    url = sa.make_url(databases.postgresql())
    for operation in each(stores.open(url.set(database="nonesuch", password=PASSWORD))):
        fails(operation, errors.DatabaseUnavailable, "nonesuch")
    for operation in each(stores.open(url.set(username="nobody", password=PASSWORD))):
        fails(operation, errors.DatabaseUnavailable, "nobody")


def test_no_schema_yet(stores: Stores, tmp_path: Path) -> None:
    if stores.dialect == "sqlite":
        store = stores.open(f"sqlite:///{tmp_path / 'empty.db'}")
    else:
        store = stores.open(schema="nothing_here")
    for operation in (store.conversations, append(store), store.verify, lambda: store.window("c1", 10)):
        fails(operation, errors.SchemaOutOfDate, "tokenmem db upgrade")


def test_a_column_is_missing(stores: Stores) -> None:
    stores.sql.run("ALTER TABLE {messages} RENAME COLUMN token_count TO tokens")
    try:
        fails(append(stores.open()), errors.SchemaOutOfDate, "token_count")
    finally:
        stores.sql.run("ALTER TABLE {messages} RENAME COLUMN tokens TO token_count")


@on_postgresql
def test_a_lost_connection_is_replaced(stores: Stores) -> None:
    store = stores.open()
    store.append("c1", [Message.user("x")])
    kill = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    for operation in (store.conversations, append(store), store.verify):
        stores.sql.rows(kill)
        operation()
    assert store.conversation("c1").message_count == 2
    with stores.transaction(store) as mine:
        mine.store.append("c1", [Message.user("x")])
        stores.sql.rows(kill)
        fails(append(mine.store), errors.DatabaseUnavailable)
    assert stores.sql.value("SELECT message_count FROM {conversations}") == 2


@on_postgresql
def test_a_statement_that_is_not_allowed_the_time(stores: Stores) -> None:
    with stores.sql.engine.connect() as other:
        stores.open().append("c1", [Message.user("x")])
        other.execute(sa.text("SELECT * FROM tokenmem.conversations FOR UPDATE"))
        for option in ("statement_timeout", "lock_timeout"):
            store = stores.open(f"{stores.url}?options=-c%20{option}%3D50")
            fails(append(store), errors.DatabaseUnavailable, "timeout")
            fails(lambda store=store: store.delete("c1"), errors.DatabaseUnavailable, "timeout")
    assert stores.open().conversation("c1").message_count == 1


@on_postgresql
def test_a_server_that_only_reads(stores: Stores) -> None:
    store = stores.open(f"{stores.url}?options=-c%20default_transaction_read_only%3Don")
    assert store.conversations() == []
    dropped: list[Any] = []
    for pool in pools_of(store):
        sa.event.listen(pool, "invalidate", lambda *args: dropped.append(args))
    fails(append(store), errors.DatabaseUnavailable, "read-only")
    # Where a primary was demoted, the pool must not use its connections again.
    assert dropped


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
@on_postgresql
def test_a_database_that_is_not_utf_8(stores: Stores, encoding: str) -> None:
    name = f"{sa.make_url(stores.url).database}_{encoding}".lower()
    with stores.sql.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
        store = stores.open(sa.make_url(stores.url).set(database=name))
        try:
            if encoding == "LATIN1":  # in which tables are there already: upgrade() makes none any more
                engine = sa.create_engine(sa.make_url(stores.url).set(database=name))
                with engine.begin() as other:
                    other.exec_driver_sql(migrate.sql(engine.url, "tokenmem"))
                engine.dispose()
                with pytest.warns(RuntimeWarning, match="encoding is LATIN1, which cannot hold every text"):
                    store.upgrade()
            else:
                store.upgrade()
            store.append("c1", [Message.user("caf\u00e9")])
            assert store.messages("c1")[0].content == "caf\u00e9"
            if encoding == "LATIN1":
                fails(lambda: store.append("c1", [Message.user("\u4eba")]), errors.DatabaseError)
            assert store.verify() == []
        finally:
            store.close()
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@on_postgresql
def test_no_right_to_the_tables(stores: Stores) -> None:
    role = f"guest_{sa.make_url(stores.url).database}"
    stores.sql.run(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    try:
        store = stores.open(sa.make_url(stores.url).set(username=role, password=PASSWORD))
        for operation in each(store):
            fails(operation, match="permission denied")
        store.close()
    finally:
        stores.sql.run(f"DROP ROLE {role}")


@pytest.mark.parametrize("refused", ["content", "payload", "title"])
def test_what_the_database_refuses_is_not_quoted(stores: Stores, refused: str) -> None:
    table = "conversations" if refused == "title" else "messages"
    if stores.dialect == "postgresql":
        # A unique index and a check: PostgreSQL's own texts for both quote the row.
        stores.sql.run(f"ALTER TABLE {{{table}}} ADD CONSTRAINT no CHECK (length({refused}::text) < 3)")
    else:
        stores.sql.run(
            f"CREATE TRIGGER no BEFORE INSERT ON {table} WHEN length(NEW.{refused}) > 2 "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
    try:
        fails(append(stores.open()))
        assert stores.sql.counts()["conversations"] == 0
    finally:
        if stores.dialect == "postgresql":
            stores.sql.run(f"ALTER TABLE {{{table}}} DROP CONSTRAINT no")


# --- SQLite's files


@pytest.fixture
def file_store(databases: Databases, tmp_path: Path, stores: Stores) -> tuple[Path, Stores]:
    return Path(sa.make_url(stores.url).database or ""), stores


@on_sqlite
def test_a_read_only_file(file_store: tuple[Path, Stores]) -> None:
    path, stores = file_store
    stores.open().append("c1", [Message.user("x")])
    store = stores.open(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert store.conversation("c1").message_count == 1
    fails(append(store), errors.DatabaseUnavailable, "readonly.*writable")
    fails(lambda: store.delete("c1"), errors.DatabaseUnavailable, "readonly.*writable")


@on_sqlite
def test_a_read_only_file_without_tables(file_store: tuple[Path, Stores], tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    store = file_store[1].open(f"sqlite:///file:{empty}?mode=ro&uri=true")
    fails(store.upgrade, errors.DatabaseUnavailable, "readonly.*writable")
    fails(store.conversations, errors.SchemaOutOfDate)


@on_sqlite
def test_a_path_that_is_a_directory(file_store: tuple[Path, Stores], tmp_path: Path) -> None:
    for operation in each(file_store[1].open(f"sqlite:///{tmp_path}")):
        fails(operation, errors.DatabaseUnavailable, f"{tmp_path}.*it is a directory; name a file in it")


@on_sqlite
def test_a_directory_that_is_not_there(file_store: tuple[Path, Stores], tmp_path: Path) -> None:
    for operation in each(file_store[1].open(f"sqlite:///{tmp_path}/none/a.db")):
        fails(operation, errors.DatabaseUnavailable, "none/a.db.*check that its directory exists")
    assert not (tmp_path / "none").exists()


@on_sqlite
def test_a_file_that_is_no_database(file_store: tuple[Path, Stores], tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text(f"{SECRET}\n" * 500)
    for operation in each(file_store[1].open(f"sqlite:///{other}")):
        error = fails(operation, match="not a database; name another file")
        assert not isinstance(error, errors.DatabaseUnavailable), "another try is of no use"
    assert other.read_text() == f"{SECRET}\n" * 500


@on_sqlite
def test_a_file_that_another_process_has_locked(file_store: tuple[Path, Stores]) -> None:
    path, stores = file_store
    store = stores.open(f"{stores.url}?timeout=0")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    fails(append(store), errors.DatabaseUnavailable, "locked; try again")
    other.execute("ROLLBACK")
    other.close()
    append(store)()


@on_sqlite
def test_a_file_that_may_not_grow(file_store: tuple[Path, Stores]) -> None:
    _, stores = file_store
    engine = sa.create_engine(stores.url)
    sa.event.listen(
        engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1").close()
    )
    with Store(engine) as store:
        full = Message.user(SECRET * 10_000)
        fails(lambda: store.append("c1", [full]), errors.DatabaseUnavailable, "full; try again")
        assert store.conversations() == []
    engine.dispose()


@on_sqlite
def test_a_file_that_is_damaged(file_store: tuple[Path, Stores]) -> None:
    path, stores = file_store
    store = stores.open()
    store.append("c1", [Message.user(SECRET * 100)] * 200)
    store.close()
    Direct(stores.url).rows("PRAGMA wal_checkpoint(TRUNCATE)")
    stores.sql.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\0" * (size // 2))
    error = fails(lambda: stores.open().messages("c1", limit=None), match="malformed.*restore")
    assert not isinstance(error, errors.DatabaseUnavailable), "another try is of no use"


@on_sqlite
def test_a_text_that_is_no_utf8(file_store: tuple[Path, Stores]) -> None:
    _, stores = file_store
    store = stores.open()
    store.append("c1", [Message.user("x")])
    stores.sql.run(f"UPDATE {{messages}} SET content = CAST(x'{SECRET.encode().hex()}ff' AS text)")
    fails(lambda: store.messages("c1"), match="UTF-8")
