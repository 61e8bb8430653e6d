"""The store that memories share, in forked children.

Each fork is in a new process: forking one with threads, as a test worker has, is not what is tested here.
"""

import os
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

from tests.support.memories import heard, memory, talk
from tests.support.processes import NEW
from tokenmem import Store
from tokenmem.langchain import shared_stores

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_a_process(work: Callable[..., None], *arguments: Any) -> None:
    process = NEW.Process(target=in_a_group, args=(work, *arguments))
    process.start()
    process.join(120)
    if process.exitcode is None and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)  # and what it has forked
    assert process.exitcode == 0


def in_a_group(work: Callable[..., None], *arguments: Any) -> None:
    os.setpgid(0, 0)
    work(*arguments)


def in_a_fork(work: Callable[[], None]) -> Callable[[], None]:
    """Begin to do it in a forked child; the answer waits for its end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def wait() -> None:
        assert os.waitpid(child, 0)[1] == 0

    return wait


def count_upgrades() -> list[Store]:
    upgraded: list[Store] = []
    upgrade = Store.upgrade

    def noted(store: Store) -> None:
        upgraded.append(store)
        upgrade(store)

    Store.upgrade = noted  # type: ignore[method-assign, assignment]
    return upgraded


def fork_with_a_store_in_use(url: str) -> None:
    os.environ["TOKENMEM_URL"] = url
    upgraded = count_upgrades()
    shared = memory("shared")
    talk(shared)
    is_over = threading.Event()
    began = threading.Event()
    # A fork in the middle of SQLite's own work leaves its mutexes locked in the child, whoever uses it there.
    outside = threading.Lock() if url.startswith("sqlite") else nullcontext()

    def work_on() -> None:
        while not is_over.is_set():
            with outside:
                assert heard(shared)
            began.set()

    def child() -> None:
        assert heard(shared)
        mine = memory("child")
        assert mine.store is shared.store
        for _ in range(20):
            mine.clear()
            talk(mine)
            assert heard(mine)
        assert len(upgraded) == 1

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work_on) for _ in range(2)]
        began.wait()
        with outside:
            wait = in_a_fork(child)
        mine = memory("parent")
        for _ in range(20):
            mine.clear()
            talk(mine)
            assert heard(mine)
        wait()
        is_over.set()
        for each in working:
            each.result()
    assert heard(memory("child"))
    assert heard(mine)
    assert len(upgraded) == 1


def test_a_fork_while_the_store_is_in_use(database_url: str) -> None:
    in_a_process(fork_with_a_store_in_use, database_url)


def fork_while_others_hold_the_locks(url: str) -> None:
    os.environ["TOKENMEM_URL"] = url
    kept = memory("one")
    assert isinstance(kept.store, Store)
    begun, go_on = threading.Event(), threading.Event()
    upgrade = Store.upgrade

    def slow(store: Store) -> None:
        begun.set()
        go_on.wait()
        upgrade(store)

    Store.upgrade = slow  # type: ignore[method-assign, assignment]
    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(talk, kept)
        begun.wait()
        Store.upgrade = upgrade  # type: ignore[method-assign]

        def child() -> None:
            mine = memory("child")
            talk(mine)
            assert heard(mine)

        with shared_stores._lock:
            wait = in_a_fork(child)
        wait()
        go_on.set()
        talking.result()
    assert heard(kept)
    assert heard(memory("child"))


def test_a_fork_while_other_threads_open_and_upgrade(database_url: str) -> None:
    in_a_process(fork_while_others_hold_the_locks, database_url)


def fork_with_a_database_in_memory() -> None:
    os.environ["TOKENMEM_URL"] = "sqlite://"
    mine = memory("one")
    talk(mine)

    def child() -> None:
        assert mine.buffer == ""
        talk(mine)
        assert heard(mine)

    in_a_fork(child)()
    assert heard(mine)


def test_a_forked_child_begins_a_database_in_memory_anew() -> None:
    in_a_process(fork_with_a_database_in_memory)
