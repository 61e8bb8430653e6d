"""Functions that may have to be awaited."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


def is_async(call: Callable[..., Any]) -> bool:
    """Whether a function, or an object that is called, answers with something to await."""
    return inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)


def is_left_unawaited(answer: object) -> bool:
    """Whether an answer has to be awaited by somebody who cannot; a coroutine is closed."""
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns that nobody awaited it
    return inspect.isawaitable(answer)
