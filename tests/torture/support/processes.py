"""Processes that may be killed at any moment: forked from one that has all imported and no threads.

A new interpreter for each would take a second of imports; with a thousand kills that is most of the time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

PATIENCE = 120.0
"""Seconds; only a test that fails waits as long."""


def context() -> ForkServerContext:
    """Where processes come from."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.torture.support.preloaded"])
    return found


def started(work: Callable[..., Any], *arguments: Any) -> Any:
    """A process that runs this; it shares nothing with us that a kill could leave locked."""
    process = context().Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def wait_until(condition: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.001)


def at_once(count: int, work: Callable[..., Any], *arguments: Any, patience: float = PATIENCE) -> list[Any]:
    """What `work(number, *arguments)` returns in each of several processes that run at the same time.

    Raises:
        RuntimeError: one of them raised; its traceback is the text.
        TimeoutError: one of them has not ended.
    """
    pipes, processes = [], []
    for number in range(count):
        ours, theirs = context().Pipe(duplex=False)
        processes.append(started(_answer, theirs, work, number, *arguments))
        theirs.close()
        pipes.append(ours)
    try:
        answers = []
        for pipe in pipes:
            if not pipe.poll(patience):
                raise TimeoutError(f"a process has not ended within {patience:.0f} s")
            failed, answer = pipe.recv()
            if failed:
                raise RuntimeError(answer)
            answers.append(answer)
        return answers
    finally:
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in pipes:
            pipe.close()


def _answer(pipe: Any, work: Callable[..., Any], number: int, *arguments: Any) -> None:
    import traceback

    try:
        pipe.send((False, work(number, *arguments)))
    except BaseException:
        pipe.send((True, traceback.format_exc()))
