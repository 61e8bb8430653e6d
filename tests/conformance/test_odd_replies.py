"""Replies that keep to no API's letter, as servers send them: read whole, and sent again as an API has it."""

import json
import time
from collections.abc import Callable
from typing import Any

import pydantic
import pytest

from tests.support.answers import Dicts, Server, asking, call, chunk, item, said
from tests.support.chats import Chats
from tests.support.stores import Stores
from tokenmem import errors
from tokenmem.chat.apis.completion_reader import CompletionReader
from tokenmem.chat.apis.usage import usage_of
from tokenmem.testing import problems_in


@pytest.fixture
def ask(chats: Chats, stores: Stores) -> Callable[..., Any]:
    return asking(chats, stores)


def choice(**keys: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **keys}]}


# ---- texts -----------------------------------------------------------------------------------------------

ROLE = choice(delta={"role": "assistant", "content": ""})
HELLO = {"role": "assistant", "content": "Hello"}
TEXTS: dict[str, Any] = {
    "text in pieces": [choice(text="Hel"), choice(text="lo"), choice(text="", finish_reason="stop")],
    "messages in pieces": [
        choice(message={"content": "Hel"}),
        choice(message={"content": "lo"}, finish_reason="stop"),
    ],
    "a role, then the message": [ROLE, choice(message=HELLO, finish_reason="stop")],
    "an empty delta beside it": [ROLE, choice(delta={}, message=HELLO, finish_reason="stop")],
    "a role, then a text": [ROLE, choice(text="Hello", finish_reason="stop")],
    "the whole once more": [choice(delta={"content": "Hello"}), choice(message=HELLO, finish_reason="stop")],
    "a null message": choice(message={"content": None}, text="Hello", finish_reason="stop"),
    "a null as a word": [
        choice(delta={"content": "Hel"}, finish_reason="null"),
        choice(delta={"content": "lo"}, finish_reason="null"),
        choice(delta={}, finish_reason="stop"),
    ],
    "empty errors": {**said(content="Hello"), "error": {"message": "", "code": None}},
    "an error that is null": {**said(content="Hello"), "error": "null"},
    "output_text": {"choices": [], "output_text": "Hello"},
    "a message": {"choices": [], "message": HELLO},
    "ollama": {"message": HELLO, "done": True},
    "a bare message": dict(HELLO),
    "a choice that is a text": {"choices": ["Hello"]},
    "choices by number": {"choices": {"0": {"message": HELLO}}},
    "a bare choice": {"choices": [{"content": "Hello"}]},
    "a list": choice(message=[HELLO]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_text_is_found(ask: Any, name: str) -> None:
    assert ask(TEXTS[name]).text == "Hello"


def test_a_null_is_no_end(chats: Chats, stores: Stores) -> None:
    half = [choice(delta={"tool_calls": [call("a", '{"x')]}, finish_reason="null")]
    with pytest.raises(errors.ModelError):
        list(chats.on(Server(stores, half), "m", 8000).stream("c", "Hi"))


# ---- calls -----------------------------------------------------------------------------------------------

FLAT = {"id": "a", "name": "f"}
CALLS: dict[str, Dicts] = {
    "flat": [{**FLAT, "type": "function", "arguments": '{"x":1}'}],
    "langchain": [{**FLAT, "args": {"x": 1}, "type": "tool_call"}],
    "anthropic": [{**FLAT, "type": "tool_use", "input": {"x": 1}}],
    "a name": [{"id": "a", "type": "function", "function": "f", "arguments": '{"x":1}'}],
    "no type": [call("a", '{"x":1}', "f", type="")],
    "another type": [call("a", '{"x":1}', "f", type="tool")],
    "a custom one's type": [call("a", '{"x":1}', "f", type="custom")],
    "nothing behind": [call("a", '{"x":1}', "f"), {"index": 0, "function": None}],
    "an id behind": [call("a", '{"x":1}', "f"), {"id": "a", "type": "function"}],
    "empty behind": [call("a", '{"x":1}', "f"), {}],
}
PIECES: dict[str, Dicts] = {
    "flat": [{"index": 0, **FLAT, "arguments": '{"x"'}, {"index": 0, "arguments": ":1}"}],
    "no number": [call("a", each, "f") for each in ("", '{"x":', "1}", "")],
    "placeholder": [call("a", "{}", "f", index=0), {"index": 0, "function": {"arguments": '{"x":1}'}}],
    "placeholder, the call again": [call("a", each, "f", index=0) for each in ("{}", '{"x":1}')],
}


def only_call(reply: Any) -> None:
    (found,) = reply.tool_calls
    assert (found.name, json.loads(found.arguments), found.custom) == ("f", {"x": 1}, False)


@pytest.mark.parametrize("calls", [*CALLS.values(), *PIECES.values()], ids=[*CALLS, *PIECES])
def test_calls_in_pieces_are_one(ask: Any, calls: Dicts) -> None:
    only_call(ask([*(chunk(tool_calls=[each]) for each in calls), chunk("tool_calls")]))


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_calls_are_read_and_sent_as_the_api_has_them(
    ask: Any, chats: Chats, stores: Stores, calls: Dicts, api: Any
) -> None:
    answer = said("tool_calls", content=None, tool_calls=calls)
    only_call(ask(answer))
    only_call(ask([ROLE, {"choices": [{**answer["choices"][0], "delta": {}}]}]))
    server = Server(stores, answer)
    chats.on(server, "m", 8000).send("sent", "Hi")
    server.answer = said(content="Done.") if api == "chat" else {"output": [item("Done.")]}
    chats.on(server, "m", 8000, api=api).send_tool_results("sent", {"a": "1"})
    path = "/v1/chat/completions" if api == "chat" else "/v1/responses"
    assert problems_in(path, server.requests[-1]) == []


def test_calls_without_ids_of_other_names_are_two(ask: Any) -> None:
    pieces = [{"index": 0, "function": {"name": name, "arguments": ""}} for name in "fg"]
    reply = ask([*(chunk(tool_calls=[each]) for each in pieces), chunk("tool_calls")])
    assert [each.name for each in reply.tool_calls] == ["f", "g"]


@pytest.mark.parametrize("part", [{"text": "z"}, {"type": "image_url", "image_url": {"url": "data:x"}}])
def test_parts_are_sent_as_the_api_has_them(chats: Chats, stores: Stores, part: Any) -> None:
    server = Server(stores, said(content=[{"type": "text", "text": "a"}, part]))
    chat = chats.on(server, "m", 8000)
    chat.send("c", "Hi")
    chat.send("c", "And?")
    assert problems_in("/v1/chat/completions", server.requests[-1]) == []
    assert {each["type"] for each in server.requests[-1]["messages"][1]["content"]} == {"text"}


@pytest.mark.parametrize("arguments", ["null", " ", ""])
def test_a_function_without_parameters_is_called(chats: Chats, stores: Stores, arguments: str) -> None:
    server, called = Server(stores, said("tool_calls", tool_calls=[call("a", arguments, "f")])), []

    def f() -> str:
        called.append(1)
        server.answer = said(content="Done.")
        return "ok"

    assert chats.on(server, "m", 8000).run("c", "Hi", functions={"f": f}).text == "Done."
    assert called == [1]


def test_results_answer_their_own_calls(chats: Chats, stores: Stores) -> None:
    made = {"type": "function_call", "call_id": "c", "name": "f"}
    items = [{**made, "arguments": json.dumps({"a": number})} for number in (1, 2)]
    server = Server(stores, {"output": items, "status": "completed"})

    def f(a: int) -> str:
        if a == 2:
            server.answer = {"output": [item("Done.")]}
        return f"got {a}"

    chats.on(server, "m", 8000, api="responses").run("c", "Hi", functions={"f": f})
    given = server.requests[-1]["input"]
    asked = {each["call_id"]: json.loads(each["arguments"])["a"] for each in given if "arguments" in each}
    told = {each["call_id"]: each["output"] for each in given if "output" in each}
    assert told == {call_id: f"got {a}" for call_id, a in asked.items()}
    assert len(told) == 2


def test_many_pieces_that_repeat_name_and_id_take_time_in_their_number() -> None:
    def seconds(count: int) -> float:
        reader, begun = CompletionReader(), time.process_time()
        for number in range(count):
            text = '{"x":"' if number == 0 else '"}' if number == count - 1 else "abcd}"
            reader.feed(chunk(tool_calls=[call("a", text, "f", index=0)]))
        assert reader.whole
        return time.process_time() - begun

    assert seconds(16_000) < 10 * seconds(4_000)


# ---- objects ---------------------------------------------------------------------------------------------


class Place(pydantic.BaseModel):
    """What a model is asked for."""

    city: str

    @pydantic.field_validator("city")
    @classmethod
    def known(cls, city: str) -> str:
        return {"Rome": "Roma"}[city]


@pytest.mark.parametrize("part", ['{"city":"Rome"}', {"text": '{"city":"Rome"}'}])
def test_an_object_in_odd_parts(chats: Chats, stores: Stores, part: Any) -> None:
    chat = chats.on(Server(stores, said(content=[part])), "m", 8000)
    assert chat.send("c", "Hi", response_format=Place).parsed == Place.model_construct(city="Roma")


def test_a_validator_that_fails(chats: Chats, stores: Stores) -> None:
    chat = chats.on(Server(stores, said(content='{"city":"secret"}')), "m", 8000)
    reply = chat.send("c", "Hi", response_format=Place)
    with pytest.raises(errors.ModelError, match="KeyError") as caught:
        _ = reply.parsed
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


# ---- errors and counts -----------------------------------------------------------------------------------

FAILED: dict[str, tuple[str, Dicts]] = {
    "bare": ("chat", [chunk(content="Hel"), {"message": "x", "code": 503}]),
    "groq": ("chat", [chunk(content="Hel"), {"x_groq": {"error": "boom"}, "choices": []}]),
    "cancelled": (
        "responses",
        [
            {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"},
            {"type": "response.cancelled", "response": {"status": "cancelled", "output": []}},
        ],
    ),
}


@pytest.mark.parametrize("name", FAILED)
def test_an_error_in_a_stream_is_no_end(chats: Chats, stores: Stores, name: str) -> None:
    api, events = FAILED[name]
    pieces: list[Any] = []
    stream = chats.on(Server(stores, events), "m", 8000, api=api).stream("c", "Hi")
    with pytest.raises(errors.ModelError):
        pieces.extend(stream)
    assert pieces == ["Hel"]


def test_the_last_word_error_is_known_in_capitals(chats: Chats, stores: Stores) -> None:
    chunks = [chunk(content="Hel"), chunk("ERROR")]
    *pieces, reply = chats.on(Server(stores, chunks), "m", 8000).stream("c", "Hi")
    assert (pieces, reply.call.status, reply.call.finish_reason) == (["Hel"], "error", "error")


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            (10, 25),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 25,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            (10, 25),
        ),
        ({"input_tokens": 10, "cache_read_input_tokens": 1000, "output_tokens": 1}, (1010, 1)),
        ({"prompt_tokens": "10", "completion_tokens": "2"}, (10, 2)),
    ],
)
def test_what_is_billed(usage: Any, counts: tuple[int, int]) -> None:
    found = usage_of(usage)
    assert (found["input_tokens"], found["output_tokens"]) == counts


