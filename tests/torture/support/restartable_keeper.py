"""Keeps a PostgreSQL server that can be killed, stopped and demoted, for as long as who started this lives.

Run as a program. It prints one line of JSON, as `tests/support/postgres_keeper.py` does, of which this is
made; then it takes a command a line from standard input, and answers each with a line when it is done:

    kill      SIGKILL to the server and all of its processes
    stop      a fast shutdown, as `pg_ctl restart` does it
    start     start it, as a primary
    standby   start it as a replica of nobody: it takes reads, and refuses writes
    promote   make the running replica a primary
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support import postgres_keeper as keeper


class Server:
    """A server on a directory of its own, running or not."""

    def __init__(self, stack: ExitStack, programs: Path, *, copy: bool) -> None:
        self._directory = stack.enter_context(keeper.fresh_directory(in_memory=True))
        self._programs = keeper.copy_wheel(programs, self._directory) if copy else programs
        password = secrets.token_hex(16)
        keeper.create_cluster(self._programs, self._directory, password)
        self._port = keeper.free_port()
        self.url = f"postgresql+psycopg://postgres:{password}@127.0.0.1:{self._port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        stack.callback(self.kill)

    def start(self) -> None:
        self._launch()

    def standby(self) -> None:
        self._signal_file.touch()
        keeper.hand_over(self._signal_file)
        self._launch()

    def promote(self) -> None:
        keeper.run(self._programs / "pg_ctl", "promote", "-w", "-D", self._directory / "data")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGSTOP)  # so that it starts no more of them
        children = children_of(process.pid)
        for each in (process.pid, *children):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        process.wait()
        while any(Path(f"/proc/{each}").exists() and not is_zombie(each) for each in children):
            time.sleep(0.001)
        (self._directory / "data" / "postmaster.pid").unlink(missing_ok=True)

    @property
    def _signal_file(self) -> Path:
        return self._directory / "data" / "standby.signal"

    def _launch(self) -> None:
        self._process = keeper.launch(
            self._programs, self._directory, self._port, wal_level="replica", synchronous_commit="on"
        )
        keeper.wait_until_ready(self._process, self._directory)


def children_of(parent: int) -> list[int]:
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):  # a process may end meanwhile
        with suppress(OSError):
            if int(Path("/proc", number, "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(number))
    return found


def is_zombie(process: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def opened(stack: ExitStack) -> Server:
    """A server of the first programs that run here."""
    reasons = []
    for kind, programs in keeper.candidates(os.environ.get("TOKENMEM_TEST_POSTGRES") or "any"):
        try:
            copy = False
            try:
                keeper.check(programs)
            except keeper.NoServer:
                if kind == "installed":
                    raise
                copy = True
            server = Server(stack, programs, copy=copy)
            server.start()
        except keeper.NoServer as error:
            reasons.append(str(error))
        else:
            return server
    raise keeper.NoServer("\n".join(reasons))


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        try:
            server = opened(stack)
        except keeper.NoServer as error:
            print(json.dumps({"error": str(error)}), flush=True)
            return
        print(json.dumps({"url": server.url}), flush=True)
        for line in sys.stdin:
            getattr(server, line.strip())()
            print("done", flush=True)


if __name__ == "__main__":
    main()
