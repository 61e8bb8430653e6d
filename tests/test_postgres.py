"""The server that the other tests rely on."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, make_url, text

from tests.support.postgres import PostgresServer, driver_url

REPOSITORY = Path(__file__).parent.parent


def test_a_fresh_database_is_empty_and_speaks_utf8(postgres_url: str) -> None:
    with psycopg.connect(driver_url(postgres_url)) as connection:
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)
        assert connection.execute("SELECT '✓ Ω 漢字 🙂'").fetchone() == ("✓ Ω 漢字 🙂",)
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        assert connection.execute(tables).fetchone() == (0,)


def test_two_databases_do_not_see_each_other(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as first, postgres_server.database() as second:
        assert first != second
        with psycopg.connect(driver_url(first)) as connection:
            connection.execute("CREATE TABLE secrets AS SELECT 42 AS answer")
        with psycopg.connect(driver_url(second)) as connection:
            assert connection.execute("SELECT to_regclass('secrets')").fetchone() == (None,)
        with psycopg.connect(driver_url(first)) as connection:
            assert connection.execute("SELECT answer FROM secrets").fetchone() == (42,)


def test_a_database_goes_although_a_connection_is_still_open(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        forgotten = psycopg.connect(driver_url(url))
    with pytest.raises(psycopg.OperationalError):
        forgotten.execute("SELECT 1")
    forgotten.close()
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(driver_url(url))


def test_only_databases_of_our_own_are_dropped(postgres_server: PostgresServer) -> None:
    with pytest.raises(ValueError, match="did not create"):
        postgres_server.drop_database(postgres_server.admin_url)


def test_the_url_is_one_that_sqlalchemy_opens(database_url: str) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()
    assert make_url(database_url).drivername in {"sqlite", "postgresql+psycopg"}


def test_as_a_tool_it_runs_a_command_against_a_fresh_database() -> None:
    program = "import os, sys; print(os.environ['TOKENMEM_URL']); sys.exit(3)"
    command = [sys.executable, "-m", "tests.support.postgres", sys.executable, "-c", program]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert finished.returncode == 3, finished.stderr
    assert finished.stdout.startswith("postgresql+psycopg://")