def test_what_an_answer_without_a_message_costs_is_recorded(chats: Chats, stores: Stores) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    body = {**choice(message=None, finish_reason="length"), "usage": usage}
    with pytest.raises(errors.ModelError):
        chats.on(Server(stores, body), "m", 8000).send("c", "Hi")
    (recorded,) = chats.store.calls("c")
    assert (recorded.input_tokens, recorded.output_tokens) == (10, 5)


# ---- streams of the Responses API ------------------------------------------------------------------------


def event(kind: str, **keys: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **keys}


def delta(text: str, **keys: Any) -> dict[str, Any]:
    return event("output_text.delta", delta=text, **{"output_index": 0, "content_index": 0, **keys})


def completed(*items: Any) -> dict[str, Any]:
    return event("completed", response={"status": "completed", "output": list(items)})


THOUGHT = {"type": "reasoning", "id": "r", "summary": []}
EVENTS: dict[str, tuple[Dicts, str]] = {
    "reasoning alone": ([delta("Hello"), completed(THOUGHT)], "Hello"),
    "no content": ([delta("Hello"), completed({**item(""), "content": []})], "Hello"),
    "null content": ([delta("Hello"), completed({**item(""), "content": None})], "Hello"),
    "another text": (
        [delta("Hello "), event("output_text.done", text="Hello", output_index=0), completed(item("Hello"))],
        "Hello ",
    ),
    "another item": (
        [delta("Hello "), event("output_item.done", item=item("Hello"), output_index=0), completed()],
        "Hello ",
    ),
    "text when it began": (
        [event("output_item.added", item=item("Hello"), output_index=0), completed()],
        "Hello",
    ),
    "twice": (
        [event("output_item.added", item=item("Hello"), output_index=0), delta("Hello"), completed()],
        "Hello",
    ),
    "a part": (
        [
            event(
                "content_part.done",
                output_index=0,
                content_index=0,
                part={"type": "output_text", "text": "Hello"},
            ),
            completed(),
        ],
        "Hello",
    ),
}


