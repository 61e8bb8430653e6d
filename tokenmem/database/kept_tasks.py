"""Tasks that go on although nobody waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_kept: set[asyncio.Future[Any]] = set()
"""The event loop holds tasks only weakly."""


def going_on(work: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Have it run to its end, whoever is cancelled that waits for it."""
    task = asyncio.ensure_future(work)
    _kept.add(task)
    task.add_done_callback(_forget)
    return task


def _forget(task: asyncio.Task[Any]) -> None:
    _kept.discard(task)
    if not task.cancelled():
        task.exception()  # whoever waited has it; where nobody did, nobody is to be told
