"""What removes texts leaves none: a canary that was in every place is in no column of any table."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.chats import Chats
from tests.support.stores import Direct, One, positions
from tokenmem import Message, Store, errors
from tokenmem.database import schema
from tokenmem.operations import several
from tokenmem.testing import Answer, ModelServer

CANARY = "canary-9f2c"
DAY = timedelta(days=1)
CALLED = [
    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": f'{{"a":"{CANARY}"}}'}}
]
SAID = [
    Message.user(f"{CANARY} said", metadata={"note": CANARY}),
    Message.assistant(CANARY, tool_calls=CALLED),
    Message.tool(CANARY, tool_call_id="call_1"),
    Message.user([{"type": "text", "text": CANARY}, {"type": "image_url", "image_url": {"url": CANARY}}]),
    Message.assistant("plain", metadata={CANARY: 1}),
]


def fill(store: Store, sql: Direct, name: str, *, beside: bool) -> None:
    """A conversation with the canary in its messages and their versions; `beside`: in all else too."""
    more: dict[str, Any] = {"title": CANARY, "metadata": {CANARY: CANARY}, "idempotency_key": CANARY}
    store.append(name, SAID, owner="ann", counter=One(), **(more if beside else {}))
    for position in (1, 2, 3):
        sql.version(name, position, f"{CANARY} before")
    if beside:
        sql.run(
            "INSERT INTO {call_prompts} (conversation_id, digest, instructions, tools)"
            f""" VALUES ('{name}', '{CANARY}', '{CANARY}', '["{CANARY}"]')"""
        )
        given = f"""'["{CANARY}"]'"""
        texts = dict.fromkeys(("error", "request_id", "prompt_digest"), f"'{CANARY}'")
        sql.call(name, **texts, options=given, metadata=given, changes=given, input_tokens="7")
        assert len(sql.everywhere(CANARY)) == 16, sql.everywhere(CANARY)
    else:
        assert sql.everywhere(CANARY) == {
            "messages.content", "messages.payload", "messages.metadata", "message_versions.content"
        }  # fmt: skip


WHOLE: dict[str, Callable[[Store], Any]] = {
    "delete": lambda store: store.delete("c"),
    "delete_owner": lambda store: store.delete_owner("ann"),
    "purge idle": lambda store: store.purge(idle_for=DAY),
    "purge all": lambda store: store.purge(older_than=DAY),
    "anonymize_owner": lambda store: store.anonymize_owner("ann"),
}


@pytest.mark.parametrize("operation", WHOLE)
def test_no_text_is_left_of_a_conversation(store: Store, sql: Direct, operation: str) -> None:
    fill(store, sql, "c", beside=True)
    sql.age(3)
    sql.age(3, table="conversations")
    WHOLE[operation](store)
    assert sql.everywhere(CANARY) == set()
    assert store.verify() == []


PARTLY: dict[str, Callable[[Store], Any]] = {
    "truncate": lambda store: store.truncate("c", after=0),
    "delete_message": lambda store: [store.delete_message("c", position) for position in range(1, 6)],
    "purge": lambda store: store.purge(older_than=DAY),
}


@pytest.mark.parametrize("operation", PARTLY)
def test_no_text_is_left_of_messages(store: Store, sql: Direct, operation: str) -> None:
    fill(store, sql, "c", beside=False)
    sql.age(3)
    PARTLY[operation](store)
    assert sql.everywhere(CANARY) == set()
    assert store.conversation("c").message_count == 0
    assert store.verify() == []


def test_versions_of_messages_that_stay_stay(store: Store, sql: Direct) -> None:
    fill(store, sql, "c", beside=False)

    def versions() -> list[int]:
        return [row[0] for row in sql.rows("SELECT position FROM {message_versions} ORDER BY position")]

    store.truncate("c", after=2)
    assert versions() == [1, 2]
    sql.age(3, where="position = 1")
    store.purge(older_than=DAY)
    assert versions() == [2]
    store.append("c", [Message.user("more")], counter=One())
    store.delete_message("c", 6)
    assert versions() == [2]


def test_every_table_of_a_conversations_rows_is_emptied() -> None:
    """A table that is added later must not be forgotten."""
    tables = schema.tables(None).tables
    belonging = {name for name, table in tables.items() if "conversation_id" in table.columns}
    assert set(several.CHILDREN) == belonging
    assert len(several._DELETE) == len(belonging) + 1


class TestAnonymizing:
    def test_counts_and_calls_stay(self, store: Store, sql: Direct) -> None:
        fill(store, sql, "c", beside=True)
        fill_second = store.append("d", [Message.user("hello")], owner="ann", counter=One())
        store.append("other", [Message.user("of bob")], owner="bob", title="Bob's", idempotency_key="k")
        before = sql.rows("SELECT position, token_count, tokens_before, created_at FROM {messages}"
                          " WHERE conversation_id = 'c' ORDER BY 1")  # fmt: skip
        usage = store.usage(by="model")
        bobs = sql.rows("SELECT * FROM {conversations} WHERE id = 'other'")
        assert fill_second.last_position == 1
        assert store.anonymize_owner("ann") == 2
        assert store.anonymize_owner("ann") == 0
        found = store.conversation("c")
        assert found.owner is not None
        assert found.owner.startswith("anonymous-")
        assert store.conversation("d").owner == found.owner
        assert (found.title, found.metadata, found.total_tokens, found.message_count) == (None, {}, 5, 5)
        assert found.archived_at is not None
        assert before == sql.rows("SELECT position, token_count, tokens_before, created_at FROM {messages}"
                                  " WHERE conversation_id = 'c' ORDER BY 1")  # fmt: skip
        assert sql.rows("SELECT * FROM {conversations} WHERE id = 'other'") == bobs
        assert store.append("other", [Message.user("of bob")], idempotency_key="k").replayed
        assert store.usage(by="model") == usage
        assert store.usage(owner="ann") == []
        assert [line.owner for line in store.usage(by="owner")] == [found.owner]
        (call,) = store.calls("c")
        assert (call.input_tokens, call.error, call.request_id) == (7, None, None)
        assert store.verify() == []
        with pytest.raises(errors.ConversationNotFound):
            store.for_owner("ann").conversation("c")

    def test_what_is_left_can_be_read_and_sent(self, chats: Chats, server: ModelServer, sql: Direct) -> None:
        store = chats.store
        store.append("c", SAID, owner="ann")
        store.append("c", [{"role": "user", "content": "Go on."}, *tool_items()])
        store.anonymize_owner("ann")
        window = store.window("c", 4000)
        assert positions(window.messages) == list(range(1, 10))
        assert {frozenset(message) for message in window.to_openai()} == {frozenset({"role", "content"})}
        assert all(message["role"] in ("user", "assistant") for message in window.to_openai())
        for start_on in ("message", "step", "turn"):
            assert store.window("c", 4000, start_on=start_on).messages
        prefix = "tokenmem." if sql.engine.dialect.name == "postgresql" else ""
        log = sql.rows(f"SELECT text FROM {prefix}message_log WHERE conversation_id = 'c'")
        assert {text for (text,) in log} <= {"", None}
        for view in ("tool_calls", "call_windows", "call_log", "conversation_overview"):
            sql.rows(f"SELECT * FROM {prefix}{view}")
        assert sql.value(f"SELECT count(*) FROM {prefix}tool_calls") == 0
        server.reply_with([Answer("Here."), Answer("There.")])
        assert chats.open().send("c", "Still there?").text == "Here."
        assert chats.open(api="responses").send("c", "And now?").text == "There."
        assert server.problems == []
        assert store.verify() == []

    def test_a_call_that_runs_stores_no_reply(self, chats: Chats, server: ModelServer, sql: Direct) -> None:
        def answer(_: Any) -> Answer:
            with Store(chats._stores.url) as other:
                other.anonymize_owner("ann")
            return Answer(CANARY)

        chats.store.append("c", [Message.user("hello")], owner="ann")
        server.reply_with(answer)
        with pytest.raises(Exception):  # noqa: B017 - what it is called is the chat's business
            chats.open().send("c", "Now?")
        assert sql.everywhere(CANARY) == set()
        assert sql.value("SELECT count(*) FROM {llm_calls} WHERE alive_at IS NOT NULL") == 0
        assert chats.store.verify() == []


def tool_items() -> list[dict[str, Any]]:
    """A call, its result and reasoning as the Responses API has them."""
    return [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": CANARY}]},
        {"type": "function_call", "id": "fc_1", "call_id": "call_2", "name": "look", "arguments": CANARY},
        {"type": "function_call_output", "call_id": "call_2", "output": CANARY},
    ]


def test_scanning_finds_the_canary_in_json_and_text(store: Store, sql: Direct) -> None:
    """The test of the tests: every column is looked into, of every table there is."""
    store.append("c", [Message.user("x", metadata={"a": CANARY})])
    with sql.engine.connect() as connection:
        names = sa.inspect(connection).get_table_names(
            None if sql.engine.dialect.name == "sqlite" else "tokenmem"
        )
    assert set(schema.TABLES) <= set(names)
    assert sql.everywhere(CANARY) == {"messages.metadata"}
