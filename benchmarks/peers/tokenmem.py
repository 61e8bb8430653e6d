"""tokenmem itself, sync and async."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from benchmarks.peers.interface import Peer
from benchmarks.support.copying import CopiedTable
from benchmarks.support.databases import Database
from benchmarks.support.texts import Message
from tokenmem import AsyncStore, Store


class CharacterCounter:
    """Next to no work, for what is measured with counting excluded."""

    name = "benchmarks-characters"

    def count(self, message: Any) -> int:
        return len(message.content or "") // 4


class TokenmemStore(Peer):
    name = "tokenmem Store"
    storage = "tokenmem"
    packages = ("tokenmem", "sqlalchemy", "psycopg", "tiktoken")
    does = "`store.window(id, limit).to_openai()`; appends are counted with o200k_base"

    def __init__(self, counter: Any = "o200k_base") -> None:
        self._counter = counter

    async def open(self, database: Database) -> None:
        self.store = Store(database.url, counter=self._counter)
        self.store.upgrade()

    async def close(self) -> None:
        self.store.close()

    def append(self, conversation_id: str, messages: Sequence[Message]) -> None:
        self.store.append(conversation_id, messages)

    def window(self, conversation_id: str, token_limit: int) -> Any:
        # As a model takes them: a Window makes its messages when they are asked for.
        return self.store.window(conversation_id, token_limit).to_openai()

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:
        return copied_tables(engine)

    def finish_copies(self, database: Database) -> None:
        database.run(total_tokens_statement(database.engine))


class TokenmemAsyncStore(Peer):
    name = "tokenmem AsyncStore"
    storage = "tokenmem"
    asynchronous = True
    packages = TokenmemStore.packages
    does = "`(await store.window(id, limit)).to_openai()`"

    def __init__(self, counter: Any = "o200k_base") -> None:
        self._counter = counter

    async def open(self, database: Database) -> None:
        self.store = AsyncStore(database.url, counter=self._counter)
        await self.store.upgrade()

    async def close(self) -> None:
        await self.store.close()

    def append(self, conversation_id: str, messages: Sequence[Message]) -> Awaitable[Any]:
        return self.store.append(conversation_id, messages)

    async def window(self, conversation_id: str, token_limit: int) -> Any:
        return (await self.store.window(conversation_id, token_limit)).to_openai()

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:
        return copied_tables(engine)

    def finish_copies(self, database: Database) -> None:
        database.run(total_tokens_statement(database.engine))


def copied_tables(engine: str) -> tuple[CopiedTable, ...]:
    schema = "tokenmem." if engine == "postgresql" else ""
    conversations = CopiedTable(
        f"{schema}conversations",
        "id",
        "id",
        {
            "id": "'{id}'",
            "token_counter": "t.token_counter",
            "last_position": "{count}",
            "message_count": "{count}",
            "total_tokens": "0",
        },
        once=True,
    )
    messages = CopiedTable(
        f"{schema}messages",
        "conversation_id",
        "position",
        {
            "conversation_id": "'{id}'",
            "position": "n",
            "role": "t.role",
            "kind": "t.kind",
            "content": "t.content",
            "payload": "t.payload",
            "token_count": "t.token_count",
            "tokens_before": "(n - 1) / size.template_rows * t.all_tokens + t.tokens_before",
        },
        more={"all_tokens": "CAST(sum(token_count) OVER () AS bigint)"},
    )
    return conversations, messages


def total_tokens_statement(engine: str) -> str:
    """Sets the totals of the copied conversations; every other column is right already."""
    schema = "tokenmem." if engine == "postgresql" else ""
    return f"""UPDATE {schema}conversations SET total_tokens = (
        SELECT m.tokens_before + m.token_count FROM {schema}messages m
        WHERE m.conversation_id = conversations.id AND m.position = conversations.last_position)"""
