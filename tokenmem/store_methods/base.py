"""What the methods of both stores need: the store's procedures, and a way to run one."""

from __future__ import annotations

from typing import TypeVar

from tokenmem.execution.effects import Procedure, Work
from tokenmem.execution.runners import AsyncRunner, Execution, Runner, run, run_async
from tokenmem.procedures import Procedures

T = TypeVar("T")


class BaseMethods:
    """Store's procedures, and how they run. The store's constructor sets both."""

    _procedures: Procedures
    _runner: Runner

    def _run(self, procedure: Procedure[T]) -> T:
        execution: Execution[Work, T] = Execution(procedure)
        return run(execution, self._runner)


class AsyncBaseMethods:
    """AsyncStore's procedures, and how they run. The store's constructor sets both."""

    _procedures: Procedures
    _runner: AsyncRunner

    async def _run(self, procedure: Procedure[T]) -> T:
        execution: Execution[Work, T] = Execution(procedure)
        return await run_async(execution, self._runner)
