"""LlamaIndex's Memory: a queue of active messages, kept within a token limit as messages are put."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.core.memory import Memory
from llama_index.core.storage.chat_store.sql import SQLAlchemyChatStore
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.peers.interface import Peer
from benchmarks.support.copying import CopiedTable
from benchmarks.support.databases import Database
from benchmarks.support.texts import Message, exchange


class LlamaIndexMemory(Peer):
    """A conversation's active messages are its window, so each token limit has a table of its own."""

    name = "LlamaIndex Memory"
    storage = "llama-index"
    asynchronous = True
    packages = ("llama-index-core",)
    does = (
        "`await memory.aget()` with `token_limit` set to the window's and `chat_history_token_ratio=1`: "
        "the active messages; older ones were archived as messages were put"
    )

    async def open(self, database: Database) -> None:
        self._engine = create_async_engine(database.url_for("sqlite+aiosqlite", "postgresql+asyncpg"))
        self._stores = {
            limit: SQLAlchemyChatStore(_table(limit), None, async_engine=self._engine)
            for limit in (4_000, 128_000)
        }
        for store in self._stores.values():
            await store._initialize()
        self._memory = lru_cache(None)(self._open)

    def _open(self, conversation_id: str, token_limit: int) -> Memory:
        memory = Memory.from_defaults(
            session_id=conversation_id,
            token_limit=token_limit,
            chat_history_token_ratio=1.0,
            token_flush_size=token_limit // 10,
        )
        memory.sql_store = self._stores[token_limit]
        return memory

    async def close(self) -> None:
        await self._engine.dispose()

    async def append(
        self, conversation_id: str, messages: Sequence[Message], token_limit: int = 4_000
    ) -> None:
        memory = self._memory(conversation_id, token_limit)
        await memory.aput_messages([ChatMessage(**message) for message in messages])

    async def window(self, conversation_id: str, token_limit: int) -> Any:
        return await self._memory(conversation_id, token_limit).aget()

    async def write(self, conversation_id: str, messages: Sequence[Message]) -> None:
        for token_limit in self._stores:
            await self.append(conversation_id, messages, token_limit)

    async def prepare(self, conversation_id: str, token_limit: int) -> None:
        """One put makes the queue archive what is too much of the copied messages."""
        await self.append(conversation_id, exchange("250", 0), token_limit)

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:  # noqa: ARG002
        return tuple(_copied(limit) for limit in (4_000, 128_000))


def _table(token_limit: int) -> str:
    return f"memory_{token_limit}"


def _copied(token_limit: int) -> CopiedTable:
    return CopiedTable(
        _table(token_limit),
        "key",
        "id",
        {
            "id": "size.base + n",
            "key": "'{id}'",
            "timestamp": "1700000000000000000 + n",
            "role": "t.role",
            # More than fit the limit in either size of messages; `prepare` lets the library archive the rest.
            "status": f"CASE WHEN n > {{count}} - {token_limit // 40} THEN 'active' ELSE 'archived' END",
            "data": "t.data",
        },
        identity="id",
    )
