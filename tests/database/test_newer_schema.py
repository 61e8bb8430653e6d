"""This tokenmem on a database that a newer one has migrated."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.commands import run
from tests.support.later_revisions import LaterRevisions
from tokenmem import AsyncStore, Store, errors
from tokenmem.database import migrate
from tokenmem.database.engine import default_schema, open_engine

_OWN = migrate.revision_number(migrate.head())
OWN, NEXT, NEWEST, BEYOND = (f"tokenmem_{_OWN + number:04}" for number in range(4))
NEWER = f"a newer tokenmem has brought the tables to revision {NEWEST}"
FILL = 'op.execute("CREATE TABLE " + (f"{schema}." if schema else "") + "later (id integer)")'
ADD = 'op.add_column("messages", sa.Column("mood", sa.JSON()), schema=schema)'


class Newer:
    """A database that a tokenmem two revisions on has migrated."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.engine = open_engine(url)
        self.schema = default_schema(self.engine.dialect.name, None)
        self.prefix = f"{self.schema}." if self.schema else ""
        self.store = Store(self.engine)
        self.store.upgrade()
        self.store.append("c1", [{"role": "user", "content": "before"}])
        self.later = LaterRevisions(directory)
        text = self.later.text("message_log").replace("'[incomplete]'", "'[cut off]'")
        self.later.add(upgrade=ADD, message_log=text)
        self.later.add(upgrade=FILL)
        with self.later.known():
            self.store.upgrade()

    def run(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.exec_driver_sql(statement.format(self.prefix))

    def set_oldest(self, revision: str) -> None:
        self.run(f"UPDATE {{}}schema_settings SET value = '{revision}' WHERE name = 'oldest_revision'")

    def current(self) -> str | None:
        with self.engine.connect() as connection:
            return migrate.current(connection, self.schema)


@pytest.fixture
def newer(database_url: str, tmp_path: Path) -> Iterator[Newer]:
    newer = Newer(database_url, tmp_path / "later")
    yield newer
    newer.engine.dispose()


def test_an_upgrade_does_nothing_and_says_so(newer: Newer) -> None:
    for revision in ("head", OWN):
        with pytest.warns(RuntimeWarning, match=NEWER):
            newer.store.upgrade(revision)
    assert newer.current() == NEWEST
    with pytest.raises(errors.SchemaOutOfDate, match="nonsense"):
        newer.store.upgrade("nonsense")


def test_a_store_works_on_it(newer: Newer) -> None:
    with Store(newer.url) as store:
        store.append("c1", [{"role": "user", "content": "behind"}], idempotency_key="once")
        assert [message.content for message in store.window("c1", 100).messages] == ["before", "behind"]
        store.edit("c1", 1, {"role": "user", "content": "edited"})
        store.fork("c1", "c2", at=1)
        store.truncate("c1", after=1)
        assert store.verify() == []


def test_an_async_store_works_on_it(newer: Newer) -> None:
    async def work() -> list[str | None]:
        store = AsyncStore(newer.url)
        with pytest.warns(RuntimeWarning, match=NEWER):
            await store.upgrade()
        await store.append("c1", [{"role": "user", "content": "behind"}])
        window = await store.window("c1", 100)
        await store.close()
        return [message.content for message in window.messages]

    assert asyncio.run(work()) == ["before", "behind"]


OLD_PROGRAM = """
import sys
from tokenmem import Store
with Store(sys.argv[1]) as store:
    store.upgrade()
    store.conversations()
"""
NEW_PROGRAM = (
    """
import pathlib, sys
from tokenmem.database import migrate
migrate.directory = lambda: pathlib.Path(sys.argv[2])
"""
    + OLD_PROGRAM
)


def test_processes_of_both_versions_may_start_at_once(database_url: str, tmp_path: Path) -> None:
    later = LaterRevisions(tmp_path / "later")
    later.add(upgrade=ADD)
    command = [database_url, str(later.directory)]
    answers = programs.run_at_once(
        [("-c", text, *command) for text in [OLD_PROGRAM, NEW_PROGRAM] * 3], env=os.environ
    )
    assert [answer.code for answer in answers] == [0] * 6, answers
    engine = open_engine(database_url)
    with engine.connect() as connection:
        assert migrate.current(connection, default_schema(engine.dialect.name, None)) == NEXT
    engine.dispose()


@pytest.mark.parametrize("oldest", [NEXT, NEWEST, "tokenmem_10000"])
def test_where_older_code_does_not_work_it_is_refused(newer: Newer, oldest: str) -> None:
    newer.set_oldest(oldest)
    with pytest.raises(errors.SchemaOutOfDate, match=f"to know {oldest}: install a newer tokenmem"):
        newer.store.upgrade()
    assert newer.current() == NEWEST


def test_a_revision_may_refuse_older_code(newer: Newer) -> None:
    newer.later.add(
        upgrade="set_oldest_revision(revision)",
        downgrade=f'set_oldest_revision("{OWN}")',
    )
    file = next((newer.later.directory / "versions").glob(f"{BEYOND}*.py"))
    file.write_text(file.read_text().replace("keep_writers_out,", "keep_writers_out, set_oldest_revision,"))
    with newer.later.known():
        newer.store.upgrade()
    with pytest.raises(errors.SchemaOutOfDate, match=f"at revision {BEYOND}.*to know {BEYOND}"):
        newer.store.upgrade()
    with newer.later.known(), newer.engine.begin() as connection:
        migrate.downgrade(connection, newer.schema, "-1")
    with pytest.warns(RuntimeWarning, match=NEWER):
        newer.store.upgrade()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM {}schema_settings",
        "DROP TABLE {}schema_settings",
        "ALTER TABLE {}schema_settings RENAME COLUMN value TO setting",
    ],
)
def test_where_nothing_says_whether_it_works_it_is_refused(newer: Newer, statement: str) -> None:
    newer.run(statement)
    with pytest.raises(errors.SchemaOutOfDate, match="no row oldest_revision in a table schema_settings"):
        newer.store.upgrade()


