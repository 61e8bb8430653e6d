"""Fill tables with copies of rows that a library's own API wrote: a million appends would take hours.

A subject stores one template conversation through its API; every other conversation is made of its rows by
INSERT … SELECT, over and over until it is as long as wanted, with what must differ made different.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from benchmarks.support.databases import Database


@dataclass(frozen=True)
class CopiedTable:
    """How to copy one table's rows.

    Attributes:
        name: the table.
        conversation: the column that says which conversation a row belongs to.
        order: what its rows are ordered by within the template.
        columns: what each column of a copy holds, as SQL: `t` is the template's row, `n` the number of
            the copy in its conversation from 1, `base` the highest `identity` before; `{id}` is the
            conversation's id, `{count}` its length.
        once: one row a conversation, not one a message.
        identity: the column that the engine numbers, if there is one.
        more: further columns of `t`, by name, as SQL over the template's own rows.
    """

    name: str
    conversation: str
    order: str
    columns: Mapping[str, str]
    once: bool = False
    identity: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    def statement(self, engine: str, template: str, target: str, count: int) -> str:
        """The statement that makes one conversation."""
        rows = 1 if self.once else count
        series = (
            f"SELECT n FROM generate_series(1, {rows}) AS g(n)"
            if engine == "postgresql"
            else f"WITH RECURSIVE g(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM g WHERE n < {rows}) "
            "SELECT n FROM g"
        )
        more = "".join(f", {sql} AS {name}" for name, sql in self.more.items())
        base = f"(SELECT COALESCE(max({self.identity}), 0) FROM {self.name})" if self.identity else "0"
        values = ", ".join(sql.format(id=target, count=count) for sql in self.columns.values())
        return f"""
INSERT INTO {self.name} ({", ".join(self.columns)})
WITH template AS MATERIALIZED (
    SELECT x.*, row_number() OVER (ORDER BY {self.order}) - 1 AS template_row,
        count(*) OVER () AS template_rows{more}
    FROM {self.name} x WHERE CAST({self.conversation} AS text) = '{template}'
), size AS MATERIALIZED (SELECT max(template_rows) AS template_rows, {base} AS base FROM template
), series AS ({series})
SELECT {values} FROM series CROSS JOIN size
JOIN template t ON t.template_row = (n - 1) % size.template_rows
"""


def later(engine: str) -> str:
    """When the copy with number n was made, one a second: copies come in the order of their times, too."""
    if engine == "postgresql":
        return "timestamp '2024-01-01' + n * interval '1 second'"
    return "strftime('%Y-%m-%d %H:%M:%S', '2024-01-01', '+' || n || ' seconds')"


def conversation_id(number: int) -> str:
    """A UUID as text: some libraries take nothing else."""
    return str(UUID(int=number << 64 | 0x4000_8000_0000_0000_0000, version=4))


def copy_conversations(
    database: Database, tables: tuple[CopiedTable, ...], template: str, lengths: Mapping[str, int]
) -> None:
    """Make conversations of these lengths, by id."""
    connection: Any = database.connect()
    try:
        connection.execute("BEGIN")
        for target, count in lengths.items():
            for table in tables:
                connection.execute(table.statement(database.engine, template, target, count))
        connection.execute("COMMIT")
        if database.engine == "postgresql":
            for table in tables:
                if table.identity:
                    connection.execute(
                        f"SELECT setval(pg_get_serial_sequence('{table.name}', '{table.identity}'), "
                        f"(SELECT max({table.identity}) FROM {table.name}))"
                    )
    finally:
        connection.close()
