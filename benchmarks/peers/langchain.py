"""LangChain's message histories, trimmed by `trim_messages` with its approximate counter, the cheapest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import psycopg
import sqlalchemy as sa
from langchain_community.chat_message_histories import SQLChatMessageHistory
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, trim_messages
from langchain_core.messages.utils import count_tokens_approximately
from langchain_postgres import PostgresChatMessageHistory

from benchmarks.peers.interface import Peer
from benchmarks.support.copying import CopiedTable
from benchmarks.support.databases import Database
from benchmarks.support.texts import Message

HISTORIES = 2_000
"""Histories kept open: making one anew for each request, as the documentation does, would cost more."""


def langchain_messages(messages: Sequence[Message]) -> list[BaseMessage]:
    kinds = {"user": HumanMessage, "assistant": AIMessage}
    return [kinds[message["role"]](content=message["content"]) for message in messages]


def trimmed(messages: Sequence[BaseMessage], token_limit: int) -> list[BaseMessage]:
    return trim_messages(
        messages, strategy="last", token_counter=count_tokens_approximately, max_tokens=token_limit
    )


class LangChainSQL(Peer):
    name = "LangChain SQLChatMessageHistory + trim_messages"
    storage = "langchain-sql"
    packages = ("langchain-community", "langchain-core")
    does = (
        "loads all messages, then `trim_messages(strategy='last', token_counter=count_tokens_approximately)`"
    )

    async def open(self, database: Database) -> None:
        self._engine = sa.create_engine(database.url_for("sqlite", "postgresql+psycopg"))
        self._history = lru_cache(HISTORIES)(
            lambda conversation_id: SQLChatMessageHistory(conversation_id, connection=self._engine)
        )

    async def close(self) -> None:
        self._engine.dispose()

    def append(self, conversation_id: str, messages: Sequence[Message]) -> None:
        self._history(conversation_id).add_messages(langchain_messages(messages))

    def window(self, conversation_id: str, token_limit: int) -> Any:
        return trimmed(self._history(conversation_id).get_messages(), token_limit)

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:  # noqa: ARG002
        columns = {"id": "size.base + n", "session_id": "'{id}'", "message": "t.message"}
        return (CopiedTable("message_store", "session_id", "id", columns, identity="id"),)


class LangChainPostgres(Peer):
    name = "LangChain PostgresChatMessageHistory + trim_messages"
    storage = "langchain-postgres"
    engines = ("postgresql",)
    packages = ("langchain-postgres", "langchain-core")
    does = "the same on psycopg (one connection, autocommit)"

    async def open(self, database: Database) -> None:
        self._connection = psycopg.connect(database.address, autocommit=True)
        PostgresChatMessageHistory.create_tables(self._connection, "chat_history")
        self._history = lru_cache(HISTORIES)(
            lambda conversation_id: PostgresChatMessageHistory(
                "chat_history", conversation_id, sync_connection=self._connection
            )
        )

    async def close(self) -> None:
        self._connection.close()

    def append(self, conversation_id: str, messages: Sequence[Message]) -> None:
        self._history(conversation_id).add_messages(langchain_messages(messages))

    def window(self, conversation_id: str, token_limit: int) -> Any:
        return trimmed(self._history(conversation_id).get_messages(), token_limit)

    def copied_tables(self, engine: str) -> tuple[CopiedTable, ...]:  # noqa: ARG002
        columns = {"id": "size.base + n", "session_id": "CAST('{id}' AS uuid)", "message": "t.message"}
        return (CopiedTable("chat_history", "session_id", "id", columns, identity="id"),)
