"""What every compared library is to the benchmarks: a history that appends messages and loads a window."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar

from benchmarks.support.copying import CopiedTable
from benchmarks.support.databases import ENGINES, Database
from benchmarks.support.texts import Message

BATCH = 100


async def settled(value: Any) -> Any:
    """What a call returned, awaited where that is needed."""
    return await value if inspect.isawaitable(value) else value


class Peer:
    """One way to use one library.

    Attributes:
        name: as the page calls it.
        storage: ways with the same storage share one database.
        engines: what it runs on.
        asynchronous: `append` and `window` return awaitables.
        packages: what it is made of, for the list of versions.
        does: what it does for a window, in words for the page.
        limited: it loads a fixed number of messages, not what fits a budget.
    """

    name: ClassVar[str]
    storage: ClassVar[str]
    engines: ClassVar[tuple[str, ...]] = ENGINES
    asynchronous: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]] = ()
    does: ClassVar[str]
    limited: ClassVar[bool] = False

    async def open(self, database: Database) -> None:
        """Connect, and create the tables where they are not there."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect."""

    def append(self, conversation_id: str, messages: Sequence[Message]) -> Awaitable[Any] | None:
        """Store messages behind the conversation's last."""
        raise NotImplementedError

    def window(self, conversation_id: str, token_limit: int) -> Any:
        """Load what is to be sent to a model."""
        raise NotImplementedError

    async def write(self, conversation_id: str, messages: Sequence[Message]) -> None:
        """Store a whole conversation through the library's API; not timed."""
        for first in range(0, len(messages), BATCH):
            await settled(self.append(conversation_id, messages[first : first + BATCH]))

    async def prepare(self, conversation_id: str, token_limit: int) -> None:
        """Whatever a conversation that was copied needs before its first window; not timed."""

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:
        """How a conversation is copied; empty where only the API can make one."""
        raise NotImplementedError

    def finish_copies(self, database: Database) -> None:
        """Whatever the copied conversations need together."""


def newest_that_fit(items: list[Any], token_limit: int, tokens: Any) -> list[Any]:
    """Trim a whole history in Python at the least cost: from the newest back, until the limit is reached."""
    left = token_limit
    for index in range(len(items) - 1, -1, -1):
        left -= tokens(items[index])
        if left < 0:
            return items[index + 1 :]
    return items
