"""`tokenmem erase`: what an owner had is in no file any more, and the command has looked."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.commands import done, only_line, run
from tests.support.postgres import PostgresServer
from tests.support.stores import Databases, Direct, Stores
from tokenmem import Message, Store
from tokenmem.database.engine import _prepare_sqlite

SECRET = "marker-7f3a9"


def fill(store: Store, owner: str, secret: str, conversations: int = 30) -> None:
    """All that an owner can have, long texts and short ones, edited and in several sizes."""
    for number in range(conversations):
        name = f"{secret}-{number}"
        long = f"{secret} long " + f"{secret} " * (number * 40)
        said = [
            Message.user(f"{secret} said {number}"),
            Message.user(long),
            {"role": "user", "content": "x", "name": secret},
        ]
        store.append(
            name, said, owner=owner, title=secret, metadata={"a": secret}, idempotency_key=f"{secret}-key"
        )
        store.edit(name, 2, Message.user(f"{secret} edited {number}"))
        store.update_message(name, 1, metadata={"b": secret})
        tools = [{"type": "function", "function": {"name": secret}}]
        store.record_call(name, model="m", instructions=f"{secret} instructions", tools=tools, error=secret)
        store.delete_message(name, 3)


def bytes_of(path: Path) -> bytes:
    return b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))


@pytest.fixture
def file(tmp_path: Path, databases: Databases) -> Path:
    databases.sqlite(tmp_path)
    return tmp_path / "tokenmem.db"


def test_no_byte_of_the_owners_is_left_in_the_files(file: Path) -> None:
    url = f"sqlite:///{file}"
    with Store(url) as store:
        fill(store, f"owner-{SECRET}", SECRET)
        fill(store, "other", "kept-text", 5)
    assert SECRET.encode() in bytes_of(file)
    answer = done("erase", "--owner", f"owner-{SECRET}", "--yes", "--json", url=url).json
    assert answer["conversations"] == 30
    assert answer["texts"] > 30
    assert (answer["left_in_files"], answer["stored_elsewhere"], answer["log_is_empty"]) == (0, [], True)
    assert SECRET.encode() not in bytes_of(file)
    with Store(url) as store:
        assert len(store.conversations(owner="other")) == 5
        assert store.verify() == []


def test_what_earlier_writes_left_behind_is_found_and_the_file_written_anew(file: Path) -> None:
    """Pages that a program without secure_delete has freed hold the texts, which no row does."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        text = "left behind by somebody "
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.executemany("INSERT INTO notes VALUES (?)", [(text + str(n),) for n in range(900)])
        connection.commit()
        connection.execute("DELETE FROM notes")
        connection.commit()
    assert b"left behind by somebody 77" in bytes_of(file)
    url = f"sqlite:///{file}"
    with Store(url) as store:
        store.append("c1", [Message.user("left behind by somebody 77")], owner="ann")
    answer = done("erase", "--owner", "ann", "--yes", "--json", url=url).json
    assert (answer["vacuumed"], answer["left_in_files"]) == (True, 0)
    assert b"left behind by somebody" not in bytes_of(file)


def test_what_somebody_else_has_stored_is_told_and_stays(file: Path) -> None:
    url = f"sqlite:///{file}"
    with Store(url) as store:
        store.append("c1", [Message.user("a proverb that all know")], owner="user-0007")
        store.append("c2", [Message.user("a proverb that all know")], owner="bob")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE users (id TEXT)")
        connection.execute("INSERT INTO users VALUES ('user-0007')")
        connection.commit()
    answer = done("erase", "--owner", "user-0007", "--yes", "--json", url=url).json
    assert answer["stored_elsewhere"] == ["messages.content", "users.id"]
    assert answer["left_in_files"] == 0
    with Store(url) as store:
        assert store.window("c2", 100).messages[0].content == "a proverb that all know"


def test_another_process_that_reads_is_told_of(file: Path) -> None:
    url = f"{file}"
    with Store(f"sqlite:///{file}") as store:
        fill(store, "ann", SECRET, 3)
    with closing(sqlite3.connect(url)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchall()
        answer = run("erase", "--owner", "ann", "--yes", url=f"sqlite:///{file}?timeout=1")
        assert answer.code == 1
        assert "end it, or wait" in answer.err
        assert "no file holds" not in answer.out
    again = done("erase", "--owner", "ann", "--yes", url=f"sqlite:///{file}")
    assert again.out.splitlines()[0] == "removed 0 conversations of 'ann'"
    assert "no file holds its texts any more, after the file was written anew" in again.out
    assert SECRET.encode() not in bytes_of(file)


def test_it_asks_first(file: Path) -> None:
    url = f"sqlite:///{file}"
    with Store(url) as store:
        store.append("c1", [Message.user("x")], owner="ann")
    assert "--yes" in only_line(run("erase", "--owner", "ann", url=url))
    assert run("erase", "--yes", url=url).code == 2
    with Store(url) as store:
        assert store.conversation("c1").owner == "ann"


def test_on_postgresql_it_says_what_to_run_or_runs_it(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        with Store(url) as store:
            store.upgrade()
            fill(store, "ann", SECRET, 3)
            fill(store, "other", "kept-text", 3)
        told = done("erase", "--owner", "ann", "--yes", url=url).out
        assert "VACUUM (FULL, ANALYZE) tokenmem.messages;" in told
        sql = Direct(url)
        before = sql.value("SELECT pg_relation_filenode('tokenmem.messages')")
        answer = done("erase", "--owner", "ann", "--yes", "--vacuum", "--json", url=url).json
        assert (answer["vacuumed"], answer["statements"]) == (True, [])
        assert sql.value("SELECT pg_relation_filenode('tokenmem.messages')") != before
        assert sql.everywhere(SECRET) == set()
        sql.close()


@pytest.mark.parametrize("stores", ["sqlite-sync", "sqlite-async"], indirect=True)
def test_delete_owner_leaves_nothing_in_the_log(stores: Stores) -> None:
    path = Path(stores.url.removeprefix("sqlite:///"))
    log = Path(f"{path}-wal")
    store = stores.open()
    fill(store, "ann", SECRET, 5)
    assert SECRET.encode() in log.read_bytes()
    assert store.delete_owner("ann") == 5
    assert log.stat().st_size == 0, "the log holds what was deleted"
    fill(store, "bob", SECRET, 2)
    assert store.anonymize_owner("bob") == 2
    assert log.stat().st_size == 0
    with store.transaction() as bound:  # in which no log can be cut
        bound.delete_owner("nobody")


def test_what_is_deleted_is_overwritten() -> None:
    """By every connection of ours, whatever SQLite was built to do."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        _prepare_sqlite(connection, None)
        assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)
