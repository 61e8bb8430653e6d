"""The views: rows checked by hand, alike on both engines, and read by index for one conversation."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tokenmem import Message, Store
from tokenmem.database.engine import open_engine

Item = tuple[str, str, str | None, dict[str, Any]]
"""A row's role, kind, content and payload."""


class Database:
    """A migrated database: a store to write with, and plain SQL to read with, as a person does."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        self.store = Store(self.engine)
        self.prefix = "tokenmem." if self.engine.dialect.name == "postgresql" else ""

    def read(self, columns: str, view: str, rest: str = "") -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            query = f"SELECT {columns} FROM {self.prefix}{view} {rest}"
            return [tuple(row) for row in connection.exec_driver_sql(query)]

    def add_call(self, conversation_id: str, number: int, **columns: Any) -> None:
        columns = {"model": "gpt-4o", "status": "ok", **columns}
        row = {"conversation_id": conversation_id, "number": number, **columns}
        names = ", ".join(row)
        values = ", ".join(f":{name}" for name in row)
        self.run(f"INSERT INTO {{}}llm_calls ({names}) VALUES ({values})", row)

    def add_prompt(self, conversation_id: str, digest: str, instructions: str, tools: str) -> None:
        row = {"id": conversation_id, "digest": digest, "instructions": instructions, "tools": tools}
        self.run(
            "INSERT INTO {}call_prompts (conversation_id, digest, instructions, tools)"
            " VALUES (:id, :digest, :instructions, :tools)",
            row,
        )

    def add_items(self, conversation_id: str, *items: "Item") -> None:
        """Rows as they are stored for items of the Responses API, whatever makes rows of them."""
        new = "INSERT INTO {}conversations (id, token_counter) VALUES (:id, 'unit')"
        self.run(new, {"id": conversation_id})
        for position, (role, kind, content, payload) in enumerate(items, 1):
            self.run(
                "INSERT INTO {}messages (conversation_id, position, tokens_before, token_count, role, kind,"
                " content, payload) VALUES (:id, :position, 0, 0, :role, :kind, :content, :payload)",
                {
                    "id": conversation_id,
                    "position": position,
                    "role": role,
                    "kind": kind,
                    "content": content,
                    "payload": json.dumps(payload, ensure_ascii=False, separators=(",", ":")),
                },
            )

    def run(self, statement: str, row: dict[str, Any]) -> None:
        with self.engine.begin() as connection:
            connection.execute(sa.text(statement.format(self.prefix)), row)

    def plan(self, view: str) -> str:
        """How the engine reads one conversation through a view."""
        postgresql = self.engine.dialect.name == "postgresql"
        explain = "EXPLAIN" if postgresql else "EXPLAIN QUERY PLAN"
        query = f"{explain} SELECT * FROM {self.prefix}{view} WHERE conversation_id = 'c1'"
        with self.engine.connect() as connection:
            if postgresql:  # the tables are too small for it to choose an index where it may
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            return "\n".join(row[-1] for row in connection.exec_driver_sql(query))


@pytest.fixture
def database(ready_url: str) -> Iterator[Database]:
    database = Database(ready_url)
    yield database
    database.engine.dispose()


def user(text: str = "go") -> dict[str, Any]:
    return {"role": "user", "content": text}


def calling(*calls: dict[str, Any], content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def function(call_id: Any, name: Any = "look", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(call_id: Any, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": text}


PAIRS = "position, number, call_id, result_position, result"


def pairs(database: Database, *messages: dict[str, Any]) -> list[tuple[Any, ...]]:
    database.store.append("c1", messages)
    return database.read(PAIRS, "tool_calls", "ORDER BY position, number")


def test_parallel_tool_calls_have_each_its_own_result(database: Database) -> None:
    found = pairs(
        database,
        user(),
        calling(function("a"), function("b"), function("c")),
        result("c", "third"),
        result("a", "first"),
        {"role": "assistant", "content": "done"},
    )
    assert found == [
        (2, 1, "a", 4, "first"),
        (2, 2, "b", None, None),
        (2, 3, "c", 3, "third"),
    ]
    unanswered = database.read("call_id, unanswered", "tool_calls", "ORDER BY number")
    assert [(name, bool(flag)) for name, flag in unanswered] == [("a", False), ("b", True), ("c", False)]


def test_a_call_id_used_again_is_answered_by_the_result_behind_it(database: Database) -> None:
    found = pairs(
        database,
        calling(function("a")),
        result("a", "old"),
        calling(function("a")),
        result("a", "new"),
        calling(function("a")),
    )
    assert found == [(1, 1, "a", 2, "old"), (3, 1, "a", 4, "new"), (5, 1, "a", None, None)]


def test_an_unanswered_call_leaves_the_result_to_the_next_with_its_id(database: Database) -> None:
    found = pairs(database, calling(function("a")), user(), calling(function("a")), result("a", "new"))
    assert found == [(1, 1, "a", None, None), (3, 1, "a", 4, "new")]


def test_a_call_id_used_twice_in_one_message_takes_the_results_in_turn(database: Database) -> None:
    calls = calling(function("a"), function("a"), function("a"))
    found = pairs(database, calls, result("a", "first"), result("a", "second"))
    assert found == [(1, 1, "a", 2, "first"), (1, 2, "a", 3, "second"), (1, 3, "a", None, None)]


def test_results_that_answer_no_call_are_no_calls(database: Database) -> None:
    found = pairs(
        database,
        result("a", "before it was called"),
        calling(function("a")),
        result("a", "the answer"),
        result("a", "once more"),
        result("b", "never called"),
    )
    assert found == [(2, 1, "a", 3, "the answer")]


def test_conversations_do_not_answer_one_another(database: Database) -> None:
    database.store.append("c1", [calling(function("a"))])
    database.store.append("c2", [calling(function("a")), result("a", "mine")])
    found = database.read("conversation_id, result", "tool_calls", "ORDER BY 1")
    assert found == [("c1", None), ("c2", "mine")]


def test_the_old_kind_of_function_call(database: Database) -> None:
    call = {"name": "look", "arguments": '{"at":1}'}
    messages = [
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "look", "content": "a house"},
        {"role": "assistant", "content": None, "tool_calls": None, "function_call": {"name": "other"}},
    ]
    assert pairs(database, *messages) == [(1, 1, None, 2, "a house"), (3, 1, None, None, None)]
    assert database.read("text", "message_log", "ORDER BY position") == [
        ('look({"at":1})',),
        ("a house",),
        ("other()",),
    ]


def test_custom_tool_calls(database: Database) -> None:
    call = {"id": "a", "type": "custom", "custom": {"name": "run", "input": "print(1)"}}
    database.store.append("c1", [calling(call), result("a", "1")])
    assert database.read("name, arguments, result", "tool_calls") == [("run", "print(1)", "1")]
    assert database.read("text", "message_log", "WHERE position = 1") == [("run(print(1))",)]


ODD_CALLS = [
    (function(7), ("7", "look", "{}")),
    (function(1.50), ("1.5", "look", "{}")),
    (function(True), ("true", "look", "{}")),
    (function(10**30), (str(10**30), "look", "{}")),
    (function({"a": [1, None]}), ('{"a":[1,null]}', "look", "{}")),
    (function(None), (None, "look", "{}")),
    (function("a", name=None), ("a", None, "{}")),
    (function("a", name=["x"]), ("a", '["x"]', "{}")),
    (function("a", arguments={"city": "Zürich", "n": 1.0}), ("a", "look", '{"city":"Zürich","n":1.0}')),
    (function("a", arguments=None), ("a", "look", None)),
    (function("a", arguments='say "hi"\n%s :name'), ("a", "look", 'say "hi"\n%s :name')),
    ({"id": "a", "function": "look"}, ("a", None, None)),
    ({"id": "a", "function": ["look"]}, ("a", None, None)),
    ({"id": "a", "function": None, "name": "flat", "arguments": "1"}, ("a", "flat", "1")),
    ({}, (None, None, None)),
]


def test_calls_of_odd_types_are_shown_as_their_json(database: Database) -> None:
    for number, (call, _) in enumerate(ODD_CALLS):
        answer = {"role": "tool", "tool_call_id": call.get("id"), "content": "it"}
        database.store.append(f"c{number:02}", [calling(call), answer])
    found = database.read("call_id, name, arguments", "tool_calls", "ORDER BY conversation_id")
    assert found == [shown for _, shown in ODD_CALLS]
    results = database.read("result", "tool_calls", "ORDER BY conversation_id")
    assert results == [("it" if shown[0] else None,) for _, shown in ODD_CALLS]
    log = database.read("text", "message_log", "WHERE position = 1 ORDER BY conversation_id")
    assert log == [(f"{name or '?'}({arguments or ''})",) for _, (_, name, arguments) in ODD_CALLS]


TEXTS = [
    (user("plain"), "plain"),
    (user(""), ""),
    ({"role": "assistant", "content": None}, None),
    ({"role": "assistant"}, None),
    ({"role": "user", "name": "Ann", "content": "named"}, "named"),
    ({"role": "assistant", "content": None, "refusal": "I cannot"}, "I cannot"),
    ({"role": "assistant", "content": "text", "refusal": None, "tool_calls": None}, "text"),
    ({"role": "user", "content": []}, None),
    ({"role": "user", "content": ["bare", {"type": "text", "text": "part"}]}, "bare\npart"),
    (
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "https://example.com/house.png"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            ],
        },
        "What is this?\n[image_url]\n[input_audio]",
    ),
    ({"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot"}]}, "I cannot"),
    ({"role": "user", "content": [{"type": None}, {}]}, None),
    (
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {"at": 1}}],
        },
        'look({"at":1})',
    ),
    (
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "a house"}]},
        "a house",
    ),
    ({"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "sun"}]}, "sun"),
    (calling(function("a", "look", '{"at":1}'), content="Let me see."), 'Let me see.\nlook({"at":1})'),
    (calling(function("a", "one", "1"), function("b", "two", "2"), content=""), "one(1)\ntwo(2)"),
]


def test_message_log_shows_what_a_person_reads(database: Database) -> None:
    database.store.append("c1", [message for message, _ in TEXTS])
    assert database.read("text", "message_log", "ORDER BY position") == [(text,) for _, text in TEXTS]


def test_message_log_carries_the_running_total_and_the_conversation(database: Database) -> None:
    messages = [Message.system("Be brief.", pinned=True), *map(Message.user, ("one", "two", "three"))]
    database.store.append("c1", messages, owner="ann", title="Numbers")
    stored = database.store.messages("c1")
    total, expected = 0, []
    for message in stored:
        total += message.token_count
        pinned = message.position == 1
        expected.append(("c1", message.position, message.token_count, total, pinned, "ann", "Numbers"))
    columns = "conversation_id, position, token_count, running_total, pinned, owner, title"
    assert database.read(columns, "message_log", "ORDER BY position") == expected
    assert total == database.store.conversation("c1").total_tokens


def test_conversation_overview_sums_the_calls(database: Database) -> None:
    database.store.append("c1", [user(), user()], owner="ann", title="Two")
    database.store.append("c2", [user()])
    database.add_call("c1", 1, input_tokens=10, output_tokens=3)
    database.add_call("c1", 2, input_tokens=20, output_tokens=None, status="error")
    columns = "id, owner, title, message_count, calls, input_tokens, output_tokens"
    assert database.read(columns, "conversation_overview", "ORDER BY id") == [
        ("c1", "ann", "Two", 2, 2, 30, 3),
        ("c2", None, None, 1, 0, None, None),
    ]
    total = database.store.conversation("c1").total_tokens
    found = database.read("total_tokens, token_counter", "conversation_overview", "WHERE id = 'c1'")
    assert found == [(total, "o200k_base")]


def test_conversation_overview_shows_where_conversations_stand(database: Database) -> None:
    database.store.create("c1", keep=True, metadata={"a": 1})
    database.store.fork("c1", "c2")
    away = database.store.archive("c2").archived_at
    columns = "id, archived_at IS NULL, parent_id, forked_at, keep, CAST(metadata AS text)"
    assert away is not None
    assert database.read(columns, "conversation_overview", "ORDER BY id") == [
        ("c1", True, None, None, True, '{"a":1}'),
        ("c2", False, "c1", 0, False, '{"a":1}'),
    ]


def test_usage_by_day_is_by_utc_day_and_model(database: Database) -> None:
    database.store.append("c1", [user()])
    spent = {"window_tokens": 8, "input_tokens": 10, "output_tokens": 2}
    database.add_call(
        "c1", 1, created_at="2025-03-01T23:59:59.999Z", **spent, cached_tokens=4, cache_write_tokens=6
    )
    database.add_call("c1", 2, created_at="2025-03-01T00:00:00.000Z", **spent, reasoning_tokens=1)
    database.add_call("c1", 3, created_at="2025-03-02T00:00:00.000Z", status="error")
    database.add_call("c1", 4, created_at="2025-03-01T12:00:00.000Z", model="o3", status="cancelled")
    found = database.read("*", "usage_by_day", "ORDER BY day, model")
    assert [(str(day), *rest) for day, *rest in found] == [
        ("2025-03-01", "gpt-4o", 2, 0, 16, 20, 4, 4, 1, 6),
        ("2025-03-01", "o3", 1, 1, None, None, None, None, None, None),
        ("2025-03-02", "gpt-4o", 1, 1, None, None, None, None, None, None),
    ]


def test_call_windows_list_what_each_call_sent(database: Database) -> None:
    pinned = [Message.system("first", pinned=True), Message.user("a"), Message.user("b")]
    later = [Message.user("c"), Message.system("later", pinned=True), Message.user("d")]
    database.store.append("c1", [*pinned, *later])
    database.add_call("c1", 1, first_position=2, last_position=3)
    database.add_call("c1", 2, first_position=6, last_position=6, status="error")
    database.add_call("c1", 3, first_position=1, last_position=2)
    database.add_call("c1", 4)  # failed before a window was loaded
    sent = database.read("number, status, content", "call_windows", "ORDER BY number, position")
    assert sent == [
        *((1, "ok", content) for content in ("first", "a", "b")),
        *((2, "error", content) for content in ("first", "later", "d")),
        *((3, "ok", content) for content in ("first", "a")),
    ]


def test_call_windows_show_what_was_pinned_then(database: Database) -> None:
    """The call's own list says it, for calls that have one: not what was pinned or unpinned since."""
    database.store.append("c1", [Message.system("one", pinned=True), *map(Message.user, "bcd")])
    for number, pinned in enumerate((None, "[]", "[1]", "[2,4]"), 1):
        database.add_call("c1", number, first_position=3, last_position=3, pinned=pinned)
    database.add_call("c1", 5, pinned="[1]")
    found = database.read("number, position, pinned", "call_windows", "ORDER BY number, position")
    database.store.edit("c1", 1, Message.system("one"), pinned=False)
    later = database.read("number, position, pinned", "call_windows", "ORDER BY number, position")
    listed = [
        *((2, 3, False), (3, 1, True), (3, 3, False), (4, 2, True), (4, 3, False), (4, 4, True)),
        (5, 1, True),
    ]
    assert found == [(1, 1, True), (1, 3, False), *listed]
    assert later == [(1, 3, False), *listed]


