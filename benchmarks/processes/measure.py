"""Eight processes that append to one hot conversation, against eight that append to one each."""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.peers.tokenmem import CharacterCounter
from benchmarks.support import texts
from benchmarks.support.copying import conversation_id
from benchmarks.support.databases import Workshop
from benchmarks.support.results import Results
from tokenmem import Store

PROCESSES = 8
START_SECONDS = 0.3
"""Time for the order to start to reach every process."""


def work(url: str, orders: Connection) -> None:
    """In a process of its own: append exchanges for as long as each order says, and answer how many."""
    with Store(url, counter=CharacterCounter()) as store:
        while (order := orders.recv()) is not None:
            id_, starts, seconds = order
            store.append(id_, texts.exchange("250", 0))  # connected, and the statement prepared
            time.sleep(max(0.0, starts - time.time()))
            for appended in itertools.count():
                if time.time() >= starts + seconds:
                    break
                store.append(id_, texts.exchange("250", appended))
            orders.send(appended)


def run(workshop: Workshop, results: Results, *, rounds: int, seconds: float) -> None:
    """Hot, separate, hot, separate …: appends a second of each, and the ratio of every pair."""
    for name, durable in (("throughput", True), ("throughput, no waiting", False)):
        if durable or workshop.engine == "postgresql":
            results.progress(f"measuring {PROCESSES} processes: {name}")
            pairs = _measure(workshop, durable=durable, rounds=rounds, seconds=seconds)
            results.record("processes", name, _summary(pairs))


def _measure(workshop: Workshop, *, durable: bool, rounds: int, seconds: float) -> list[tuple[float, float]]:
    with workshop.database() as database:
        if not durable:
            database.forget_commits()
        with Store(database.url) as store:
            store.upgrade()
        context = multiprocessing.get_context("spawn")
        pipes, processes = [], []
        for _ in range(PROCESSES):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=work, args=(database.url, theirs), daemon=True))
            pipes.append(ours)
        for process in processes:
            process.start()
        try:
            _round(pipes, separate=True, seconds=0.5)  # dropped
            return [
                (
                    _round(pipes, separate=False, seconds=seconds),
                    _round(pipes, separate=True, seconds=seconds),
                )
                for _ in range(rounds)
            ]
        finally:
            for pipe in pipes:
                pipe.send(None)
            for process in processes:
                process.join()


def _round(pipes: list[Connection], *, separate: bool, seconds: float) -> float:
    starts = time.time() + START_SECONDS
    for number, pipe in enumerate(pipes):
        pipe.send((conversation_id(3_000_000 + (number if separate else PROCESSES)), starts, seconds))
    return sum(pipe.recv() for pipe in pipes) / seconds


def _summary(pairs: list[tuple[float, float]]) -> dict[str, Any]:
    ratios = [hot / separate for hot, separate in pairs]
    return {
        "processes": PROCESSES,
        "hot": statistics.median(hot for hot, _ in pairs),
        "separate": statistics.median(separate for _, separate in pairs),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }
