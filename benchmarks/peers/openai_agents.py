"""The OpenAI Agents SDK's sessions: all items, then trimmed in Python; or the newest of a fixed number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from agents import SQLiteSession
from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.peers.interface import Peer, newest_that_fit
from benchmarks.support.copying import CopiedTable, later
from benchmarks.support.databases import Database
from benchmarks.support.texts import Message

LIMITS = {4_000: 50, 128_000: 2_000}
"""Items for a budget of tokens: fewer than fit it (64 and 2,064 messages of 250 characters)."""


def tokens(item: dict[str, Any]) -> int:
    return len(item["content"]) // 4


class _Session(Peer):
    asynchronous = True
    packages = ("openai-agents",)

    def _open(self, conversation_id: str) -> Any:
        raise NotImplementedError

    async def append(self, conversation_id: str, messages: Sequence[Message]) -> None:
        await self._session(conversation_id).add_items(list(messages))

    async def window(self, conversation_id: str, token_limit: int) -> list[Any]:
        session = self._session(conversation_id)
        if self.limited:
            return await session.get_items(limit=LIMITS[token_limit])
        return newest_that_fit(await session.get_items(), token_limit, tokens)

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:
        times = {"created_at": "t.created_at", "updated_at": "t.updated_at"}
        sessions = CopiedTable(
            "agent_sessions", "session_id", "session_id", {"session_id": "'{id}'"} | times, once=True
        )
        columns = {
            "id": "size.base + n",
            "session_id": "'{id}'",
            "message_data": "t.message_data",
            "created_at": later(engine),
        }
        return sessions, CopiedTable("agent_messages", "session_id", "id", columns, identity="id")


class SQLiteSessionAll(_Session):
    name = "OpenAI Agents SQLiteSession, all items"
    storage = "agents-sqlite"
    engines = ("sqlite",)
    does = "`get_items()`, then trimmed from the newest back in Python"

    async def open(self, database: Database) -> None:
        self._session = lru_cache(None)(
            lambda conversation_id: SQLiteSession(conversation_id, database.address)
        )

    async def close(self) -> None:
        self._session.cache_clear()


class SQLiteSessionLimited(SQLiteSessionAll):
    name = "OpenAI Agents SQLiteSession, limit=50"
    does = "`get_items(limit=50)`: no budget, the newest 50 items (2,000 items for 128,000 tokens)"
    limited = True


class SQLAlchemySessionAll(_Session):
    name = "OpenAI Agents SQLAlchemySession, all items"
    storage = "agents-sqlalchemy"
    does = "`get_items()` (aiosqlite, asyncpg), then trimmed from the newest back in Python"

    async def open(self, database: Database) -> None:
        self._engine = create_async_engine(database.url_for("sqlite+aiosqlite", "postgresql+asyncpg"))
        self._session = lru_cache(None)(
            lambda conversation_id: SQLAlchemySession(
                conversation_id, engine=self._engine, create_tables=conversation_id == "tables"
            )
        )
        await self._session("tables").get_items()

    async def close(self) -> None:
        await self._engine.dispose()


class SQLAlchemySessionLimited(SQLAlchemySessionAll):
    name = "OpenAI Agents SQLAlchemySession, limit=50"
    does = "`get_items(limit=50)`: no budget, the newest 50 items (2,000 items for 128,000 tokens)"
    limited = True
