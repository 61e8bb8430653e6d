"""Rows that somebody has changed by hand: errors of ours, without what they hold, and a list by verify."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.database.test_driver_errors import fails, on_postgresql, on_sqlite
from tests.support.stores import Direct, Stores
from tokenmem import Message, Store, errors

SECRET = "marker-7f3a9"
TEXT = f"'{SECRET}'"
DEEP = "'" + "[" * 100_000 + "'"

Read = Callable[[Store], Any]

READS: dict[str, Read] = {
    "window": lambda store: store.window("c1", 1000).messages,
    "window to send": lambda store: store.window("c1", 1000).to_openai(),
    "messages": lambda store: store.messages("c1"),
    "messages without payload": lambda store: store.messages("c1", payload=False),
    "message": lambda store: store.message("c1", 2),
    "read": lambda store: store.read("c1"),
    "conversation": lambda store: store.conversation("c1"),
    "conversations": lambda store: store.conversations(),
    "recent conversations": lambda store: store.conversations(order="recent"),
    "calls": lambda store: store.calls("c1"),
    "versions": lambda store: store.versions("c1", 2),
    "export": lambda store: list(store.export()),
    "open tool calls": lambda store: store.open_tool_calls("c1"),
    "usage": lambda store: store.usage(),
    "pop": lambda store: store.pop("c1"),
    "edit": lambda store: store.edit("c1", 2, Message.user("y")),
    "update": lambda store: store.update("c1", metadata={"a": 2}, merge=True),
}
OF_MESSAGES = {"window", "window to send", "messages", "message", "read", "export"}
OF_CONVERSATION = {"conversation", "conversations", "recent conversations", "read", "export"}

# table, column: the SQL of what stands there, and the reads that notice.
ON_SQLITE = [
    ("messages", "payload", TEXT, OF_MESSAGES),
    ("messages", "payload", "'[1]'", OF_MESSAGES),
    ("messages", "payload", DEEP, OF_MESSAGES),
    ("messages", "payload", f"CAST({TEXT} AS blob)", OF_MESSAGES),
    ("messages", "metadata", TEXT, OF_MESSAGES - {"window to send"}),
    ("messages", "role", TEXT, OF_MESSAGES | {"edit"}),
    ("messages", "kind", TEXT, OF_MESSAGES),
    ("messages", "token_count", TEXT, OF_MESSAGES | {"edit"}),
    ("messages", "created_at", TEXT, OF_MESSAGES - {"window to send"}),
    ("messages", "created_at", "'2026-13-45T00:00:00Z'", OF_MESSAGES - {"window to send"}),
    ("conversations", "metadata", TEXT, OF_CONVERSATION | {"update"}),
    ("conversations", "metadata", "'[1]'", OF_CONVERSATION | {"update"}),
    ("conversations", "created_at", TEXT, OF_CONVERSATION),
    ("conversations", "archived_at", TEXT, {"conversation", "read", "export"}),
    ("conversations", "total_tokens", TEXT, OF_CONVERSATION | {"window"}),
    ("conversations", "message_count", TEXT, OF_CONVERSATION | {"window"}),
    ("llm_calls", "options", TEXT, {"calls", "export"}),
    ("llm_calls", "pinned", "'{{}}'", {"calls"}),
    ("llm_calls", "created_at", TEXT, {"calls", "export"}),
    ("llm_calls", "created_at", "'2026-99-99T00:00:00Z'", {"calls", "export", "usage"}),
    ("llm_calls", "output_tokens", TEXT, {"calls", "export"}),
    ("message_versions", "payload", TEXT, {"versions", "export"}),
    ("message_versions", "role", TEXT, {"versions"}),
    ("message_versions", "replaced_at", TEXT, {"versions", "export"}),
    ("message_versions", "since_revision", TEXT, {"versions", "export"}),
    ("call_prompts", "tools", TEXT, {"export"}),
    ("append_keys", "first_position", TEXT, set()),
]
ON_POSTGRESQL = [
    ("messages", "payload", f"'[\"{SECRET}\"]'", OF_MESSAGES),
    ("messages", "metadata", f"'\"{SECRET}\"'", OF_MESSAGES - {"window to send"}),
    ("messages", "role", TEXT, OF_MESSAGES),
    ("messages", "kind", TEXT, OF_MESSAGES),
    ("messages", "created_at", "'infinity'", OF_MESSAGES),
    ("conversations", "metadata", f"'[\"{SECRET}\"]'", OF_CONVERSATION | {"update"}),
    ("llm_calls", "options", "'[1]'", {"calls"}),
    ("llm_calls", "changes", "'{{}}'", {"calls"}),
    ("message_versions", "payload", f"'[\"{SECRET}\"]'", {"versions"}),
    ("message_versions", "kind", TEXT, {"versions"}),
]


@pytest.fixture
def filled(stores: Stores) -> Store:
    """A conversation with all that can be damaged, each with some text of a person's."""
    store = stores.open()
    said = {"role": "user", "content": SECRET, "name": SECRET}
    store.append("c1", [said, said, said], metadata={"a": SECRET}, idempotency_key="k", title=SECRET)
    store.edit("c1", 2, said | {"name": "other"})
    store.update_message("c1", 2, metadata={"a": SECRET})
    store.record_call(
        "c1",
        model="m",
        first_position=1,
        last_position=2,
        options={"seed": 1},
        instructions=SECRET,
        tools=[{"type": "function", "function": {"name": "f"}}],
    )
    return store


