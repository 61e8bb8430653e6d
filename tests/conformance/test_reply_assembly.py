"""How replies are put together of what servers send: on both engines, sync and async, whole and streamed."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import openai
import pytest

from tests.support.answers import Dicts, Server, asking, call, chunk, item, said
from tests.support.chats import Chats
from tests.support.stores import Stores
from tokenmem import errors


@pytest.fixture
def ask(chats: Chats, stores: Stores) -> Callable[..., Any]:
    return asking(chats, stores)


# ---- several choices, repeated calls, names in pieces ----------------------------------------------------


def test_the_choices_are_one_reply(ask: Any) -> None:
    whole = said("tool_calls", content="I'm on it.")
    whole["choices"].append({"finish_reason": "tool_calls", "message": {"tool_calls": [call("t1", "{}")]}})
    whole["choices"].append({"finish_reason": "tool_calls", "message": {"tool_calls": [call("t2", "{}")]}})
    parts = [
        chunk(content="I'm "),
        {"choices": [{"index": 1, "delta": {"tool_calls": [call("t1", "", index=0)]}}]},
        {"choices": [{"index": 2, "delta": {"tool_calls": [call("t2", "{}", index=0)]}}]},
        {"choices": [{"index": 1, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]},
        chunk(content="on it."),
        chunk("stop"),
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "tool_calls"}]},
    ]
    for answer in (whole, parts):
        reply = ask(answer)
        assert (reply.text, reply.call.finish_reason) == ("I'm on it.", "tool_calls")
        assert [each.id for each in reply.tool_calls] == ["t1", "t2"]
    backwards = [whole["choices"][1], {**whole["choices"][0], "finish_reason": "length"}]
    reply = ask({"choices": backwards})
    assert (reply.text, len(reply.tool_calls), reply.call.finish_reason) == ("I'm on it.", 1, "length")


AGAIN = [
    pytest.param([call("a", "", index=0), {"index": 0, "function": {"arguments": '{"bed":1}'}}], id="pieces"),
    pytest.param([call("a", '{"bed":1}', index=0)], id="whole"),
    pytest.param([call("a", '{"bed":1}', index=1)], id="other number"),
    pytest.param([call("a", ' {"bed": 1} ')], id="no number"),
    pytest.param([{"index": 0, "function": {"name": "book", "arguments": '{"bed":1}'}}], id="no id"),
    pytest.param([{"index": 0, "function": {"arguments": '{"bed":1}'}}], id="arguments"),
    pytest.param([call("a", "", index=0)], id="name"),
]


@pytest.mark.parametrize("again", AGAIN)
def test_a_call_that_is_sent_once_more_is_one(ask: Any, again: Dicts) -> None:
    first = [call("a", "", index=0), {"index": 0, "function": {"arguments": '{"bed":1}'}}]
    chunks = [chunk(tool_calls=[each]) for each in (*first, *again)]
    reply = ask([*chunks, chunk("tool_calls")])
    assert [(each.id, each.name, each.arguments) for each in reply.tool_calls] == [("a", "book", '{"bed":1}')]


def test_the_same_id_with_other_arguments_is_another_call(ask: Any) -> None:
    calls = [
        call("1", '{"bed":1}'),
        call("1", '{"bed":2}'),
        call("1", '{ "bed" : 1}'),
        call("2", '{"bed":1}'),
    ]
    streamed = [*(chunk(tool_calls=[{**each, "index": 0}]) for each in calls), chunk("tool_calls")]
    for answer in (said(content=None, tool_calls=calls), streamed):
        found = [json.loads(each.arguments)["bed"] for each in ask(answer).tool_calls]
        assert found == [1, 2, 1]


def test_a_repeated_call_of_the_responses_api_is_one(ask: Any) -> None:
    made = {"type": "function_call", "call_id": "a", "name": "book", "arguments": '{"bed":1}'}
    items = [made, {**made, "arguments": '{"bed": 1}'}, {**made, "arguments": '{"bed":2}'}]
    assert len(ask({"output": items}, "responses").messages) == 2


@pytest.mark.parametrize("names", [["get_", "weather"], ["get_weather"] * 3, ["get_", "get_weather"]])
def test_a_name_in_pieces_or_again_and_again(ask: Any, names: list[str]) -> None:
    pieces = [{"index": 0, "function": {"name": name, "arguments": ""}} for name in names]
    pieces[0] = {**pieces[0], "id": "a"}
    (found,) = ask([*(chunk(tool_calls=[each]) for each in pieces), chunk("tool_calls")]).tool_calls
    assert found.name == "get_weather"


# ---- characters and parts --------------------------------------------------------------------------------


def test_halves_of_characters_wait_for_each_other(chats: Chats, stores: Stores) -> None:
    chunks = [chunk(content="Hi \ud83d"), chunk(content="\ude00"), chunk(content="\ud83d"), chunk("stop")]
    *pieces, reply = chats.on(Server(stores, chunks), "m", 8000).stream("c", "Hi")
    assert (pieces, reply.text) == (["Hi ", "😀", "\ufffd"], "Hi 😀\ufffd")
    assert reply.message.content == chats.store.messages("c")[-1].content == reply.text

    def function(_: Any) -> Iterator[str]:
        yield from ("Hi \ud83d", "\ude00")

    *pieces, reply = chats.on(function, "m", 8000).stream("f", "Hi")
    assert (pieces, reply.text, reply.message.content) == (["Hi ", "😀"], "Hi 😀", "Hi 😀")


def test_what_is_delivered_has_the_line_between_two_texts(ask: Any) -> None:
    one, two = {"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    assert ask([chunk(content=[one]), chunk(content=[two]), chunk("stop")]).text == "Hello!"
    assert ask([chunk(content="Hel"), chunk(content=[two]), chunk("stop")]).text == "Hello!"
    assert ask([chunk(content=[one]), chunk(content="lo!"), chunk("stop")]).text == "Hello!"
    apart = [chunk(content=[one]), chunk(content=[image]), chunk(content=[two]), chunk("stop")]
    assert ask(apart).text == ask(said(content=[one, image, two])).text == "Hel\nlo!"
    numbered = [chunk(content=[{**each, "index": n}]) for n, each in enumerate([one, two])]
    assert ask([*numbered, chunk("stop")]).text == "Hel\nlo!"


# ---- the end, and errors ---------------------------------------------------------------------------------


def test_a_stream_that_does_not_say_that_it_ends(ask: Any, chats: Chats, stores: Stores) -> None:
    assert ask([chunk(content="Hello")]).call.finish_reason is None
    whole = ask([chunk(tool_calls=[call("a", "{}", index=0)])])
    assert (len(whole.tool_calls), whole.call.finish_reason) == (1, None)
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"}
    assert ask([delta], "responses").call.finish_reason is None
    begun = {"type": "response.output_item.added", "output_index": 0}
    half = {"type": "function_call", "call_id": "a", "name": "book", "arguments": '{"b'}
    for number, (chunks, api) in enumerate(
        [
            ([chunk(role="assistant")], "chat"),
            ([chunk(content="Hello"), chunk(tool_calls=[call("a", '{"b', index=0)])], "chat"),
            ([{**begun, "item": half}], "responses"),
            ([], "responses"),
        ]
    ):
        with pytest.raises(errors.ModelError, match="ended before"):
            list(chats.on(Server(stores, chunks), "m", 8000, api=api).stream(f"e{number}", "Hi"))
    part = chats.store.messages("e1")[-1]
    assert (part.partial, part.content, part.kind) == (True, "Hello", "message")


ERROR = {"code": 502, "message": "secret"}
FAILURES = [
    pytest.param([chunk(content="Hel"), {"error": ERROR}], 502, id="chunk"),
    pytest.param([chunk(content="Hel"), {"object": "error", **ERROR}], 502, id="object"),
    pytest.param([chunk(content="Hel"), chunk(error=ERROR)], 502, id="delta"),
    pytest.param([chunk(content="Hel"), {"choices": [{"delta": {}, "error": ERROR}]}], 502, id="choice"),
    pytest.param([chunk(content="Hel", error=ERROR)], 502, id="with text"),
    pytest.param(said(content="Hel", error=ERROR), 502, id="whole"),
    pytest.param({**said(content="Hel"), "error": {"type": "overloaded"}}, "overloaded", id="beside"),
    pytest.param(
        'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\nevent: error\ndata: {"code": 5}', 5, id="text"
    ),
]


@pytest.mark.parametrize(("answer", "code"), FAILURES)
def test_an_error_wherever_it_stands(chats: Chats, stores: Stores, answer: Any, code: Any) -> None:
    chat = chats.on(Server(stores, answer), "m", 8000)
    with pytest.raises(errors.ModelError) as caught:
        list(chat.stream("c", "Hi"))
    assert (caught.value.code, caught.value.arrived) == (code, None)
    assert "secret" not in str(caught.value)
    part = chats.store.messages("c")[-1]
    assert (part.content, part.partial) == ("Hel", True)
    (record,) = chats.store.calls("c")
    assert (record.status, record.error) == ("error", f"ModelError {code}" if code else "ModelError")


@pytest.mark.parametrize(
    "answer",
    [
        [chunk(content="Hel"), chunk("error")],
        [chunk(content="Hel"), chunk("error", error=ERROR), {"choices": [], "usage": {"prompt_tokens": 3}}],
        [chunk("error", content="Hel")],
        said("error", content="Hel"),
    ],
)
def test_a_reply_whose_last_word_is_an_error(chats: Chats, stores: Stores, answer: Any) -> None:
    """It is returned, marked as the part that it is, and asked for again by the same key."""
    chat = chats.on(Server(stores, answer), "m", 8000)
    *pieces, reply = chat.stream("c", "Hi", idempotency_key="k")
    assert ("".join(pieces), reply.text, reply.call.status) == ("Hel", "Hel", "error")
    assert (reply.message.partial, reply.tool_calls) == (True, ())
    assert reply.call.finish_reason == "error"
    assert [(each.content, each.partial) for each in chats.store.messages("c", after=1)] == [("Hel", True)]
    assert not chat.send("c", "Hi", idempotency_key="k").replayed
    assert [each.status for each in chats.store.calls("c")] == ["error", "error"]


@pytest.mark.parametrize(
    "answer",
    [
        [chunk("error")],
        {"error": ERROR},
        {"object": "error", **ERROR},
        {"detail": "Not found"},
        {"choices": [{"finish_reason": "error", "message": None}]},
        {"choices": []},
        {},
        [{"error": ERROR}],
        "not json",
        "data: [DONE]",
    ],
    ids=repr,
)
def test_nothing_of_a_reply_is_an_error(chats: Chats, stores: Stores, answer: Any) -> None:
    with pytest.raises(errors.ModelError):
        list(chats.on(Server(stores, answer), "m", 8000).stream("c", "Hi"))
    assert [each.role for each in chats.store.messages("c")] == ["user"]


def test_a_response_that_failed_keeps_what_it_said(chats: Chats, stores: Stores) -> None:
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "Hel"}
    failed = {"status": "failed", "error": {"code": "server_error"}, "output": [item("Hel")]}
    for number, answer in enumerate(
        (
            failed,
            [delta, {"type": "response.failed", "response": failed}],
            [delta, {"type": "error", **ERROR}],
        )
    ):
        with pytest.raises(errors.ModelError) as caught:
            list(chats.on(Server(stores, answer), "m", 8000, api="responses").stream(f"c{number}", "Hi"))
        assert caught.value.code in ("server_error", 502)
        assert [(each.content, each.partial) for each in chats.store.messages(f"c{number}")[1:]] == [
            ("Hel", True)
        ]


# ---- usage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("place", "usage", "found"),
    [
        ("choice", {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 3}, (9, 3, 4, None)),
        ("x_groq", {"prompt_tokens": 9, "completion_tokens": 4}, (9, None, 4, None)),
        (
            "body",
            {"prompt_tokens": 9.0, "completion_tokens": 4, "prompt_cache_hit_tokens": 3},
            (9, 3, 4, None),
        ),
        ("body", {"input_tokens": 9, "output_tokens": 4, "reasoning_tokens": 2}, (9, None, 4, 2)),
    ],
)
def test_usage_in_odd_places(ask: Any, place: str, usage: Any, found: Any, stream: bool) -> None:
    bodies = [chunk(content="Hi"), chunk("stop"), chunk(content="")] if stream else [said(content="Hi")]
    body = bodies[-2] if stream else bodies[0]
    if place == "choice":
        body["choices"][0]["usage"] = usage
    else:
        body |= {"x_groq": {"usage": usage}} if place == "x_groq" else {"usage": usage}
    if stream:  # zeros that come later tell nothing
        bodies[-1]["usage"] = {"prompt_tokens": 0, "completion_tokens": None}
    record = ask(bodies if stream else body).call
    counts = (record.input_tokens, record.cached_tokens, record.output_tokens, record.reasoning_tokens)
    assert counts == found


# ---- the other form than was asked for, through the openai package ----------------------------------------


class Fixed(BaseHTTPRequestHandler):
    """Answers each request with the same."""

    kind = body = ""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        content = self.body.encode()
        self.send_response(200)
        self.send_header("content-type", self.kind)
        self.send_header("x-request-id", "req_1")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def fixed(stores: Stores) -> Iterator[Callable[[str, str], Any]]:
    servers = []

    def start(kind: str, body: str) -> Any:
        handler = type("Handler", (Fixed,), {"kind": kind, "body": body})
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        made: Any = openai.AsyncOpenAI if stores.is_async else openai.OpenAI
        return made(base_url=f"http://127.0.0.1:{servers[-1].server_port}/v1", api_key="x", max_retries=0)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


EVENTS = [
    {"type": "response.output_text.delta", "output_index": 0, "delta": "Hello"},
    {"type": "response.completed", "response": {"status": "completed", "output": [item("Hello")]}},
]
BODIES = {
    "chat": (said(content="Hello"), [chunk(content="Hel"), chunk(content="lo"), chunk("stop")]),
    "responses": ({"status": "completed", "output": [item("Hello")]}, EVENTS),
}


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_other_form_than_was_asked_for(chats: Chats, fixed: Any, api: str) -> None:
    body, events = BODIES[api]
    client = fixed("application/json; charset=utf-8", json.dumps(body))
    *pieces, reply = chats.on(client, "m", 8000, api=api).stream("json", "Hi")
    assert (pieces, reply.text, reply.call.request_id) == (["Hello"], "Hello", "req_1")
    text = ": ping\n\n" + "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"
    for number, kind in enumerate(("text/event-stream", "text/plain")):
        reply = chats.on(fixed(kind, text), "m", 8000, api=api).send(f"text{number}", "Hi")
        assert (reply.text, reply.call.status) == ("Hello", "ok")
    reply = chats.on(fixed("text/plain", json.dumps(body)), "m", 8000, api=api).send("plain", "Hi")
    assert reply.text == "Hello"
    failing = chats.on(fixed("application/json", json.dumps({"error": ERROR})), "m", 8000, api=api)
    with pytest.raises(errors.ModelError) as caught:
        list(failing.stream("error", "Hi"))
    assert caught.value.code == 502