@pytest.mark.parametrize("kind", ["added", "done"])
def test_thoughts_are_not_said(ask: Any, kind: str) -> None:
    part = {"type": "reasoning_text", "text": "hm"}
    at = {"output_index": 0, "item_id": "r"}
    events = [
        event("output_item.added", item={**THOUGHT, "content": [part]}, **at),
        event(f"content_part.{kind}", content_index=0, part=part, **at),
        delta("Hello", output_index=1),
        completed(),
    ]
    assert ask(events, "responses").text == ask(events[1:], "responses").text == "Hello"


@pytest.mark.parametrize("kind", ["added", "done"])
def test_a_refusal_in_a_part_alone_is_kept(ask: Any, kind: str) -> None:
    part = {"type": "refusal", "refusal": "no"}
    events = [event(f"content_part.{kind}", output_index=0, content_index=0, part=part), completed()]
    grown = event("refusal.delta", output_index=0, content_index=0, delta="no")
    for each in (events, [events[0], grown, events[1]]):
        assert ask(each, "responses").message.to_openai()["content"] == [part]


@pytest.mark.parametrize("name", EVENTS)
def test_what_was_delivered_is_stored(ask: Any, name: str) -> None:
    events, text = EVENTS[name]
    reply = ask(events, "responses")
    assert reply.text == reply.message.content == text