def test_call_windows_show_what_stood_there_then(database: Database) -> None:
    database.store.append("c1", [Message.system("p", pinned=True), user("a"), user("b")])
    revisions = [
        database.store.edit("c1", position, {"role": role, "content": text, "name": "n"})
        and database.read("revision", "conversations")[0][0]
        for position, role, text in ((2, "user", "a1"), (1, "system", "p1"), (2, "assistant", "a2"))
    ]
    first = revisions[0] - 1
    for number, revision in enumerate((first, *revisions, None, 0), 1):
        read = {"first_position": 2, "last_position": 3, "revision": revision}
        database.add_call("c1", number, **read, pinned=None if revision is None else "[1]")
    sent = database.read("number, role, content, version", "call_windows", "ORDER BY number, position")
    assert [[row[1:] for row in sent if row[0] == number] for number in range(1, 7)] == [
        [("system", "p", 1), ("user", "a", 1), ("user", "b", None)],
        [("system", "p", 1), ("user", "a1", 2), ("user", "b", None)],
        [("system", "p1", None), ("user", "a1", 2), ("user", "b", None)],
        [("system", "p1", None), ("assistant", "a2", None), ("user", "b", None)],
        [("system", "p1", None), ("assistant", "a2", None), ("user", "b", None)],
        [("system", "p", 1), ("user", "a", 1), ("user", "b", None)],
    ]


