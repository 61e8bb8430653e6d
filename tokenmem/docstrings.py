"""Docstrings that two classes share: what is said once is shown for both."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

C = TypeVar("C", bound=type)


def documented_like(model: type) -> Callable[[C], C]:
    """Decorate a class: of each method without a docstring, `help` shows that of the model's method.

    This is for the methods that the class itself defines: those that it inherits may be another class's too,
    so the class that defines them is decorated.

    Args:
        model: the class whose methods of the same names are documented.
    """

    def decorate(decorated: C) -> C:
        for name, member in vars(decorated).items():
            if callable(member) and not member.__doc__:
                member.__doc__ = getattr(getattr(model, name, None), "__doc__", None)
        return decorated

    return decorate
