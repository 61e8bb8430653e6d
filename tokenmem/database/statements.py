"""Statements, and how they reach the database: on the driver's own cursor where the engine is ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from tokenmem.database import sqlalchemy_internals
from tokenmem.database.schema import TABLES

_PARAMETER = re.compile(r"(?<!:):([a-z][a-z0-9_]*)")
_WORD = re.compile(r"\{([a-z_]+)\}")

RECENT = 30
"""Seconds by which `recent_at`, by which lists by recency are indexed, may lie behind `updated_at`.

While it stays, an append changes no index of the conversation's row (docs/adr/0016).
"""

LISTS = ("made", "changed", "archived")
"""The lists by recency in which a conversation may stand: each has an index, and one by owner."""


def _short_of(moment: str) -> dict[str, str]:
    """The time by which `recent_at` may lie behind a moment, on each engine."""
    return {
        "postgresql": f"{moment} - interval '{RECENT} seconds'",
        "sqlite": f"strftime('%Y-%m-%dT%H:%M:%fZ', {moment}, '-{RECENT} seconds')",
    }


_WORDS = {
    "postgresql": {
        "greatest": "GREATEST",
        "touched_by_take": "{touched}",
        "is_late": "false",
        "as_text": "::text",
        "by_pinned": "",
        "in_utc": " AT TIME ZONE 'UTC'",
        "json": "json",
        "json_array": "json_build_array",
        "json_list": "json_agg",
        # On long texts twice as fast as LIKE; SQLite's instr is three times as slow as its LIKE.
        "tells_of_refusals": """strpos(newest.changes, 'refused') > 0
            OR strpos(newest.changes, 'too_long') > 0 OR strpos(newest.changes, 'accepted') > 0""",
        "timestamp": "timestamptz",
        "since_said": "created_at >= CAST(:since AS timestamptz)",
        "call_day": "to_char(l.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        "one_of_ids": "= ANY(CAST(:ids AS text[]))",
        "lease_ago": "statement_timestamp() - make_interval(secs => :lease)",
        "now": "statement_timestamp()",
        "ago": "statement_timestamp() - make_interval(secs => :seconds)",
    },
    "sqlite": {
        "as_text": "",
        "greatest": "max",
        # SQLite writes the indexes of a column that a statement sets, even to what it was: half of what an
        # append's statement takes. So the few that are late are set by a statement of their own.
        "touched_by_take": "updated_at = {latest}",
        "is_late": f"""updated_at <> created_at AND COALESCE(recent_at, '')
        <= strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '-{RECENT} seconds')""",
        "in_utc": "",
        "json": "text",
        "json_array": "json_array",
        "json_list": "json_group_array",
        "tells_of_refusals": """newest.changes LIKE '%refused%' OR newest.changes LIKE '%too_long%'
            OR newest.changes LIKE '%accepted%'""",
        "timestamp": "text",
        "call_day": "substr(l.created_at, 1, 10)",
        "one_of_ids": "IN (SELECT value FROM json_each(:ids))",
        "lease_ago": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || :lease || ' seconds')",
        # Without statistics SQLite would rather read the whole conversation by its primary key.
        "by_pinned": "INDEXED BY messages_pinned",
        # Texts of three digits and of six: with the Z, .123Z would be later than .123456Z.
        "since_said": "rtrim(created_at, 'Z') >= :since",
        "now": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')",
        "ago": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-' || :seconds || ' seconds')",
    },
}
for _word, _moment in (
    ("short_of", "{latest}"),
    ("short_of_bound", "bound.moment"),
    ("short_of_updated", "c.updated_at"),
):
    for _dialect, _text in _short_of(_moment).items():
        _WORDS[_dialect][_word] = _text
for _list in (*LISTS, *(f"{name}_by_owner" for name in LISTS)):
    _WORDS["postgresql"][f"by_{_list}"] = ""
    # Without statistics SQLite would rather read all conversations by their ids and sort them.
    _WORDS["sqlite"][f"by_{_list}"] = f"INDEXED BY conversations_{_list}"


@dataclass(frozen=True, slots=True)
class Scope:
    """What every statement of a store carries.

    Attributes:
        schema: the PostgreSQL schema; None on SQLite.
        owner: only this owner's conversations are there; None for all.
    """

    schema: str | None = None
    owner: str | None = None


_SHARED = {
    "message_columns": """m.position, m.role, m.kind, m.content, m.payload{as_text},
    m.token_count, m.pinned, m.created_at{in_utc}, m.metadata{as_text}""",
    "conversation_columns": """c.id, c.owner, c.title, c.metadata{as_text}, c.token_counter,
    c.last_position, c.message_count, c.total_tokens, c.created_at{in_utc}, c.updated_at{in_utc}, c.parent_id,
    c.forked_at, c.archived_at{in_utc}, c.keep""",
    "call_columns": """l.number, l.model, l.first_position, l.last_position, l.window_tokens, l.input_tokens,
    l.cached_tokens, l.output_tokens, l.reasoning_tokens, l.reply_position, l.reply_messages, l.latency_ms,
    l.first_token_ms, l.finish_reason, l.status, l.error, l.request_id, l.created_at{in_utc}, l.revision,
    l.api, l.token_limit, l.options{as_text}, l.metadata{as_text}, l.cache_write_tokens, l.pinned{as_text},
    l.changes{as_text}""",
    # In RETURNING SQLite takes no alias.
    "returned_call_columns": """number, model, first_position, last_position, window_tokens, input_tokens,
    cached_tokens, output_tokens, reasoning_tokens, reply_position, reply_messages, latency_ms,
    first_token_ms, finish_reason, status, error, request_id, created_at{in_utc}, revision, api, token_limit,
    options{as_text}, metadata{as_text}, cache_write_tokens, pinned{as_text}, changes{as_text}""",
    # With which every statement says that the conversation, its alias c, has changed; time never goes back.
    "touched": """updated_at = {latest},
    recent_at = CASE WHEN c.recent_at > {short_of} THEN c.recent_at ELSE {latest} END""",
    "latest": "{greatest}(c.updated_at, {now})",
    # With which every statement ends that takes a conversation's row.
    "returning_taken": """RETURNING last_position AS taken_position, total_tokens AS taken_tokens,
    last_call AS taken_call, updated_at AS taken_at, {is_late} AS taken_is_late""",
    "owned": "(CAST(:owner AS text) IS NULL OR c.owner = :owner)",
}


@lru_cache(maxsize=1024)
def render(text: str, dialect: str, schema: str | None) -> str:
    """The text of a statement for one engine and schema, as its driver takes it."""
    text = as_sql(text, dialect, schema)
    if dialect == "postgresql":
        text = _PARAMETER.sub(r"%(\1)s", text.replace("%", "%%"))
    return text


def as_sql(text: str, dialect: str, schema: str | None) -> str:
    """The text of a statement for one engine and schema, with `:name` for parameters, as psql has them."""
    prefix = f"{schema}." if schema else ""
    words = {name: prefix + name for name in TABLES} | _WORDS[dialect] | _SHARED
    while _WORD.search(text):  # a word may stand in what another stands for
        text = _WORD.sub(lambda match: words[match[1]], text)
    return text


OWN_ENGINE = {"tokenmem_own_engine": True}
"""Execution options of the engines that tokenmem opens: their statements may pass SQLAlchemy by (ADR 6)."""

READ_ONLY_STATE = "25006"
"""SQLSTATE of a write on a server that has become a replica (PostgreSQL manual, appendix A)."""

Parameters = Mapping[str, object]

Row = tuple[Any, ...]
"""A row as the driver returns or takes it: only the statement knows the types of its columns."""

Cursor = Any
"""A driver's cursor, or SQLAlchemy's result: sqlite3's and psycopg's have no type in common."""

DriverConnection = Any
"""A driver's connection; nor have these."""


