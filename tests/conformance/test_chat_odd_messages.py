"""Turns over what no database holds, and over items that no provider knows: the provider is strict."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.chats import Chats
from tests.support.stores import Stores
from tokenmem import Message, errors
from tokenmem.messages.unstorable import ESCAPE
from tokenmem.testing import Answer, ModelServer

ODD = "a\0b \ud800 " + ESCAPE
CLEAN = "a\ufffdb \ufffd " + ESCAPE
KEPT = f"a{ESCAPE}0000b {ESCAPE}d800 {ESCAPE}{ESCAPE}"


@pytest.fixture
def chats(stores: Stores, server: ModelServer) -> Iterator[Chats]:
    chats = Chats(stores, server)
    chats.store = stores.open(unstorable="escape")
    yield chats
    chats.close()


def sent(server: ModelServer) -> list[Any]:
    body = server.requests[-1].body
    found: list[Any] = body.get("messages") or body["input"]
    return found


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_opaque_items_are_sent_as_their_text_or_not_at_all(
    chats: Chats, server: ModelServer, api: str
) -> None:
    server.reply_with([Answer("yes")])
    data = {"type": "event", "tool_calls": [{"id": "x"}], "canary": "never sent"}
    chats.store.append(
        "c1",
        [
            Message.user("hi"),
            Message.opaque(data, "handed over"),
            Message.opaque(data),
            Message.opaque(data, role="user"),
            Message.opaque(data, "odd \ud800", role="user"),
        ],
    )
    reply = chats.open(api=api).send("c1", "and?")
    assert reply.text == "yes"
    told = [(each["role"], each["content"]) for each in sent(server)]
    assert told == [("user", "hi"), ("assistant", "handed over"), ("user", "odd \ufffd"), ("user", "and?")]
    assert "never sent" not in json.dumps(server.requests[-1].body)
    assert "tokenmem" not in json.dumps(sent(server))
    silent = chats.store.append("c2", [Message.opaque(data)])
    assert silent.token_count == 0
    with pytest.raises(errors.InvalidArgument, match="nothing that can be sent"):
        chats.open(api=api).send("c2")


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_what_no_database_holds_is_kept_and_sent_readable(
    chats: Chats, server: ModelServer, api: str
) -> None:
    server.reply_with([Answer("yes"), Answer("again")])
    chat = chats.open(api=api)
    first = chat.send("c1", ODD, idempotency_key="k")
    assert sent(server) == [{"role": "user", "content": CLEAN}]
    assert chat.send("c1", ODD, idempotency_key="k").replayed
    assert chats.store.messages("c1")[0].to_openai() == {"role": "user", "content": ODD}
    assert first.window.to_openai() == [{"role": "user", "content": ODD}]
    chat.send("c1", "more")
    assert sent(server)[0] == {"role": "user", "content": CLEAN}


def test_a_reply_is_kept_as_the_store_says(chats: Chats, stores: Stores) -> None:
    def whole(messages: list[Any]) -> dict[str, Any]:
        calls = [{"id": "c\0", "type": "function", "function": {"name": "f", "arguments": ODD}}]
        return {"role": "assistant", "content": ODD, "tool_calls": calls}

    reply = chats.on(whole).send("c1", "hi", idempotency_key="k")
    assert (reply.text, reply.message.content) == (CLEAN, KEPT)
    assert chats.on(whole).send("c1", "hi", idempotency_key="k").text == CLEAN
    (call,) = reply.tool_calls
    assert (call.id, call.arguments) == ("c\ufffd", ODD)
    assert chats.store.messages("c1")[-1].to_openai()["content"] == ODD

    def after(messages: list[Any]) -> str:
        assert messages[1]["content"] == CLEAN
        assert messages[1]["tool_calls"][0]["id"] == messages[2]["tool_call_id"] == "c\ufffd"
        return "done"

    chats.on(after).send_tool_results("c1", {call.id: ODD})
    assert [m.kind for m in chats.store.messages("c1")] == ["message", "tool_call", "tool_result", "message"]
    chats.store = stores.open()
    refusing = chats.on(lambda _: ODD).send("c2", "hi")
    assert (refusing.text, refusing.message.content, refusing.message.payload) == (CLEAN, CLEAN, None)
    with pytest.raises(errors.InvalidMessage):
        chats.on(whole).send("c2", ODD)


def test_a_part_of_a_reply_is_kept_as_the_store_says(chats: Chats) -> None:
    def breaks(messages: list[Any]) -> Iterator[str]:
        yield ODD
        raise ZeroDivisionError

    stream = chats.on(breaks).stream("c1", "hi")
    assert next(stream) == CLEAN
    with pytest.raises(ZeroDivisionError):
        next(stream)
    part = chats.store.messages("c1")[-1]
    assert (part.partial, part.content) == (True, KEPT)
    assert part.to_openai() == {"role": "assistant", "content": ODD}
