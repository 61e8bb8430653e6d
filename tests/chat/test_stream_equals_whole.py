"""A stream and a whole answer of the same content are the same reply; what is delivered is what is stored."""

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.chat.test_replies import chunk, piece
from tests.chat.test_whole_answers import event
from tokenmem.chat.apis.completions import ChatCompletions, CompletionReader
from tokenmem.chat.apis.function import TextReader
from tokenmem.chat.apis.interface import answer_of
from tokenmem.chat.apis.replies import Answer
from tokenmem.chat.apis.responses import ResponseReader, Responses
from tokenmem.messages.unstorable import holds_unstorable, scrubbed

Dicts = list[dict[str, Any]]
odd_text = st.text(
    st.sampled_from("aé\0\ud83d\ude00\udc00😀\n ") | st.characters(exclude_categories=["Cs"]), max_size=12
)


def halved(text: str) -> str:
    """The text with each character outside the first plane as its two halves, as some servers cut it."""
    return "".join(
        "".join(chr(half) for half in _halves(ord(each))) if ord(each) > 0xFFFF else each for each in text
    )


def _halves(code: int) -> tuple[int, int]:
    code -= 0x10000
    return 0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF)


def cut(draw: st.DrawFn, text: str) -> list[str]:
    """The text in pieces, cut anywhere, also inside of characters."""
    text = halved(text)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[first:last] for first, last in zip([0, *places], [*places, len(text)], strict=True)]


def delivered(reader: Any, events: Any) -> tuple[str, Answer]:
    """What is delivered of a stream, as a turn does it, and the reply."""
    pieces = [reader.feed(copy.deepcopy(each)) for each in events]
    for each in pieces:
        each.encode()
        assert not holds_unstorable(each)
    answer = answer_of(reader)
    told = "".join(pieces)
    assert answer.text.startswith(told)
    return told + answer.text[len(told) :], answer


# ---- Chat Completions ------------------------------------------------------------------------------------


@st.composite
def contents(draw: st.DrawFn) -> Any:
    if draw(st.booleans()):
        return draw(st.none() | odd_text)
    parts = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["text", "thinking", "image_url"]))
        if kind == "text" and (not parts or parts[-1]["type"] != "text" or "index" in parts[-1]):
            numbers = {"index": number} if draw(st.booleans()) else {}
            if parts and parts[-1]["type"] == "text":
                numbers = {"index": number}
            parts.append({"type": "text", "text": draw(odd_text), **numbers})
        elif kind == "thinking" and (not parts or parts[-1]["type"] != "thinking"):
            parts.append({"type": "thinking", "thinking": [{"type": "text", "text": draw(odd_text)}]})
        else:
            parts.append({"type": "image_url", "image_url": {"url": f"data:{number}"}})
    return parts


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": draw(contents())}
    for key in draw(st.lists(st.sampled_from(["refusal", "reasoning_content"]), unique=True)):
        message[key] = draw(odd_text)
    if draw(st.booleans()):
        message["reasoning_details"] = [
            {"type": "reasoning.summary", "summary": draw(odd_text), "index": 0},
            {"type": "reasoning.text", "text": draw(odd_text), "signature": "sig", "index": 0},
            {"type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1", "index": 0},
            {"type": "reasoning.encrypted", "data": "gBBB", "id": "rs_2", "index": 0},
        ]
    if draw(st.booleans()):
        message["thinking_blocks"] = [
            {"type": "thinking", "thinking": draw(odd_text), "signature": "sig"},
            {"type": "redacted_thinking", "data": "AAA"},
            {"type": "redacted_thinking", "data": "BBB"},
            {"type": "thinking", "thinking": draw(odd_text), "signature": "gis"},
        ]
    if count := draw(st.integers(0, 3)):
        arguments = st.dictionaries(st.sampled_from("xyz"), odd_text, max_size=2)
        message["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {
                    "name": draw(st.sampled_from(["get_weather", "sub"])),
                    "arguments": json.dumps(draw(arguments), ensure_ascii=draw(st.booleans())),
                },
            }
            for number in range(count)
        ]
    return message


def pieces_of_part(draw: st.DrawFn, part: dict[str, Any]) -> Dicts:
    """A part in pieces: its text cut, what is whole with one of them."""
    key = next((key for key in ("text", "thinking", "summary") if key in part), None)
    if key is None:
        return [part]
    nested = isinstance(part[key], list)
    text = part[key][0]["text"] if nested else part[key]
    kept = {name: part[name] for name in ("type", "index") if name in part}
    made = [{**kept, key: [{"type": "text", "text": each}] if nested else each} for each in cut(draw, text)]
    made[-1] |= {name: value for name, value in part.items() if name not in made[-1]}
    return made


