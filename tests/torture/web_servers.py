"""Django's async views under gunicorn, whose workers fork from a process that has used the AsyncStore."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from tests.support.stores import Direct
from tests.torture.event_loops import CONNECTIONS, bound_to_one_loop
from tests.torture.results import ROOT
from tests.torture.support import gunicorn_settings
from tests.torture.support.ledger import Ledger, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tokenmem.database.connection_settings import POOL_SIZE

CLIENTS = 16
"""Threads that send requests: more than there are threads to serve them."""

WORKERS = gunicorn_settings.workers
CONVERSATIONS = 5
MOST_CONNECTIONS = (WORKERS + 1) * POOL_SIZE
"""Of the workers and the process that they were forked from, as docs/deployment.md says."""

PRELOADED = "preloaded"
"""The conversation that the application appends to before the fork, and the append's key."""

PATIENCE = 60.0
"""Seconds for one answer."""

OPENER = build_opener(ProxyHandler({}))
UNWELCOME = ("Traceback", "[ERROR]", "[CRITICAL]")
"""In gunicorn's log: also of workers that had to be killed, or that ended by themselves."""


def run(case: Case) -> Outcome:
    """So many requests, from several threads at once."""
    ledger = Ledger(case.directory / "clients.ledger")
    numbers = itertools.count()
    served_by: set[str] = set()
    failures: list[str] = []
    log = case.directory / "gunicorn.log"

    def request(base: str) -> None:
        number = next(numbers)
        conversation_id = f"c{number % CONVERSATIONS}"
        key = f"{conversation_id}-{number}"
        ledger.attempt(conversation_id, key)
        try:
            position, process = answer(f"{base}/append/{conversation_id}/{key}").split()
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")
        else:
            ledger.acknowledge(conversation_id, key, int(position))
            served_by.add(process)

    with serving(case, log) as base:
        ledger.attempt(PRELOADED, PRELOADED)
        ledger.acknowledge(PRELOADED, PRELOADED, 1)
        with ThreadPoolExecutor(CLIENTS) as clients, closing(Direct(case.url)) as sql:
            sent, most, over = [clients.submit(request, base) for _ in range(case.size)], 0, False
            while not over:
                over = not wait(sent, timeout=0.05).not_done
                if case.engine == "postgresql":
                    most = max(most, sql.value(CONNECTIONS))
    ledger.close()
    if failures:
        failures = [f"{len(failures)} requests failed, one with {failures[0]}"]
    else:
        failures = [line for line in log.read_text().splitlines() if any(word in line for word in UNWELCOME)]
    if most > MOST_CONNECTIONS:
        failures.append(f"{most} connections of {WORKERS} workers; {MOST_CONNECTIONS} are stated")
    with case.store() as store:
        found = settle(store, read_ledgers([case.directory / "clients.ledger"]))
    return Outcome(
        operations=2 * found.acknowledged,
        faults=WORKERS,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"workers that served": len(served_by), "most connections": most},
        failures=(*found.failures, *failures[:3]),
    )


@contextmanager
def serving(case: Case, log: Path) -> Iterator[str]:
    """The application under gunicorn on a free port of loopback, which it is given as an open socket."""
    with log.open("w") as written, socket.create_server(("127.0.0.1", 0)) as listening:
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "tests.torture.support.django_app:application"),
                *("--config", "python:tests.torture.support.gunicorn_settings"),
                *("--bind", f"fd://{listening.fileno()}"),
            ],
            cwd=ROOT,
            env=os.environ | {"TOKENMEM_URL": case.url, "TORTURE_PLANTED": planted(case)},
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    try:
        try:
            answer(base)  # the socket is gunicorn's alone by now: where it has ended, nobody waits
        except OSError as error:
            raise RuntimeError(f"gunicorn does not serve: {log.read_text()[-2000:]}") from error
        yield base
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def planted(case: Case) -> str:
    """Where the application finds the planted fault; empty for none."""
    return "" if case.planted is None else f"{case.planted.__module__}:{case.planted.__qualname__}"


def answer(url: str) -> str:
    """What the server answers to a POST.

    Raises:
        RuntimeError: it answered with an error, whose text is ours.
    """
    try:
        with OPENER.open(Request(url, method="POST"), timeout=PATIENCE) as answered:
            text: str = answered.read().decode()
            return text
    except HTTPError as error:
        with error:
            raise RuntimeError(f"{error.code}, {error.read().decode()[:500]}") from None


def missing() -> str:
    """Why it cannot be tried here; empty where it can."""
    for name in ("django", "gunicorn"):
        if find_spec(name) is None:
            return f"{name} is not installed"
    return "" if hasattr(os, "fork") else "this system has no fork"


CLASS = FaultClass(
    name="web_servers",
    claim="A Django application with async views, each request in an event loop of its own, runs under "
    "gunicorn: three workers with four threads, forked from a process that has used the one AsyncStore "
    "(--preload). Sixteen clients send requests that append and read. No request fails, nothing is lost, "
    "no worker dies, and there are no more connections than stated.",
    counts="requests",
    run=run,
    cases=(("sqlite", "Django under gunicorn"), ("postgresql", "Django under gunicorn")),
    short=20,
    long=200,
    planted=(
        PlantedFault(
            "a store bound to one loop", bound_to_one_loop, "sqlite", "Django under gunicorn", 20, quick=True
        ),
    ),
    unavailable=missing,
)
