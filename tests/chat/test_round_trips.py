"""How often a turn waits for PostgreSQL: twice before the model is asked, once behind it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.round_trips import RoundTrips
from tests.support.stores import Databases
from tokenmem import AsyncChat, AsyncStore, Chat, Message, Store

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}


class Turns:
    """Turns through a proxy, sync or async; each tells its round trips before and behind the model."""

    def __init__(self, trips: RoundTrips, mode: str) -> None:
        self.trips = trips
        self.mode = mode
        self.loop = asyncio.Runner()
        self.asked_at = 0
        self.answer: Any = "Hello"
        self.store: Any = AsyncStore(trips.url) if mode == "async" else Store(trips.url)
        self.direct = Store(trips.url)

    def model(self, _: list[Any], **__: Any) -> Any:
        self.asked_at = self.trips.count
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def chat(self, **options: Any) -> Any:
        async def awaited(messages: list[Any], **others: Any) -> Any:
            return self.model(messages, **others)

        if self.mode == "async":
            return AsyncChat(self.store, awaited, **options)
        return Chat(self.store, self.model, **options)

    def count(self, call: Any) -> tuple[int, int]:
        before = self.trips.count
        answer = call()
        if self.mode == "async":
            self.loop.run(answer)
        return self.asked_at - before, self.trips.count - self.asked_at

    def close(self) -> None:
        if self.mode == "async":
            self.loop.run(self.store.close())
        else:
            self.store.close()
        self.direct.close()
        self.loop.close()


@pytest.fixture(params=["sync", "async"])
def turns(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Turns]:
    with RoundTrips(databases.postgresql()) as trips:
        opened = Turns(trips, request.param)
        chat = opened.chat()
        for _ in range(2):  # connections are opened, and psycopg has asked the server what it needs
            opened.count(lambda: chat.send("warm", "Hi"))
        yield opened
        opened.close()


def test_a_new_conversation_and_an_old_one(turns: Turns) -> None:
    chat = turns.chat()
    assert turns.count(lambda: chat.send("new", "Hi")) == (2, 1)
    turns.direct.append("old", [Message.user("one"), Message.assistant("two")] * 200)
    assert turns.count(lambda: chat.send("old", "Hi")) == (2, 1)
    assert turns.count(lambda: chat.send("old", None)) == (2, 1)


def test_with_a_key(turns: Turns) -> None:
    chat = turns.chat()
    assert turns.count(lambda: chat.send("new", "Hi", idempotency_key="k1")) == (2, 1)
    assert turns.count(lambda: chat.send("new", "Ho", idempotency_key="k2", expected_position=2)) == (2, 1)


def test_with_a_repeated_key_whose_call_failed(turns: Turns) -> None:
    chat = turns.chat()
    turns.answer = RuntimeError("no answer")
    with pytest.raises(RuntimeError):
        turns.count(lambda: chat.send("c", "Hi", idempotency_key="k1"))
    turns.answer = "Hello"
    assert turns.count(lambda: chat.send("c", "Hi", idempotency_key="k1")) == (2, 1)


def test_with_tools_and_instructions(turns: Turns) -> None:
    chat = turns.chat(tools=TOOLS, instructions="You know the weather.")
    turns.answer = CALLS
    assert turns.count(lambda: chat.send("c", "Hi")) == (2, 1)
    turns.answer = "Fine"
    assert turns.count(lambda: chat.send_tool_results("c", {"call_1": "fine"})) == (2, 1)


def test_in_a_conversation_that_another_counter_has_counted(turns: Turns) -> None:
    turns.direct.append("c", [Message.user("one")] * 20, counter="cl100k_base")
    chat = turns.chat(model="gpt-4o")
    assert turns.count(lambda: chat.send("c", "Hi")) == (2, 1)


def test_in_a_window_that_a_large_message_leaves_nothing_of(turns: Turns) -> None:
    """The stepped start would lie behind the newest message."""
    turns.direct.append("c", [Message.user("word " * 700), Message.user("word " * 260)])
    chat = turns.chat(token_limit=1000)
    assert turns.count(lambda: chat.send("c", "word " * 600)) == (2, 1)


def test_a_late_result_may_add_a_look_back(turns: Turns) -> None:
    call = Message.assistant(tool_calls=[CALL])
    filler = [Message.user("word " * 100), Message.assistant("word " * 100)] * 10
    turns.direct.append("c", [call, *filler, Message.tool("late", tool_call_id="call_1"), *filler[:2]])
    chat = turns.chat(token_limit=1000)
    assert turns.count(lambda: chat.send("c", "Hi")) == (3, 1)
