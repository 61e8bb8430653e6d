"""Turns that meet what seldom happens: every one of these once went wrong."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from tests.support.chats import Chats, said
from tests.support.stores import Direct, Stores
from tokenmem import Chat, Message, Store, errors
from tokenmem.chat import ModelAPI
from tokenmem.testing import Answer, Cut, Failure, ModelServer


def model_of(chats: Chats, function: Any, **options: Any) -> Any:
    return chats.on(function, "m", 1000, **options)


@pytest.mark.parametrize("fails", [False, True])
def test_a_call_does_not_end_that_of_a_conversation_made_anew(stores: Stores, fails: bool) -> None:
    """Cleared while the model thinks: the old reply must not land in the new conversation."""
    with Store(stores.url) as store:

        def old(_: list[Any]) -> str:
            time.sleep(0.005)  # SQLite's clock tells milliseconds
            store.delete("c")
            Chat(store, new, "m", 1000).send("c", "new question")
            if fails:
                raise RuntimeError("429")
            return "old secret"

        def new(_: list[Any]) -> str:
            return "new answer"

        with pytest.raises(RuntimeError if fails else errors.ConversationNotFound):
            Chat(store, old, "m", 1000).send("c", "old question")
        assert [message.content for message in store.messages("c")] == ["new question", "new answer"]
        assert [call.status for call in store.calls("c")] == ["ok"]


def test_a_running_call_of_a_conversation_made_anew_is_not_ended(stores: Stores) -> None:
    with Store(stores.url) as store:
        seen: list[Any] = []

        def old(_: list[Any]) -> str:
            time.sleep(0.005)  # SQLite's clock tells milliseconds
            store.delete("c")
            Chat(store, new, "m", 1000).send("c", "new question")
            return "old secret"

        def new(_: list[Any]) -> str:
            seen.append(store.calls("c")[0].running)
            return "new answer"

        with pytest.raises(errors.ConversationNotFound):
            Chat(store, old, "m", 1000).send("c", "old question")
        assert seen == [True]


def test_a_conversation_made_anew_has_another_revision(chats: Chats, sql: Direct) -> None:
    def revision() -> int:
        value: int = sql.value("SELECT revision FROM {conversations}")
        return value

    chats.store.append("c", [Message.user("x")])
    first = revision()
    chats.store.delete("c")
    chats.store.append("c", [Message.user("y")])
    assert revision() > first


def test_results_get_through_in_a_busy_conversation(stores: Stores) -> None:
    """Another writer comes in between every time."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    with Store(stores.url) as store, Store(stores.url) as other:
        chat = Chat(store, lambda _, **__: "fine", "m", 1000)
        store.append("c", [Message.user("Hi"), Message.assistant(tool_calls=[call])])
        run, busy = store._runner.run, [5]

        def disturbed(effect: Any) -> Any:
            answer = run(effect)
            if type(effect).__name__ == "Read" and busy[0]:
                busy[0] -= 1
                other.update("c", title=f"title {busy[0]}")
            return answer

        store._runner.run = disturbed  # type: ignore[method-assign]
        assert chat.send_tool_results("c", {"c1": "result"}).text == "fine"
        assert [message.kind for message in store.messages("c")][-2:] == ["tool_result", "message"]


def test_a_repeated_request_that_finds_no_start(chats: Chats, server: ModelServer) -> None:
    """Only a pinned message, and behind it a part of the request's own."""
    chat = chats.open()
    chats.store.append("c", [Message.system("Be brief.", pinned=True)])
    server.reply_with([Cut(3, Answer("Once upon a time there was"))])
    with pytest.raises(Exception):  # noqa: B017 - the connection's
        list(chat.stream("c", idempotency_key="k"))
    server.reply_with(Answer("Hello"))
    assert chat.send("c", idempotency_key="k").text == "Hello"


class Picky:
    """A counter that does not count what the model says."""

    name = "picky"

    def count(self, message: Message) -> int:
        if message.role == "assistant":
            raise RuntimeError("no")
        return 1


def test_a_counter_that_fails_on_a_part(stores: Stores, server: ModelServer) -> None:
    server.reply_with([Cut(3, Answer("Once upon a time there was"))])
    opened = Chats(stores, server)
    opened.store = stores.open(counter=Picky())
    with pytest.raises(Exception):  # noqa: B017 - the connection's
        list(opened.open().stream("c", "Tell."))
    (call,) = opened.store.calls("c")
    assert (call.status, call.running) == ("error", False)
    opened.close()


