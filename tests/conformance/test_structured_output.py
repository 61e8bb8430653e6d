"""A class as `response_format` is sent as its strict JSON schema, and `reply.parsed` is the object."""

import pickle
import traceback
from typing import Any, Generic, TypeVar

import openai
import pydantic
import pytest
from pydantic import BaseModel, RootModel

from tests.conformance.test_chat import TOOLS
from tests.support.chats import Chats, said
from tokenmem import errors
from tokenmem.testing import Answer as Scripted
from tokenmem.testing import ModelServer

Item = TypeVar("Item")


class Paged(BaseModel, Generic[Item]):
    items: list[Item]


class Step(BaseModel):
    explanation: str
    minutes: int | None = None


class Journey(BaseModel):
    city: str
    steps: list[Step] = []


@pydantic.dataclasses.dataclass
class Weather:
    city: str
    degrees: int


JOURNEY = Journey(city="Turin", steps=[Step(explanation="Walk.", minutes=4), Step(explanation="Ride.")])
TEXT = JOURNEY.model_dump_json()
WEATHER = '{"city": "Oslo", "degrees": -3}'
STRICT = {"strict": True, "name": "Journey"}


def sent_format(body: Any, api: str) -> Any:
    """The format of the reply in a request, as Chat Completions has it; None where there is none."""
    if api == "chat":
        told = body.get("response_format")
        return told if told is None or "json_schema" not in told else told["json_schema"]
    told = (body.get("text") or {}).get("format")
    assert told is None or told["type"] in ("json_schema", "text")
    return told


def asked(chat: Any, way: str, **options: Any) -> Any:
    """The reply to "Where?", had in one of the ways to have one."""
    if way == "send":
        return chat.send("c", "Where?", **options)
    if way == "run":
        return chat.run("c", "Where?", functions={}, **options)
    if way == "stream":
        *_, reply = chat.stream("c", "Where?", **options)
        return reply
    turn = chat.open("c", "Where?", **options)
    assert "".join(turn)
    return turn.reply


WAYS = pytest.mark.parametrize("way", ["send", "stream", "open", "run"])


@WAYS
@pytest.mark.parametrize("where", ["of the chat", "of the turn"])
def test_a_reply_is_the_object(chats: Chats, server: ModelServer, api: str, way: str, where: str) -> None:
    server.reply_with(Scripted(TEXT))
    formed: Any = {"response_format": Journey}
    chat = chats.open(api=api, **(formed if where == "of the chat" else {}))
    options = {"idempotency_key": "k"} | ({} if where == "of the chat" else formed)
    reply = asked(chat, way, **options)
    assert reply.parsed == JOURNEY
    assert type(reply.parsed) is Journey
    assert reply.parsed is reply.parsed
    assert reply.text == TEXT == said(chats)[-1]
    (request,) = server.requests
    told = sent_format(request.body, api)
    assert {name: told[name] for name in STRICT} == STRICT
    # As the openai package converts a class, with what the provider asks of a strict schema.
    tool: Any = openai.pydantic_function_tool(Journey)
    assert told["schema"] == tool["function"]["parameters"]
    assert told["schema"]["additionalProperties"] is False
    assert told["schema"]["required"] == ["city", "steps"]
    again = asked(chat, way, **options)
    assert (again.replayed, again.parsed) == (True, JOURNEY)
    assert len(server.requests) == 1
    assert chats.store.calls("c")[-1].options is None, "a schema is not on record"
    assert chats.store.verify() == []


def test_other_classes_of_pydantic(chats: Chats, server: ModelServer, api: str) -> None:
    class Plain(BaseModel):
        city: str

    chat = chats.open(api=api)
    for model, text, name in (
        (Weather, WEATHER, "Weather"),
        (Plain, '{"city": "Bari"}', "Plain"),
        (RootModel[Journey], TEXT, "RootModel_Journey_"),
        (Paged[Step], '{"items": [{"explanation": "", "minutes": null}]}', "Paged_Step_"),
    ):
        server.reply_with(Scripted(text))
        reply = chat.send("c", "Where?", response_format=model)
        assert type(reply.parsed) is model
        assert pydantic.TypeAdapter(model).dump_json(reply.parsed, indent=None) == b"".join(
            text.encode().split()
        )
        assert sent_format(server.requests[-1].body, api)["name"] == name


@WAYS
@pytest.mark.parametrize(
    ("reply", "named"),
    [
        (
            Scripted(TEXT[:-20], finish_reason="length"),
            "json_invalid; finish_reason '(length|max_output_tokens)'",
        ),
        (Scripted('{"steps": [{"minutes": "SECRET"}], "SECRET": 1}'), "city: missing, steps.0.explanation: "),
        (Scripted('["SECRET"]'), "model_type"),
        (Scripted("It is SECRET."), "json_invalid"),
    ],
    ids=["cut", "other JSON", "a list", "no JSON"],
)
def test_a_reply_that_is_no_object_is_stored_and_says_so_when_it_is_read(
    chats: Chats, server: ModelServer, api: str, way: str, reply: Any, named: str
) -> None:
    server.reply_with(reply)
    chat = chats.open(api=api, response_format=Journey)
    for number in (1, 2):
        got = asked(chat, way, idempotency_key="k")
        assert got.replayed == (number == 2)
        assert (got.text, got.call.status) == (reply.text, "ok")
        with pytest.raises(errors.ModelError, match=rf"no valid Journey \({named}") as raised:
            _ = got.parsed
        told = "".join(traceback.format_exception(raised.value))
        assert "SECRET" not in told
        assert "Walk" not in told
        assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert said(chats) == ["Where?", reply.text]
    assert chats.store.verify() == []


