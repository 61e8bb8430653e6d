"""A process forks while its threads are inside SQLite: the child works, and the threads go on."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import Unit, texts
from tokenmem import AsyncStore, Store
from tokenmem import forks as handled
from tokenmem.forks import inside_sqlite

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system"),
    # From Python 3.12 on it warns of every fork beside threads: that is what is tried here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning"),
]


def in_child(work: Any) -> None:
    """Fork, run `work` in the child, and check that it came to its end there."""
    if (child := os.fork()) == 0:
        signal.alarm(60)  # a child that hangs ends
        try:
            work()
        except BaseException as error:
            sys.__stderr__.write(f"{error!r}\n")  # type: ignore[union-attr]
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_children_write_while_the_parent_does(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'chat.db'}"
    with Store(url, counter=Unit()) as store:
        store.upgrade()
        stop, appended = threading.Event(), [0] * 3

        def write(number: int) -> None:
            while not stop.is_set():
                store.append(f"parent{number}", texts(1, 2))
                store.window(f"parent{number}", 10)
                appended[number] += 2

        threads = [threading.Thread(target=write, args=[number]) for number in range(3)]
        for thread in threads:
            thread.start()

        def child(number: int) -> None:
            store.append("of the parent's store", texts(1))
            with Store(url, counter=Unit()) as own:
                own.append("of its own", texts(1))
                assert own.window("of its own", 10).last_position == number + 1

        try:
            for number in range(15):
                in_child(lambda number=number: child(number))
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert store.verify() == []
        stored = {each.id: each.message_count for each in store.conversations()}
        assert [stored[f"parent{number}"] for number in range(3)] == appended
        assert stored["of the parent's store"] == stored["of its own"] == 15


def test_a_fork_waits_for_a_transaction_of_another_thread(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'chat.db'}", counter=Unit()) as store:
        store.upgrade()
        begun, forks, ended = threading.Event(), threading.Event(), threading.Event()

        def transaction() -> None:
            with store.transaction() as bound:
                bound.append("c", texts(1))
                begun.set()
                forks.wait(10)
                bound.append("c", texts(2))
            ended.set()

        thread = threading.Thread(target=transaction)
        thread.start()
        begun.wait(10)
        threading.Timer(0.2, forks.set).start()

        def child() -> None:
            assert ended.is_set()
            assert store.append("c", texts(3)).last_position == 3

        in_child(child)
        thread.join()


def test_a_fork_does_not_wait_for_its_own_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handled, "LONGEST_WAIT", 1e9)
    with Store(f"sqlite:///{tmp_path / 'chat.db'}") as store:
        store.upgrade()
        with store.transaction():
            in_child(lambda: None)


def test_a_fork_in_a_task_does_not_wait_for_its_own_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.setattr(handled, "LONGEST_WAIT", 1e9)

    async def main() -> None:
        async with AsyncStore(f"sqlite:///{tmp_path / 'chat.db'}", counter=Unit()) as store:
            await store.upgrade()
            async with store.transaction() as bound:
                await bound.append("c", texts(1))
                in_child(lambda: None)
            assert (await store.conversation("c")).last_position == 1

    asyncio.run(main())


def test_a_fork_waits_no_longer_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handled, "LONGEST_WAIT", 0.05)
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with inside_sqlite():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait(10)
    in_child(lambda: None)
    leave.set()
    thread.join()


def test_whoever_comes_during_a_fork_waits_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as one is inside the fork waits; another that comes meanwhile does not get in before."""
    order: list[str] = []
    inside, leave, came = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with inside_sqlite():
            inside.set()
            leave.wait(10)
            order.append("first leaves")

    def second() -> None:
        inside.wait(10)
        while not handled._pending:
            came.wait(0.001)
        came.set()
        with inside_sqlite():
            order.append("second enters")

    threads = [threading.Thread(target=each) for each in (first, second)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    threading.Timer(0.2, leave.set).start()
    in_child(lambda: None)
    order.append("forked")
    for thread in threads:
        thread.join()
    assert order.index("first leaves") < order.index("second enters")
    assert came.is_set()
