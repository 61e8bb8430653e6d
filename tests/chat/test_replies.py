"""How a model's reply is read: whole, in streams of the shapes that servers send, and cut anywhere."""

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk

from tokenmem.chat.apis.completions import ChatCompletions, CompletionReader
from tokenmem.chat.apis.function import Function
from tokenmem.chat.apis.merging import merge
from tokenmem.chat.apis.replies import tool_calls_of
from tokenmem.messages.message import PARTIAL

Dicts = list[dict[str, Any]]
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
COUNTS = {
    "input_tokens": 9,
    "cached_tokens": 3,
    "cache_write_tokens": None,
    "output_tokens": 4,
    "reasoning_tokens": 1,
}


def chunk(delta: Any = None, finish: str | None = None, **keys: Any) -> dict[str, Any]:
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    named = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**named, "choices": choices, **keys}


def typed(body: dict[str, Any]) -> ChatCompletionChunk:
    """A chunk as the openai package makes it of what a server sends: nothing is checked."""
    made: ChatCompletionChunk = ChatCompletionChunk.construct(**copy.deepcopy(body))
    return made


FORMS = pytest.mark.parametrize("form", [typed, dict], ids=["openai", "dict"])


def read(chunks: Dicts, form: Any = dict) -> tuple[list[str], Any]:
    """The pieces of text that were delivered, and the reader."""
    reader = CompletionReader()
    return [reader.feed(form(each)) for each in chunks], reader


def message_of(chunks: Dicts, form: Any = dict) -> dict[str, Any]:
    """The provider's message of a stream, without what `answer` may add."""
    _, reader = read([*chunks, chunk(finish="stop")], form)
    assert reader.complete
    (message,) = reader.answer().messages
    made: dict[str, Any] = message.to_openai()
    return made


def piece(
    index: Any = None, call_id: Any = None, name: Any = None, arguments: Any = None, **keys: Any
) -> Any:
    """A piece of a tool call; what is None is not there."""
    function = {key: each for key, each in (("name", name), ("arguments", arguments)) if each is not None}
    made = {"index": index, "id": call_id, "function": function}
    return {**{key: each for key, each in made.items() if each is not None}, **keys}


def called(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "function": {"name": name, "arguments": arguments}}


TWO = [called("a", "add", '{"x":1}'), called("b", "sub", '{"y":2}')]


@FORMS
@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(  # OpenAI
            [
                [piece(0, "a", "add", "")],
                [piece(0, arguments='{"x"')],
                [piece(0, arguments=":1}")],
                [piece(1, "b", "sub", "")],
                [piece(1, arguments='{"y":2}')],
            ],
            id="by number",
        ),
        pytest.param(
            [
                [piece(0, "a", "add", '{"x"'), piece(1, "b", "sub", '{"y"')],
                [piece(1, arguments=":2}"), piece(0, arguments=":1}")],
            ],
            id="interleaved",
        ),
        pytest.param(
            [
                [piece(0, "a", "add", '{"x"')],
                [piece(0, "a", "add", ":1}")],
                [piece(1, "b", "sub", '{"y":2}')],
            ],
            id="id and name with every piece",
        ),
        pytest.param(
            [[piece(0, "a", "add", '{"x"')], [piece(0, "", "", ":1}")], [piece(1, "b", "sub", '{"y":2}')]],
            id="id and name empty in later pieces",
        ),
        pytest.param(
            [
                [{"index": 0, "id": "a", "function": {"name": "add", "arguments": None}}],
                [{"index": 0, "id": None, "function": {"name": None, "arguments": '{"x":1}'}}],
                [{"index": 0, "function": None}, None],
                [piece(1, "b", "sub", '{"y":2}')],
            ],
            id="nulls",
        ),
        pytest.param(
            [[piece(None, "a", "add", '{"x":1}')], [piece(None, "b", "sub", '{"y":2}')]],
            id="whole calls without a number",
        ),
        pytest.param(
            [[piece(None, "a", "add", '{"x":1}'), piece(None, "b", "sub", '{"y":2}')]],
            id="whole calls at once",
        ),
        pytest.param(
            [
                [piece(None, "a", "add", '{"x"')],
                [piece(None, arguments=":1}")],
                [piece(None, "b", "sub", '{"y"')],
                [piece(None, "b", arguments=":2}")],
            ],
            id="pieces without a number",
        ),
        pytest.param(
            [[piece(0, "a", "add", '{"x":1}')], [piece(0, "b", "sub", '{"y":2}')]],
            id="whole calls with the same number",
        ),
    ],
)
def test_tool_calls_in_pieces(form: Any, pieces: Any) -> None:
    sent = [chunk({"role": "assistant", "content": None, "tool_calls": each}) for each in pieces]
    before = copy.deepcopy(sent)
    assert message_of(sent, form) == {"role": "assistant", "content": None, "tool_calls": TWO}
    assert sent == before  # the caller's chunks are not changed
    assert [(each.id, each.name) for each in tool_calls_of(read(sent)[1].answer().messages)] == [
        ("a", "add"),
        ("b", "sub"),
    ]


