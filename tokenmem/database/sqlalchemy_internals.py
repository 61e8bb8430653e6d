"""Every name that we use of SQLAlchemy's and that it does not document: a test holds that they are there.

Each says what it stands in for. SQLAlchemy is pinned below the first version that was not tested.
"""

from __future__ import annotations

import logging

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine.interfaces import DBAPICursor, DBAPIModule
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

__all__ = [
    "await_only",
    "commits_every_statement",
    "driver_error",
    "greenlet_spawn",
    "in_greenlet",
    "is_disconnect",
    "is_observed",
    "mark_pool_as_old",
    "message_of",
    "reserved_words",
]


def commits_every_statement(connection: sa.Connection) -> bool:
    """Whether the connection, or its engine, has been set to AUTOCOMMIT."""
    return connection._is_autocommit_isolation()


def is_observed(connection: sa.Connection) -> bool:
    """Whether somebody listens to the connection's statements, or logs them."""
    listeners = connection.dispatch
    if listeners.before_cursor_execute or listeners.after_cursor_execute:
        return True
    return connection.engine.logger.isEnabledFor(logging.INFO)


def mark_pool_as_old(connection: sa.Connection, error: BaseException) -> None:
    """Have all connections that are as old as this one replaced when they are next taken."""
    connection.engine.pool._invalidate(connection.connection, error)


def is_disconnect(connection: sa.Connection, error: DBAPIModule.Error, cursor: DBAPICursor | None) -> bool:
    """Whether the driver's error says that the connection is lost."""
    return bool(connection.dialect.is_disconnect(error, connection.connection.driver_connection, cursor))


def driver_error(connection: sa.Connection, text: str, error: BaseException, *, lost: bool) -> BaseException:
    """The driver's error as SQLAlchemy wraps it where its own cursor fails."""
    return exc.DBAPIError.instance(
        text,
        None,
        error,
        connection.dialect.loaded_dbapi.Error,
        hide_parameters=True,
        connection_invalidated=lost,
        dialect=connection.dialect,
    )


def message_of(error: exc.SQLAlchemyError) -> str:
    """The error's own words, without the statement and its parameters."""
    return error._message()


def reserved_words() -> set[str]:
    """PostgreSQL's own words, which no schema may be called without quotes."""
    from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS  # takes as long as the rest of tokenmem

    return RESERVED_WORDS