def called(call_id: Any, name: Any = "look", arguments: Any = "{}", **more: Any) -> Item:
    payload = {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, **more}
    return "assistant", "tool_call", None, payload


def output(call_id: Any, text: str | None, kind: str = "function_call_output", **more: Any) -> Item:
    return "tool", "tool_result", text, {"type": kind, "call_id": call_id, **more}


def said(text: str | None, **more: Any) -> Item:
    content = [{"type": "output_text", "text": text or "", "annotations": []}]
    return "assistant", "message", text, {"type": "message", "role": "assistant", "content": content, **more}


def item(kind: str, call_id: Any, **more: Any) -> Item:
    return "assistant", "tool_call", None, {"type": kind, "call_id": call_id, **more}


def custom(call_id: Any, name: Any, text: Any) -> Item:
    payload = {"type": "custom_tool_call", "call_id": call_id, "name": name, "input": text}
    return "assistant", "tool_call", None, payload


def test_calls_that_are_items_have_their_results(database: Database) -> None:
    database.add_items(
        "c1",
        called("a", id="fc_1", status="completed", arguments='{"at":1}'),
        called("b", id="fc_2"),
        output("b", "second"),
        output("a", "first", id="fo_1"),
        custom("c", "run", "print(1)"),
        output("c", "1", "custom_tool_call_output"),
        called("a"),
        called("d", name=None, arguments=None),
        output("d", None, output=[{"type": "input_image", "image_url": "data:,"}]),
        output("never called", "x"),
        item("computer_call", "e", action={"type": "click", "x": 1}),
        item("apply_patch_call", "f", operation={"type": "delete_file"}),
        output("f", "deleted", "apply_patch_call_output"),
    )
    found = database.read(f"{PAIRS}, name, arguments", "tool_calls", "ORDER BY position")
    assert found == [
        (1, 1, "a", 4, "first", "look", '{"at":1}'),
        (2, 1, "b", 3, "second", "look", "{}"),
        (5, 1, "c", 6, "1", "run", "print(1)"),
        (7, 1, "a", None, None, "look", "{}"),
        (8, 1, "d", 9, None, None, None),
        (11, 1, "e", None, None, "computer_call", '{"type":"click","x":1}'),
        (12, 1, "f", 13, "deleted", "apply_patch_call", '{"type":"delete_file"}'),
    ]
    unanswered = database.read("position", "tool_calls", "WHERE unanswered ORDER BY position")
    assert unanswered == [(7,), (11,)]