def test_a_reply_without_any_text_is_no_object(chats: Chats, server: ModelServer, api: str) -> None:
    """All that the model was allowed to write went into its reasoning."""
    server.reply_with(Scripted("", finish_reason="length"))
    got = chats.open(api=api, response_format=Journey).send("c", "Where?")
    with pytest.raises(errors.ModelError, match="no valid Journey"):
        _ = got.parsed


@pytest.mark.parametrize("way", ["send", "stream", "open"])
def test_a_model_that_refuses(chats: Chats, server: ModelServer, api: str, way: str) -> None:
    server.reply_with(Scripted(refusal="I cannot help with that."))
    chat = chats.open(api=api, response_format=Journey)
    if way == "open":
        turn = chat.open("c", "Where?")
        assert list(turn) == []
        reply = turn.reply
    else:
        reply = asked(chat, way)
    assert reply.parsed is None
    assert "I cannot help" in str(reply.message.to_openai())


@pytest.mark.parametrize("where", ["of the chat", "of the turn"])
def test_tools_and_then_the_object(chats: Chats, server: ModelServer, api: str, where: str) -> None:
    calls = Scripted(tool_calls=[("weather", {"city": "Turin"}, "w1")])
    server.reply_with([calls, Scripted(WEATHER), calls, Scripted(WEATHER), calls, Scripted(WEATHER)])
    formed: Any = {"response_format": Weather}
    chat = chats.open(api=api, tools=TOOLS, **(formed if where == "of the chat" else {}))
    options = {} if where == "of the chat" else formed
    reply = chat.run("c", "How is it?", functions={"weather": lambda city: city}, **options)
    assert reply.parsed == Weather("Oslo", -3)
    assert [sent_format(each.body, api)["name"] for each in server.requests] == ["Weather", "Weather"]
    reply = chat.send("c", "And now?", **options)
    assert reply.tool_calls
    assert reply.parsed is None
    assert chat.send_tool_results("c", {"w1": "snow"}, **options).parsed == Weather("Oslo", -3)
    chat.send("c", "And now?", **options)
    *_, reply = chat.stream_tool_results("c", {"w1": "snow"}, **options)
    assert reply.parsed == Weather("Oslo", -3)


def test_a_repeated_run(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Scripted(tool_calls=[("weather", {"city": "Turin"})]), Scripted(WEATHER)])
    chat = chats.open(api=api, tools=TOOLS, response_format=Weather)
    functions = {"weather": lambda city: city}
    for _ in range(2):
        reply = chat.run("c", "How is it?", functions=functions, idempotency_key="k")
        assert reply.parsed == Weather("Oslo", -3)
    assert len(server.requests) == 2


def test_one_owners_chat(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(Scripted(TEXT))
    ann = chats.open(api=api, response_format=Journey).for_owner("ann")
    assert ann.send("c", "Where?").parsed == JOURNEY
    assert ann.send("c", "Where?", response_format=None).parsed is None


def test_what_a_model_says_while_it_is_at_it_is_not_its_answer(chats: Chats, server: ModelServer) -> None:
    def item(number: int, text: str, **keys: Any) -> Any:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        named = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed"}
        return {**named, "content": content, **keys}

    chat = chats.open(api="responses", response_format=Journey)
    for items in (
        [item(1, "I look it up.", phase="commentary"), item(2, TEXT, phase="final_answer")],
        [item(3, TEXT), item(4, "There it is.", phase="commentary")],
        [item(5, "Let me see."), item(6, TEXT)],
    ):
        server.reply_with(Scripted(items=items))
        assert chat.send("c", "Where?").parsed == JOURNEY


def test_replies_are_compared_and_pickled_as_ever(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Scripted(TEXT), Scripted(TEXT), Scripted("no"), Scripted(TEXT)])
    chat = chats.open(api=api)
    for options in ({"response_format": Journey}, {"response_format": Weather}, {}):
        reply = chat.send("c", "Where?", **options)
        other = pickle.loads(pickle.dumps(reply))
        assert other == reply
        assert "_parsed" not in repr(reply)
        if options.get("response_format") is not Journey:
            continue
        assert other.parsed == JOURNEY == reply.parsed
        assert pickle.loads(pickle.dumps(reply)).parsed == JOURNEY, "after it has been read, too"
    bare = chat.send("d", "Where?", idempotency_key="k")
    seen = [chat.send("d", "Where?", idempotency_key="k", response_format=Journey) for _ in range(2)]
    assert bare.parsed is None
    assert seen[0] == seen[1]
