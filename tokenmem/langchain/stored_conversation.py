"""One conversation in a store, as a memory has it: its newest messages within a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import sqlalchemy as sa

from tokenmem.async_store import AsyncStore
from tokenmem.counting.counters import TokenCounter
from tokenmem.edges import StartOn
from tokenmem.errors import ConversationNotFound, InvalidArgument
from tokenmem.execution.effects import Procedure, Work
from tokenmem.execution.runners import AsyncRunner, Runner
from tokenmem.langchain.history import history_of
from tokenmem.langchain.shared_stores import reopened_store, shared_store, shared_url, upgrade_once
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike
from tokenmem.operations import snapshot
from tokenmem.procedures import Procedures
from tokenmem.procedures.reopening import Reopening
from tokenmem.store import Store


class StoredConversation:
    """A conversation of a store's; see ConversationTokenBufferMemory, whose constructor sets what it has."""

    store: Store | AsyncStore
    conversation_id: str
    counter: TokenCounter
    max_token_limit: int
    return_messages: bool

    def __getstate__(self) -> dict[str, object]:
        """What a pickle holds: of a store that memories share the URL alone, to be shared again.

        Raises:
            InvalidArgument: the store cannot be pickled.
        """
        state: dict[str, object] = dict(self.__dict__)
        if isinstance(self.store, Store):
            reopening = self.store.__getstate__()
            state["store"] = reopening if shared_url(self.store) is None else reopening.url
        return state

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        store = state["store"]
        if isinstance(store, sa.URL):
            self.store = shared_store(store)
        elif isinstance(store, Reopening):
            self.store = reopened_store(store)

    def __copy__(self) -> Self:
        """Another memory of the same conversation, on the same store."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self.__copy__()

    @property
    def start_on(self) -> StartOn:
        """Where what is loaded may begin: text at any message, messages where a model can be sent them."""
        return "step" if self.return_messages else "message"

    def append(self, messages: Sequence[MessageLike]) -> None:
        """Append messages, all or none.

        Raises:
            InvalidArgument: the memory is on an AsyncStore.
            InvalidMessage: one cannot be stored; nothing was written.
        """
        self.sync_store().append(self.conversation_id, messages, counter=self.counter)

    async def aappend(self, messages: Sequence[MessageLike]) -> None:
        """Append messages, all or none, on either store."""
        if isinstance(self.store, AsyncStore):
            await self.store.append(self.conversation_id, messages, counter=self.counter)
        else:
            await asyncio.to_thread(self.append, messages)

    def clear(self) -> None:
        """Remove the conversation from the database, if it is there; the next save begins it anew.

        Raises:
            InvalidArgument: the memory is on an AsyncStore.
            TokenmemError: the database could not be used, as for Store.
        """
        store = self.sync_store()
        with suppress(ConversationNotFound):
            store.delete(self.conversation_id)

    async def aclear(self) -> None:
        """Remove the conversation from the database, if it is there, on either store."""
        if isinstance(self.store, AsyncStore):
            with suppress(ConversationNotFound):
                await self.store.delete(self.conversation_id)
        else:
            await asyncio.to_thread(self.clear)

    def newest(self) -> list[Message]:
        """The messages that fit the limit, in order. Raises as `load_memory_variables`."""
        store = self.sync_store()
        return store._run(self._newest(store._procedures))

    async def anewest(self) -> list[Message]:
        """The messages that fit the limit, in order, on either store."""
        if not isinstance(self.store, AsyncStore):
            return await asyncio.to_thread(self.newest)
        return await self.store._run(self._newest(self.store._procedures))

    def _newest(self, procedures: Procedures) -> Procedure[list[Message]]:
        def look(token_limit: int) -> Procedure[snapshot.Snapshot | None]:
            return procedures.read(
                snapshot.take, self.conversation_id, token_limit, None, None, (), with_newest_reply=False
            )

        history = yield from history_of(procedures, self.conversation_id, self.max_token_limit, look)
        return history.newest(self.max_token_limit, self.start_on)

    async def _async_runner(self) -> tuple[Store | AsyncStore, AsyncRunner]:
        """The store, and what runs its effects without blocking the event loop."""
        if isinstance(self.store, AsyncStore):
            return self.store, self.store._runner
        store = await asyncio.to_thread(self.sync_store)
        return store, _InThreads(store._runner)

    def sync_store(self) -> Store:
        """The store, migrated where memories share it.

        Raises:
            InvalidArgument: it is an AsyncStore.
        """
        if not isinstance(self.store, Store):
            raise InvalidArgument(
                "this memory is on an AsyncStore; await asave_context, aload_memory_variables, aclear and "
                "apredict, or give it a Store"
            )
        upgrade_once(self.store)
        return self.store


class _InThreads:
    """Effects of a Store, each in a thread."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def run(self, effect: Work) -> object:
        """Run one effect."""
        return await asyncio.to_thread(self._runner.run, effect)


def checked_store(store: object) -> Store | AsyncStore:
    """A store as the caller gave it.

    Raises:
        InvalidArgument: it is none.
    """
    if isinstance(store, (Store, AsyncStore)):
        return store
    raise InvalidArgument(f"store is a {type(store).__name__}; pass a Store or an AsyncStore")