def test_what_is_no_revision_of_ours_is_refused(newer: Newer) -> None:
    newer.set_oldest("blue")
    with pytest.raises(errors.SchemaOutOfDate, match="'blue' is none of tokenmem's revisions"):
        newer.store.upgrade()
    newer.run("UPDATE {}tokenmem_alembic_version SET version_num = 'abc123'")
    with pytest.raises(errors.SchemaOutOfDate, match="'abc123' is none of tokenmem's revisions"):
        newer.store.upgrade()


def test_a_downgrade_is_for_the_newer_code(newer: Newer) -> None:
    with (
        newer.engine.begin() as connection,
        pytest.raises(errors.SchemaOutOfDate, match="install the version"),
    ):
        migrate.downgrade(connection, newer.schema, "base")


def test_the_command_says_it_in_a_sentence(newer: Newer) -> None:
    upgrade = run("db", "upgrade", url=newer.url)
    assert (upgrade.code, upgrade.out.endswith(f"is at revision {NEWEST}\n")) == (0, True)
    assert upgrade.err.startswith(f"tokenmem: {NEWER}")
    assert upgrade.err.count("\n") == 1
    current = run("db", "current", url=newer.url)
    assert (current.code, current.out) == (0, f"{NEWEST}\n")
    assert current.err == f"tokenmem: a newer tokenmem's; this version is at {OWN} and works on it\n"
    check = run("db", "check", url=newer.url)
    assert check.code == 0
    assert f"{NEWEST}: a newer tokenmem's" in check.out
    assert run("db", "check", "--json", url=newer.url).json == {"differences": []}


def test_the_command_does_not_advise_what_cannot_work(newer: Newer) -> None:
    newer.set_oldest(NEXT)
    for command, code in (("upgrade", 1), ("current", 0), ("check", 1)):
        answer = run("db", command, url=newer.url)
        assert answer.code == code
        assert "install a newer tokenmem" in answer.out + answer.err
        assert "db upgrade`" not in answer.out + answer.err
