"""Signs of life of the calls that are running: written every few seconds by one thread of the process."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from tokenmem.execution.effects import Write
from tokenmem.execution.runners import Runner
from tokenmem.forks import reset_after_fork

BEAT = 5.0
"""Seconds between two signs of life of a call: a third of `operations.calls.LEASE`."""

_LOOK = 1.0
"""Seconds between two looks at which calls are due: most calls end before anything is written."""


@dataclass(eq=False, slots=True)
class Call:
    """A call that is running."""

    runner: Runner
    write: Write[None]
    due: float
    writing: threading.Lock = field(default_factory=threading.Lock)


class Heart:
    """Runs a write for each call that it is told of, every BEAT seconds, until it is told to stop.

    Its thread starts with the first call and ends when there are none.
    """

    def __init__(self) -> None:
        self._forget()
        reset_after_fork(self, Heart._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._calls: set[Call] = set()

    def start(self, runner: Runner, write: Write[None]) -> Call:
        """Begin; what is returned stops it."""
        call = Call(runner, write, time.monotonic() + BEAT)
        with self._lock:
            self._calls.add(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="tokenmem-heart", daemon=True)
                self._thread.start()
        return call

    def stop(self, call: Call) -> None:
        """End it, when a write that is under way has ended: the store may be closed next."""
        with self._lock:
            self._calls.discard(call)
        with call.writing:
            pass

    def _beat(self) -> None:
        while True:
            time.sleep(_LOOK)
            with self._lock:
                if not self._calls:
                    self._thread = None
                    return
                due = [call for call in self._calls if call.due <= time.monotonic()]
            for call in due:
                self._write(call)

    def _write(self, call: Call) -> None:
        with call.writing:
            if call not in self._calls:  # it has ended meanwhile
                return
            with suppress(Exception):  # one call's database is away; the thread beats for all the others
                call.runner.run(call.write)
            call.due = time.monotonic() + BEAT


heart = Heart()
"""The process's own."""
