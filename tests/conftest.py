"""Fixtures that every test can use, and the one PostgreSQL server that a whole run shares."""

import gc
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.support.pgbouncer import running_pgbouncer
from tests.support.postgres import PostgresServer, PostgresUnavailable, running_server
from tests.support.stores import VARIANTS, Databases, Direct, Stores
from tests.support.variants import left_out
from tokenmem import Store

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

# No test talks TLS, and reading all authorities' certificates takes each HTTP client 50 ms: here are none.
os.environ.setdefault("SSL_CERT_DIR", str(Path(__file__).parent))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a shell that runs the tests in the background
    # Else Ctrl-C would have no effect in the processes that tests start: they inherit what is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--through-pgbouncer",
        choices=["prepared", "unprepared"],
        help="have the stores of the tests reach PostgreSQL through a PgBouncer in transaction mode, which "
        "keeps prepared statements or not",
    )
    parser.addoption(
        "--variants",
        choices=["first", "second", "all"],
        default="first",
        help="of the tests that run on both engines, sync and async: in two variants, both engines and both "
        "modes among them, in the other two, or in all four; those chosen by -k or by their ids run always",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    half = config.getoption("--variants")
    if half != "all" and not config.option.keyword and (left := left_out(items, half)):
        config.hook.pytest_deselected(items=left)
        runs = set(items) - set(left)
        items[:] = [item for item in items if item in runs]
    if config.getoption("--through-pgbouncer"):
        for item in items:
            if item.get_closest_marker("direct"):
                item.add_marker(pytest.mark.skip(reason="it tells the server's connections apart"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: one worker more than there are cores, since tests wait for processes and models."""
    return 1 + (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """What all tests share stays: no garbage collection need look at it again, and many tests ask for one."""
    gc.collect()
    gc.freeze()


SERVER = pytest.StashKey[dict[str, str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """With pytest-xdist: start one server before the first worker, and tell every worker where it is."""
    config: pytest.Config = node.config
    if SERVER not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        try:
            config.stash[SERVER] = {"postgres_url": stack.enter_context(running_server())}
        except PostgresUnavailable as error:
            # Only the tests that need the server are to fail; the fixture below does it.
            config.stash[SERVER] = {"postgres_error": str(error)}
    node.workerinput.update(config.stash[SERVER])


@pytest.fixture(scope="session")
def postgres_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """The run's PostgreSQL server; a test that needs one fails where none can be had, it never skips."""
    shared: dict[str, str] = getattr(request.config, "workerinput", {})
    if "postgres_error" in shared:
        pytest.fail(shared["postgres_error"], pytrace=False)
    with ExitStack() as stack:
        try:
            url = shared.get("postgres_url") or stack.enter_context(running_server())
        except PostgresUnavailable as error:
            pytest.fail(str(error), pytrace=False)
        server = PostgresServer(url)
        stack.callback(server.close)
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database of the test's own."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty SQLite database of the test's own."""
    return f"sqlite:///{tmp_path / 'tokenmem.db'}"


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network for Python's sockets (PostgreSQL's driver has its own), and no cache of tiktoken's."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database, once on each engine."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(scope="session")
def databases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Databases]:
    """Migrated databases; the PostgreSQL server is asked for when the first test needs it."""
    directory = tmp_path_factory.mktemp("databases")
    mode = request.config.getoption("--through-pgbouncer")
    prepared = 200 if mode == "prepared" else 0
    with ExitStack() as stack:

        @cache
        def pooled(url: str) -> str:
            return stack.enter_context(running_pgbouncer(url, directory, behind=20, prepared=prepared))

        made = Databases(
            directory, lambda: request.getfixturevalue("postgres_server"), pooled if mode else None
        )
        yield made
        made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def ready_url(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> str:
    """A migrated database without rows, once on each engine."""
    return databases.of(request.param, tmp_path)


@pytest.fixture
def ready_sqlite_url(databases: Databases, tmp_path: Path) -> str:
    """A migrated SQLite file without rows."""
    return databases.sqlite(tmp_path)


@pytest.fixture
def ready_postgres_url(databases: Databases) -> str:
    """The worker's migrated PostgreSQL database, without rows."""
    return databases.postgresql()


@pytest.fixture(params=VARIANTS)
def stores(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Stores]:
    """Opens stores on one migrated database; every engine, sync and async."""
    url = databases.of(request.param, tmp_path)
    opened = Stores(request.param, url, databases.sql(url))
    yield opened
    opened.close()


@pytest.fixture
def store(stores: Stores) -> Store:
    """A store, on every engine, sync and async."""
    return stores.open()


@pytest.fixture
def sql(stores: Stores) -> Direct:
    """SQL behind that store's back."""
    return stores.sql
