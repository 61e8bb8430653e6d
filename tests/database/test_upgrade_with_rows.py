"""Databases with rows of the first revision: carried up, back down, and up again."""

import random
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

from tests.support.postgres import driver_url
from tokenmem import Store
from tokenmem.database import migrate
from tokenmem.database.engine import default_schema, open_engine

# As the code of the first revision wrote them; `old` has changed since it was made, `new` has not.
ROWS = """
INSERT INTO {p}conversations (id, owner, title, metadata, token_counter, last_position, message_count,
    total_tokens, revision, last_call, created_at, updated_at)
VALUES ('old', 'ada', 'A trip', '{{"plan": "gold"}}', 'o200k_base', 3, 3, 30, 1700000000000003, 1,
    '2026-01-01T10:00:00.000Z', '2026-01-01T11:00:00.000Z'),
    ('new', NULL, NULL, NULL, 'o200k_base', 1, 1, 9, 1700000000000001, 0,
    '2026-01-01T10:30:00.000Z', '2026-01-01T10:30:00.000Z');
INSERT INTO {p}messages (conversation_id, position, tokens_before, created_at, token_count, pinned, role,
    kind, content, payload)
VALUES ('old', 1, 0, '2026-01-01T10:00:00.000Z', 10, true, 'system', 'message', 'Be brief.', NULL),
    ('old', 2, 10, '2026-01-01T10:00:00.000Z', 10, false, 'user', 'message', 'To Turin?',
    '{{"role": "user", "name": "ada"}}'),
    ('old', 3, 20, '2026-01-01T11:00:00.000Z', 10, false, 'assistant', 'message', 'At 21:58.', NULL),
    ('new', 1, 0, '2026-01-01T10:30:00.000Z', 9, false, 'user', 'message', 'Hello', NULL);
INSERT INTO {p}llm_calls (conversation_id, number, model, first_position, last_position, window_tokens,
    input_tokens, output_tokens, reply_position, reply_messages, status, created_at)
VALUES ('old', 1, 'gpt-4o', 2, 2, 25, 24, 6, 3, 1, 'ok', '2026-01-01T10:59:00.000Z');
INSERT INTO {p}append_keys (conversation_id, key, first_position, last_position, call_number, digest)
VALUES ('old', 'k1', 2, 2, 1, 'abc')
"""
TABLES = ("conversations", "messages", "llm_calls", "append_keys")


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


def rows_of(engine: sa.Engine, prefix: str) -> dict[str, list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return {
            table: [
                tuple(row)
                for row in connection.exec_driver_sql(f"SELECT * FROM {prefix}{table} ORDER BY 1, 2")
            ]
            for table in TABLES
        }


def test_rows_are_carried_up_and_down_and_up(engine: sa.Engine) -> None:
    store = Store(engine)
    schema = default_schema(engine.dialect.name, None)
    prefix = f"{schema}." if schema else ""
    store.upgrade("tokenmem_0001")
    with engine.begin() as connection:
        for statement in ROWS.format(p=prefix).split(";\n"):
            connection.exec_driver_sql(statement)
    before = rows_of(engine, prefix)

    for _ in range(2):
        store.upgrade()
        assert store.verify() == []
        assert [each.id for each in store.conversations(order="recent")] == ["old", "new"]
        assert store.read("old")[0].metadata == {"plan": "gold"}
        window = store.window("old", 100)
        assert window.to_openai()[1] == {"role": "user", "name": "ada", "content": "To Turin?"}
        assert window.messages[0].pinned
        assert [message.metadata for message in window.messages] == [None] * 3
        (call,) = store.calls("old")
        assert (call.input_tokens, call.reply_position, call.revision, call.changes) == (24, 3, None, None)
        (usage,) = store.usage(by="model")
        assert (usage.calls, usage.input_tokens, usage.estimated_calls) == (1, 24, 0)
        with engine.begin() as connection:
            migrate.downgrade(connection, schema, "tokenmem_0001")
        assert rows_of(engine, prefix) == before
    store.upgrade()
    store.append("old", [{"role": "user", "content": "And back?"}])
    assert store.verify() == []


CHANGES = [{"position": 1, "change": "refused"}]


def test_a_refused_call_becomes_one_that_failed_on_the_way_back(engine: sa.Engine) -> None:
    """Of many calls in any order these alone change, and of these the status alone."""
    dice = random.Random(3)
    given = {name: dice.choices(("ok", "error", "refused", "cancelled"), k=40) for name in ("old", "new")}
    store = Store(engine)
    schema = default_schema(engine.dialect.name, None)
    prefix = f"{schema}." if schema else ""
    store.upgrade()
    for name, statuses in given.items():
        store.append(name, [{"role": "user", "content": "hi"}])
        for status in statuses:
            store.record_call(name, model="m", status=status, error="told", changes=CHANGES)  # type: ignore[arg-type]
    before, usage = rows_of(engine, prefix), store.usage(by="model")
    with engine.begin() as connection:
        migrate.downgrade(connection, schema, "tokenmem_0002")
    blamed = {
        name: ["error" if each == "refused" else each for each in listed] for name, listed in given.items()
    }
    assert {name: [call.status for call in store.calls(name)] for name in given} == blamed
    changed = rows_of(engine, prefix)
    as_before = [
        tuple("error" if value == "refused" else value for value in row) for row in before["llm_calls"]
    ]
    assert changed == before | {"llm_calls": as_before}
    for _ in range(2):
        store.upgrade()
        assert rows_of(engine, prefix) == changed
        assert store.usage(by="model") == usage
        assert store.verify() == []
        with engine.begin() as connection:
            assert migrate.check(connection, schema) == []
        with engine.begin() as connection:
            migrate.downgrade(connection, schema, "tokenmem_0002")


def test_refused_calls_cost_an_upgrade_no_lock(postgres_url: str) -> None:
    """Readers and writers that have begun go on, and nobody waits for them: no row is looked at."""
    engine = open_engine(postgres_url)
    store = Store(engine)
    store.upgrade("tokenmem_0002")
    store.append("c", [{"role": "user", "content": "hi"}])
    with psycopg.connect(driver_url(postgres_url)) as writer:
        for table in ("conversations", "llm_calls", "usage_kept"):
            writer.execute(f"LOCK TABLE tokenmem.{table} IN ROW EXCLUSIVE MODE".encode())
        with engine.begin() as connection:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
            migrate.upgrade(connection, "tokenmem", "tokenmem_0003")
            writer.execute("SET LOCAL lock_timeout = '5s'")
            writer.execute(
                "INSERT INTO tokenmem.llm_calls (conversation_id, number, model, status)"
                " VALUES ('c', 1, 'm', 'refused')"
            )
        writer.commit()
    assert [call.status for call in store.calls("c")] == ["refused"]
    with engine.connect() as reader:
        oldest = reader.exec_driver_sql("SELECT value FROM tokenmem.schema_settings").scalars().all()
    assert oldest == ["tokenmem_0002"]  # who knows that one works on
    engine.dispose()