def test_chat_messages_and_items_answer_each_other(database: Database) -> None:
    """A conversation may be carried on by way of the other of the provider's two interfaces."""
    chat = {"role": "assistant", "content": None, "tool_calls": [function("b")]}
    database.add_items(
        "c1",
        called("a"),
        ("tool", "tool_result", "one", {"role": "tool", "tool_call_id": "a"}),
        ("assistant", "tool_call", None, chat),
        output("b", "two"),
    )
    found = database.read("position, result", "tool_calls", "ORDER BY position")
    assert found == [(1, "one"), (3, "two")]


REFUSAL = {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot"}]}
IMAGES = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:,"}]
SCREEN = {"type": "computer_screenshot", "image_url": "data:,"}
PARTIAL = {"tokenmem_partial": True}
ITEM_TEXTS: list[tuple[Item, str | None]] = [
    (said("Hello"), "Hello"),
    (("assistant", "message", None, REFUSAL), "I cannot"),
    (
        ("user", "message", "see", {"type": "message", "role": "user", "content": IMAGES}),
        "see\n[input_image]",
    ),
    (called("a", "look", '{"at":"Zürich"}'), 'look({"at":"Zürich"})'),
    (called("a", None, None), "?()"),
    (custom("c", "run", 'print("1")'), 'run(print("1"))'),
    (output("a", "a house"), "a house"),
    (output("a", "see", output=IMAGES), "see\n[input_image]"),
    (item("computer_call", "e", action={"type": "wait"}), 'computer_call({"type":"wait"})'),
    (output("e", None, "computer_call_output", output=SCREEN), "[computer_screenshot]"),
    (("assistant", "reasoning", "I look.", {"type": "reasoning", "summary": []}), "[reasoning] I look."),
    (("assistant", "reasoning", None, {"type": "reasoning", "encrypted_content": "x"}), "[reasoning]"),
    (("assistant", "other", None, {"type": "web_search_call", "status": "completed"}), "[web_search_call]"),
    (("assistant", "other", "found it", {"type": "mcp_call"}), "[mcp_call] found it"),
    (("assistant", "other", None, {"id": "x"}), "[other]"),
    (said("Once upon", **PARTIAL), "Once upon [incomplete]"),
    (said(None, **PARTIAL), "[incomplete]"),
    (("assistant", "message", "Once", {"role": "assistant", **PARTIAL}), "Once [incomplete]"),
    (("assistant", "message", "", {"role": "assistant", "tokenmem_partial": None}), "[incomplete]"),
    (called("a", "look", '{"at":', **PARTIAL), 'look({"at":) [incomplete]'),
]


def test_message_log_shows_items_and_what_was_cut_off(database: Database) -> None:
    database.add_items("c1", *(item for item, _ in ITEM_TEXTS))
    found = database.read("text", "message_log", "ORDER BY position")
    assert found == [(text,) for _, text in ITEM_TEXTS]


def test_call_log_shows_how_each_call_stands(database: Database) -> None:
    database.store.append("c1", [user(), user()])
    database.add_prompt("c1", "d", "Be kind.", '[{"type": "function"}]')
    database.add_prompt("c1", "e", "Be brief.", "[]")
    spent = {"window_tokens": 8, "input_tokens": 10, "cached_tokens": 4, "output_tokens": 5}
    database.add_call("c1", 1, first_position=1, last_position=1, **spent, reply_position=2, reply_messages=1)
    database.add_call("c1", 2, prompt_digest="d", status="error", error="no such model", request_id="r")
    database.add_call("c1", 3, prompt_digest="d", status="cancelled", alive_at=seconds_ago(3))
    database.add_call("c1", 4, prompt_digest="gone", status="cancelled", alive_at=seconds_ago(17))
    log = database.read("number, status, error, instructions, tools", "call_log", "ORDER BY number")
    assert log == [
        (1, "ok", None, None, None),
        (2, "error", "no such model", "Be kind.", '[{"type": "function"}]'),
        (3, "running", None, "Be kind.", '[{"type": "function"}]'),
        (4, "died", None, None, None),
    ]
    columns = "first_position, last_position, window_tokens, input_tokens, cached_tokens, output_tokens"
    rest = "reasoning_tokens, reply_position, reply_messages, latency_ms, first_token_ms, finish_reason"
    found = database.read(f"{columns}, {rest}", "call_log", "WHERE number = 1")
    assert found == [(1, 1, 8, 10, 4, 5, None, 2, 1, None, None, None)]


def seconds_ago(seconds: int) -> str:
    return f"{datetime.now(UTC) - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S.000Z}"


ERRORS = [
    # window and input tokens of each call, then what the view says of them, worked out by hand
    ([(110, 100), (95, 100)], (2, 205, 200, 2.5, -5.0, 10.0)),
    ([(100, 100)], (1, 100, 100, 0.0, 0.0, 0.0)),
    ([(103, 100), (101, 100)], (2, 204, 200, 2.0, 0.0, 3.0)),
    ([(97, 100), (2_999_970, 3_000_000)], (2, 3_000_067, 3_000_100, -1.5, -3.0, 0.0)),
    ([(1, 3), (2, 3)], (2, 3, 6, -50.0, -66.67, 0.0)),
    # Halves, which binary fractions miss: 0.075 % and 0.005 %, up and down.
    ([(1003, 1000), (1000, 1000), (1000, 1000), (1000, 1000)], (4, 4003, 4000, 0.08, 0.0, 0.3)),
    ([(20001, 20000)], (1, 20001, 20000, 0.01, 0.0, 0.01)),
    ([(19999, 20000)], (1, 19999, 20000, -0.01, -0.01, 0.0)),
    ([(2_147_483_647, 1)], (1, 2_147_483_647, 1, 214748364600.0, 0.0, 214748364600.0)),
]


def test_count_error_by_model(database: Database) -> None:
    database.store.append("c1", [user()])
    calls = iter(range(1, 100))
    for model, (counts, _) in enumerate(ERRORS):
        for window_tokens, input_tokens in counts:
            spent = {"window_tokens": window_tokens, "input_tokens": input_tokens}
            database.add_call("c1", next(calls), model=f"m{model}", **spent)
    for odd in ({"status": "error"}, {"input_tokens": None}, {"window_tokens": None}, {"input_tokens": 0}):
        database.add_call("c1", next(calls), **({"model": "m0", "window_tokens": 1, "input_tokens": 9} | odd))
    database.add_call("c1", next(calls), model="failed", status="error", window_tokens=1, input_tokens=1)
    found = database.read("*", "count_error_by_model", "ORDER BY model")
    # Decimal on PostgreSQL, float on SQLite: the nearest to the same two places
    assert [tuple(map(as_float, row)) for row in found] == [
        (f"m{number}", *row) for number, (_, row) in enumerate(ERRORS)
    ]
    if database.prefix:
        assert [str(value) for value in found[1][4:]] == ["0.00", "0.00", "0.00"]


def as_float(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


@pytest.mark.parametrize("view", ["message_log", "tool_calls", "call_windows", "call_log"])
def test_one_conversation_is_read_by_index(database: Database, view: str) -> None:
    plan = database.plan(view)
    if database.prefix:
        conditions = re.findall(
            r"Scan .*on (?:messages|llm_calls|conversations|call_prompts|message_versions) .*\n(.*)", plan
        )
        assert conditions
        assert all(re.search(r"(Index|Recheck) Cond: .*id = 'c1'", line) for line in conditions), plan
        return
    reads = [line for line in plan.splitlines() if line.split()[1] in ("m", "l", "c", "p", "v")]
    assert reads
    assert all(line.startswith("SEARCH") for line in reads), plan


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=9)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
IDS = st.sampled_from(["a", "b", 1, None])
CALLS = st.fixed_dictionaries(
    {},
    optional={"id": IDS | JSON, "function": st.fixed_dictionaries({"name": JSON, "arguments": JSON}) | JSON},
)
PARTS = TEXT | st.fixed_dictionaries({}, optional={"type": JSON, "text": JSON, "refusal": JSON, "name": JSON})
CONTENT = st.none() | TEXT | st.lists(PARTS, max_size=3)
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": IDS, "content": CONTENT}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": CONTENT},
        optional={"tool_calls": st.lists(CALLS, max_size=3), "refusal": JSON, "function_call": JSON},
    ),
)


