"""PgBouncer in transaction mode in front of a test's server, where the machine has one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

from sqlalchemy import make_url

from tests.support import postgres_keeper


@contextmanager
def running_pgbouncer(url: str, directory: Path, *, behind: int, prepared: int) -> Iterator[str]:
    """The pooler as a process of its own; yields the URL through it, for every database of that server.

    Args:
        url: of a database of the server.
        directory: for its files.
        behind: connections that it has to the server for each database, at most.
        prepared: statements that it keeps prepared for each of these; 0 for none.
    """
    parsed = make_url(url)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    users, settings = directory / "users", directory / "pgbouncer.ini"
    users.write_text(f'"{parsed.username}" "{parsed.password}"\n')
    settings.write_text(
        "[databases]\n"
        f"* = host={parsed.host} port={parsed.port} user={parsed.username} password={parsed.password}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {users}\npool_mode = transaction\n"
        f"default_pool_size = {behind}\nmax_client_conn = 200\n"
        + (f"max_prepared_statements = {prepared}\n" if keeps_prepared_statements() else "")
        + "ignore_startup_parameters = extra_float_digits\n"
    )
    postgres_keeper.hand_over(users, settings)
    with readable(directory):
        process = subprocess.Popen(
            ["pgbouncer", "--quiet", str(settings)], **postgres_keeper.unprivileged(), cwd="/"
        )
        try:
            wait_for_port(port)
            yield parsed.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def readable(directory: Path) -> Iterator[None]:
    """PgBouncer does not run as root: its user has to reach the directory."""
    above = [each for each in (directory, *directory.parents) if not each.stat().st_mode & 0o001]
    before = [(each, each.stat().st_mode) for each in above]
    for each in above:
        each.chmod(each.stat().st_mode | 0o001)
    yield
    for each, mode in before:
        each.chmod(mode)


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            return


@cache
def version() -> str:
    """PgBouncer's own; empty where there is none."""
    if shutil.which("pgbouncer") is None:
        return ""
    said = subprocess.run(["pgbouncer", "--version"], capture_output=True, text=True, check=True).stdout
    return said.split()[1]


def keeps_prepared_statements() -> bool:
    """Whether it knows of them at all, as 1.21 was the first to do."""
    return tuple(map(int, version().split(".")[:2])) >= (1, 21) if version() else False
