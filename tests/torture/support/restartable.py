"""A PostgreSQL server of our own that can be killed, stopped and demoted."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Literal

from tests.support.postgres import PostgresServer, PostgresUnavailable
from tokenmem import Store

KEEPER = Path(__file__).with_name("restartable_keeper.py")
Command = Literal["kill", "stop", "start", "standby", "promote"]


class RestartableServer:
    """See `restartable_keeper.py`, which ends it when this process ends, however it does."""

    def __init__(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-P", str(KEEPER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        report = json.loads(self._answer() or '{"error": "its keeper ended unexpectedly"}')
        if "error" in report:
            raise PostgresUnavailable(report["error"])
        self.url: str = report["url"]
        """Of the administrator."""

    def create_database(self) -> str:
        """The URL of a migrated database; it goes with the server."""
        server = PostgresServer(self.url)
        url = server.create_database()
        server.forget()  # its connection, which the first restart would cut
        with Store(url) as store:
            store.upgrade()
        return url

    def do(self, *commands: Command) -> None:
        """Do these, one after the other."""
        for command in commands:
            assert self._keeper.stdin is not None
            self._keeper.stdin.write(command + "\n")
            self._keeper.stdin.flush()
            if self._answer().strip() != "done":
                raise RuntimeError(f"the server's keeper could not {command}")

    def close(self) -> None:
        self._keeper.communicate()

    def _answer(self) -> str:
        assert self._keeper.stdout is not None
        return self._keeper.stdout.readline()


@cache
def restartable_server() -> RestartableServer:
    """The one of this process: to make one takes seconds. Whoever stops it starts it again."""
    server = RestartableServer()
    atexit.register(server.close)
    return server