@pytest.fixture
def both(ready_sqlite_url: str, ready_postgres_url: str) -> Iterator[tuple[Database, Database]]:
    databases = Database(ready_sqlite_url), Database(ready_postgres_url)
    yield databases
    for database in databases:
        database.engine.dispose()


ITEM_PAYLOADS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["function_call", "custom_tool_call", "message", "web_search_call"]) | JSON,
        **dict.fromkeys(("call_id", "name"), IDS | JSON),
        **dict.fromkeys(("arguments", "input", "action", "operation", "tokenmem_partial"), JSON),
        "output": st.lists(PARTS, max_size=3) | PARTS | JSON,
        "content": st.lists(PARTS, max_size=3) | JSON,
        "role": st.just("assistant"),
    },
)
KINDS = st.sampled_from(["message", "tool_call", "tool_result", "reasoning", "other"])
STORED_ITEMS = st.tuples(st.sampled_from(["assistant", "tool"]), KINDS, st.none() | TEXT, ITEM_PAYLOADS)


def test_both_engines_answer_alike_for_items(both: tuple[Database, Database]) -> None:
    @given(st.lists(STORED_ITEMS, min_size=1, max_size=6))
    @hypothesis_settings(max_examples=100)
    def alike(items: list[Item]) -> None:
        answers = []
        for database in both:
            database.add_items("c1", *items)
            log = database.read("position, text", "message_log", "ORDER BY 1")
            calls = database.read(f"{PAIRS}, name, arguments", "tool_calls", "ORDER BY 1, 2")
            answers.append((log, calls))
            database.store.delete("c1")
        assert answers[0] == answers[1]

    alike()


