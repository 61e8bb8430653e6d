"""AsyncStore: the same conversations, awaited."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tokenmem.counting.counters import DEFAULT_COUNTER, TokenCounter
from tokenmem.database.async_engine import async_single_statement_engine, open_async_engine
from tokenmem.database.engine import check_connection, default_schema, single_statement_engine
from tokenmem.database.statements import Scope
from tokenmem.database.urls import default_url, redacted
from tokenmem.docstrings import documented_like
from tokenmem.edges import StartOn
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Procedure, Work
from tokenmem.execution.runners import (
    AsyncBoundRunner,
    AsyncRunner,
    EngineRunner,
    Execution,
    GreenletRunner,
    ThreadRunner,
    run_async,
)
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended, Conversation, LLMCall, Problem, Purged, Window
from tokenmem.procedures import Procedures, resolve_counter
from tokenmem.store import Store

T = TypeVar("T")


@documented_like(Store)
class AsyncStore:
    """Conversations in a SQL database, for asyncio. Every method does and raises what Store's does.

    On PostgreSQL it uses psycopg's own asyncio connections; on SQLite, where there is no network to wait
    for, two worker threads: one reads, one writes.

    Args:
        url: as for Store; an engine of your own is an AsyncEngine, for SQLite also a plain Engine.
        counter: as for Store.
        schema: as for Store.

    Raises:
        InvalidArgument: the URL or the schema is wrong.
        UnknownTokenCounter: no counter has this name.
    """

    def __init__(
        self,
        url: str | sa.URL | sa.Engine | AsyncEngine | None = None,
        *,
        counter: str | TokenCounter = DEFAULT_COUNTER,
        schema: str | None = None,
    ) -> None:
        self._engine = open_async_engine(default_url() if url is None else url)
        self._owns_engine = not isinstance(url, (sa.Engine, AsyncEngine))
        self._connections = _runner(self._engine, own=self._owns_engine)
        self._runner: AsyncRunner = self._connections
        self._derived = False
        scope = Scope(default_schema(self._engine.dialect.name, schema))
        self._procedures = Procedures(resolve_counter(counter), scope)

    async def append(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        owner: str | None = None,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        counter: str | TokenCounter | None = None,
        title: str | None = None,
        metadata: JSONObject | None = None,
    ) -> Appended:
        return await self._run(
            self._procedures.append(
                conversation_id,
                messages,
                owner=owner,
                idempotency_key=idempotency_key,
                expected_position=expected_position,
                counter=counter,
                title=title,
                metadata=metadata,
            )
        )

    async def import_conversations(
        self,
        conversations: Iterable[ConversationLine],
        *,
        owner: str | None = None,
        counter: str | TokenCounter | None = None,
        idempotency_key: str | None = None,
    ) -> list[Appended | None]:
        return await self._run(
            self._procedures.import_conversations(conversations, owner, counter, idempotency_key)
        )

    async def window(
        self,
        conversation_id: str,
        token_limit: int,
        start_on: StartOn = "step",
        stride: int | None = None,
    ) -> Window:
        return await self._run(self._procedures.window(conversation_id, token_limit, start_on, stride))

    async def messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
    ) -> list[Message]:
        return await self._run(self._procedures.messages(conversation_id, after, before, limit, newest_first))

    async def calls(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
    ) -> list[LLMCall]:
        return await self._run(self._procedures.calls(conversation_id, after, limit, newest_first))

    async def conversation(self, conversation_id: str) -> Conversation:
        return await self._run(self._procedures.conversation(conversation_id))

    async def conversations(
        self, *, owner: str | None = None, after: str | None = None, limit: int | None = 100
    ) -> list[Conversation]:
        return await self._run(self._procedures.conversations(owner, after, limit))

    async def update(
        self, conversation_id: str, *, title: str | None = None, metadata: JSONObject | None = None
    ) -> Conversation:
        return await self._run(self._procedures.update(conversation_id, title, metadata))

    async def edit(
        self, conversation_id: str, position: int, message: MessageLike, *, pinned: bool | None = None
    ) -> Message:
        return await self._run(self._procedures.edit(conversation_id, position, message, pinned))

    async def delete_message(self, conversation_id: str, position: int) -> None:
        return await self._run(self._procedures.delete_message(conversation_id, position))

    async def truncate(self, conversation_id: str, *, after: int) -> int:
        return await self._run(self._procedures.truncate(conversation_id, after))

    async def fork(self, conversation_id: str, new_id: str, *, at: int | None = None) -> Conversation:
        return await self._run(self._procedures.fork(conversation_id, new_id, at))

    async def delete(self, conversation_id: str) -> None:
        return await self._run(self._procedures.delete(conversation_id))

    async def delete_owner(self, owner: str) -> int:
        return await self._run(self._procedures.delete_owner(owner))

    async def purge(self, *, older_than: timedelta, dry_run: bool = False) -> Purged:
        return await self._run(self._procedures.purge(older_than, dry_run))

    async def recount(self, conversation_id: str, counter: str | TokenCounter) -> Conversation:
        return await self._run(self._procedures.recount(conversation_id, counter))

    async def verify(self) -> list[Problem]:
        return await self._run(self._procedures.verify())

    async def upgrade(self, revision: str = "head") -> None:
        return await self._run(self._procedures.upgrade(revision, own_file=self._owns_engine))

    def bind(self, connection: AsyncConnection) -> Self:
        engine = self._engine.sync_engine if isinstance(self._engine, AsyncEngine) else self._engine
        check_connection(connection, AsyncConnection, engine)
        return self._with(AsyncBoundRunner(connection), self._procedures)

    def for_owner(self, owner: str) -> Self:
        return self._with(self._runner, self._procedures.for_owner(owner))

    @property
    def engine(self) -> AsyncEngine:
        """The engine beneath: for transactions of your own, to `bind` to.

        On SQLite there is one where the store was given an AsyncEngine; else it works in threads.

        Raises:
            InvalidArgument: there is none.
        """
        if isinstance(self._engine, AsyncEngine):
            return self._engine
        raise InvalidArgument(
            "on SQLite an AsyncStore works in threads and has no AsyncEngine; for transactions of your own "
            "open it on one: AsyncStore(create_async_engine('sqlite+aiosqlite:///…'))"
        )

    async def close(self) -> None:
        if not self._derived:
            await self._connections.close(dispose=self._owns_engine)

    def _with(self, runner: AsyncRunner, procedures: Procedures) -> Self:
        other = object.__new__(type(self))
        other._engine, other._owns_engine, other._derived = self._engine, False, True
        other._connections = self._connections
        other._runner, other._procedures = runner, procedures
        return other

    async def _run(self, procedure: Procedure[T]) -> T:
        execution: Execution[Work, T] = Execution(procedure)
        return await run_async(execution, self._runner)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted(self._engine.url)}>"


def _runner(engine: sa.Engine | AsyncEngine, *, own: bool) -> GreenletRunner | ThreadRunner:
    if isinstance(engine, AsyncEngine):
        single = async_single_statement_engine(engine, own=own)
        return GreenletRunner(EngineRunner(engine.sync_engine, single.sync_engine))
    return ThreadRunner(EngineRunner(engine, single_statement_engine(engine, own=own)))
