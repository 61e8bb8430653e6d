"""The databases that the benchmarks fill: files of SQLite's, and databases on a server of the run's own."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from tests.support import postgres
from tests.support.postgres import PostgresServer, driver_url

ENGINES = ("sqlite", "postgresql")
MEMORY = Path("/dev/shm")
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

# The tests' servers do without durability; these have PostgreSQL's own defaults.
postgres.KEEPER = Path(__file__).with_name("postgres_keeper.py")


@dataclass(frozen=True)
class Database:
    """One database. `address` is a file's path, or the URL as psycopg takes it."""

    engine: str
    address: str

    @property
    def url(self) -> str:
        """As tokenmem takes it."""
        return f"sqlite:///{self.address}" if self.engine == "sqlite" else self.address

    def url_for(self, sqlite: str, postgresql: str) -> str:
        """As SQLAlchemy takes it, for a driver of each engine."""
        if self.engine == "sqlite":
            return f"{sqlite}:///{self.address}"
        return self.address.replace("postgresql:", f"{postgresql}:", 1)

    def connect(self) -> Any:
        """The bare driver's connection, in autocommit mode."""
        if self.engine == "sqlite":
            connection = sqlite3.connect(self.address, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            return connection
        return psycopg.connect(self.address, autocommit=True)

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements on a connection of their own and return the last one's rows."""
        connection = self.connect()
        try:
            rows: list[tuple[Any, ...]] = []
            for statement in statements:
                cursor = connection.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
            return rows
        finally:
            connection.close()

    def forget_commits(self) -> None:
        """Let PostgreSQL answer before a commit is on the disk, on connections from now on."""
        name = self.address.rpartition("/")[2]
        self.run(f'ALTER DATABASE "{name}" SET synchronous_commit = off')

    def settle(self) -> None:
        """What the engine would do by itself sooner or later: clean up, take statistics, write back."""
        if self.engine == "sqlite":
            self.run("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            self.run("VACUUM ANALYZE", "CHECKPOINT")


class Workshop:
    """Makes databases and removes them."""

    def __init__(self, engine: str, directory: Path, server: PostgresServer | None) -> None:
        self.engine = engine
        self.version = sqlite3.sqlite_version
        self._directory = directory
        self._server = server
        if server:
            self.version = Database(engine, driver_url(server.admin_url)).run("SHOW server_version")[0][0]

    def create(self, directory: Path | None = None) -> Database:
        if self._server:
            return Database(self.engine, driver_url(self._server.create_database()))
        path = (directory or self._directory) / f"{uuid4().hex}.db"
        database = Database(self.engine, str(path))
        # For every subject alike: it is the faster journal, and the file remembers it.
        database.run("PRAGMA journal_mode = WAL")
        return database

    def remove(self, database: Database) -> None:
        if self._server:
            self._server.drop_database(database.address)
            return
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(database.address + suffix).unlink(missing_ok=True)

    @contextmanager
    def database(self, directory: Path | None = None) -> Iterator[Database]:
        created = self.create(directory)
        try:
            yield created
        finally:
            self.remove(created)

    @contextmanager
    def without_waiting(self) -> Iterator[Database]:
        """A database whose commits do not wait for the disk; SQLite's file is in memory where one can be."""
        if self._server:
            with self.database() as created:
                created.forget_commits()
                yield created
            return
        place = MEMORY if self.can_skip_waiting else None
        with tempfile.TemporaryDirectory(dir=place) as directory, self.database(Path(directory)) as created:
            yield created

    @property
    def can_skip_waiting(self) -> bool:
        return bool(self._server) or os.access(MEMORY, os.W_OK)


@contextmanager
def workshop(engine: str) -> Iterator[Workshop]:
    """Where databases of one engine are made; on disk, all gone at the end."""
    with tempfile.TemporaryDirectory(prefix="tokenmem-benchmarks-") as directory:
        if engine == "sqlite":
            yield Workshop(engine, Path(directory), None)
            return
        with postgres.running_server(in_memory=False) as admin_url:
            server = PostgresServer(admin_url)
            try:
                yield Workshop(engine, Path(directory), server)
            finally:
                server.close()
