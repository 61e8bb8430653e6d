"""Replies in forms that no message has: none is lost, on both engines, sync and async."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.answers import Server, asking, call, chunk, item, said
from tests.support.chats import Chats
from tests.support.stores import Stores
from tokenmem import errors
from tokenmem.messages.json_lines import parse_line
from tokenmem.messages.message import PARTIAL, RAW


@pytest.fixture
def ask(chats: Chats, stores: Stores) -> Callable[..., Any]:
    return asking(chats, stores)


# ---- forms -----------------------------------------------------------------------------------------------


def nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value]
    return value


ODD = {
    "object": ({"content": {"answer": 42}}, '{"answer":42}'),
    "number": ({"content": 42}, "42"),
    "parts": ({"content": ["a", 5, None, {"type": "text", "text": "b"}]}, "a\n5\nb"),
    "role": ({"role": "model", "content": "Hello"}, "Hello"),
    "user": ({"role": "user", "content": "Hello"}, "Hello"),
    "tool": ({"role": "tool", "content": "Hello", "tool_call_id": "x"}, "Hello"),
    "calls": ({"content": "Hello", "tool_calls": {}}, "Hello"),
    "calls as a number": ({"content": "Hello", "tool_calls": 7}, "Hello"),
    "name": ({"content": "Hello", "name": {"a": 1}}, "Hello"),
    "deep": ({"content": "Hello", "x": nested(400)}, "Hello"),
    "deeper": ({"content": "Hello", "x": nested(5000)}, "Hello"),
    "nan": ({"content": "Hello", "x": float("nan")}, "Hello"),
    "key": ({"content": "Hello", 5: "x"}, "Hello"),
    "value": ({"content": "Hello", "x": {1, 2}}, "Hello"),
    "mark": ({"content": "Hello", "tokenmem_opaque": 1}, "Hello"),
    "gemini": ({"role": "model", "parts": [{"text": "Hello"}]}, "Hello"),
    "odd character": ({"role": "model", "content": "a\0\ud83d"}, "a\ufffd\ufffd"),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("unstorable", ["refuse", "escape"])
def test_no_reply_is_lost_for_its_form(
    ask: Any, chats: Chats, stores: Stores, name: str, unstorable: Any
) -> None:
    message, text = ODD[name]
    if unstorable == "escape":
        chats.store = stores.open(unstorable="escape")
    reply = ask({"choices": [{"message": message, "finish_reason": "stop"}]})
    assert reply.text == text
    (stored,) = reply.messages
    assert stored.role == "assistant"
    assert RAW in (stored.payload or {})
    assert RAW not in stored.to_openai()
    if "tool_calls" not in message and name != "deeper":
        streamed = ask([{"choices": [{"delta": message}]}, chunk("stop")])
        assert streamed.text == text
    as_function = chats.on(lambda _: message, "m", 8000) if "parts" not in message else None
    if as_function:
        assert as_function.send("f", "Hi").text == text


CALLS = {
    "object": call("a", "{}"),
    "numbered object": {"0": call("a", "{}")},
    "text": json.dumps([call("a", "{}")]),
    "among others": [None, "x", 5, call("a", "{}"), {"id": "b", "type": "new", "new": {}}],
    "name": [call("a", "{}", name=5)],
    "arguments": [call("a", 7)],
    "function as text": [{"id": "a", "function": json.dumps({"name": "book", "arguments": "{}"})}],
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_can_be_used_are(ask: Any, name: str) -> None:
    reply = ask(said("tool_calls", content=None, tool_calls=CALLS[name]))
    assert reply.message.kind == "tool_call"
    assert reply.tool_calls[0].id == "a"
    assert reply.tool_calls[0].name in ("book", "5")
    assert RAW in (reply.message.payload or {})


ITEMS = {
    "role": (
        {"type": "message", "role": "model", "content": [{"type": "output_text", "text": "Hello"}]},
        "Hello",
    ),
    "no role": ({"type": "message", "content": "Hello"}, "Hello"),
    "text": ("Hello", "Hello"),
    "number": (5, "5"),
    "no type": ({"content": {"a": 1}}, '{"a":1}'),
    "call": ({"type": "function_call", "name": "book", "arguments": "{}"}, ""),
    "call's name": ({"type": "function_call", "call_id": "a", "name": 5, "arguments": "{}"}, ""),
    "deep": ({"type": "x_call", "id": "x", "x": nested(300)}, ""),
    "nan": ({"type": "message", "role": "assistant", "content": "Hello", "x": float("inf")}, "Hello"),
}


@pytest.mark.parametrize("name", ITEMS)
def test_no_item_is_lost_for_its_form(ask: Any, name: str) -> None:
    given, text = ITEMS[name]
    reply = ask({"output": [given, item(" End.")], "status": "completed"}, "responses")
    assert reply.text == f"{text} End."
    assert RAW in (reply.messages[0].payload or {})
    if "call" in name:
        assert reply.tool_calls[0].id
        assert reply.tool_calls[0].name in ("book", "5")


def test_the_raw_reply_costs_nothing_and_goes_along(chats: Chats, stores: Stores) -> None:
    model = chats.on(Server(stores, said(role="model", content="Hello", x=nested(300))), "m", 8000)
    model.send("odd", "Hi")
    chats.on(lambda _: "Hello", "m", 8000).send("plain", "Hi")
    odd, plain = (chats.store.messages(name)[-1] for name in ("odd", "plain"))
    assert odd.token_count == plain.token_count
    view = "message_log" if stores.sql.engine.dialect.name == "sqlite" else "tokenmem.message_log"
    shown = f"SELECT text FROM {view} WHERE conversation_id = 'odd' ORDER BY position"
    assert [row[0] for row in stores.sql.rows(shown)] == ["Hi", "Hello"]
    (line,) = chats.store.export(ids=["odd"])
    chats.store.delete("odd")
    chats.store.import_conversations([parse_line(line)])
    assert chats.store.messages("odd")[-1] == odd
    chats.store.append("copy", [odd])
    assert chats.store.messages("copy")[0].payload == odd.payload
    assert PARTIAL not in (odd.payload or {})
    with pytest.raises(errors.InvalidMessage, match="tokenmem_reply"):
        chats.store.append("copy", [{"role": "user", "content": "x", RAW: 1}])


def test_random_answers_are_stored_or_no_reply(chats: Chats, stores: Stores) -> None:
    dice = random.Random(11)
    for number in range(60):
        message = {key: odd_value(dice, 4) for key in dice.sample(KEYS, dice.randint(1, 5))}
        choice = {dice.choice(["message", "delta"]): message, "finish_reason": odd_value(dice, 0)}
        body = {"choices": [choice]} if number % 2 else {"output": [message, odd_value(dice, 3)]}
        api = "chat" if number % 2 else "responses"
        answer: Any = body
        if number % 4 > 1 and api == "chat":
            answer = [body, body]
        elif number % 4 > 1:
            answer = [{"type": "response.completed", "response": body}]
        try:
            list(chats.on(Server(stores, answer), "m", 8000, api=api).stream(f"c{number}", "Hi"))
        except errors.ModelError:
            continue
        assert {each.role for each in chats.store.messages(f"c{number}")[1:]} <= {"assistant", "tool"}
    assert chats.store.verify() == []


KEYS = [
    "role",
    "content",
    "tool_calls",
    "function_call",
    "name",
    "refusal",
    "type",
    "call_id",
    "arguments",
    "x",
]


def odd_value(dice: random.Random, levels: int) -> Any:
    simple = [
        None,
        True,
        0,
        1.5,
        float("nan"),
        10**30,
        "",
        "a",
        "\ud83d",
        "assistant",
        "model",
        "message",
        "{}",
    ]
    if levels == 0 or dice.random() < 0.4:
        return dice.choice([*simple, "function_call"])
    values = [odd_value(dice, levels - 1) for _ in range(dice.randint(0, 3))]
    names = ["type", "text", "id", "function", "name", "arguments", "content", "index", 7]
    return values if dice.random() < 0.5 else dict(zip(dice.sample(names, len(values)), values, strict=True))