def test_a_server_that_makes_up_an_id_for_every_piece() -> None:
    """vLLM did; the name is in the first piece only."""
    pieces = [piece(0, "x1", "add", '{"x"'), piece(0, "x2", arguments=":1}")]
    (call,) = message_of([chunk({"tool_calls": [each]}) for each in pieces])["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"x":1}'}


@pytest.mark.parametrize("ids", [("", ""), (None, None), ("a", "a"), (5, 5)])
def test_calls_without_an_id_of_their_own_get_one(ids: Any) -> None:
    """Nothing could answer them otherwise. Gemini's server sent empty ids, all with the number 0."""
    pieces = [piece(0, ids[0], "add", '{"x":1}'), piece(0, ids[1], "add", '{"x":2}')]
    streamed = message_of([chunk({"tool_calls": [each]}) for each in pieces])["tool_calls"]
    # With the same arguments, too, the second would be the first once more.
    two = [called(each, "add", f'{{"x":{number}}}') for number, each in enumerate(ids)]
    body = {"role": "assistant", "content": None, "tool_calls": two}
    (whole,) = ChatCompletions().read({"choices": [{"message": body}]}).messages
    (returned,) = Function().read(body).messages
    for calls in (streamed, whole.to_openai()["tool_calls"], returned.to_openai()["tool_calls"]):
        first, second = (call["id"] for call in calls)
        assert first != second
        assert all(isinstance(each, str) and each for each in (first, second))
    assert [json.loads(call["function"]["arguments"])["x"] for call in streamed] == [1, 2]


@FORMS
@pytest.mark.parametrize("shape", ["last", "every", "own", "none"])
def test_usage_and_the_reason_to_stop(form: Any, shape: str) -> None:
    chunks = [chunk({"role": "assistant"}), chunk({"content": "he"}), chunk({"content": "llo"})]
    if shape == "every":
        for index, each in enumerate(chunks):
            each["usage"] = {**USAGE, "completion_tokens": index}
    elif shape != "none":
        chunks = [{**each, "usage": None} for each in chunks]
    chunks.append(chunk(finish="stop", **({"usage": USAGE} if shape in ("last", "every") else {})))
    if shape == "own":  # as OpenAI does
        chunks.append({**chunk(), "choices": [], "usage": USAGE})
    delivered, reader = read(chunks, form)
    answer = reader.answer()
    assert ("".join(delivered), answer.text, answer.finish_reason) == ("hello", "hello", "stop")
    assert answer.usage == (dict.fromkeys(COUNTS) if shape == "none" else COUNTS)


@pytest.mark.parametrize(
    "odd",
    [
        {"choices": []},
        {"choices": None},
        {},
        {"choices": [{"index": None, "delta": None}]},
        {"choices": [{"delta": {"content": None, "tool_calls": None, "refusal": None}}]},
        {"choices": [{"index": 0, "delta": {"content": "", "role": None}}]},
        {"choices": [{"index": 0, "delta": {"role": "", "tool_calls": []}, "finish_reason": ""}]},
        {"choices": [{"index": 1, "delta": {"content": "another choice"}, "finish_reason": "stop"}]},
        {"object": "ping"},
        "data",
        None,
    ],
    ids=repr,
)
def test_chunks_that_say_nothing(odd: Any) -> None:
    for place in range(3):
        chunks: list[Any] = [chunk({"content": "a"}), chunk({"content": "b"})]
        chunks.insert(place, odd)
        reader = CompletionReader()
        assert "".join(reader.feed(each) for each in chunks) == "ab"
        assert not reader.complete
        reader.feed(chunk(finish="stop"))
        (message,) = reader.answer().messages
        assert (message.role, message.content) == ("assistant", "ab")


def test_a_choice_without_a_number() -> None:
    delivered, _ = read([{"choices": [{"index": None, "delta": {"content": "a"}}]}])
    assert delivered == ["a"]


def test_what_else_servers_stream() -> None:
    chunks = [
        chunk({"role": "assistant", "reasoning_content": "hm"}),  # DeepSeek
        chunk({"reasoning_content": "m", "content": None}),
        chunk({"refusal": "I "}),
        chunk({"refusal": "won't", "x_unknown": {"deep": ["a"]}}),
        chunk({"reasoning_details": [{"index": 0, "type": "reasoning.text", "format": "v1", "text": "a"}]}),
        chunk({"reasoning_details": [{"index": 0, "type": "reasoning.text", "format": "v1", "text": "b"}]}),
        chunk({"audio": {"id": "audio_1", "transcript": "he"}}),
        chunk({"audio": {"id": "audio_1", "transcript": "llo", "expires_at": 5}}),
    ]
    assert message_of(chunks) == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hmm",
        "refusal": "I won't",
        "x_unknown": {"deep": ["a"]},
        "reasoning_details": [{"index": 0, "type": "reasoning.text", "format": "v1", "text": "ab"}],
        "audio": {"id": "audio_1", "transcript": "hello", "expires_at": 5},
    }


