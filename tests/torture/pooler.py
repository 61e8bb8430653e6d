"""PgBouncer in transaction mode between the store and the server, with and without prepared statements."""

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
from tests.torture.failing_server import settled
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.writers import wait_for_progress, writing
from tokenmem.execution import runners

WRITERS = 6
BEHIND = 2
"""Connections that the pooler has to the server: fewer than there are writers, so that they take turns."""


def run(case: Case) -> Outcome:
    """Writers through the pooler until each has appended so often."""
    with (
        pooler(case, prepared=200 if case.mode == "prepared" else 0) as url,
        case.breaking(),
        writing(case, url, WRITERS) as writers,
    ):
        wait_for_progress(writers, case.size)
    with case.store() as store:
        return settled(case, store, writers)


@contextmanager
def pooler(case: Case, *, prepared: int) -> Iterator[str]:
    """PgBouncer in front of the case's server, as a process of its own."""
    url = make_url(case.url)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    users, settings = case.directory / "users", case.directory / "pgbouncer.ini"
    users.write_text(f'"{url.username}" "{url.password}"\n')
    settings.write_text(
        "[databases]\n"
        f"* = host={url.host} port={url.port} user={url.username} password={url.password}\n"
        "[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = plain\nauth_file = {users}\npool_mode = transaction\n"
        f"default_pool_size = {BEHIND}\nmax_client_conn = 200\n"
        + (f"max_prepared_statements = {prepared}\n" if keeps_prepared_statements() else "")
        + "ignore_startup_parameters = extra_float_digits\n"
    )
    postgres_keeper.hand_over(users, settings)
    with readable(case.directory):
        process = subprocess.Popen(
            ["pgbouncer", "--quiet", str(settings)], **postgres_keeper.unprivileged(), cwd="/"
        )
        try:
            wait_for_port(port)
            yield url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
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


def missing() -> str:
    """Why it cannot be tried here; empty where it can."""
    return "" if shutil.which("pgbouncer") else "there is no pgbouncer on PATH"


@contextmanager
def lost_statements_unnoticed() -> Iterator[None]:
    """What the pooler loses of prepared statements is an error like any other."""
    with patched(runners, "is_of_lost_preparation", lambda _: False):
        yield


CLASS = FaultClass(
    name="pooler",
    claim="Six writers go through PgBouncer in transaction mode with two connections behind it, once with "
    "its prepared statements and once without. Nobody gets an error that is not one to try again, and "
    "nothing is lost.",
    counts="appends of each writer",
    run=run,
    cases=(("postgresql", "prepared"), ("postgresql", "unprepared")),
    pending={}
    if keeps_prepared_statements() or not version()
    else {("postgresql", "prepared"): f"PgBouncer {version()} keeps no prepared statements, 1.21 does"},
    short=30,
    long=1000,
    planted=(
        PlantedFault(
            "lost statements not noticed", lost_statements_unnoticed, "postgresql", "unprepared", 20
        ),
    ),
    unavailable=missing,
)
