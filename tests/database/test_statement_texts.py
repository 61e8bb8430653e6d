"""Statements as they are printed for people: each one is taken by its engine as it stands."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.postgres import driver_url
from tests.support.stores import Databases
from tokenmem.operations.__main__ import statements

PARAMETER = re.compile(r"(?<!:):([a-z][a-z0-9_]*)")


def runnable(dialect: str) -> Iterator[tuple[str, str]]:
    """The statements that a person could run by hand; COPY and executemany are not among them."""
    for place, text in statements(dialect):
        if text.split()[0] in ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE") and "?" not in text:
            yield place, text


def test_every_operation_is_among_them() -> None:
    modules = {place.partition(".")[0] for place, _ in statements("postgresql")}
    assert modules >= {"append", "calls", "change", "end_call", "purge", "read", "verify", "window"}


def test_psql_takes_each(databases: Databases) -> None:
    """With every parameter set to NULL, as `\\set name NULL` does in psql."""
    with psycopg.connect(driver_url(databases.postgresql())) as connection:
        found = list(runnable("postgresql"))
        for place, text in found:
            assert "{" not in text, place
            connection.execute("EXPLAIN " + PARAMETER.sub("NULL", text).replace("%", "%%"))
        connection.rollback()
    assert len(found) > 30


def test_sqlite3_takes_each(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> None:
    url = databases.sqlite(tmp_path_factory.mktemp("texts"))
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    found = [(place, text) for place, text in runnable("sqlite") if not is_for_postgresql(text)]
    for place, text in found:
        names = dict.fromkeys(PARAMETER.findall(text))
        try:
            connection.execute(f"EXPLAIN {text}", names)
        except sqlite3.Error as error:
            pytest.fail(f"{place}: {error}")
    connection.close()
    assert len(found) > 30


def is_for_postgresql(text: str) -> bool:
    """Statements that only one engine is sent stand beside the others."""
    return "FOR UPDATE" in text


def test_the_command_prints_them() -> None:
    command = [sys.executable, "-m", "tokenmem.operations", "sqlite"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "-- window.WINDOW\nWITH c AS MATERIALIZED (" in printed
    assert subprocess.run([*command[:3], "oracle"], capture_output=True, check=False).returncode == 1
