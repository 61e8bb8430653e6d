"""From a URL to engines for asyncio."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from tokenmem.database.engine import (
    SINGLE_STATEMENTS,
    check_dialect,
    fork_safe,
    leave_demoted_server,
    open_engine,
    postgresql_arguments,
)
from tokenmem.database.urls import checked_options, parse_url
from tokenmem.errors import InvalidArgument


def open_async_engine(url: str | sa.URL | sa.Engine | AsyncEngine) -> sa.Engine | AsyncEngine:
    """An engine of AsyncStore for the URL: an AsyncEngine for PostgreSQL; a given engine is used as it is.

    SQLite has no network to wait for: it gets a plain engine, which AsyncStore uses in worker threads.

    Raises:
        InvalidArgument: the URL is wrong, or the engine is a plain one for PostgreSQL.
    """
    if isinstance(url, AsyncEngine):
        check_dialect(url.sync_engine)
        fork_safe(url.sync_engine)
        return url
    if isinstance(url, sa.Engine):
        if url.dialect.name != "sqlite":
            raise InvalidArgument("AsyncStore takes an AsyncEngine for PostgreSQL: create_async_engine(url)")
        return open_engine(url)
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return open_engine(parsed)
    with checked_options(parsed):
        return _async_postgresql_engine(parsed)


def async_single_statement_engine(engine: AsyncEngine, *, own: bool) -> AsyncEngine:
    """The engine for single statements: a second one where the engine is ours, else the caller's own."""
    if not own:
        return engine
    return _async_postgresql_engine(engine.url, **SINGLE_STATEMENTS)


def _async_postgresql_engine(url: sa.URL, **options: str | None) -> AsyncEngine:
    arguments = postgresql_arguments(url) | options
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, **arguments)
    event.listen(engine.sync_engine, "handle_error", leave_demoted_server)
    fork_safe(engine.sync_engine)
    return engine
