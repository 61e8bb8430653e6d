"""What can be known of a function before it is called."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import Parameter
from types import FunctionType, MethodType


def is_async(call: Callable[..., object]) -> bool:
    """Whether a function, or an object that is called, answers with something to await, or a stream of it."""
    functions = (call, type(call).__call__)
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def is_left_unawaited(answer: object) -> bool:
    """Whether an answer has to be awaited by somebody who cannot; a coroutine is closed."""
    if inspect.iscoroutine(answer):
        answer.close()  # else Python warns that nobody awaited it
    only_async = isinstance(answer, AsyncIterator) and not isinstance(answer, Iterator)
    return only_async or inspect.isawaitable(answer)


def keyword_parameters(function: Callable[..., object], *, but_first: int = 0) -> frozenset[str] | None:
    """The names by which a function takes arguments; None where it takes any, or does not say.

    Args:
        function: a function, or an object that is called.
        but_first: how many parameters are left out, which are given by their place.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of functions written in C not all can say
        return None
    if any(each.kind is Parameter.VAR_KEYWORD for each in parameters):
        return None
    by_name = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return frozenset(each.name for each in parameters[but_first:] if each.kind in by_name)


def is_wrapped(function: Callable[..., object], *, package: str) -> bool:
    """Whether a package's function is wrapped by somebody else, who may take arguments of its own."""
    layer = function.__func__ if type(function) is MethodType else function
    while (inner := getattr(layer, "__wrapped__", None)) is not None:
        module = layer.__globals__.get("__name__", "") if type(layer) is FunctionType else ""
        if module.partition(".")[0] != package:
            return True
        layer = inner
    return False
