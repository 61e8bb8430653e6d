"""A connection of an engine's for a while, and what has to be seen to meanwhile."""

from __future__ import annotations

import weakref

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.pool import StaticPool

from tokenmem.database.connection_settings import TIMEOUT
from tokenmem.database.fair_semaphore import FairSemaphore
from tokenmem.database.write_gate import WriteGate
from tokenmem.forks import enter_sqlite, leave_sqlite

_turns: weakref.WeakKeyDictionary[sa.Engine, FairSemaphore] = weakref.WeakKeyDictionary()


def turns_on(engine: sa.Engine) -> FairSemaphore | None:
    """For an engine of the caller's that has one connection for everybody: the stores on it take turns.

    SQLAlchemy's StaticPool hands the same connection to all at once: they would commit each other's
    transactions.
    """
    if not isinstance(engine.pool, StaticPool):
        return None
    return _turns.setdefault(engine, FairSemaphore(1))


class Checkout:
    """A connection for `with`, or from `open` to `close`.

    Args:
        engine: its engine.
        is_sqlite: whether no thread may fork meanwhile.
        turns: what is to be waited for, see `turns_on`.
        gate: what other processes that write to the file wait for.
        thread: whose it is, where another one opens it.
    """

    __slots__ = ("_connection", "_engine", "_gate", "_is_sqlite", "_thread", "_turns")

    def __init__(
        self,
        engine: sa.Engine,
        is_sqlite: bool,
        turns: FairSemaphore | None = None,
        gate: WriteGate | None = None,
        thread: int | None = None,
    ) -> None:
        self._engine = engine
        self._is_sqlite = is_sqlite
        self._turns = turns
        self._gate = gate
        self._thread = thread

    def open(self) -> sa.Connection:
        """Take it.

        Raises:
            sqlalchemy.exc.TimeoutError: there was none in time.
            DatabaseUnavailable: other processes wrote all the time.
        """
        if self._turns is not None:
            is_async = self._engine.dialect.is_async
            if not self._turns.acquire(TIMEOUT, is_async=is_async):
                raise exc.TimeoutError(f"its one connection was in use for {TIMEOUT:g} s")
        if self._is_sqlite:
            enter_sqlite(self, self._thread)
        try:
            self._connection = self._engine.connect()
            if self._gate is not None:
                self._pass_gate(self._gate)
        except BaseException:
            self._leave()
            raise
        return self._connection

    def _pass_gate(self, gate: WriteGate) -> None:
        try:
            gate.acquire()
        except BaseException:
            self._connection.close()
            raise

    def close(self, *_: object) -> None:
        """Return it."""
        try:
            self._connection.close()
        finally:
            if self._gate is not None:
                self._gate.release()
            self._leave()

    __enter__, __exit__ = open, close

    def _leave(self) -> None:
        if self._is_sqlite:
            leave_sqlite(self)
        if self._turns is not None:
            self._turns.release()
