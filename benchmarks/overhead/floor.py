"""The floor: what the same SQL costs on the bare driver, on tokenmem's own tables, rows as tuples.

The statements of windows and PostgreSQL's appends are those that tokenmem itself sends, so what lies between
them and a Store is what tokenmem's Python costs. A range scan is the cheapest way to read a window's rows: by
their positions, which no application knows beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa

from benchmarks.support.databases import Database
from benchmarks.support.texts import Message
from tokenmem import Store
from tokenmem.database.schema import DEFAULT_SCHEMA
from tokenmem.database.statements import render

RANGE = """
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id AND m.position > :start AND m.position <= :end
"""

INSERT_MESSAGES = """
INSERT INTO messages
    (conversation_id, position, role, kind, content, payload, token_count, tokens_before, pinned)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

UPSERT = """
INSERT INTO conversations AS c (id, token_counter, last_position, message_count, total_tokens)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET
    last_position = c.last_position + excluded.last_position,
    message_count = c.message_count + excluded.message_count,
    total_tokens = c.total_tokens + excluded.total_tokens,
    updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
RETURNING last_position, total_tokens
"""

Call = Callable[[], Any]
Sent = tuple[str, Any]


class Recorder:
    """A Store that tells what it sends: the statements and their parameters, as the driver gets them.

    On an engine of its own, because SQLAlchemy slows down an engine that somebody has listened to.
    """

    def __init__(self, database: Database, counter: Any) -> None:
        self._engine = sa.create_engine(database.url_for("sqlite", "postgresql+psycopg"))
        self._sent: list[Sent] = []
        sa.event.listen(self._engine, "before_cursor_execute", self._note)
        self._store = Store(self._engine, counter=counter)

    def window(self, id_: str, token_limit: int) -> Sent:
        """The statement of a window."""
        self._sent.clear()
        self._store.window(id_, token_limit)
        return self._sent[0]

    def append(self, id_: str, messages: Sequence[Message]) -> Sent:
        """The statement of an append on PostgreSQL."""
        self._sent.clear()
        self._store.append(id_, messages)
        return self._sent[0]

    def range_scan(self, id_: str, token_limit: int) -> Sent:
        """The rows of a window, whose place is asked before the clock starts."""
        window = self._store.window(id_, token_limit)
        engine = self._engine.dialect.name
        text = render(RANGE, engine, DEFAULT_SCHEMA if engine == "postgresql" else None)
        return text, {"id": id_, "start": window.first_position - 1, "end": window.last_position}

    def close(self) -> None:
        self._engine.dispose()

    def _note(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        self._sent.append((statement, parameters))


def fetched(connection: Any, sent: Sent, **options: Any) -> Call:
    """Run it and fetch all rows; `prepare` is an option of psycopg's."""
    statement, parameters = sent
    return lambda: connection.execute(statement, parameters, **options).fetchall()


def fetched_awaiting(connection: psycopg.AsyncConnection[Any], sent: Sent) -> Call:
    statement, parameters = sent

    async def fetch() -> Any:
        return await (await connection.execute(statement, parameters, prepare=True)).fetchall()

    return fetch


def append_on_sqlite(connection: Any, id_: str, counter: str, messages: Sequence[Message]) -> Any:
    """An exchange, with the least that keeps positions and totals right."""
    connection.execute("BEGIN IMMEDIATE")
    tokens = [len(message["content"]) // 4 for message in messages]
    head = (id_, counter, len(messages), len(messages), sum(tokens))
    ((last, total),) = connection.execute(UPSERT, head).fetchall()
    position, before = last - len(messages), total - sum(tokens)
    values = []
    for message, count in zip(messages, tokens, strict=True):
        position += 1
        values.append((id_, position, message["role"], "message", message["content"], None, count, before, 0))
        before += count
    connection.executemany(INSERT_MESSAGES, values)
    connection.execute("COMMIT")
    return last
