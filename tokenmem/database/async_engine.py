"""From a URL to engines for asyncio."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tokenmem.database import async_driver
from tokenmem.database.connection_settings import (
    DEFAULTS,
    ConnectionOptions,
    ConnectionSettings,
    settings_of,
)
from tokenmem.database.engine import (
    SINGLE_STATEMENTS,
    Engines,
    check_dialect,
    engines_of,
    leave_demoted_server,
    open_engines,
    postgresql_arguments,
    set_up_postgresql,
)
from tokenmem.database.pool import ConnectionLimit
from tokenmem.database.urls import checked_options, parse_url
from tokenmem.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class AsyncEngines:
    """What an AsyncStore works on.

    Attributes:
        public: for transactions of the caller's own; None on SQLite, unless the engine is the caller's.
        inner: what it works on, used above an event loop where there is a public one, in threads else.
    """

    public: AsyncEngine | None
    inner: Engines


def open_async_engines(
    url: str | sa.URL | sa.Engine | AsyncEngine, options: ConnectionOptions = DEFAULTS
) -> AsyncEngines:
    """The engines of AsyncStore for a URL; a given engine is used as it is, for everything.

    SQLite has no network to wait for: it gets plain engines, which AsyncStore uses in worker threads.

    Raises:
        InvalidArgument: the URL or an option is wrong, or the engine is a plain one for PostgreSQL.
    """
    if isinstance(url, AsyncEngine):
        check_dialect(url.sync_engine)
        return AsyncEngines(url, engines_of(url.sync_engine, options))
    if isinstance(url, sa.Engine):
        if url.dialect.name != "sqlite":
            raise InvalidArgument("AsyncStore takes an AsyncEngine for PostgreSQL: create_async_engine(url)")
        return AsyncEngines(None, open_engines(url, options))
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return AsyncEngines(None, open_engines(parsed, options))
    settings = settings_of(parsed, options)
    with checked_options(settings.url):
        limit = ConnectionLimit(settings.pool_size)
        public = _async_postgresql_engine(settings, limit)
        event.listen(public.sync_engine, "handle_error", leave_demoted_server)
        working = _async_postgresql_engine(settings, limit, **SINGLE_STATEMENTS).sync_engine
        return AsyncEngines(public, Engines(public.sync_engine, working, working, True, settings))


def _async_postgresql_engine(
    settings: ConnectionSettings, limit: ConnectionLimit, **options: str | None
) -> AsyncEngine:
    arguments = postgresql_arguments(settings, limit) | options
    arguments["connect_args"]["async_creator_fn"] = async_driver.connect
    engine = create_async_engine(settings.url, **arguments)
    set_up_postgresql(engine.sync_engine, settings)
    return engine
