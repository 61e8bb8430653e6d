"""The line of the processes that write to one SQLite file."""

from __future__ import annotations

import _thread
import os
import sys
import threading
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from tokenmem.database.connection_settings import ConnectionSettings
from tokenmem.database.urls import is_in_memory
from tokenmem.errors import DatabaseUnavailable
from tokenmem.forks import reset_after_fork

if sys.platform != "win32":
    import fcntl

SUFFIX = "-lock"
"""Of the empty file beside the database on which processes wait for each other."""


class WriteGate:
    """A lock on an empty file beside a SQLite database, which writers hold while they hold SQLite's own.

    SQLite has no line: whoever finds the file locked sleeps and looks again, up to a tenth of a second later,
    and whoever comes at the right moment has it. For the lock on a file the system wakes who waits for it.
    Nothing rests on it: where it cannot be had (on Windows, in a directory that is not to be written to, on
    a file system without such locks) SQLite's own keeps writers apart all the same.

    One thread of the process holds it at a time, the one that has the connection for writes.

    Args:
        path: of the database.
        timeout: seconds to wait at most; None for as long as it takes.
    """

    def __init__(self, path: str, timeout: float | None = None) -> None:
        self._database = os.path.realpath(path)
        self._timeout = timeout
        self._file: int | None = None
        reset_after_fork(self, WriteGate.close)

    def acquire(self) -> None:
        """Take it.

        Raises:
            DatabaseUnavailable: other processes had it all the time.
        """
        if sys.platform == "win32":
            return
        try:
            if self._file is None:
                self._file = self._opened()
            if not self._taken(self._file):
                raise DatabaseUnavailable(
                    f"{self._database} is locked: others wrote to it for {self._timeout:g} s; try again"
                )
        except OSError:
            pass

    def release(self) -> None:
        """Let the next one have it."""
        if sys.platform != "win32" and self._file is not None:
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _opened(self) -> int:
        flags = os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        writable = os.stat(self._database).st_mode & 0o222
        # For whoever may write to the database: nobody else is to hold up those who write.
        return os.open(self._database + SUFFIX, flags, writable | writable << 1)

    def _taken(self, file: int) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        # In a thread, for the system's call knows no limit of time.
        wait = _Wait(file)
        try:
            _thread.start_new_thread(wait.run, ())  # threading's would first wait until it runs
        except RuntimeError:  # there can be no more threads
            return True
        try:
            in_time = wait.asleep.acquire(timeout=-1 if self._timeout is None else self._timeout)
        except BaseException:
            if wait.give_up():
                self._file = None  # the thread has it until it is awake
            else:
                self.release()
            raise
        if in_time or not wait.give_up():
            return True
        self._file = None
        return False

    def close(self) -> None:
        """Close the file, until it is needed again; in a forked child the lock stays its parent's."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        with suppress(Exception):  # at the interpreter's end there may be no `os` any more
            self.close()


class _Wait:
    """A thread that waits for the lock, and leaves it again where nobody wants it any more."""

    def __init__(self, file: int) -> None:
        self.asleep = threading.Lock()
        self.asleep.acquire()
        self._file = file
        self._lock = threading.Lock()
        self._is_over = False

    def run(self) -> None:
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        with self._lock:
            if self._is_over:
                fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked child may have a copy of it
                os.close(self._file)
            else:
                self._is_over = True
                self.asleep.release()

    def give_up(self) -> bool:
        """Wait no longer; False where the lock is there."""
        with self._lock:
            was_over, self._is_over = self._is_over, True
        return not was_over


def gate_of(settings: ConnectionSettings) -> WriteGate | None:
    """The gate of a SQLite file; None where there is no file, or it is only read."""
    url = settings.url
    path = url.database
    if is_in_memory(url) or not path or url.query.get("mode") == "ro" or "immutable" in url.query:
        return None
    return WriteGate(unquote(urlsplit(path).path) if "uri" in url.query else path, settings.lock_timeout)