@pytest.mark.parametrize("deltas", [[], ['{"x":1}'], ['{"x"', ":1}"]])
def test_arguments_when_the_call_began(ask: Any, deltas: list[str]) -> None:
    made = {"type": "function_call", "id": "fc", "call_id": "a", "name": "f", "arguments": '{"x":1}'}
    pieces = [
        event("function_call_arguments.delta", item_id="fc", output_index=0, delta=each) for each in deltas
    ]
    only_call(ask([event("output_item.added", item=made, output_index=0), *pieces, completed()], "responses"))


@pytest.mark.parametrize("place", [None, 0])
def test_items_are_told_apart_by_their_ids(ask: Any, place: Any) -> None:
    at = {} if place is None else {"output_index": place}
    made = [
        {"type": "function_call", "id": f"fc{name}", "call_id": name, "name": name, "arguments": ""}
        for name in "fg"
    ]
    message = {**item(""), "id": "m", "content": []}
    grown = [("fcf", '{"x"'), ("fcg", '{"y"'), ("fcf", ":1}"), ("fcg", ":2}")]
    events = [
        *(event("output_item.added", item=each, **at) for each in (message, *made)),
        *(event("function_call_arguments.delta", item_id=name, delta=text, **at) for name, text in grown),
        event("output_text.delta", item_id="m", delta="Hello", **at),
        completed(),
    ]
    reply = ask(events, "responses")
    assert reply.text == "Hello"
    assert [(each.id, each.arguments) for each in reply.tool_calls] == [("f", '{"x":1}'), ("g", '{"y":2}')]