def harm(sql: Direct, table: str, column: str, value: str) -> None:
    where = "position = 2" if table in ("messages", "message_versions") else "1 = 1"
    sql.run(
        f"UPDATE {{{table}}} SET {column} = :value WHERE {where}".replace(":value", value.replace(":", r"\:"))
    )


def refusal(read: Read, store: Store) -> str:
    """The error of ours that a read raises, if it does."""
    try:
        read(store)
    except errors.TokenmemError as error:
        return f"{error} {error!r}"
    return ""


def check(store: Store, sql: Direct, table: str, column: str, value: str, noticed: set[str]) -> None:
    assert store.verify() == []
    harm(sql, table, column, value)
    problems = store.verify()
    for name, read in READS.items():
        if name in noticed:
            error = fails(lambda read=read: read(store), errors.DatabaseError, match="tokenmem verify")
            told = str(error)
            assert not isinstance(error, errors.DatabaseUnavailable), name
            assert column in told or "timestamp too large" in told or name == "usage", (name, told)
            assert "'c1'" in told or "timestamp too large" in told or name == "usage", (name, told)
        else:
            told = refusal(read, store)
            assert SECRET not in told, (name, told)
    assert any(f"the column {column} is damaged" in problem.detail for problem in problems), problems
    assert SECRET not in repr(problems)
    assert problems == sorted(
        problems, key=lambda each: (each.conversation_id, each.position or 0, each.detail)
    )


@on_sqlite
@pytest.mark.parametrize(
    ("table", "column", "value", "noticed"),
    ON_SQLITE,
    ids=[f"{table}.{column}-{number}" for number, (table, column, *_) in enumerate(ON_SQLITE)],
)
def test_on_sqlite(
    filled: Store, stores: Stores, table: str, column: str, value: str, noticed: set[str]
) -> None:
    check(filled, stores.sql, table, column, value, noticed)


@on_postgresql
@pytest.mark.parametrize(
    ("table", "column", "value", "noticed"),
    ON_POSTGRESQL,
    ids=[f"{table}.{column}-{number}" for number, (table, column, *_) in enumerate(ON_POSTGRESQL)],
)
def test_on_postgresql(
    filled: Store, stores: Stores, table: str, column: str, value: str, noticed: set[str]
) -> None:
    check(filled, stores.sql, table, column, value, noticed)


def test_the_error_names_the_place(filled: Store, sql: Direct) -> None:
    harm(sql, "messages", "role", TEXT)
    error = fails(lambda: filled.window("c1", 1000), errors.DatabaseError)
    assert str(error).startswith(
        "conversation 'c1', message 2: the column role is damaged, it holds no role: system"
    )


def test_other_conversations_are_read_as_before(filled: Store, sql: Direct) -> None:
    filled.append("c2", [Message.user("x")])
    harm(sql, "messages", "kind", TEXT)
    assert filled.window("c2", 1000).to_openai() == [{"role": "user", "content": "x"}]
    assert [each.id for each in filled.conversations()] == ["c1", "c2"]
    filled.delete("c1")
    assert filled.verify() == []


def test_problems_come_in_order(filled: Store, sql: Direct) -> None:
    for name in ("b", "a"):
        filled.append(name, [Message.user("x"), Message.user("y")])
    sql.run("UPDATE {messages} SET role = 'x', kind = 'y' WHERE conversation_id IN ('a', 'b')")
    sql.run("UPDATE {conversations} SET message_count = 9 WHERE id IN ('a', 'b')")
    found = [(each.conversation_id, each.position) for each in filled.verify()]
    assert found == [
        *[("a", None), ("a", 1), ("a", 1), ("a", 2), ("a", 2)],
        *[("b", None), ("b", 1), ("b", 1), ("b", 2), ("b", 2)],
    ]


@on_sqlite
def test_what_stands_in_a_total_is_not_told(filled: Store, sql: Direct) -> None:
    for column in ("total_tokens", "last_position", "message_count", "last_call", "updated_at", "recent_at"):
        sql.run(f"UPDATE {{conversations}} SET {column} = {TEXT}")
    sql.run(f"UPDATE {{messages}} SET tokens_before = {TEXT}, token_count = {TEXT}")
    sql.run(f"INSERT INTO {{usage_kept}} VALUES ({TEXT}, 'x', 'm', 'x', 1, 1, 1, 1, 1, 1, 1)")
    problems = filled.verify()
    assert SECRET not in repr([each for each in problems if each.conversation_id])
    assert any("calls is no integer" in each.detail for each in problems)
