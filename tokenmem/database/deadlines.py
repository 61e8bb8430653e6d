"""Limits on how long a server may be silent: one thread of the process sees to all of them."""

from __future__ import annotations

import threading
from time import monotonic
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from tokenmem.database.liveness import cut
from tokenmem.database.statements import DriverConnection
from tokenmem.database.urls import redacted
from tokenmem.errors import DatabaseUnavailable
from tokenmem.forks import reset_after_fork


class Deadline:
    """For `with`: a connection on which the server has to answer within a time, or it is cut.

    Args:
        connection: of an engine on PostgreSQL.
        seconds: how long it may take; None for without limit.

    Raises:
        DatabaseUnavailable: at the end of the block, it did not, and the block failed for it.
    """

    __slots__ = ("_connection", "_seconds", "_url", "at")

    def __init__(self, connection: sa.Connection, seconds: float | None) -> None:
        self._seconds = seconds
        if seconds is not None:
            self._url = connection.engine.url
            self._connection: DriverConnection = connection.connection.driver_connection
            self.at = monotonic() + seconds
            _watch.begin(self, seconds)

    def cut(self) -> None:
        """End the connection; by the thread that has seen that its time is over."""
        cut(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._seconds is None or _watch.end(self):
            return
        with _watch.cutting:  # until it is cut: else it might be when somebody else has it
            pass
        if isinstance(error, Exception):
            raise DatabaseUnavailable(
                f"{redacted(self._url)}: no answer in {self._seconds:g} s, the store's timeout; a write "
                f"may have been stored or may yet be: repeat it with its idempotency_key"
            ) from None


class _Watch:
    """The thread that cuts connections, and what it watches."""

    def __init__(self) -> None:
        self._begin()
        reset_after_fork(self, _Watch._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self.cutting = threading.Lock()
        self._watched: dict[Deadline, None] = {}
        self._shortest = float("inf")
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, deadline: Deadline, seconds: float) -> None:
        """Watch one."""
        self._watched[deadline] = None
        if seconds < self._shortest:
            with self._lock:
                self._shortest = min(seconds, self._shortest)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="tokenmem-deadlines", daemon=True)
                    self._thread.start()
            self._wake.set()

    def end(self, deadline: Deadline) -> bool:
        """Watch it no longer; False where its time is over."""
        return self._watched.pop(deadline, deadline) is None

    def _run(self) -> None:
        while True:
            now = monotonic()
            # What begins meanwhile is over no sooner than after the shortest time of all.
            next_look = now + self._shortest
            for deadline in list(self._watched):
                if deadline.at > now:
                    next_look = min(next_look, deadline.at)
                else:
                    with self.cutting:
                        if self.end(deadline):
                            deadline.cut()
                del deadline  # while asleep, hold nobody's connection
            self._wake.wait(next_look - monotonic())
            self._wake.clear()


_watch = _Watch()