@pytest.mark.parametrize("text_first", [False, True])
def test_content_that_comes_in_parts_and_as_text(text_first: bool) -> None:
    """Mistral streams what a model thinks as parts and then what it says as text."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    deltas: list[Any] = [[thinking], "hel", "lo"]
    delivered, reader = read([chunk({"content": each}) for each in (deltas[::-1] if text_first else deltas)])
    said = "lohel" if text_first else "hello"
    text = {"type": "text", "text": said}
    reader.feed(chunk(finish="stop"))
    answer = reader.answer()
    assert answer.messages[0].to_openai()["content"] == ([text, thinking] if text_first else [thinking, text])
    assert "".join(delivered) == answer.text == reader.part().text == said


@FORMS
def test_what_no_database_can_hold_is_put_in_other_words(form: Any) -> None:
    chunks = [chunk({"content": "a\0\ud83d"}), chunk({"content": "\ude00\udc00b"})]
    _, reader = read(chunks, form)
    assert reader.part().text == "a\ufffd😀\ufffdb"
    assert message_of(chunks, form)["content"] == "a\ufffd😀\ufffdb"


# ---- a message in random pieces --------------------------------------------------------------------------

plain_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
names = st.sampled_from(["add", "sub"])
json_arguments = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 99) | plain_text).map(json.dumps)


@st.composite
def complete_messages(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": draw(st.none() | plain_text)}
    for key in draw(st.lists(st.sampled_from(["refusal", "reasoning_content", "x_new"]), unique=True)):
        message[key] = draw(plain_text)
    if count := draw(st.integers(0, 3)):
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": draw(names), "arguments": draw(json_arguments)},
            }
            for number in range(count)
        ]
    return message


def cut(draw: Any, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[first:last] for first, last in itertools.pairwise([0, *places, len(text)])]


@st.composite
def split(draw: st.DrawFn, message: dict[str, Any]) -> Dicts:
    """A message as deltas: each text in pieces, calls begun with id and name, all interleaved."""
    lanes: list[Dicts] = []
    for key, value in message.items():
        if key == "tool_calls":
            for index, call in enumerate(value):
                first, *rest = cut(draw, call["function"]["arguments"])
                begun = {**call, "index": index, "function": {**call["function"], "arguments": first}}
                repeats = {"id": call["id"]} if draw(st.booleans()) else {}
                later = [{"index": index, **repeats, "function": {"arguments": each}} for each in rest]
                lanes.append([{"tool_calls": [each]} for each in (begun, *later)])
        elif isinstance(value, str) and key != "role":
            lanes.append([{key: each} for each in cut(draw, value)])
        else:
            lanes.append([{key: value}])
    deltas: Dicts = []
    opened = 0  # calls begin in their order, whatever their later pieces do
    while any(lanes):
        ready = [
            lane
            for lane in lanes
            if lane
            and ("id" not in str(lane[0]) or lane[0].get("tool_calls", [{}])[0].get("index", 0) <= opened)
        ]
        delta = draw(st.sampled_from(ready)).pop(0)
        if "tool_calls" in delta and "name" in delta["tool_calls"][0]["function"]:
            opened += 1
        deltas.append(delta)
    return deltas


@FORMS
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_message_in_any_pieces_is_the_same_message(form: Any, data: st.DataObject) -> None:
    message = data.draw(complete_messages())
    chunks = [chunk(delta) for delta in data.draw(split(message))]
    assert message_of(chunks, form) == message
    delivered, reader = read(chunks, form)
    assert "".join(delivered) == (message["content"] or "")
    whole: dict[str, Any] = {}
    for each in chunks:
        merge(whole, each["choices"][0]["delta"])
    assert whole["role"] == "assistant"
    assert reader.answer() == read(chunks, form)[1].answer()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stream_cut_anywhere_leaves_what_was_delivered(data: st.DataObject) -> None:
    message = data.draw(complete_messages())
    chunks = [chunk(delta) for delta in data.draw(split(message))]
    delivered, reader = read(chunks[: data.draw(st.integers(0, len(chunks)))])
    part = reader.part()
    assert part.text == "".join(delivered)
    assert part.finish_reason is None
    for stored in part.messages:
        assert (stored.role, stored.kind, stored.content, stored.partial) == (
            *("assistant", "message", part.text),
            True,
        )
        assert PARTIAL not in stored.to_openai()
        assert tool_calls_of([stored]) == ()
    arrived: dict[str, Any] = {}
    for each in chunks[: len(delivered)]:
        merge(arrived, each["choices"][0]["delta"])
    mark = (part.messages[0].payload or {})[PARTIAL] if part.messages else {}
    for key in arrived.keys() - {"role", "content"}:
        if arrived[key]:
            assert mark[key] == arrived[key]
