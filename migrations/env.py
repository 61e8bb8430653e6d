"""Run by Alembic, from its own command line or from tokenmem.migrate."""

import os
from typing import Any

from alembic import context

from tokenmem import migrate
from tokenmem.engine import default_schema, open_engine, parse_url
from tokenmem.schema import TABLES, VERSION_TABLE, tables

config = context.config


def schema_for(dialect: str) -> str | None:
    chosen = config.attributes.get("schema") or os.environ.get("TOKENMEM_SCHEMA")
    schema = default_schema(dialect, chosen)
    config.attributes["schema"] = schema  # the migrations read it
    return schema


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
        compare_type=False,
        transactional_ddl=True,
        **where,
    )
    return schema


def run_offline(url: str) -> None:
    dialect = parse_url(url).get_backend_name()
    schema = configure(dialect, url=url, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        if schema:
            context.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        context.run_migrations()


def run_online(connection: Any) -> None:
    schema = configure(connection.dialect.name, connection=connection)
    migrate.take_turn(connection, schema)
    with context.begin_transaction():
        context.run_migrations()


def main() -> None:
    url = os.environ.get("TOKENMEM_URL") or config.get_main_option("sqlalchemy.url", "")
    if context.is_offline_mode():
        run_offline(config.attributes.get("url") or url)
    elif (given := config.attributes.get("connection")) is not None:
        run_online(given)
    else:
        with open_engine(url).begin() as connection:
            run_online(connection)


main()