@st.composite
def deltas(draw: st.DrawFn, message: dict[str, Any]) -> Dicts:
    """A message as a server may stream it: each key by itself, all of them interleaved."""
    lanes: list[Dicts] = []
    for key, value in message.items():
        if key == "tool_calls":
            lanes.append([])
            for index, call in enumerate(value):
                name = call["function"]["name"]
                place = draw(st.integers(0, len(name)))
                begun = piece(index, call["id"], name[:place] or None, "", type="function")
                texts = cut(draw, call["function"]["arguments"])
                rest = [piece(index, arguments=each) for each in texts]
                whole = piece(index, call["id"], name, call["function"]["arguments"], type="function")
                again = [whole] if draw(st.booleans()) else []
                sent = [begun, piece(index, None, name[place:] or None, ""), *rest, *again]
                lanes[-1] += [{"tool_calls": [each]} for each in sent]
        elif isinstance(value, list):
            lanes.append([{key: [each]} for part in value for each in pieces_of_part(draw, part)])
        elif isinstance(value, str) and key != "role":
            lanes.append([{key: each} for each in cut(draw, value)])
        else:
            lanes.append([{key: value}])
    made: Dicts = []
    while any(lanes):
        made.append(draw(st.sampled_from([lane for lane in lanes if lane])).pop(0))
    return made


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_stream_of_chunks_is_the_whole_answer(data: st.DataObject) -> None:
    message = data.draw(messages())
    chunks = [chunk(delta) for delta in data.draw(deltas(message))]
    body = {"choices": [{"index": 0, "message": copy.deepcopy(message), "finish_reason": "stop"}]}
    whole = ChatCompletions().read(body)
    text, answer = delivered(CompletionReader(), [*chunks, chunk(finish="stop")])
    assert answer == whole
    assert text == answer.text == (answer.messages[0].content or "") == scrubbed(answer.text)
    lines = "".join(
        f"data: {json.dumps(each)}\n\n" for each in [*chunks, chunk(finish="stop")]
    )  # the same, as one text
    assert ChatCompletions().read(lines + "data: [DONE]\n\n") == answer


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_what_is_cut_off_is_what_was_delivered(data: st.DataObject) -> None:
    chunks = [chunk(delta) for delta in data.draw(deltas(data.draw(messages())))]
    reader = CompletionReader()
    told = "".join(reader.feed(each) for each in chunks[: data.draw(st.integers(0, len(chunks)))])
    part = reader.part()
    assert part.text == told
    assert [message.content for message in part.messages] in ([], [told])
    assert not holds_unstorable([message.payload for message in part.messages])


@settings(max_examples=100, deadline=None)
@given(data=st.data(), text=odd_text)
def test_a_text_in_pieces(data: st.DataObject, text: str) -> None:
    told, answer = delivered(TextReader(), data.draw(st.composite(cut)(text)))
    assert told == answer.text == answer.messages[0].content == scrubbed(text)


# ---- the Responses API -----------------------------------------------------------------------------------


@st.composite
def output_items(draw: st.DrawFn) -> Dicts:
    items: Dicts = []
    for number in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            parts = [
                {"type": "output_text", "text": draw(odd_text), "annotations": []}
                for _ in range(draw(st.integers(1, 2)))
            ]
            items.append({"type": "message", "id": f"m{number}", "role": "assistant", "content": parts})
        else:
            arguments = json.dumps({"x": draw(odd_text)}, ensure_ascii=draw(st.booleans()))
            call = {"type": "function_call", "id": f"f{number}", "call_id": f"c{number}", "name": "add"}
            items.append({**call, "arguments": arguments})
    return items


@st.composite
def events(draw: st.DrawFn, items: Dicts, *, done: bool) -> Dicts:
    """The events of items, which begin in their order and then go on side by side."""
    lanes: list[Dicts] = []
    for place, item in enumerate(items):
        empty = {"content": []} if item["type"] == "message" else {"arguments": ""}
        lane = [event("output_item.added", output_index=place, item={**item, **empty})]
        for number, part in enumerate(item.get("content", [])):
            for each in cut(draw, part["text"]):
                given = {"output_index": place, "content_index": number, "delta": each}
                lane.append(event("output_text.delta", **given))
        for each in cut(draw, item.get("arguments", "")) if "arguments" in item else []:
            lane.append(event("function_call_arguments.delta", output_index=place, delta=each))
        if done:
            lane.append(event("output_item.done", output_index=place, item=item))
        lanes.append(lane)
    made: Dicts = []
    begun = 1
    while any(lanes):
        lane = draw(st.sampled_from([lane for lane in lanes[:begun] if lane] or lanes[begun : begun + 1]))
        made.append(lane.pop(0))
        begun = max(begun, made[-1]["output_index"] + 1 + draw(st.integers(0, 1)))
    return made


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stream_of_events_is_the_whole_response(data: st.DataObject) -> None:
    items = data.draw(output_items())
    body = {"id": "r", "status": "completed", "output": items}
    whole = Responses().read(copy.deepcopy(body))
    end = event("completed", response={**body, "output": data.draw(st.sampled_from([items, []]))})
    sent = [*data.draw(events(items, done=True)), end]
    text, answer = delivered(ResponseReader(), sent)
    assert answer == whole
    assert text == answer.text
    assert text == "".join(each.content or "" for each in answer.messages if each.kind == "message")
    lines = "".join(f"event: {each['type']}\r\ndata: {json.dumps(each)}\r\n\r\n" for each in sent)
    assert Responses().read(lines) == answer


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_events_without_an_end_are_a_reply(data: st.DataObject) -> None:
    items = data.draw(output_items())
    reader = ResponseReader()
    sent = data.draw(events(items, done=False))
    told = "".join(reader.feed(each) for each in sent)
    assert reader.part().text.startswith(told)
    if reader.whole:
        answer = reader.answer()
        assert answer.finish_reason is None
        assert answer.text.startswith(told)
        calls = [item for item in items if item["type"] == "function_call"]
        stored = [message.to_openai() for message in answer.messages if message.kind == "tool_call"]
        assert stored == scrubbed(calls)


@pytest.mark.parametrize("seed", range(20))
def test_pieces_cut_at_every_place(seed: int) -> None:
    dice = random.Random(seed)
    text = "".join(dice.choice("a😀é\ud83d\ude00\0") for _ in range(30))
    chunks = [chunk({"content": each}) for each in halved(text)]
    told, answer = delivered(CompletionReader(), [*chunks, chunk(finish="stop")])
    assert told == answer.text == scrubbed(text)