class Statement:
    """One SQL statement, written once for both engines and built once for each schema.

    In its text `{messages}` is that table's name in its schema, `:limit` a parameter, `{now}` the present
    time in UTC, `{ago}` the time `:seconds` ago, `{by_pinned}` a hint to use the index of pinned messages,
    `{by_made}` and its like one of a list by recency; `{short_of_updated}` how far back `recent_at` may be;
    `{as_text}` and `{in_utc}` turn a JSON column and a time into what both engines answer alike,
    `{json}` and `{timestamp}` are types of columns, `{json_array}` a function that makes a JSON list,
    `{json_list}` one that makes it of a column's rows, `{tells_of_refusals}` looks for words in
    `newest.changes`.
    `{message_columns}` and its like are what many statements read; `{owned}` tests the scope's owner;
    `{touched}` sets the times of a conversation that changes, `{touched_by_take}` where it is taken;
    `{one_of_ids}` tests for one of the ids that `several.ids_of` makes `:ids` of.
    `python -m tokenmem.operations` prints every statement as psql and sqlite3 take it.

    Args:
        text: the statement.
        **pieces: what further words in it stand for.
    """

    def __init__(self, text: str, **pieces: str) -> None:
        self.text = with_pieces(text, **pieces)

    def fetch(self, connection: sa.Connection, scope: Scope, parameters: Parameters) -> list[Row]:
        """Run it and return the driver's own rows: SQLAlchemy's would cost more than the query."""
        result = self._execute(connection, scope, parameters)
        cursor: Cursor = result.cursor if isinstance(result, sa.CursorResult) else result
        try:
            rows: list[Row] = cursor.fetchall()
        finally:
            result.close()  # on SQLite an open SELECT would keep writers out
        return rows

    def run(self, connection: sa.Connection, scope: Scope, parameters: Parameters) -> int:
        """Run it and return how many rows it changed."""
        result = self._execute(connection, scope, parameters)
        changed: int = result.rowcount
        result.close()
        return changed

    def run_many(
        self, connection: sa.Connection, scope: Scope, parameters: Iterable[Parameters | Row]
    ) -> None:
        """Run it once for each of the parameters, in one call of the driver."""
        self._execute(connection, scope, parameters).close()

    def copy(self, connection: sa.Connection, scope: Scope, rows: Iterable[Row]) -> None:
        """Run it, a COPY … FROM STDIN of PostgreSQL's, with these rows."""
        text = render(self.text, connection.dialect.name, scope.schema)
        cursor: Cursor = None
        try:
            cursor = connection.connection.driver_connection.cursor()  # type: ignore[union-attr]
            if connection.dialect.is_async:
                sqlalchemy_internals.await_only(_copy_awaited(cursor, text, rows))
                return
            with cursor.copy(text) as copy:
                for row in rows:
                    copy.write_row(row)
        except BaseException as error:
            _give_up(connection, cursor, text, error)
            raise

    def _execute(
        self, connection: sa.Connection, scope: Scope, parameters: Parameters | Iterable[Parameters | Row]
    ) -> Cursor:
        """SQLAlchemy's result, or the driver's cursor where SQLAlchemy is passed by."""
        text = render(self.text, connection.dialect.name, scope.schema)
        if not may_bypass_sqlalchemy(connection):
            given = parameters if isinstance(parameters, dict) else list(parameters)
            return _execute_observed(connection, text, given)
        cursor: Cursor = connection.connection.cursor()
        try:
            if isinstance(parameters, dict):
                cursor.execute(text, parameters)
            else:
                cursor.executemany(text, parameters)
        except BaseException as error:
            _give_up(connection, cursor, text, error)
            raise
        return cursor


