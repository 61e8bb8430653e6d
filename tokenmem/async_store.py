"""AsyncStore: the same conversations, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tokenmem.arguments import checked_flag
from tokenmem.counting.counters import DEFAULT_COUNTER, TokenCounter
from tokenmem.database.async_engine import open_async_engines
from tokenmem.database.connection_settings import ConnectionOptions
from tokenmem.database.engine import check_connection, default_schema
from tokenmem.database.statements import Scope
from tokenmem.database.urls import default_url, parse_url, redacted, with_absolute_path
from tokenmem.docstrings import documented_like
from tokenmem.errors import InvalidArgument
from tokenmem.execution.runners import (
    AsyncBoundRunner,
    AsyncRunner,
    EngineRunner,
    GreenletRunner,
    ThreadRunner,
)
from tokenmem.execution.transactions import async_transaction_of
from tokenmem.messages.parsing import Unstorable
from tokenmem.procedures import Procedures, checked_unstorable, resolve_counter
from tokenmem.procedures.reopening import Reopening, reopening_of
from tokenmem.store import Store
from tokenmem.store_methods.async_calls import AsyncCallMethods
from tokenmem.store_methods.async_changing import AsyncChangingMethods
from tokenmem.store_methods.async_conversations import AsyncConversationMethods
from tokenmem.store_methods.async_messages import AsyncMessageMethods
from tokenmem.store_methods.async_organizing import AsyncOrganizingMethods
from tokenmem.store_methods.async_reading import AsyncReadingMethods
from tokenmem.store_methods.async_retention import AsyncRetentionMethods
from tokenmem.store_methods.async_transfer import AsyncTransferMethods
from tokenmem.store_methods.async_versions import AsyncVersionMethods


@documented_like(Store)
class AsyncStore(
    AsyncConversationMethods,
    AsyncOrganizingMethods,
    AsyncMessageMethods,
    AsyncReadingMethods,
    AsyncChangingMethods,
    AsyncVersionMethods,
    AsyncCallMethods,
    AsyncRetentionMethods,
    AsyncTransferMethods,
):
    """Conversations in a SQL database, for asyncio. Every method does and raises what Store's does.

    On PostgreSQL it uses psycopg's own asyncio connections; on SQLite, where there is no network to wait
    for, two worker threads: one reads, one writes.

    Args:
        url: as for Store; an engine of your own is an AsyncEngine, for SQLite also a plain Engine.
        counter: as for Store.
        schema: as for Store.
        keep_versions: as for Store.
        unstorable: as for Store.
        pool_size: as for Store; of all event loops together. On SQLite two are used.
        timeout: as for Store.

    Raises:
        InvalidArgument: the URL or one of the other arguments is wrong.
        UnknownTokenCounter: no counter has this name.
    """

    def __init__(
        self,
        url: str | sa.URL | sa.Engine | AsyncEngine | None = None,
        *,
        counter: str | TokenCounter = DEFAULT_COUNTER,
        schema: str | None = None,
        keep_versions: bool = True,
        unstorable: Unstorable = "refuse",
        pool_size: int | None = None,
        timeout: float | None = None,
    ) -> None:
        opened = default_url() if url is None else url
        self._options = ConnectionOptions(pool_size, timeout)
        engines = open_async_engines(opened, self._options)
        self._engine = engines.public or engines.inner.public
        self._url = None
        if not isinstance(opened, (sa.Engine, AsyncEngine)):
            self._url = with_absolute_path(parse_url(opened))
        self._is_derived = False
        runner = EngineRunner(engines.inner)
        self._connections = ThreadRunner(runner) if engines.public is None else GreenletRunner(runner)
        self._runner: AsyncRunner = self._connections
        scope = Scope(default_schema(self._engine.dialect.name, schema))
        self._procedures = Procedures(
            resolve_counter(counter),
            scope,
            keep_versions=checked_flag(keep_versions, "keep_versions"),
            unstorable=checked_unstorable(unstorable),
        )

    async def upgrade(self, revision: str = "head") -> None:
        own_file = self._url is not None and not self._is_bound
        return await self._run(self._procedures.upgrade(revision, own_file=own_file))

    def bind(self, connection: AsyncConnection) -> Self:
        engine = self._engine.sync_engine if isinstance(self._engine, AsyncEngine) else self._engine
        check_connection(connection, AsyncConnection, engine)
        return self._with(AsyncBoundRunner(connection), self._procedures)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        async with async_transaction_of(self._runner) as runner:
            yield self._with(runner, self._procedures)

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
        if not self._is_derived:
            await self._connections.close(dispose=self._url is not None)

    @property
    def _is_bound(self) -> bool:
        return self._runner is not self._connections

    def _with(self, runner: AsyncRunner, procedures: Procedures) -> Self:
        other = object.__new__(type(self))
        other._engine, other._url, other._is_derived = self._engine, self._url, True
        other._connections, other._options = self._connections, self._options
        other._runner, other._procedures = runner, procedures
        return other

    def __copy__(self) -> Self:
        return self._with(self._runner, self._procedures)

    def __deepcopy__(self, _: object) -> Self:
        return self.__copy__()

    def __getstate__(self) -> Reopening:
        return reopening_of(self._url, self._options, self._procedures, is_bound=self._is_bound)

    def __setstate__(self, state: Reopening) -> None:
        AsyncStore.__init__(self, state.url, **state.options())
        self._procedures = state.with_owner(self._procedures)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted(self._engine.url)}>"
