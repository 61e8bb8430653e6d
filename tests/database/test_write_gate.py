"""The line of the processes that write to one SQLite file."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.stores import Databases, texts
from tokenmem import Store, errors
from tokenmem.database.connection_settings import DEFAULTS, settings_of
from tokenmem.database.urls import parse_url
from tokenmem.database.write_gate import SUFFIX, WriteGate, gate_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a gate is a lock of Unix")

HOLDER = """
import sys
from tokenmem.database.write_gate import WriteGate
gate = WriteGate(sys.argv[1])
gate.acquire()
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "a.db").touch()
    return str(tmp_path / "a.db")


def is_free(path: str) -> bool:
    gate = WriteGate(path, 0.05)
    try:
        gate.acquire()
    except errors.DatabaseUnavailable:
        return False
    gate.release()
    return True


def check_that_it_goes_on(path: str, first: WriteGate, second: WriteGate) -> None:
    """What the first gives back the second gets, and gives back itself."""
    first.release()
    second.acquire()
    assert not is_free(path)
    second.release()
    first.acquire()


def test_one_at_a_time_and_the_next_one_is_woken(path: str) -> None:
    first, second = WriteGate(path), WriteGate(path)
    first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    first.release()
    waiting.join(10)
    assert not waiting.is_alive()
    assert not is_free(path)
    second.release()
    assert is_free(path)


def test_whoever_waited_too_long_does_not_keep_it_later(path: str) -> None:
    first, second = WriteGate(path), WriteGate(path, 0.1)
    first.acquire()
    for _ in range(3):
        with pytest.raises(errors.DatabaseUnavailable, match=r"a\.db is locked: others wrote.* try again"):
            second.acquire()
    assert not is_free(path)
    check_that_it_goes_on(path, first, second)


def test_whoever_is_interrupted_does_not_keep_it_later(path: str) -> None:
    class Interrupt(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupt

    first, second = WriteGate(path), WriteGate(path)
    first.acquire()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Interrupt):
            second.acquire()
    finally:
        signal.signal(signal.SIGALRM, before)
    check_that_it_goes_on(path, first, second)


def test_a_forked_child_neither_has_it_nor_gives_it_back(path: str) -> None:
    gate = WriteGate(path, 0.1)
    gate.acquire()
    child = os.fork()
    if child == 0:
        try:
            gate.acquire()
        except errors.DatabaseUnavailable:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert not is_free(path)
    gate.release()
    assert is_free(path)


@pytest.mark.parametrize("has_a_child", [False, True])
def test_a_killed_process_gives_it_back(path: str, has_a_child: bool) -> None:
    """Also where a forked child of it lives on."""
    program = HOLDER.replace("print", "import os, time\nif os.fork() == 0: time.sleep(60)\nprint")
    command = [sys.executable, "-c", program if has_a_child else HOLDER, path]
    with subprocess.Popen(command, stdin=-1, stdout=-1, start_new_session=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert not is_free(path)
            holder.kill()
            holder.wait()
            until = time.monotonic() + 10
            while not is_free(path) and time.monotonic() < until:
                pass
            assert is_free(path)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(holder.pid, signal.SIGKILL)


@pytest.mark.parametrize(("mode", "expected"), [(0o644, 0o600), (0o664, 0o660), (0o600, 0o600)])
def test_its_file_is_empty_and_for_whoever_may_write(path: str, mode: int, expected: int) -> None:
    Path(path).chmod(mode)
    before = os.umask(0)
    try:
        WriteGate(path).acquire()
    finally:
        os.umask(before)
    made = Path(path + SUFFIX).stat()
    assert (made.st_size, made.st_mode & 0o777) == (0, expected)


def test_where_it_cannot_be_had_nobody_waits(tmp_path: Path) -> None:
    gate = WriteGate(str(tmp_path / "nowhere" / "a.db"))
    gate.acquire()
    gate.release()


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("sqlite:///a.db", "a.db"),
        ("sqlite:///{}/b%20c.db", "b c.db"),
        ("sqlite:///file:{}/a.db?uri=true", "a.db"),
        ("sqlite:///file://{}/a.db?uri=true", "a.db"),
        ("sqlite:///file:{}/a%2520b.db?cache=private&uri=true", "a b.db"),
        ("sqlite:///link.db", "a.db"),
        ("sqlite:///file:{}/a.db?mode=ro&uri=true", None),
        ("sqlite:///file:{}/a.db?immutable=1&uri=true", None),
        ("sqlite://", None),
        ("sqlite:///file:shared?mode=memory&cache=shared&uri=true", None),
    ],
)
def test_which_file_it_stands_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, file: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.db", "b c.db", "a b.db"):
        (tmp_path / name).touch()
    (tmp_path / "link.db").symlink_to("a.db")
    gate = gate_of(settings_of(parse_url(url.format(tmp_path)), DEFAULTS))
    if gate is not None:
        gate.acquire()
    made = [each.name.removesuffix(SUFFIX) for each in tmp_path.iterdir() if each.name.endswith(SUFFIX)]
    assert made == ([] if file is None else [file])


def test_a_transaction_holds_it_and_a_window_does_not_ask(databases: Databases, tmp_path: Path) -> None:
    url = databases.sqlite(tmp_path)
    with Store(url) as store, Store(url, timeout=0.2) as other:
        store.append("c", texts(1))
        with store.transaction() as bound:
            bound.append("c", texts(2))
            with pytest.raises(errors.DatabaseUnavailable, match="others wrote to it for 0"):
                other.append("c", texts(3))
            assert len(other.window("c", 100).messages) == 1
        assert other.append("c", texts(3)).last_position == 3


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the system does not list open files there")
def test_a_store_that_is_closed_has_no_file_open(databases: Databases, tmp_path: Path) -> None:
    url = databases.sqlite(tmp_path)
    with Store(url) as store:
        store.append("c", texts(1))
    opened = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one by which they are listed
            opened.append(os.readlink(f"/proc/self/fd/{number}"))
    assert not [name for name in opened if name.startswith(str(tmp_path))]