def test_both_engines_count_errors_alike(both: tuple[Database, Database]) -> None:
    counts = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1) | st.integers(1, 4000))

    @given(st.lists(counts | st.tuples(st.integers(0, 4000), st.just(4000)), min_size=1, max_size=5))
    @hypothesis_settings(max_examples=60)
    def alike(calls: list[tuple[int, int]]) -> None:
        answers = []
        for database in both:
            database.store.append("c1", [user()])
            for number, (window_tokens, input_tokens) in enumerate(calls):
                database.add_call("c1", number, window_tokens=window_tokens, input_tokens=input_tokens)
            found = database.read("*", "count_error_by_model")
            answers.append([tuple(map(as_float, row)) for row in found])
            database.store.delete("c1")
        assert answers[0] == answers[1]

    alike()


def test_both_engines_answer_alike(both: tuple[Database, Database]) -> None:
    @given(st.lists(MESSAGES, min_size=1, max_size=6))
    @hypothesis_settings(max_examples=60)
    def alike(messages: list[dict[str, Any]]) -> None:
        answers = []
        for database in both:
            database.store.append("c1", messages)
            log = database.read(
                "position, role, kind, text, token_count, running_total", "message_log", "ORDER BY 1"
            )
            calls = database.read(f"{PAIRS}, name, arguments", "tool_calls", "ORDER BY 1, 2")
            answers.append((log, calls))
            database.store.delete("c1")
        assert answers[0] == answers[1]

    alike()
