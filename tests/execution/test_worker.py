"""The threads in which AsyncStore works on SQLite."""

import asyncio
import functools
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import Unit, texts
from tokenmem import AsyncStore, Store
from tokenmem.execution.worker import Worker


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test to its end."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@awaited
async def test_answers_and_errors() -> None:
    worker = Worker()
    assert await worker.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await worker.run(divmod, 7, 0)
    names = {await worker.run(lambda: threading.current_thread().name) for _ in range(3)}
    assert names == {"tokenmem"}
    await worker.close()
    await worker.close()


@awaited
async def test_a_closed_worker_starts_again() -> None:
    worker = Worker()
    first = await worker.run(threading.get_ident)
    running = [worker.close(), worker.run(threading.get_ident), worker.close(), worker.run(abs, -1)]
    _, second, _, one = await asyncio.wait_for(asyncio.gather(*running), 10)
    assert (one, second != 0, first != 0) == (1, True, True)
    await worker.close()


@awaited
async def test_a_close_that_is_given_up_leaves_the_worker_usable() -> None:
    worker, held = Worker(), threading.Event()
    waiting = asyncio.ensure_future(worker.run(held.wait))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.close(), 0.05)
    held.set()
    assert await waiting
    assert await asyncio.wait_for(worker.run(abs, -1), 10) == 1
    await worker.close()


@awaited
async def test_forgetting_a_busy_worker_blocks_nobody() -> None:
    worker, held, done = Worker(), threading.Event(), threading.Event()

    def work() -> None:
        held.wait(10)
        done.set()

    task = asyncio.ensure_future(worker.run(work))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    started = time.monotonic()
    del worker
    gc.collect()
    assert time.monotonic() - started < 5
    held.set()
    assert done.wait(10), "what was begun is done to its end"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_threads_of_its_own(tmp_path: Path) -> None:
    program = """if True:
        import asyncio, os, sys
        from tokenmem import AsyncStore
        store = AsyncStore(sys.argv[1])
        asyncio.run(store.upgrade())
        asyncio.run(store.append("c1", [{"role": "user", "content": "parent"}]))
        child = os.fork()
        name = "child" if child == 0 else "parent"
        asyncio.run(store.append("c1", [{"role": "user", "content": name}]))
        if child:
            assert os.waitpid(child, 0)[1] == 0
        asyncio.run(store.close())
    """
    url = f"sqlite:///{tmp_path / 'forked.db'}"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, url], check=True, timeout=60)
    with Store(url) as store:
        assert store.conversation("c1").last_position == 3


def test_the_interpreters_end_waits_for_what_was_given(tmp_path: Path) -> None:
    program = """if True:
        import asyncio, sys
        from tokenmem import Store
        from tokenmem.execution.worker import Worker
        store = Store(sys.argv[1])
        store.upgrade()
        store.append("c1", [{"role": "user", "content": "so that all is imported"}])
        async def main():
            worker = Worker()
            for number in range(20):
                worker.give(store.append, "c1", [{"role": "user", "content": "x"}])
        asyncio.run(main())
    """
    url = f"sqlite:///{tmp_path / 'ended.db'}"
    subprocess.run([sys.executable, "-c", program, url], check=True, timeout=60)
    with Store(url) as store:
        assert store.conversation("c1").last_position == 21
        assert store.verify() == []


@awaited
async def test_a_store_is_closed_while_it_works(tmp_path: Path) -> None:
    store = AsyncStore(f"sqlite:///{tmp_path / 'closed.db'}", counter=Unit())
    await store.upgrade()
    steps = [store.close(), store.append("c1", texts(1)), store.conversations(), store.close()]
    await asyncio.wait_for(asyncio.gather(*steps), 10)
    assert (await store.conversation("c1")).last_position == 1
    await store.close()


@awaited
async def test_what_is_cancelled_before_it_has_begun_is_not_done() -> None:
    worker, held, done = Worker(), threading.Event(), list[int]()
    running = asyncio.ensure_future(worker.run(held.wait))
    waiting = [asyncio.ensure_future(worker.run(done.append, number)) for number in range(5)]
    await asyncio.sleep(0)
    for future in waiting[:4]:
        future.cancel()
    await asyncio.sleep(0)
    held.set()
    await running
    await waiting[4]
    assert done == [4]
    await worker.close()
