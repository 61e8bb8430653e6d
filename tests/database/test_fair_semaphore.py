"""Places for threads and tasks, in the order in which they came."""

import asyncio
import os
import threading
from collections.abc import Callable

import pytest

from tokenmem.database.fair_semaphore import FairSemaphore
from tokenmem.database.sqlalchemy_internals import greenlet_spawn


def waiting(semaphore: FairSemaphore, count: int) -> None:
    """Until so many wait in line."""
    while len(semaphore._waiting) < count:
        threading.Event().wait(0.001)


def thread_in_line(semaphore: FairSemaphore, served: Callable[[], None]) -> threading.Thread:
    def take_a_turn() -> None:
        assert semaphore.acquire()
        served()
        semaphore.release()

    thread = threading.Thread(target=take_a_turn)
    thread.start()
    return thread


async def task_in_line(semaphore: FairSemaphore, served: Callable[[], None]) -> None:
    assert await greenlet_spawn(semaphore.acquire, is_async=True)
    served()
    semaphore.release()


def test_threads_are_served_in_order() -> None:
    semaphore, order = FairSemaphore(1), list[int]()
    assert semaphore.acquire()
    threads = []
    for number in range(50):
        threads.append(thread_in_line(semaphore, lambda number=number: order.append(number)))
        waiting(semaphore, number + 1)
    semaphore.release()
    for thread in threads:
        thread.join()
    assert order == list(range(50))
    assert semaphore.used == 0


def test_whoever_leaves_is_not_back_before_those_who_wait() -> None:
    semaphore, served = FairSemaphore(1), threading.Event()
    assert semaphore.acquire()
    thread = thread_in_line(semaphore, served.set)
    waiting(semaphore, 1)
    semaphore.release()
    assert semaphore.acquire()
    assert served.is_set(), "the thread had its turn first"
    semaphore.release()
    thread.join()


def test_threads_and_tasks_of_several_loops_wait_in_one_line() -> None:
    semaphore, order, threads = FairSemaphore(1), list[int](), list[threading.Thread]()
    assert semaphore.acquire()
    for number in range(12):

        def served(number: int = number) -> None:
            order.append(number)

        if number % 3 == 0:
            threads.append(thread_in_line(semaphore, served))
        else:
            loop = threading.Thread(target=asyncio.run, args=[task_in_line(semaphore, served)])
            loop.start()
            threads.append(loop)
        waiting(semaphore, number + 1)
    semaphore.release()
    for thread in threads:
        thread.join()
    assert order == list(range(12))
    assert semaphore.used == 0


def test_whoever_has_waited_long_enough_leaves_the_line() -> None:
    semaphore = FairSemaphore(1)
    assert semaphore.acquire()
    assert not semaphore.acquire(0.01)

    async def task() -> bool:
        return await greenlet_spawn(semaphore.acquire, 0.01, is_async=True)

    assert not asyncio.run(task())
    semaphore.release()
    assert semaphore.used == 0
    assert semaphore.acquire(0.01)


@pytest.mark.parametrize("given", [False, True], ids=["waits", "was just given a place"])
def test_a_cancelled_task_takes_no_place_along(given: bool) -> None:
    semaphore, inside = FairSemaphore(1), list[int]()

    async def stay() -> None:
        assert await greenlet_spawn(semaphore.acquire, is_async=True)
        inside.append(semaphore.used)
        assert len(inside) == 1
        for _ in range(3):
            await asyncio.sleep(0)
        inside.pop()
        semaphore.release()

    async def main() -> None:
        assert semaphore.acquire()
        tasks = [asyncio.create_task(stay()) for _ in range(3)]
        await asyncio.sleep(0)
        if given:
            semaphore.release()
        tasks[0].cancel()
        if not given:
            semaphore.release()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [type(each) for each in results] == [asyncio.CancelledError, type(None), type(None)]

    asyncio.run(main())
    assert semaphore.used == 0


def test_a_loop_that_was_closed_with_its_tasks_is_passed_over() -> None:
    semaphore, loop = FairSemaphore(1), asyncio.new_event_loop()
    assert semaphore.acquire()
    task = loop.create_task(task_in_line(semaphore, lambda: None))
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    served = threading.Event()
    thread = thread_in_line(semaphore, served.set)
    waiting(semaphore, 2)
    semaphore.release()
    thread.join(10)
    assert served.is_set()
    assert semaphore.used == 0
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_begins_with_every_place() -> None:
    semaphore = FairSemaphore(2)
    assert semaphore.acquire()
    assert semaphore.acquire()
    if (child := os.fork()) == 0:
        os._exit(0 if semaphore.acquire(0) and semaphore.acquire(0) and not semaphore.acquire(0) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert semaphore.used == 2
