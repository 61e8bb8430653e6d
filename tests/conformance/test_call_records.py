"""What is on record of a call: what it read, as it was then, how it was asked, and what was changed."""

import random
import threading
from typing import Any

import pytest

from tests.conformance.test_chat import TOOLS
from tests.support.chats import Chats
from tests.support.stores import Direct, Stores
from tokenmem import LLMCall, Message, Store, errors
from tokenmem.chat import ModelAPI
from tokenmem.chat.apis.replies import Answer as Read
from tokenmem.testing import Answer, Cut, Failure, ModelServer, Request

CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def newest(store: Store, conversation_id: str = "c") -> LLMCall:
    (call,) = store.calls(conversation_id, newest_first=True, limit=1)
    return call


def windows(stores: Stores, columns: str = "content") -> dict[int, list[Any]]:
    """What call_windows has of each call, in the order of the positions."""
    prefix = "tokenmem." if stores.dialect == "postgresql" else ""
    query = (
        f"SELECT number, {columns} FROM {prefix}call_windows WHERE conversation_id = 'c' ORDER BY 1, position"
    )
    found: dict[int, list[Any]] = {}
    for number, *rest in stores.sql.rows(query):
        found.setdefault(number, []).append(rest[0] if len(rest) == 1 else tuple(rest))
    return found


def revision(sql: Direct) -> int:
    return int(sql.value("SELECT revision FROM {conversations} WHERE id = 'c'"))


def texts_of(request: Request) -> list[str]:
    return [each["content"] for each in request.body["messages"]]


# --- what it read


def test_a_call_reads_the_revision_with_its_own_messages(chats: Chats, sql: Direct) -> None:
    read: list[int] = []

    def model(_: list[Any]) -> str:
        read.append(revision(sql))
        return "Hello"

    chat = chats.on(model, "m", 1000)
    first = chat.send("c", "one").call
    second = chat.send("c", "two", idempotency_key="k").call
    third = chat.send("c", None).call
    assert [first.revision, second.revision, third.revision] == read
    assert [call.revision for call in chats.store.calls("c")] == read


def test_call_windows_are_exact_whatever_was_edited_between_calls(
    chats: Chats, server: ModelServer, stores: Stores
) -> None:
    """Edits, pins and unpins between and after calls: each call is shown as the server got it."""
    dice = random.Random(7)
    chat = chats.open("gpt-4o", 400)
    chats.store.append("c", [Message.system("rule 0", pinned=True), Message.user("said 0")])
    for number in range(1, 13):
        server.reply_with([Answer(f"answer {number}")])
        chat.send("c", f"question {number} " + "word " * 20)
        for _ in range(dice.randrange(4)):
            position = dice.randint(1, chats.store.conversation("c").last_position)
            old = chats.store.messages("c", after=position - 1, limit=1)[0]
            new = Message(old.role, f"{old.role} edited {dice.random()}")
            chats.store.edit("c", position, new, pinned=dice.choice([None, None, True, False]))
    shown = windows(stores)
    assert len(server.requests) == len(shown) == 12
    assert len({len(texts) for texts in shown.values()}) > 2
    for number, request in enumerate(server.requests, 1):
        assert sorted(shown[number]) == sorted(texts_of(request)), number
    assert chats.store.verify() == []


def test_an_edit_while_a_call_runs_is_not_what_it_read(chats: Chats, stores: Stores) -> None:
    def model(_: list[Any]) -> str:
        with Store(stores.url) as store:
            store.edit("c", 1, Message.user("later"))
        return "Hello"

    chat = chats.on(model, "m", 1000)
    chat.send("c", "before")
    assert windows(stores) == {1: ["before"]}
    chats.on(lambda _: "Hello", "m", 1000).send("c", "again")
    assert windows(stores) == {1: ["before"], 2: ["later", "Hello", "again"]}