def test_a_purge_leaves_the_key_of_a_reply_that_stays(chats: Chats, server: ModelServer, sql: Direct) -> None:
    chat = chats.open()
    server.reply_with(Answer("One."))
    chat.send("c", "One?", idempotency_key="k")
    sql.age(10, "position = 1")
    chats.store.purge(older_than=timedelta(days=5))
    assert said(chats) == ["One."]
    assert chat.send("c", "One?", idempotency_key="k").replayed


class TestErrors:
    def test_what_became_of_a_repeated_request(self, chats: Chats, server: ModelServer) -> None:
        chat = chats.open()
        server.reply_with([Failure(500), Answer("Two.")])
        with pytest.raises(Exception):  # noqa: B017 - the client's
            chat.send("c", "One?", idempotency_key="k1")
        chat.send("c", "Two?", idempotency_key="k2")
        with pytest.raises(errors.PositionConflict, match="'k1' has no reply, and something else stands"):
            chat.send("c", "One?", idempotency_key="k1")
        chats.store.truncate("c", after=2)
        with pytest.raises(errors.PositionConflict, match="'k2' has lost its reply"):
            chat.send("c", "Two?", idempotency_key="k2")
        chats.store.truncate("c", after=0)
        with pytest.raises(errors.PositionConflict, match="'k1' has lost its message"):
            chat.send("c", "One?", idempotency_key="k1")

    def test_a_key_with_and_without_a_message(self, chats: Chats, server: ModelServer) -> None:
        chat = chats.open()
        server.reply_with([Answer("One."), Answer("Two.")])
        chat.send("c", "One?", idempotency_key="k1")
        with pytest.raises(errors.IdempotencyConflict, match="stored other messages at positions 1 to 1"):
            chat.send("c", idempotency_key="k1")
        chat.send("c", idempotency_key="k2")
        with pytest.raises(errors.IdempotencyConflict, match="'k2' has been used without a message"):
            chat.send("c", "Two?", idempotency_key="k2")

    def test_a_conversation_that_is_not_there(self, chats: Chats) -> None:
        chat = chats.open()
        with pytest.raises(errors.InvalidArgument, match="no open tool call 'x'"):
            chat.send_tool_results("none", {"x": "y"})
        with pytest.raises(errors.ConversationNotFound):
            chat.for_owner("bob").send("none", "Hi", expected_position=2)


class Wrong(ModelAPI):
    """An API that reads a reply as a string."""

    def read(self, response: Any) -> Any:
        return str(response)


def test_an_api_that_reads_no_answer_ends_its_call(chats: Chats) -> None:
    with pytest.raises(errors.ModelError, match="Wrong read a reply as a str; "):
        model_of(chats, lambda **_: "x", api=Wrong()).send("c", "Hi")
    (call,) = chats.store.calls("c")
    assert (call.status, call.running) == ("error", False)


def test_a_list_of_messages_is_no_message(chats: Chats) -> None:
    with pytest.raises(errors.InvalidMessage, match="a list of messages; pass one"):
        chats.open().send("c", [{"role": "user", "content": "Hi"}])
    with pytest.raises(errors.ConversationNotFound):
        chats.store.conversation("c")


def test_a_stream_refuses_an_option_before_anybody_iterates(chats: Chats) -> None:
    chat = chats.open()
    for stream in (chat._chat.stream if hasattr(chat, "_chat") else chat.stream,):
        with pytest.raises(errors.InvalidArgument, match="idempotency_kye"):
            stream("c", "Hi", idempotency_kye="k")


def test_a_function_that_raises_stop_iteration_hangs_nobody(chats: Chats) -> None:
    def model(_: list[Any]) -> str:
        return next(iter([]))  # type: ignore[no-any-return]

    with pytest.raises((RuntimeError, StopIteration)):
        model_of(chats, model).send("c", "Hi")
    (call,) = chats.store.calls("c")
    assert call.status == "error"


def test_who_leaves_while_the_database_is_away_loses_no_reply(stores: Stores) -> None:
    """The first try to store the reply fails; then the task is cancelled, or Ctrl-C comes."""
    from tokenmem import AsyncChat, AsyncStore
    from tokenmem.chat.turn import Turns

    failures = [errors.DatabaseUnavailable("away")]
    store_end = Turns._store_end

    def failing(self: Any, *arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return (yield from store_end(self, *arguments))

    async def cancelled() -> None:
        async def model(_: list[Any]) -> str:
            return "answer"

        async with AsyncStore(stores.url) as store:
            task = asyncio.create_task(AsyncChat(store, model, "m", 1000).send("c", "Hi"))
            while failures:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Turns, "_store_end", failing)
        asyncio.run(cancelled())
    with Store(stores.url) as store:
        assert [message.content for message in store.messages("c")] == ["Hi", "answer"]
        assert [call.status for call in store.calls("c")] == ["ok"]
