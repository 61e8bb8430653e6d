"""What a forked child has to do before it may use what its parent had: the one place where forks are handled.

A fork copies the thread that forks and all memory, but no other thread: a lock that another one held stays
locked, a thread that is expected to work is not there, and connections are shared with the parent.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

_resets: weakref.WeakKeyDictionary[object, Callable[[Any], None]] = weakref.WeakKeyDictionary()
"""For each holder what resets it, which takes that holder's type and no other."""


def reset_after_fork(holder: T, reset: Callable[[T], None]) -> T:
    """Have `reset(holder)` run in every forked child, for as long as somebody else holds the object."""
    _resets[holder] = reset
    return holder


def _reset_all() -> None:
    for holder, reset in list(_resets.items()):
        reset(holder)


LONGEST_WAIT = 5.0
"""Seconds that a fork waits at most for other threads to leave SQLite."""

_inside: dict[object, int] = {}
"""Who is inside SQLite or in a transaction on it: what says so, and by which thread."""

_pending: set[int] = set()
"""The threads that are about to fork."""

_forks_are_over = threading.Event()


def enter_sqlite(told: object, thread: int | None = None) -> None:
    """Begin a time in which no other thread forks, unless it has waited for some seconds.

    A child forked meanwhile would inherit SQLite's own mutexes locked, and its memory of file locks that only
    the parent holds: every write of the child would wait for them in vain.

    Args:
        told: what says so, until it is given to `leave_sqlite`.
        thread: whose time it is, where that is not the thread that enters: the one that must not wait for
            itself.
    """
    me = thread or threading.get_ident()
    was_inside = me in _inside.values() if _pending else False
    _inside[told] = me
    # Told first and looked then, as whoever forks does the other way: one of the two sees the other.
    while _pending and not was_inside and me not in _pending:
        del _inside[told]
        _forks_are_over.wait(LONGEST_WAIT)
        _inside[told] = me


def leave_sqlite(told: object) -> None:
    """End it."""
    _inside.pop(told, None)


@contextmanager
def inside_sqlite() -> Iterator[None]:
    """Such a time, for `with`."""
    told = object()
    enter_sqlite(told)
    try:
        yield
    finally:
        leave_sqlite(told)


def _wait_for_others() -> None:
    """Before a fork: until no other thread is inside SQLite."""
    me = threading.get_ident()
    _forks_are_over.clear()
    _pending.add(me)
    last = time.monotonic() + LONGEST_WAIT
    while any(thread != me for thread in list(_inside.values())) and time.monotonic() < last:
        time.sleep(0.001)


def _go_on() -> None:
    """After a fork, in the parent."""
    _pending.discard(threading.get_ident())
    if not _pending:
        _forks_are_over.set()


def _begin_anew() -> None:
    """After a fork, in the child: the other threads are not there."""
    global _forks_are_over
    me = threading.get_ident()
    for told in [told for told, thread in _inside.items() if thread != me]:
        del _inside[told]
    _pending.clear()
    _forks_are_over = threading.Event()
    _reset_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_others, after_in_parent=_go_on, after_in_child=_begin_anew)


class ForkSafeLock:
    """A lock that a forked child finds free: the thread that held it may not exist there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        reset_after_fork(self, ForkSafeLock._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take the lock; False where it is taken and `blocking` is False."""
        return self._lock.acquire(blocking)

    def release(self) -> None:
        """Let the next one have it; in a child forked meanwhile, there is nothing to release."""
        if self._lock.locked():
            self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
