"""A turn with a model, on every engine, sync and async, through the real client against a scripted server."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import openai
import pytest

from tests.support.chats import Chats
from tests.support.stores import Direct, Stores
from tokenmem import Message, Store, errors
from tokenmem.counting.model_rules import prompt_tokens
from tokenmem.testing import Answer, Cut, Failure, ModelServer, Request, Stall, StreamError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"The {name} of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("weather", "time")
]
TWO_CALLS = Answer(tool_calls=[("weather", {"city": "Turin"}, "w1"), ("time", {"city": "Oslo"}, "t1")])


def roles(store: Store, conversation_id: str = "c") -> list[str]:
    return [message.role for message in store.messages(conversation_id)]


def sent(request: Request) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request.body.get("messages") or request.body["input"]
    return found


def test_a_turn(chats: Chats, server: ModelServer, api: str) -> None:
    usage = {"prompt_tokens": 14, "completion_tokens": 6, "input_tokens": 14, "output_tokens": 6}
    server.reply_with([Answer("At 21:58.", usage=usage)])
    reply = chats.open(api=api, instructions="You book trains.").send("c", "When does it leave?")
    assert reply.text == "At 21:58."
    assert (reply.message.role, reply.message.content, reply.message.position) == (
        "assistant",
        "At 21:58.",
        2,
    )
    assert not reply.replayed
    assert reply.tool_calls == ()
    stored = chats.store.messages("c")
    assert [message.content for message in stored] == ["When does it leave?", "At 21:58."]
    assert stored[1].token_count == reply.message.token_count > 0
    assert reply.window.to_openai() == [{"role": "user", "content": "When does it leave?"}]
    (call,) = chats.store.calls("c")
    assert call == reply.call
    assert (call.number, call.model, call.status, call.error) == (1, "gpt-4o", "ok", None)
    assert (call.first_position, call.last_position, call.reply_position, call.reply_messages) == (1, 1, 2, 1)
    assert (call.window_tokens, call.input_tokens, call.output_tokens) == (20, 14, 6)
    assert call.latency_ms is not None
    assert str(call.request_id).startswith("req_")
    (asked,) = server.requests
    assert len(asked.body["prompt_cache_key"]) == 32
    if api == "chat":
        assert asked.body["messages"][0] == {"role": "system", "content": "You book trains."}
        assert call.finish_reason == "stop"
    else:
        assert asked.body["instructions"] == "You book trains."
        assert asked.body["store"] is False
    assert chats.store.verify() == []


def test_a_turn_is_a_read_and_two_writes(
    chats: Chats, stores: Stores, monkeypatch: pytest.MonkeyPatch, server: ModelServer
) -> None:
    """One read and one statement before the model is asked, one behind it; nothing is counted in them."""
    server.reply_with(Answer("Hello"))
    chat = chats.open()
    chat.send("c", "once, so that everything is warm")
    runner: Any = chats.store.store._runner if stores.is_async else chats.store._runner
    inner = getattr(runner, "runner", runner)
    effects: list[str] = []
    run = inner.run

    def note(effect: Any) -> Any:
        effects.append(type(effect).__name__)
        return run(effect)

    monkeypatch.setattr(inner, "run", note)
    chat.send("c", "Hi")
    assert [name for name in effects if name != "Compute"] == ["Read", "Write", "Write"]


def test_a_stream_ends_with_the_reply(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Answer("one two three four", reasoning="hm", extra={"x_mood": "calm"})])
    *pieces, reply = chats.open("o3-mini", api=api).stream("c", "Count.")
    assert "".join(pieces) == reply.text == "one two three four"
    assert len(pieces) > 1
    assert reply.call.first_token_ms is not None
    kinds = [message.kind for message in reply.messages]
    assert kinds == (["message"] if api == "chat" else ["reasoning", "message"])
    assert reply.message.content == reply.text
    assert reply.call.reply_messages == len(kinds)
    assert [message.to_openai() for message in chats.store.messages("c")[1:]] == [
        message.to_openai() for message in reply.messages
    ]


def test_a_message_keeps_what_only_this_provider_says(chats: Chats, server: ModelServer) -> None:
    server.reply_with([Answer("Hi", extra={"x_mood": "calm", "annotations": []})])
    reply = chats.open().send("c", "Hello")
    assert reply.message.to_openai()["x_mood"] == "calm"


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (
            Failure(429, "rate_limit_exceeded"),
            openai.RateLimitError,
            "RateLimitError 429 rate_limit_exceeded",
        ),
        (Failure(500), openai.InternalServerError, "InternalServerError 500"),
        (Cut(), openai.APIConnectionError, "APIConnectionError"),
    ],
)
def test_a_failed_call_is_on_record(
    chats: Chats, server: ModelServer, answer: Any, error: type[Exception], told: str
) -> None:
    server.reply_with([answer, Answer("now")])
    chat = chats.open()
    with pytest.raises(error):
        chat.send("c", "Secret words")
    assert roles(chats.store) == ["user"]
    (call,) = chats.store.calls("c")
    assert (call.status, call.reply_position) == ("error", None)
    assert call.error == told
    assert chat.send("c").text == "now"  # with what is there
    assert roles(chats.store) == ["user", "assistant"]
    assert [call.status for call in chats.store.calls("c")] == ["error", "ok"]


@pytest.mark.parametrize("broken", [Cut, StreamError])
def test_the_part_of_a_broken_stream_is_kept_and_marked(
    chats: Chats, server: ModelServer, api: str, broken: Any
) -> None:
    answer = Answer("one two three four five six seven", chunks=7)
    server.reply_with([broken(after=8, answer=answer), Answer("all")])
    chat = chats.open(api=api)
    delivered: list[Any] = []
    with pytest.raises(Exception) as raised:  # the client of 2.x lets its transport's error through
        delivered.extend(chat.stream("c", "Count."))
    assert not isinstance(raised.value, (errors.DatabaseError, errors.InvalidArgument))
    part = chats.store.messages("c")[1]
    assert part.partial
    assert part.content == "".join(delivered) != ""
    (call,) = chats.store.calls("c")
    assert (call.status, call.reply_position) == ("error", 2)
    assert chat.send("c").text == "all"
    assert [message["content"] for message in sent(server.requests[1])] == ["Count."]


def test_who_leaves_a_stream_cancels_the_call(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Stall(after=8, answer=Answer("one two three four", chunks=9)), Answer("fine")])
    chat = chats.open(api=api)
    stream = chat.stream("c", "Count.")
    first = next(stream)
    stream.close()
    (call,) = chats.store.calls("c")
    assert (call.status, call.error) == ("cancelled", "StreamLeft")
    part = chats.store.messages("c")[1]
    assert part.partial
    assert str(part.content).startswith(first)
    assert chat.send("c", "Go on.").text == "fine"


def test_nothing_is_stored_where_the_message_does_not_fit(chats: Chats, server: ModelServer) -> None:
    chat = chats.open(token_limit=60, instructions="Be brief.", reserve=20)
    with pytest.raises(errors.WindowTooSmall, match="token_limit=60"):
        chat.send("c", "word " * 100)
    with pytest.raises(errors.InvalidMessage):
        chat.send("c", "a\0b")
    with pytest.raises(errors.InvalidArgument, match="'messages' is no option"):
        chat.send("c", "Hi", messages=[])
    assert chats.store.conversations() == []
    assert server.requests == []


def test_a_repeated_request_returns_the_stored_reply(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Failure(500), Answer("Booked.", reasoning="hm"), Answer("Again?")])
    chat = chats.open("o3-mini", api=api)
    with pytest.raises(openai.InternalServerError):
        chat.send("c", "Book a bed.", idempotency_key="k")
    first = chat.send("c", "Book a bed.", idempotency_key="k")
    for again in (
        chat.send("c", "Book a bed.", idempotency_key="k"),
        list(chat.stream("c", "Book a bed.", idempotency_key="k"))[-1],
    ):
        assert again.replayed
        assert (again.text, again.call) == ("Booked.", first.call)
        assert [message.position for message in again.messages] == [each.position for each in first.messages]
        assert again.window.to_openai() == first.window.to_openai()
    assert next(chat.stream("c", "Book a bed.", idempotency_key="k")) == "Booked."
    with pytest.raises(errors.IdempotencyConflict):
        chat.send("c", "Book a table.", idempotency_key="k")
    assert len(server.requests) == 2
    assert roles(chats.store)[:1] == ["user"]
    assert [call.status for call in chats.store.calls("c")] == ["error", "ok"]


def test_tools(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([TWO_CALLS, Answer("Sunny, and noon.")])
    chat = chats.open(api=api, tools=TOOLS)
    reply = chat.send("c", "How is it?")
    assert [(call.id, call.name) for call in reply.tool_calls] == [("w1", "weather"), ("t1", "time")]
    for wrong, named in (
        ({"w1": "sunny"}, "no result for the tool call 't1'"),
        ({"w1": "sunny", "t1": "noon", "x": "?"}, "no open tool call 'x'"),
    ):
        with pytest.raises(errors.InvalidArgument, match=named):
            chat.send_tool_results("c", wrong)
    before = len(roles(chats.store))
    final = chat.send_tool_results("c", {"t1": {"hour": 12}, "w1": "sunny"})
    assert final.text == "Sunny, and noon."
    assert len(roles(chats.store)) == before + 3
    assert chats.store.verify() == []


def test_abandoned_calls_do_not_block_a_conversation(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([TWO_CALLS, Answer("Never mind."), Answer("Ah."), Answer("Yes.")])
    chat = chats.open(api=api, tools=TOOLS)
    chat.send("c", "How is it?")
    assert chat.send("c", "Forget it.").text == "Never mind."
    assert chat.send_tool_results("c", {"w1": "sunny", "t1": "noon"}).text == "Ah."  # late, but true
    chat.send("c", "So?")
    told = [message.get("content") or message.get("output") for message in sent(server.requests[-1])]
    assert "sunny" in told[:5]
    assert not any("no result" in str(text) for text in told)


def test_run(chats: Chats, server: ModelServer, api: str) -> None:
    bad = Answer(tool_calls=[("weather", "{broken", "a"), ("fly", {}, "b"), ("time", {"city": "x"}, "d")])
    server.reply_with([TWO_CALLS, bad, Answer("Done.")])

    def time(city: str) -> str:
        if city == "x":
            raise ValueError("no such city")
        return "noon"

    chat = chats.open(api=api, tools=TOOLS)
    functions = {"weather": lambda city: {"city": city}, "time": time}
    assert chat.run("c", "How is it?", functions=functions).text == "Done."
    told = [message.content for message in chats.store.messages("c") if message.kind == "tool_result"]
    assert told == [
        '{"city": "Turin"}',
        "noon",
        "error: the arguments are not a JSON object",
        "error: there is no function 'fly'; use one of weather, time",
        "error: ValueError: no such city",
    ]


def test_run_has_a_bound_and_may_raise(chats: Chats, server: ModelServer) -> None:
    server.reply_with(lambda _: Answer(tool_calls=[("weather", {})]))
    chat = chats.open(tools=TOOLS)
    with pytest.raises(errors.TooManyModelCalls, match="after 3 calls"):
        chat.run("c", "How is it?", functions={"weather": lambda: "sunny"}, max_calls=3)
    assert len(server.requests) == 3

    def broken() -> None:
        raise LookupError("no weather")

    with pytest.raises(LookupError, match="no weather"):
        chat.run("d", "How is it?", functions={"weather": broken}, on_error="raise")
    assert chats.store.verify() == []


def test_a_repeated_run_calls_no_function_again(chats: Chats, server: ModelServer) -> None:
    server.reply_with([TWO_CALLS, Failure(500), Answer("Done.")])
    called: list[str] = []
    functions = {"weather": lambda city: called.append(city), "time": lambda city: called.append(city)}
    chat = chats.open(tools=TOOLS)
    with pytest.raises(openai.InternalServerError):
        chat.run("c", "How is it?", functions=functions, idempotency_key="k")
    for _ in range(2):
        assert chat.run("c", "How is it?", functions=functions, idempotency_key="k").text == "Done."
    assert sorted(called) == ["Oslo", "Turin"]
    assert roles(chats.store) == ["user", "assistant", "tool", "tool", "assistant"]


def test_oversized_tool_results(chats: Chats, server: ModelServer) -> None:
    server.reply_with([TWO_CALLS, Answer("Long.")])
    results = {"w1": "very sunny " * 2000, "t1": "noon"}
    refusing = chats.open(token_limit=500, tools=TOOLS)
    refusing.send("c", "How is it?")
    with pytest.raises(errors.WindowTooSmall):
        refusing.send_tool_results("c", results)
    assert roles(chats.store) == ["user", "assistant"]
    cutting = chats.open(token_limit=500, tools=TOOLS, oversized_results="cut")
    reply = cutting.send_tool_results("c", results)
    assert 400 < reply.call.window_tokens <= 500
    stored = {message.content for message in chats.store.messages("c") if message.kind == "tool_result"}
    (cut,) = stored - {"noon"}
    assert cut.startswith("very sunny")
    assert cut.endswith(" of 22,000 characters left out]")


def test_prompts_share_their_beginning(chats: Chats, server: ModelServer) -> None:
    server.reply_with(Answer("word " * 40))
    chat = chats.open(token_limit=1000, instructions="Be long.", tools=TOOLS)
    for number in range(40):
        chat.send("c", f"{number} " + "word " * 20)
    bodies = [request.body for request in server.requests]
    assert len({body["prompt_cache_key"] for body in bodies}) == 1
    assert len({str(body["tools"]) for body in bodies}) == 1
    kept = sum(
        body["messages"][: len(before["messages"])] == before["messages"] for before, body in pairwise(bodies)
    )
    assert kept >= 20
    assert all(call.window_tokens <= 1000 for call in chats.store.calls("c"))


def test_a_server_that_refuses_a_parameter_is_asked_without(chats: Chats, server: ModelServer) -> None:
    def picky(request: Request) -> Any:
        if "prompt_cache_key" in request.body:
            return Failure(422, message="Extra inputs are not permitted: body.prompt_cache_key")
        return Answer("Hi")

    server.reply_with(picky)
    chat = chats.open()
    for _ in range(2):
        assert chat.send("c", "Hello").text == "Hi"
    assert ["prompt_cache_key" in request.body for request in server.requests] == [True, False, False]
    assert [call.status for call in chats.store.calls("c")] == ["ok", "ok"]


def test_what_the_model_was_told_is_kept_once(chats: Chats, server: ModelServer, sql: Direct) -> None:
    server.reply_with(Answer("Hi"))
    chat = chats.open(instructions="Be kind.", tools=TOOLS)
    chat.send("c", "Hello")
    chat.send("c", "Hello")
    chats.open(instructions="Be brief.").send("c", "Hello")
    told = sql.rows("SELECT instructions FROM {call_prompts} ORDER BY 1")
    assert told == [("Be brief.",), ("Be kind.",)]
    assert sql.value("SELECT count(DISTINCT prompt_digest) FROM {llm_calls}") == 2


def test_owners(chats: Chats, server: ModelServer) -> None:
    server.reply_with(Answer("Hi"))
    chat = chats.open()
    chat.for_owner("ann").send("c", "Hello")
    assert chats.store.conversation("c").owner == "ann"
    with pytest.raises(errors.ConversationNotFound):
        chat.for_owner("bob").send("c", "Hello")
    assert len(server.requests) == 1
    assert roles(chats.store) == ["user", "assistant"]


def test_a_conversation_that_is_deleted_meanwhile_stays_deleted(chats: Chats, stores: Stores) -> None:
    def model(_: list[Any]) -> str:
        with Store(stores.url) as other:
            other.delete("c")
        return "Too late."

    with pytest.raises(errors.ConversationNotFound):
        chats.on(model, "m", 1000).send("c", "Hello")
    assert chats.store.conversations() == []


def test_pinned_messages_and_the_limit(chats: Chats, server: ModelServer) -> None:
    server.reply_with(Answer("word " * 30))
    chats.store.append("c", [Message.system("Answer in verse.", pinned=True)])
    chat = chats.open(token_limit=300, stride=None)
    for _ in range(12):
        chat.send("c", "word " * 20)
    last = server.requests[-1].body["messages"]
    assert last[0] == {"role": "system", "content": "Answer in verse."}
    assert len(last) < 12


def test_a_new_conversation_is_counted_as_the_model_counts(chats: Chats, server: ModelServer) -> None:
    server.reply_with(Answer("Hi"))
    chats.open("gpt-4").send("old", "Hello")
    chats.open("gpt-4o").send("new", "Hello")
    assert chats.store.conversation("old").token_counter == "cl100k_base"
    assert chats.store.conversation("new").token_counter == "o200k_base"


def test_another_provider_is_a_function(chats: Chats) -> None:
    asked: list[Any] = []

    def model(messages: list[Any], **options: Any) -> Any:
        asked.append((messages, options))
        return {"role": "assistant", "content": "Hello!", "x_cost": 3}

    chat = chats.on(model, "mine", 1000, temperature=0.5)
    *pieces, reply = chat.stream("c", "Hi")
    assert pieces == ["Hello!"]
    assert reply.message.to_openai() == {"role": "assistant", "content": "Hello!", "x_cost": 3}
    assert asked == [([{"role": "user", "content": "Hi"}], {"temperature": 0.5})]
    assert (reply.call.model, reply.call.input_tokens) == ("mine", None)
    with pytest.raises(errors.ModelError, match="returned a int"):
        chats.on(lambda _: 7, "mine", 1000).send("c", "Hi")


@contextmanager
def refused(named: str) -> Iterator[None]:
    with pytest.raises(errors.InvalidArgument, match=named):
        yield


def test_arguments(chats: Chats, stores: Stores, server: ModelServer) -> None:
    other: Any = openai.OpenAI if stores.is_async else openai.AsyncOpenAI
    with refused("client is an"):
        chats.on(other(base_url=server.base_url, api_key="x"), "gpt-4o", 100)
    for options, named in (
        ({"token_limit": 10, "instructions": "word " * 20}, "nothing is left for messages"),
        ({"stride": 0}, "stride"),
        ({"start_on": "message"}, "start_on"),
        ({"api": "completions"}, "api"),
        ({"tools": [{"name": "x"}]}, r"tools\[0\]"),
        ({"oversized_results": "drop"}, "oversized_results"),
        ({"n": 2}, "'n' is no option"),
        ({"model": ""}, "model"),
    ):
        with refused(named):
            chats.open(**options)


def test_a_custom_tool_gets_its_text(chats: Chats, server: ModelServer) -> None:
    call = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "a", "name": "sql", "input": "SELECT 1"}
    server.reply_with([Answer(items=[call]), Answer("One.")])
    tool = {"type": "custom", "name": "sql", "description": "Runs SQL"}
    chat = chats.open(api="responses", tools=[tool])
    assert chat.run("c", "How many?", functions={"sql": lambda text: f"ran {text}"}).text == "One."
    assert sent(server.requests[1])[-1] == {
        "type": "custom_tool_call_output",
        "call_id": "a",
        "output": "ran SELECT 1",
    }


def test_images_that_cost_more_than_they_are_counted(chats: Chats, server: ModelServer) -> None:
    """gpt-5-mini bills a thousand times what a low-detail image is stored with: windows shrink, and go on."""
    server.reply_with(Answer("A picture."))
    chat = chats.open("gpt-5-mini", token_limit=20_000)
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
    for number in range(24):
        chat.send("c", [{"type": "text", "text": "look"}, image] if number % 2 else "a turn of text")
    calls = chats.store.calls("c")
    assert all(call.window_tokens <= 20_000 for call in calls)
    assert calls[-1].window_tokens > 10_000


def test_turns_with_tools_at_the_same_time(chats: Chats, server: ModelServer, api: str) -> None:
    first = Answer(tool_calls=[("weather", {"city": "Turin"}, "w1")])
    second = Answer(tool_calls=[("time", {"city": "Oslo"}, "t1")])
    server.reply_with([first, second, Answer("Sunny."), Answer("Noon.")])
    chat = chats.open(api=api, tools=TOOLS)
    chat.send("c", "How is it in Turin?")
    chat.send("c", "What time is it in Oslo?")
    assert chat.send_tool_results("c", {"w1": "sunny"}).text == "Sunny."
    assert chat.send_tool_results("c", {"t1": "noon"}).text == "Noon."


def test_the_limit_is_the_models_bill_whatever_counter_a_conversation_has(
    chats: Chats, server: ModelServer
) -> None:
    server.reply_with(Answer("Ja."))
    chats.store.append(
        "c", [{"role": "user", "content": "夜行列车什么时候开？" * 3}] * 60, counter="o200k_base"
    )
    reply = chats.open("gpt-4", token_limit=1000).send("c", "好的")
    assert 800 < reply.call.window_tokens <= 1000
    assert reply.call.window_tokens == prompt_tokens("gpt-4", server.requests[0].body["messages"])
    assert chats.store.conversation("c").token_counter == "o200k_base"


def test_cut_results_can_be_repeated(chats: Chats, server: ModelServer) -> None:
    server.reply_with([Answer(tool_calls=[("weather", {}, "w1")]), Failure(500), Answer("Sunny.")])
    chat = chats.open(token_limit=300, tools=TOOLS, oversized_results="cut")
    chat.send("c", "How is it?")
    results = {"w1": "very sunny " * 2000}
    with pytest.raises(openai.InternalServerError):
        chat.send_tool_results("c", results, idempotency_key="k")
    assert chat.send_tool_results("c", results, idempotency_key="k").text == "Sunny."
    assert chat.send_tool_results("c", results, idempotency_key="k").replayed
    assert roles(chats.store) == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-5-mini", "gpt-4"])
def test_our_count_is_that_of_what_was_sent(chats: Chats, server: ModelServer, model: str) -> None:
    """Whether the instructions are the chat's or a message of the conversation."""
    server.reply_with(Answer("Hi"))
    chats.store.append("stored", [Message.system("You book trains.")])
    chats.store.append("none", [Message.user("Hello")])
    for name, options in (("stored", {}), ("none", {}), ("told", {"instructions": "You book trains."})):
        reply = chats.open(model, tools=TOOLS, **options).send(name, "When does it leave?")
        body = server.requests[-1].body
        assert reply.call.window_tokens == prompt_tokens(model, body["messages"], body["tools"]), name
