"""URLs with something around them, files that may not be written to, and options that are wrong."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.database.test_driver_errors import fails, on_postgresql
from tests.support.commands import environment, only_line, run
from tests.support.stores import Stores
from tokenmem import AsyncStore, Message, Store, errors
from tokenmem.database.urls import parse_url


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "files" / "chat.db"
    path.parent.mkdir()
    with Store(f"sqlite:///{path}") as store:
        store.upgrade()
        store.append("c1", [Message.user("x")])
    return path


@pytest.mark.parametrize("around", ["{}\n", " {} ", '"{}"', "'{}'", "\t'{}' \r\n", "\"'{}'\""])
@pytest.mark.parametrize("kind", [Store, AsyncStore])
def test_what_stands_around_a_url_is_no_part_of_it(
    kind: Any, around: str, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{filled}"
    monkeypatch.setenv("TOKENMEM_URL", around.format(url))
    monkeypatch.chdir(filled.parent)
    assert repr(kind()) == repr(kind(url))
    with Store() as store:
        assert store.conversation("c1").message_count == 1
    assert run("ls", "--json", url=around.format(url)).json[0]["id"] == "c1"
    assert sorted(os.listdir(filled.parent)) == ["chat.db", "chat.db-lock"]


def test_nothing_but_white_space_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENMEM_URL", " \n")
    assert "sqlite:///tokenmem.db" in repr(Store())


@pytest.mark.parametrize(
    "inside", ["sqlite:///a\nb.db", "sqlite:///a\rb.db", "sqlite:///a.db\nTOKENMEM_SCHEMA=x"]
)
@pytest.mark.parametrize("kind", [Store, AsyncStore])
def test_a_line_break_inside_is_refused(kind: Any, inside: str, tmp_path: Path) -> None:
    fails(lambda: kind(inside), errors.InvalidArgument, match="line break")


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("sqlite:///a.db?mode=ro", "sqlite:///file:a.db?mode=ro&uri=true"),
        ("sqlite:////d/a b.db?mode=ro&uri=true", "sqlite:///file:/d/a%20b.db?mode=ro&uri=true"),
        ("sqlite:///file:a.db?immutable=1", "sqlite:///file:a.db?immutable=1&uri=true"),
    ],
)
def test_options_that_sqlite_would_not_take_are_refused(url: str, meant: str) -> None:
    error = fails(lambda: Store(url), errors.InvalidArgument)
    assert str(error).endswith(f"write it as {meant}")
    parse_url(meant)


def test_a_file_that_is_opened_for_reading_only(filled: Path) -> None:
    before = filled.read_bytes()
    for options in ("mode=ro", "immutable=1", "mode=ro&immutable=1"):
        with Store(f"sqlite:///file:{filled}?{options}&uri=true") as store:
            store.upgrade()  # looks, and finds nothing to do
            assert store.window("c1", 100).to_openai() == [{"role": "user", "content": "x"}]
            assert store.verify() == []
            fails(
                lambda: store.append("c1", [Message.user("y")]), errors.DatabaseUnavailable, match="readonly"
            )
    assert filled.read_bytes() == before


# As root, too, a process is to be told that it may not write: it gives that right away and starts anew.
_WITHOUT_RIGHTS = """
import ctypes, os, sys
if os.geteuid() == 0 and "again" not in sys.argv:
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert ctypes.CDLL(None).prctl(24, right, 0, 0, 0) == 0  # PR_CAPBSET_DROP
    os.execv(sys.executable, [sys.executable, "-c", sys.orig_argv[2], *sys.argv[1:], "again"])
from tokenmem import Store, errors
with Store(sys.argv[1]) as store:
    try:
        print("read", store.conversation("c1").message_count)
    except errors.DatabaseUnavailable as error:
        print("refused", error)
"""


def without_rights(url: str) -> str:
    command = [sys.executable, "-c", _WITHOUT_RIGHTS, url]
    result = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="a directory's rights, and root's")
def test_a_file_that_may_not_be_written_to(filled: Path) -> None:
    filled.chmod(0o444)
    assert without_rights(f"sqlite:///{filled}") == "read 1"
    for beside in filled.parent.glob("chat.db-*"):
        beside.unlink()
    filled.parent.chmod(0o555)
    try:
        told = without_rights(f"sqlite:///{filled}")
        assert told.startswith("refused")
        remedy = told.rpartition(": ")[2]
        assert remedy == f"sqlite:///file:{filled}?immutable=1&uri=true"
        assert without_rights(remedy) == "read 1"
    finally:
        filled.parent.chmod(0o755)


@on_postgresql
@pytest.mark.parametrize(
    "option",
    [
        *("sslmode=on", "port=99999", "channel_binding=maybe", "target_session_attrs=x", "nonsense=1"),
        *("connect_timeout=soon", "hostaddr=999.1.1.1", "keepalives=x", "sslmode=require"),
    ],
)
def test_a_wrong_option_is_no_server_that_does_not_run(stores: Stores, option: str) -> None:
    name, _, value = option.partition("=")
    url = sa.make_url(stores.url).update_query_dict({name: value})
    store = stores.open(url.render_as_string(hide_password=False))
    error = fails(store.conversations, errors.DatabaseError, match="correct or leave out that option")
    assert not isinstance(error, errors.DatabaseUnavailable)
    assert "server runs" not in str(error)
    store.close()


NO_TEXT = {
    "zip": b"PK\x03\x04" + bytes(30),
    "sqlite": b"SQLite format 3\x00" + bytes(84),
    "utf-16": "\ufeff{}".encode("utf-16-le"),
    "xz": b"\xfd7zXZ\x00" + bytes(20),
}


@pytest.mark.parametrize("kind", NO_TEXT)
def test_an_import_says_what_is_no_text(kind: str, sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_bytes(NO_TEXT[kind])
    Store(sqlite_url).upgrade()
    answer = run("import", str(path), url=sqlite_url)
    assert answer.code == 1
    assert {"zip": "zip archive", "sqlite": "SQLite", "utf-16": "UTF-16", "xz": "xz"}[kind] in answer.err
    assert "give the file of JSON Lines" in answer.err


def test_the_command_refuses_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "line break" in only_line(run("db", "upgrade", url="sqlite:///a\nb.db"))
    assert os.listdir(tmp_path) == []
