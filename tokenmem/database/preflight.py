"""What is in a database before tokenmem's tables come into it: looked at only, so that it stays as it is.

A foreign application's database is refused here, before its file's journal is set or a table is made.
"""

from __future__ import annotations

import warnings

import sqlalchemy as sa

from tokenmem.database.schema import DEFAULT_SCHEMA, VERSION_TABLE, VIEWS, tables
from tokenmem.errors import DatabaseError, SchemaOutOfDate

# In one statement: between two of them another process may have made the tables.
_NAMES_ON_SQLITE = "SELECT lower(name), type FROM sqlite_master"
_NAMES_ON_POSTGRESQL = """
SELECT c.relname, CASE WHEN c.relkind IN ('v', 'm') THEN 'view' WHEN c.relkind IN ('i', 'I') THEN 'index'
    ELSE 'table' END
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema
"""
_ENCODINGS = "SELECT current_setting('server_encoding'), current_setting('client_encoding')"


def check_room(connection: sa.Connection, schema: str | None) -> None:
    """Check that tokenmem's tables are in this database, or that there is room for them, and only look.

    Raises:
        SchemaOutOfDate: something of another application's has one of their names.
        DatabaseError: the database's encoding cannot hold every text. Where the tables are there already,
            that is a RuntimeWarning.
    """
    if connection.dialect.name == "postgresql":
        found = connection.execute(sa.text(_NAMES_ON_POSTGRESQL), {"schema": schema})
    else:
        found = connection.execute(sa.text(_NAMES_ON_SQLITE))
    kinds = {str(name): str(kind) for name, kind in found}
    has_tables = VERSION_TABLE in kinds
    if connection.dialect.name == "postgresql":
        _check_encoding(connection, has_tables=has_tables)
    taken = sorted(kinds.keys() & names()) if not has_tables else []
    if taken:
        listed = ", ".join(f"the {kinds[name]} {name}" for name in taken[:3])
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        remedy = "name another file"
        if connection.dialect.name == "postgresql":
            remedy = f'choose another schema, for example schema="{DEFAULT_SCHEMA}_store"'
        raise SchemaOutOfDate(
            f"the database has {listed}{more}, but no table {VERSION_TABLE}: they are another application's, "
            f"and nothing was changed; {remedy}"
        )


def names() -> set[str]:
    """The names that tokenmem's tables, indexes and views have in a database."""
    described = tables(None).tables.values()
    indexes = {str(index.name) for table in described for index in table.indexes}
    return {table.name for table in described} | indexes | set(VIEWS)


def _check_encoding(connection: sa.Connection, *, has_tables: bool) -> None:
    server, client = connection.execute(sa.text(_ENCODINGS)).one()
    if server == "UTF8":
        return
    if server == "SQL_ASCII":  # takes and returns the bytes as they are, so the client alone decides
        if client == "UTF8":
            return
        problem = f"the database's encoding is SQL_ASCII, and this connection takes its bytes for {client}"
        remedy = "give the engine connect_args={'client_encoding': 'utf8'}"
    else:
        problem = f"the database's encoding is {server}, which cannot hold every text"
        remedy = "create one with: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
    if not has_tables:
        raise DatabaseError(f"{problem}; nothing was created: {remedy}")
    warnings.warn(f"{problem}; {remedy}", RuntimeWarning, stacklevel=2)