def test_an_edit_between_the_look_and_the_call_is_what_it_read(chats: Chats, stores: Stores) -> None:
    """The prompt is made anew where the conversation has changed; at last the call begins all the same."""
    chats.store.append("c", [Message.user("content 0")])
    sent: list[list[str]] = []
    edits = iter(range(1, 100))

    class Editing(ModelAPI):
        takes_plain = False

        def prepare(self, messages: Any, no_result: Any) -> list[Message]:  # noqa: ARG002
            def edit() -> None:
                with Store(stores.url) as store:
                    store.edit("c", 1, Message.user(f"content {next(edits)}"))

            thread = threading.Thread(target=edit)
            thread.start()
            thread.join()
            return list(messages)

        def read(self, response: Any) -> Read:
            return Read.of_message({"content": str(response)})

        def request(self, head: Any, sent: Any, stream: bool) -> Any:
            return {"messages": super().request(head, sent, stream)["messages"]}

    def model(messages: list[Any]) -> str:
        sent.append([each["content"] for each in messages])
        return "Hello"

    chat = chats.on(model, "m", 1000, api=Editing())
    chat.send("c", None)
    chat.send("c", "behind")
    assert windows(stores) == {1: sent[0], 2: sent[1]}
    assert sent[0][0] != sent[1][0]


def test_a_failed_call_is_on_record_like_others(chats: Chats, server: ModelServer, stores: Stores) -> None:
    server.reply_with([Failure(500)])
    with pytest.raises(Exception, match="500"):
        chats.open().send("c", "one", call_metadata={"trace": "t"}, temperature=1)
    call = newest(chats.store)
    assert (call.status, call.metadata, call.options) == ("error", {"trace": "t"}, {"temperature": 1})
    assert call.revision is not None
    chats.store.edit("c", 1, Message.user("other"))
    assert windows(stores) == {1: ["one"]}


def test_pinned_messages_that_were_sent_from_outside_the_window(chats: Chats, server: ModelServer) -> None:
    chat = chats.open("gpt-4o", 120)
    chats.store.append("c", [Message.system("rule", pinned=True), Message.user("word " * 60)])
    server.reply_with([Answer("one"), Answer("two")])
    chat.send("c", "first " + "word " * 60)
    call = newest(chats.store)
    assert (call.pinned, call.first_position, call.last_position) == ((1,), 3, 3)
    chats.store.edit("c", 1, Message.system("rule"), pinned=False)
    chat.send("c", "second")
    assert newest(chats.store).pinned == ()


def test_a_replayed_reply_has_the_window_that_was_sent(chats: Chats, server: ModelServer) -> None:
    chat = chats.open("gpt-4o", 120)
    chats.store.append("c", [Message.system("rule", pinned=True), Message.user("word " * 60)])
    server.reply_with([Answer("one")])
    reply = chat.send("c", "first " + "word " * 60, idempotency_key="k")
    chats.store.edit("c", 1, Message.system("rule"), pinned=False)
    chats.store.edit("c", 2, Message.user("word " * 60), pinned=True)
    again = chat.send("c", "first " + "word " * 60, idempotency_key="k")
    assert again.replayed
    assert [each.position for each in again.window.messages] == [1, 3]
    assert [each.content for each in again.window.messages] == [
        each.content for each in reply.window.messages
    ]
    assert again.call == reply.call


# --- how it was asked


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_api_and_the_limit_are_on_record(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Answer("one")])
    call = chats.open("gpt-4o", 4321, api=api, instructions="Be kind.", reserve=100).send("c", "hi").call
    assert (call.api, call.token_limit, call.options, call.metadata) == (api, 4321, None, None)
    assert newest(chats.store) == call


def test_other_apis_have_a_name_too(chats: Chats) -> None:
    class Mine(ModelAPI):
        def read(self, response: Any) -> Read:
            return Read.of_message({"content": str(response)})

    assert chats.on(lambda _: "x", "m", 1000).send("c", "hi").call.api == "function"
    limit = 2**53
    call = chats.on(lambda **_: "x", "m", limit, api=Mine()).send("c", "hi").call
    assert (call.api, call.token_limit) == ("Mine", limit)


SECRET = "what people said"


