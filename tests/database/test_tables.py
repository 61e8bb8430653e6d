"""What the migrations give the tables beyond their columns: that which makes them fast and explains them."""

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.postgres import driver_url
from tokenmem import Store
from tokenmem.database.engine import open_engine

CHANGING = {
    "title",
    "metadata",
    "token_counter",
    "last_position",
    "message_count",
    "total_tokens",
    "revision",
    "last_call",
    "updated_at",
}


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[psycopg.Connection]:
    with Store(postgres_url) as store:
        store.upgrade()
    with psycopg.connect(driver_url(postgres_url), autocommit=True) as connection:
        yield connection


def rows(connection: psycopg.Connection, query: bytes) -> list[tuple[Any, ...]]:
    return connection.execute(query).fetchall()


def test_every_table_view_and_column_is_explained_in_the_database(postgres: psycopg.Connection) -> None:
    relations = rows(
        postgres,
        b"SELECT relname, obj_description(oid, 'pg_class') FROM pg_class"
        b" WHERE relnamespace = 'tokenmem'::regnamespace AND relkind IN ('r', 'v')"
        b" AND relname <> 'tokenmem_alembic_version'",
    )
    assert len(relations) == 15
    assert [name for name, comment in relations if not comment] == []
    columns = rows(
        postgres,
        b"SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        b" WHERE relnamespace = 'tokenmem'::regnamespace AND relkind = 'r' AND attnum > 0"
        b" AND relname <> 'tokenmem_alembic_version' AND col_description(attrelid, attnum) IS NULL",
    )
    assert columns == []


def test_long_texts_are_compressed_with_lz4_where_the_server_can(postgres: psycopg.Connection) -> None:
    offered = rows(postgres, b"SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    if not offered:
        pytest.skip("this server is older than PostgreSQL 14")
    columns = rows(
        postgres,
        b"SELECT attname, attcompression FROM pg_attribute"
        b" WHERE attrelid = 'tokenmem.messages'::regclass AND attname IN ('content', 'payload')",
    )
    expected = "l" if "lz4" in offered[0][0] else ""
    assert dict(columns) == {"content": expected, "payload": expected}


def test_ids_are_compared_byte_by_byte(postgres: psycopg.Connection) -> None:
    collated = rows(
        postgres,
        b"SELECT relname, attname, collname FROM pg_attribute"
        b" JOIN pg_class ON pg_class.oid = attrelid JOIN pg_collation ON pg_collation.oid = attcollation"
        b" WHERE relnamespace = 'tokenmem'::regnamespace AND relkind = 'r' AND attnum > 0"
        b" AND (attname = 'conversation_id' OR (relname, attname) IN"
        b" (('conversations', 'id'), ('conversations', 'parent_id'), ('append_keys', 'key'),"
        b" ('call_prompts', 'digest')))",
    )
    assert len(collated) == 9
    assert {collation for *_, collation in collated} == {"C"}


def test_conversations_are_updated_in_place(postgres_url: str, postgres: psycopg.Connection) -> None:
    options = rows(
        postgres, b"SELECT reloptions FROM pg_class WHERE oid = 'tokenmem.conversations'::regclass"
    )
    assert options == [(["fillfactor=90"],)]
    with Store(postgres_url) as store:
        for _ in range(200):
            store.append("c1", [{"role": "user", "content": "hi"}])
    counted = (
        b"SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables"
        b" WHERE relid = 'tokenmem.conversations'::regclass"
    )
    for _ in range(500):  # a session hands its numbers in when it ends, which nobody waits for
        if rows(postgres, counted)[0][0] >= 199:
            break
        time.sleep(0.02)
    updates, in_place = rows(postgres, counted)[0]
    # With an index on what changes none is in place. A page that is full while autovacuum's snapshot still
    # needs an old version costs one or two.
    assert updates == 199
    assert in_place >= 190


def test_nothing_that_changes_in_a_conversation_is_indexed(database_url: str) -> None:
    engine = open_engine(database_url)
    Store(engine).upgrade()
    schema = "tokenmem" if engine.dialect.name == "postgresql" else None
    indexes = sa.inspect(engine).get_indexes("conversations", schema)
    indexed = {column for index in indexes for column in index["column_names"]}
    assert indexed == {"owner", "id", "parent_id", "created_at", "archived_at", "recent_at"}
    assert not indexed & CHANGING
    engine.dispose()


def test_every_key_begins_with_the_conversation(database_url: str) -> None:
    engine = open_engine(database_url)
    Store(engine).upgrade()
    schema = "tokenmem" if engine.dialect.name == "postgresql" else None
    inspector = sa.inspect(engine)
    for table in ("messages", "llm_calls", "append_keys", "call_prompts", "message_versions"):
        keys = [inspector.get_pk_constraint(table, schema)["constrained_columns"]]
        keys += [index["column_names"] for index in inspector.get_indexes(table, schema)]
        keys += [key["constrained_columns"] for key in inspector.get_foreign_keys(table, schema)]
        assert {key[0] for key in keys} == {"conversation_id"}
    engine.dispose()


def test_sqlite_keeps_messages_in_their_primary_key(sqlite_url: str) -> None:
    engine = open_engine(sqlite_url)
    Store(engine).upgrade()
    with engine.connect() as connection:
        texts = dict(
            connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
        )
    without = {name for name, text in texts.items() if text.rstrip().endswith("WITHOUT ROWID")}
    assert without == {
        "messages",
        "llm_calls",
        "append_keys",
        "call_prompts",
        "schema_settings",
        "message_versions",
        "usage_kept",
    }
    engine.dispose()
