"""Run by Alembic, from its own command line or by tokenmem.database.migrate."""

import os
from typing import Any

from alembic import context

from tokenmem.database import migrate
from tokenmem.database.engine import default_schema, open_engine
from tokenmem.database.preflight import check_room
from tokenmem.database.schema import TABLES, VERSION_TABLE, tables
from tokenmem.database.urls import parse_url

config = context.config


def schema_for(dialect: str) -> str | None:
    chosen = config.attributes.get("schema", os.environ.get("TOKENMEM_SCHEMA") or None)
    return default_schema(dialect, chosen)


def migrates() -> bool:
    """Whether revisions are to be applied: `check` and `current` only look, and write nothing."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def configure(dialect: str, **where: Any) -> str | None:
    schema = schema_for(dialect)

    def ours(name: str | None, kind: str, _parents: Any) -> bool:
        if kind == "schema":
            return name == schema
        return kind != "table" or name in TABLES

    context.configure(
        target_metadata=tables(schema),
        version_table=VERSION_TABLE,
        version_table_schema=schema,
        include_schemas=schema is not None,
        include_name=ours,
        compare_type=True,
        transactional_ddl=True,
        dont_mutate=not migrates(),
        **where,
    )
    return schema


def run_offline(url: str) -> None:
    parsed = parse_url(url)
    options = {"literal_binds": True, "dialect_opts": {"paramstyle": "named"}}
    schema = configure(parsed.get_backend_name(), url=parsed, **options)
    with context.begin_transaction():
        if schema:
            context.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        context.run_migrations()


def run_online(connection: Any) -> None:
    schema = configure(connection.dialect.name, connection=connection)
    if migrates():
        migrate.take_turn(connection, schema)
        check_room(connection, schema)
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    url = os.environ.get("TOKENMEM_URL") or config.get_main_option("sqlalchemy.url", "")
    if context.is_offline_mode():
        run_offline(config.attributes.get("url") or url)
    elif (given := config.attributes.get("connection")) is not None:
        run_online(given)
    else:
        engine = open_engine(url)
        if migrates():
            with engine.connect() as connection:
                migrate.prepare_file(connection, schema_for(engine.dialect.name))
        with engine.begin() as connection:
            run_online(connection)
        engine.dispose()


main()