def test_options_are_named_scalars_and_no_free_text(chats: Chats, server: ModelServer, sql: Direct) -> None:
    server.reply_with([*[Answer("x")] * 3])
    chat = chats.open(
        temperature=0.5,
        seed=7,
        service_tier="flex",
        user=SECRET,
        stop=SECRET,
        metadata={"a": SECRET},
        logprobs=True,
        top_p=None,
        tool_choice="auto",
        tools=TOOLS,
    )
    kept = {"temperature": 0.5, "seed": 7, "service_tier": "flex", "logprobs": True, "top_p": None}
    assert chat.send("c", "hi").call.options == kept | {"tool_choice": "auto"}
    choice = {"type": "function", "function": {"name": "weather"}}
    assert chat.send("c", "hi", tool_choice=choice, seed=8).call.options == kept | {"seed": 8}
    reasoning = {"effort": "low", "summary": SECRET}
    call = chats.open(api="responses").send("c", "hi", reasoning=reasoning, truncation="auto").call
    assert call.options == {"reasoning.effort": "low", "truncation": "auto"}
    for (found,) in sql.rows("SELECT options FROM {llm_calls}"):
        assert SECRET not in str(found)


METHODS = ("send", "stream", "run", "send_tool_results", "stream_tool_results")


@pytest.mark.parametrize("method", METHODS)
def test_every_turn_takes_metadata_of_its_calls(chats: Chats, server: ModelServer, method: str) -> None:
    given: dict[str, Any] = {"trace": "4bf9", "nested": [1, None, {"ä": True}]}
    chat = chats.open(tools=TOOLS)
    server.reply_with([Answer(tool_calls=[("weather", {}, "w1")])])
    chat.send("c", "hi")
    assert newest(chats.store).metadata is None
    server.reply_with([Answer(tool_calls=[("weather", {}, "w2")]), Answer("end")])
    arguments: dict[str, Any] = {"functions": {"weather": lambda: "fine"}} if method == "run" else {}
    what = {"w1": "fine"} if "results" in method else "ho"
    reply = getattr(chat, method)("c", what, call_metadata=given, **arguments)
    if "stream" in method:
        *_, reply = reply
    calls = chats.store.calls("c", after=1)
    assert [call.metadata for call in calls] == [given] * (2 if method == "run" else 1)
    assert reply.call == calls[-1]
    assert "call_metadata" not in str([request.body for request in server.requests])


@pytest.mark.parametrize("method", METHODS)
def test_metadata_that_is_none_is_refused_before_anything_is_stored(
    chats: Chats, server: ModelServer, sql: Direct, method: str
) -> None:
    bad: list[Any] = ["x", [1], {"a": float("nan")}, {"a": "\0"}, {1: 2}]
    arguments: dict[str, Any] = {"functions": {}} if method == "run" else {}
    for each in bad:
        with pytest.raises(errors.InvalidArgument, match="call_metadata"):
            getattr(chats.open(), method)(
                "c", {"w1": "x"} if "results" in method else "hi", call_metadata=each, **arguments
            )
    assert server.requests == []
    assert sql.counts()["conversations"] == 0


def test_metadata_for_calls_is_not_an_option_of_a_chat(chats: Chats) -> None:
    with pytest.raises(errors.InvalidArgument, match="pass call_metadata to the method that starts a turn"):
        chats.open(call_metadata={"a": 1})