def _execute_observed(connection: sa.Connection, text: str, parameters: Any) -> Cursor:
    try:
        return connection.exec_driver_sql(text, parameters)
    except exc.DBAPIError as error:
        if is_own(connection.engine) and is_demoted(error.orig) and not connection.invalidated:
            _leave(connection, error)
        raise


def with_pieces(text: str, **pieces: str) -> str:
    """A statement's text with a piece of SQL in the place of each of these words."""
    for name, piece in pieces.items():
        text = text.replace(f"{{{name}}}", piece)
    return text


def commit(connection: sa.Connection) -> None:
    """Commit the driver's transaction; SQLAlchemy's own would take twice as long around a few statements."""
    try:
        connection.connection.commit()
    except BaseException as error:
        _give_up(connection, None, "COMMIT", error)
        raise


def roll_back(connection: sa.Connection) -> None:
    """Roll the driver's transaction back; where that fails, nobody knows what the connection holds."""
    if connection.invalidated:
        return
    try:
        connection.connection.rollback()
    except Exception:
        connection.invalidate()


async def _copy_awaited(cursor: Cursor, text: str, rows: Iterable[Row]) -> None:
    async with cursor.copy(text) as copy:
        for row in rows:
            await copy.write_row(row)


def may_bypass_sqlalchemy(connection: sa.Connection) -> bool:
    """Whether the engine is ours and nobody listens: listeners and logs are to see every statement."""
    if not is_own(connection.engine):
        return False
    return not sqlalchemy_internals.is_observed(connection)


def is_own(engine: sa.Engine) -> bool:
    """Whether tokenmem has opened the engine: nobody else then relies on what SQLAlchemy does besides."""
    return "tokenmem_own_engine" in engine.get_execution_options()


def _give_up(connection: sa.Connection, cursor: Cursor, text: str, error: BaseException) -> None:
    """Do what SQLAlchemy does when its own cursor fails: wrap the driver's error, drop a lost connection."""
    if isinstance(error, connection.dialect.loaded_dbapi.Error):
        lost = sqlalchemy_internals.is_disconnect(connection, error, cursor) or is_demoted(error)
        if lost:
            _leave(connection, error)
        raise sqlalchemy_internals.driver_error(connection, text, error, lost=lost) from error
    if not isinstance(error, Exception):  # in the midst of a statement nobody knows what the connection holds
        connection.invalidate(error)


def _leave(connection: sa.Connection, error: BaseException) -> None:
    """Use neither this connection again nor those that are as old."""
    sqlalchemy_internals.mark_pool_as_old(connection, error)
    connection.invalidate(error)


def is_demoted(error: BaseException | None) -> bool:
    """Whether the server refuses a write because it has become a replica."""
    return getattr(error, "sqlstate", None) == READ_ONLY_STATE
