"""What a forked child has to do before it may use what its parent had: the one place where forks are handled.

A fork copies the thread that forks and all memory, but no other thread: a lock that another one held stays
locked, a thread that is expected to work is not there, and connections are shared with the parent.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)


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