WRITES: list[tuple[dict[str, Any], int | None]] = [
    ({"prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 40}}, 40),
    ({"cache_creation_input_tokens": 50}, 50),
    ({"prompt_tokens_details": {"cached_tokens": 3}}, None),
    ({"cache_creation_input_tokens": "many"}, None),
    ({"prompt_tokens_details": {"cache_write_tokens": 0}, "cache_creation_input_tokens": 50}, 0),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("usage", "found"), WRITES)
def test_what_was_written_to_the_cache(
    chats: Chats, server: ModelServer, usage: dict[str, Any], found: int | None, stream: bool
) -> None:
    server.reply_with([Answer("x", usage=usage)])
    reply = [*chats.open().stream("c", "hi")][-1] if stream else chats.open().send("c", "hi")
    assert reply.call.cache_write_tokens == found
    assert newest(chats.store).cache_write_tokens == found


# --- what was changed in what was sent


def changes(call: LLMCall) -> list[tuple[int, str]] | None:
    if call.changes is None:
        return None
    assert all(set(each) == {"position", "change"} for each in call.changes)
    return [(each["position"], each["change"]) for each in call.changes]


def test_nothing_is_on_record_where_nothing_was_changed(chats: Chats, server: ModelServer) -> None:
    server.reply_with([Answer(tool_calls=[("weather", {}, "w1")]), Answer("fine"), Answer("x")])
    chat = chats.open(tools=TOOLS)
    assert chat.send("c", "hi").call.changes is None
    assert chat.send_tool_results("c", {"w1": "rain"}).call.changes is None
    assert chat.send("c", "so").call.changes is None


def test_what_was_left_out_moved_and_answered(chats: Chats, server: ModelServer) -> None:
    calls = [Message.assistant(tool_calls=[{**CALL, "id": name}]) for name in ("a", "b")]
    chats.store.append(
        "c",
        [
            Message.user("one"),  # 1
            Message.assistant(""),  # 2 says nothing
            calls[0],  # 3
            Message.user("two"),  # 4
            Message.tool("late", tool_call_id="a"),  # 5
            Message.tool("whose?", tool_call_id="none"),  # 6
            calls[1],  # 7 is never answered
        ],
    )
    server.reply_with([Answer("x"), Answer("y")])
    chat = chats.open(tools=TOOLS)
    expected = [(2, "left_out"), (5, "moved"), (6, "left_out"), (7, "answered")]
    assert changes(chat.send("c", "three").call) == expected
    assert changes(chat.send("c", "four").call) == expected
    sent = server.requests[0].body["messages"]
    assert [each["role"] for each in sent] == [
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert changes(newest(chats.store)) == expected


def test_the_part_of_a_reply_that_is_asked_for_again(chats: Chats, server: ModelServer) -> None:
    server.reply_with([Cut(3, Answer("once upon a time")), Answer("whole")])
    chat = chats.open()
    with pytest.raises(Exception):  # noqa: B017 -- whatever the client raises
        list(chat.stream("c", "tell"))
    assert chats.store.messages("c")[1].partial
    assert changes(chat.send("c", None).call) == [(2, "left_out")]


def test_results_that_were_cut(chats: Chats, server: ModelServer) -> None:
    server.reply_with([Answer(tool_calls=[("weather", {}, "w1"), ("time", {}, "t1")]), Answer("fine")])
    chat = chats.open("gpt-4o", 700, tools=TOOLS, oversized_results="cut")
    chat.send("c", "hi")
    call = chat.send_tool_results("c", {"w1": "noon", "t1": "word " * 2000}).call
    assert changes(call) == [(4, "cut")]
    assert "cut:" in (chats.store.messages("c")[3].content or "")


def test_an_api_of_ones_own_may_change_messages(chats: Chats) -> None:
    class Loud(ModelAPI):
        takes_plain = False

        def prepare(self, messages: Any, no_result: Any) -> list[Message]:  # noqa: ARG002
            from dataclasses import replace

            return [Message.system("added"), *(replace(each, content="LOUD") for each in messages[1:])]

        def read(self, response: Any) -> Read:
            return Read.of_message({"content": str(response)})

    chats.store.append("c", [Message.user("a"), Message.user("b")])
    call = chats.on(lambda **_: "x", "m", 1000, api=Loud()).send("c", None).call
    assert changes(call) == [(1, "left_out"), (2, "changed")]


def test_verify_knows_that_calls_are_numbered_below_the_last(chats: Chats, sql: Direct) -> None:
    chats.on(lambda _: "x", "m", 1000).send("c", "hi")
    assert chats.store.verify() == []
    sql.run("UPDATE {conversations} SET last_call = 0")
    (problem,) = chats.store.verify()
    assert "last_call: 0 where 1" in problem.detail
