"""What migrations do alike on both engines; each is called from a revision's `upgrade` or `downgrade`."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from alembic import op

from tokenmem.database import migrate
from tokenmem.database.column_types import text_key, timestamp
from tokenmem.database.views import View, views_at
from tokenmem.errors import DatabaseError


def tables_schema() -> str | None:
    """The schema of the tables; None on SQLite."""
    return op.get_context().version_table_schema


def dialect_name() -> str:
    """The name of the engine, sqlite or postgresql."""
    return op.get_context().dialect.name


def conversation_id() -> sa.Column[str]:
    """The first column of a table whose rows go with their conversation."""
    return sa.Column(
        "conversation_id",
        text_key(),
        sa.ForeignKey(f"{_prefix()}conversations.id", ondelete="CASCADE"),
        primary_key=True,
        nullable=False,
        comment="The conversation it belongs to",
    )


def moment(name: str, comment: str) -> sa.Column[datetime]:
    """A time that the database sets."""
    now = "now()" if dialect_name() == "postgresql" else "(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
    return sa.Column(name, timestamp(), nullable=False, server_default=sa.text(now), comment=comment)


def integer(
    name: str, comment: str, *, null: bool = False, zero: bool = False, big: bool = False
) -> sa.Column[int]:
    """An integer; with `zero`, 0 by default."""
    default = sa.text("0") if zero else None
    kind = sa.BigInteger() if big else sa.Integer()
    return sa.Column(name, kind, nullable=null, server_default=default, comment=comment)


def upgrade_views(revision: str, *, rebuild: Collection[str] = ()) -> None:
    """Bring every view from what it was before a revision to what it is at it.

    Where a view's columns stay, or more come behind them, PostgreSQL replaces it: rights on it, and views of
    the user's own that read it, stay. Otherwise it is dropped and created: rights have to be granted again,
    and where a view of the user's own reads it, the migration fails and names that one. SQLite always drops
    and creates.

    Args:
        rebuild: views of which a column gets another type; those PostgreSQL does not replace either.
    """
    number = migrate.revision_number(revision)
    _change_views(number - 1, number, rebuild)


def downgrade_views(revision: str, *, rebuild: Collection[str] = ()) -> None:
    """Bring every view back to what it was before a revision; see `upgrade_views`."""
    number = migrate.revision_number(revision)
    _change_views(number, number - 1, rebuild)


def keep_writers_out() -> None:
    """Wait for the writers at the table where each of them begins: met at another it might be a deadlock.

    Called first by a revision that changes a table which writers use.
    """
    if dialect_name() == "postgresql":
        op.execute(f"LOCK TABLE {_prefix()}conversations IN EXCLUSIVE MODE")


def set_oldest_revision(revision: str) -> None:
    """From now on only code that knows this revision works on the tables.

    Called by a revision whose tables older code cannot write, or would write wrongly.
    """
    op.execute(f"UPDATE {_prefix()}schema_settings SET value = '{revision}' WHERE name = 'oldest_revision'")


def _change_views(before: int, after: int, rebuild: Collection[str]) -> None:
    directory = migrate.directory() / "views"
    old = views_at(directory, before, dialect_name(), tables_schema())
    new = views_at(directory, after, dialect_name(), tables_schema())
    for name in sorted(old.keys() - new.keys()):
        _drop(name)
    for name, view in new.items():
        if view != old.get(name):
            _create(name, view, old.get(name), rebuild=name in rebuild)


def _create(name: str, view: View, old: View | None, *, rebuild: bool) -> None:
    statement = view.statement
    if old is not None:
        added_only = view.columns[: len(old.columns)] == old.columns
        if dialect_name() == "postgresql" and added_only and not rebuild:
            statement = statement.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1)
        else:
            _drop(name)
    op.execute(_literal(statement))
    if dialect_name() == "postgresql":
        comment = view.comment.replace("'", "''")
        op.execute(_literal(f"COMMENT ON VIEW {_prefix()}{name} IS '{comment}'"))


def _drop(name: str) -> None:
    if dialect_name() == "postgresql" and not op.get_context().as_sql:
        _check_nothing_reads(name)
    op.execute(f"DROP VIEW {_prefix()}{name}")


def _check_nothing_reads(name: str) -> None:
    """Name the views that read one which is to be dropped: PostgreSQL does so only beside its error."""
    query = sa.text(
        "SELECT DISTINCT CAST(CAST(ev_class AS regclass) AS text) FROM pg_depend JOIN pg_rewrite ON"
        " pg_rewrite.oid = objid WHERE refobjid = CAST(:name AS regclass) AND ev_class <> refobjid ORDER BY 1"
    )
    readers = op.get_bind().scalars(query, {"name": f"{_prefix()}{name}"}).all()
    if readers:
        raise DatabaseError(
            f"the view {_prefix()}{name} has to be dropped, and {', '.join(readers)} reads it: drop that, "
            f"migrate, and create it again"
        )


def _literal(statement: str) -> sa.TextClause:
    """A statement without parameters, whatever stands in it behind a colon."""
    return sa.text(re.sub(r"(?<!:):(?=\w)", r"\\:", statement))


def _prefix() -> str:
    schema = tables_schema()
    return f"{schema}." if schema else ""
