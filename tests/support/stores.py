"""What the tests of stores share: one synchronous face for sync and async, and SQL of the tests' own."""

import asyncio
import inspect
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from tests.support.postgres import PostgresServer, driver_url
from tokenmem import AsyncStore, Message, Store
from tokenmem.database import schema
from tokenmem.database.engine import Engines
from tokenmem.database.statements import render

VARIANTS = ["sqlite-sync", "sqlite-async", "postgresql-sync", "postgresql-async"]
TABLES = ("conversations", "messages", "append_keys", "llm_calls", "call_prompts", "message_versions")


class Unit:
    """Counts every message as the number that its text begins with, so that tests can do the sums."""

    def __init__(self, name: str = "unit", factor: int = 1) -> None:
        self.name = name
        self.factor = factor

    def count(self, message: Message) -> int:
        return self.factor * int((message.content or "0").split()[0])


class One:
    """Counts every message as one token."""

    name = "one"

    def count(self, _: Message) -> int:
        return 1


def texts(*numbers: int) -> list[Message]:
    """User messages that Unit counts as these numbers."""
    return [Message.user(f"{number} tokens") for number in numbers]


class Facade:
    """An AsyncStore whose methods run to their end on one event loop."""

    def __init__(self, store: AsyncStore, loop: asyncio.Runner) -> None:
        self.store = store
        self.loop = loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.store, name)
        if not callable(attribute):
            return attribute

        def call(*args: Any, **kwargs: Any) -> Any:
            result = attribute(*args, **kwargs)
            if inspect.iscoroutine(result):
                return self.loop.run(result)
            if inspect.isasyncgen(result):
                return self._iterated(result)
            return Facade(result, self.loop) if isinstance(result, AsyncStore) else result

        return call

    @contextmanager
    def transaction(self) -> Iterator["Facade"]:
        manager = self.store.transaction()
        bound = Facade(self.loop.run(manager.__aenter__()), self.loop)
        try:
            yield bound
        except BaseException as error:
            if not self.loop.run(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.loop.run(manager.__aexit__(None, None, None))

    def _iterated(self, results: AsyncGenerator[Any, None]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(results, None)

        try:
            while (result := self.loop.run(following())) is not None:
                yield result
        finally:
            self.loop.run(results.aclose())

    def __enter__(self) -> "Facade":
        self.loop.run(self.store.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self.loop.run(self.store.__aexit__(*error))

    def __repr__(self) -> str:
        return repr(self.store)


class Stores:
    """Opens stores of one variant, and at the end closes them and checks that they left no connection.

    Args:
        variant: engine and mode.
        url: of the stores.
        sql: SQL behind the stores' back.
    """

    def __init__(self, variant: str, url: str, sql: "Direct | None" = None) -> None:
        self.variant = variant
        self.url = url
        self.is_async = variant.endswith("-async")
        self.dialect = variant.partition("-")[0]
        self.loop = asyncio.Runner()
        self.sql = sql or Direct(url)
        self._opened: list[Store] = []

    def open(self, url: Any = None, **options: Any) -> Store:
        """A store, in the face of a Store sync or async."""
        kind: Any = AsyncStore if self.is_async else Store
        opened = kind(self.url if url is None else url, **options)
        store = cast("Store", Facade(opened, self.loop) if self.is_async else opened)
        self._opened.append(store)
        return store

    def engine(self, **options: Any) -> Any:
        """An engine of the caller's own, sync or async as the store is."""
        if self.sql.url != self.url:  # through a pooler, as docs/deployment.md says
            options = {"connect_args": {"prepare_threshold": None}} | options
        if not self.is_async:
            return sa.create_engine(self.url, **options)
        return create_async_engine(self.url.replace("sqlite:", "sqlite+aiosqlite:"), **options)

    @contextmanager
    def transaction(self, store: Store) -> Iterator["Transaction"]:
        """A transaction of the caller's own on an engine of the caller's own, with the store bound to it."""
        engine = self.engine()
        wait = self.loop.run if self.is_async else lambda value: value

        async def connect() -> Any:
            return await engine.connect()

        connection = self.loop.run(connect()) if self.is_async else engine.connect()
        try:
            yield Transaction(store.bind(connection), connection, wait)
        finally:
            wait(connection.close())
            wait(engine.dispose())

    def close(self) -> None:
        try:
            for store in self._opened:
                for pool in pools_of(store):
                    assert pool.checkedout() == 0, "a connection is still checked out"
                store.close()
        finally:
            self.loop.close()
            self.sql.close()


class Transaction:
    """The caller's connection, sync or async."""

    def __init__(self, store: Store, connection: Any, wait: Any) -> None:
        self.store = store
        self.connection = connection
        self._wait = wait

    def execute(self, text: str) -> None:
        self._wait(self.connection.execute(sa.text(text)))

    def commit(self) -> None:
        self._wait(self.connection.commit())

    def rollback(self) -> None:
        self._wait(self.connection.rollback())


class Direct:
    """SQL behind the store's back. `{messages}` in it is that table's name.

    Args:
        url: of the database, without a pooler between.
        is_shared: whether `close` leaves the connection open, for those who come after.
    """

    def __init__(self, url: str, *, is_shared: bool = False) -> None:
        self.url = url
        self.engine = sa.create_engine(url, pool_pre_ping=is_shared)
        self._is_shared = is_shared

    def rows(self, text: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(self._statement(text), parameters)]

    def value(self, text: str, **parameters: Any) -> Any:
        return self.rows(text, **parameters)[0][0]

    def run(self, text: str, **parameters: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(self._statement(text), parameters)

    def counts(self) -> dict[str, int]:
        """How many rows each table holds."""
        return {table: self.value(f"SELECT count(*) FROM {{{table}}}") for table in TABLES}

    def age(self, days: float, where: str = "1 = 1", table: str = "messages") -> None:
        """Make rows older than they are."""
        columns = ("created_at",) if table == "messages" else ("created_at", "updated_at", "recent_at")
        for column in columns:
            older = (
                f"strftime('%Y-%m-%dT%H:%M:%fZ', {column}, '{-days:+f} days')"
                if self.engine.dialect.name == "sqlite"
                else f"{column} - interval '{days} days'"
            )
            self.run(f"UPDATE {{{table}}} SET {column} = {older} WHERE {where}")

    def call(self, conversation_id: str, number: int = 1, **columns: str) -> None:
        """Record a model call; the values are SQL."""
        columns = {"model": "'m'", "status": "'ok'"} | columns
        names = "".join(f", {name}" for name in columns)
        values = "".join(f", {value}" for value in columns.values())
        self.run(
            f"INSERT INTO {{llm_calls}} (conversation_id, number{names})"
            f" VALUES ('{conversation_id}', {number}{values})"
        )
        self.run(f"UPDATE {{conversations}} SET last_call = {number} WHERE id = '{conversation_id}'")

    def version(self, conversation_id: str, position: int, content: str = "before") -> None:
        """Put a content that an edit has replaced beside a message."""
        self.run(
            "INSERT INTO {message_versions} (conversation_id, position, version, part, since_revision,"
            " replaced_at_revision, replaced_at, token_count, role, kind, content, payload)"
            f" VALUES ('{conversation_id}', {position}, 1, 1, 0, 2, '2026-01-01T00:00:00Z', 1, 'user',"
            " 'message', :content, NULL)",
            content=content,
        )

    def everywhere(self, text: str) -> set[str]:
        """The columns of all tables there are, `table.column`, that hold a text."""
        schema_name = None if self.engine.dialect.name == "sqlite" else "tokenmem"
        found = set()
        with self.engine.connect() as connection:
            for table in sa.inspect(connection).get_table_names(schema_name):
                for column in sa.inspect(connection).get_columns(table, schema_name):
                    name = column["name"]
                    place = f"{schema_name}.{table}" if schema_name else table
                    query = sa.text(f"SELECT count(*) FROM {place} WHERE CAST({name} AS text) LIKE :text")
                    if connection.execute(query, {"text": f"%{text}%"}).scalar_one():
                        found.add(f"{table}.{name}")
        return found

    def _statement(self, text: str) -> sa.TextClause:
        prefix = "" if self.engine.dialect.name == "sqlite" else "tokenmem."
        return sa.text(text.format(**{table: prefix + table for table in schema.TABLES}))

    def close(self) -> None:
        if not self._is_shared:
            self.engine.dispose()


def pools_of(store: Any) -> list[Any]:
    """The pools of the store's connections: the engine's own, and those that it works on."""
    engines = engines_of(store)
    return [engine.pool for engine in {engines.public, engines.reading, engines.writing}]


def engines_of(store: Any) -> Engines:
    """The engines of a store, sync or async."""
    runner = store._connections
    return getattr(runner, "runner", runner).engines


def statement_text(statement: Any, dialect: str) -> str:
    """What a Statement sends to the driver."""
    return render(statement.text, dialect, None if dialect == "sqlite" else "tokenmem")


FILLED = [f"tokenmem.{table}" for table in schema.TABLES if table != "schema_settings"]
EMPTY_TABLES = f"""
DO $$
BEGIN
    IF pg_relation_size('tokenmem.messages') > {1024 * 1024} THEN
        TRUNCATE {", ".join(FILLED)};
    ELSE
        {" ".join(f"DELETE FROM {table};" for table in FILLED)}
    END IF;
END $$
"""


class Databases:
    """Migrated databases for one test worker: migrating anew for every test would cost most of the run.

    Args:
        directory: for a file to copy.
        server: called for the PostgreSQL server when it is needed.
        pooled: the URL of its database through a pooler, which tests then use; None for none.
    """

    def __init__(self, directory: Path, server: Any, pooled: Callable[[str], str] | None = None) -> None:
        self._directory = directory
        self._server = server
        self._pooled = pooled
        self._template: Path | None = None
        self._postgres: str | None = None
        self._emptier: psycopg.Connection | None = None
        self._sql: Direct | None = None

    def sqlite(self, directory: Path) -> str:
        """A migrated file of the test's own."""
        if self._template is None:
            template = self._directory / "template.db"
            with Store(f"sqlite:///{template}") as store:
                store.upgrade()
            self._template = template
        path = directory / "tokenmem.db"
        shutil.copy(self._template, path)
        return f"sqlite:///{path}"

    def postgresql(self) -> str:
        """The worker's migrated database, emptied."""
        if self._postgres is None:
            server: PostgresServer = self._server()
            self._postgres = server.create_database()
            with Store(self._postgres) as store:
                store.upgrade()
        self._emptied(self._postgres)
        return self._postgres if self._pooled is None else self._pooled(self._postgres)

    def sql(self, url: str) -> Direct:
        """SQL on a database, past the pooler; the worker's own database keeps a connection for it."""
        if self._postgres is None or url.startswith("sqlite"):
            return Direct(url)
        if self._sql is None:
            self._sql = Direct(self._postgres, is_shared=True)
        return self._sql

    def close(self) -> None:
        if self._sql is not None:
            self._sql.engine.dispose()
        if self._emptier is not None:
            self._emptier.close()

    def _emptied(self, url: str) -> None:
        # Rows are deleted, not truncated, where they are few: TRUNCATE makes the files of all tables and
        # indexes anew, ten times the time. The connection stays open for the same reason.
        if self._emptier is None or self._emptier.closed:
            self._emptier = psycopg.connect(driver_url(url), autocommit=True)
        try:
            self._emptier.execute(EMPTY_TABLES)
        except psycopg.OperationalError:  # a test has ended all connections
            self._emptier.close()
            self._emptier = psycopg.connect(driver_url(url), autocommit=True)
            self._emptier.execute(EMPTY_TABLES)

    def of(self, variant: str, directory: Path) -> str:
        return self.postgresql() if variant.startswith("postgresql") else self.sqlite(directory)


def same_json(left: Any, right: Any) -> bool:
    """Equality as JSON sees it: True is not 1, 1 is not 1.0, -0.0 is not 0.0; keys have no order."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same_json(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same_json, left, right))
    return bool(repr(left) == repr(right))


def positions(messages: Sequence[Message]) -> list[int]:
    return [message.position for message in messages]
