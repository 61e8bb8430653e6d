"""Where a class as `response_format` may stand, what it may be, what it costs, and whom it is told."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel

from tests.conformance.test_chat import TOOLS
from tests.conformance.test_structured_output import (
    JOURNEY,
    STRICT,
    TEXT,
    WEATHER,
    Journey,
    Weather,
    sent_format,
)
from tests.support.chats import Chats
from tokenmem import errors
from tokenmem.chat import Answer, ModelAPI
from tokenmem.testing import Answer as Scripted
from tokenmem.testing import ModelServer


def test_what_the_openai_package_calls_it_for_responses(chats: Chats, server: ModelServer) -> None:
    server.reply_with(Scripted(TEXT))
    chat = chats.open(api="responses", text_format=Journey, text={"verbosity": "low"})
    reply = chat.send("c", "Where?")
    assert reply.parsed == JOURNEY
    assert server.requests[-1].body["text"]["verbosity"] == "low"
    assert reply.call.options == {"text.verbosity": "low"}
    reply = chat.send("c", "Where?", text={"verbosity": "high"})
    assert reply.parsed == JOURNEY
    assert reply.call.options == {"text.verbosity": "high"}
    assert sent_format(server.requests[-1].body, "responses")["name"] == "Journey"
    server.reply_with(Scripted(WEATHER))
    reply = chat.send("c", "How is it?", text_format=Weather)
    assert reply.parsed == Weather("Oslo", -3)
    assert server.requests[-1].body["text"]["verbosity"] == "low"
    with pytest.raises(errors.InvalidArgument, match="did you mean 'response_format'"):
        chats.open(api="chat", text_format=Journey)
    with pytest.raises(errors.InvalidArgument, match="pass a class, or text="):
        chats.open(api="responses", response_format={"type": "json_object"})


def test_one_turn_may_have_another_format(chats: Chats, server: ModelServer, api: str) -> None:
    chat = chats.open(api=api, response_format=Journey)
    server.reply_with(Scripted(WEATHER))
    assert chat.send("c", "How is it?", response_format=Weather).parsed == Weather("Oslo", -3)
    server.reply_with(Scripted("Turin."))
    for options in ({"response_format": None}, given_as_dict(api, {"type": "text"})):
        reply = chat.send("c", "Where?", **options)
        assert (reply.text, reply.parsed) == ("Turin.", None)
        assert sent_format(server.requests[-1].body, api) == {"type": "text"}
    server.reply_with(Scripted(TEXT))
    assert chat.send("c", "Where?").parsed == JOURNEY
    if api == "responses":  # what is beside a format in `text` says nothing of the format
        assert chat.send("c", "Where?", text={"verbosity": "low"}).parsed == JOURNEY


def given_as_dict(api: str, told: Any) -> Any:
    return {"response_format": told} if api == "chat" else {"text": {"format": told}}


def test_dicts_go_on_as_they_are(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(Scripted(TEXT))
    tool: Any = openai.pydantic_function_tool(Journey)
    told = STRICT | {"schema": tool["function"]["parameters"]}
    told = {"json_schema": told} if api == "chat" else told
    options = given_as_dict(api, {"type": "json_schema", **told})
    reply = chats.open(api=api).send("c", "Where?", **options)
    assert (reply.text, reply.parsed) == (TEXT, None)
    (name,) = options
    assert server.requests[-1].body[name] == options[name]
    # Who gives the class to a repeated request gets the object of the stored reply.
    chats.open(api=api).send("d", "Where?", idempotency_key="k", **options)
    again = chats.open(api=api).send("d", "Where?", idempotency_key="k", response_format=Journey)
    assert (again.replayed, again.parsed) == (True, JOURNEY)


class Thing:
    pass


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    thing: Thing


class Undefined(BaseModel):
    thing: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


class Endless(BaseModel):
    inner: "Endless | None" = None
    again: "Endless" = Field(description="the openai package writes it out once more, and again")


WRONG: list[tuple[Any, str]] = [
    (Thing, "the class Thing; pass a class derived from pydantic.BaseModel"),
    (dict, "the class dict"),
    (list[Journey], "pass a class"),
    (Journey | None, "pass a class"),
    (Arbitrary, "Arbitrary, of which no JSON schema can be made"),
    (Undefined, "Undefined, of which no JSON schema can be made"),
    (Endless, "Endless, of which no JSON schema can be made"),
    (BaseModel, "BaseModel, of which no JSON schema can be made"),
    (RootModel[list[int]], "whose JSON is no object"),
]


def test_wrong_classes_are_refused_before_anything_is_stored(
    chats: Chats, server: ModelServer, api: str
) -> None:
    chat = chats.open(api=api, tools=TOOLS)
    for model, named in WRONG:
        for start in (
            lambda options: chats.open(api=api, **options),
            lambda options: chat.send("c", "Where?", **options),
            lambda options: list(chat.stream("c", "Where?", **options)),
            lambda options: chat.open("c", "Where?", **options),
            lambda options: chat.run("c", "Where?", functions={}, **options),
            lambda options: chat.send_tool_results("c", {"w1": "sunny"}, **options),
            lambda options: list(chat.stream_tool_results("c", {"w1": "sunny"}, **options)),
        ):
            with pytest.raises(errors.InvalidArgument, match=named) as raised:
                start({"response_format": model})
            assert "response_format" in str(raised.value)
    if api == "responses":
        for both in ({"text": {"format": {"type": "text"}}}, {"text_format": Journey}):
            with pytest.raises(errors.InvalidArgument, match="pass one"):
                chat.send("c", "Where?", response_format=Journey, **both)
    assert list(chats.store.conversations()) == []
    assert server.requests == []


def test_the_schema_is_part_of_what_a_prompt_costs(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(Scripted(TEXT))
    plain = chats.open(api=api).send("a", "Where?").call.window_tokens
    of_chat = chats.open(api=api, response_format=Journey).send("b", "Where?").call.window_tokens
    of_turn = chats.open(api=api).send("d", "Where?", response_format=Journey).call.window_tokens
    instead = chats.open(api=api, response_format=Weather).send("e", "Where?", response_format=Journey)
    assert plain + 50 < of_chat == of_turn == instead.call.window_tokens
    with pytest.raises(errors.InvalidArgument, match="token_limit"):
        chats.open(api=api, token_limit=60, response_format=Journey)
    with pytest.raises(errors.WindowTooSmall):
        chats.open(api=api, token_limit=60).send("f", "Where?", response_format=Journey)
    # What replaces a longer schema leaves no more room than there is.
    small = chats.open(api=api, token_limit=of_chat, response_format=Journey)
    server.reply_with(Scripted("Turin."))
    assert small.send("g", "Where?", response_format=None).text == "Turin."
    with pytest.raises(errors.WindowTooSmall):
        small.send("h", "Where? " * 20, response_format=None)


def test_a_function_gets_the_schema(chats: Chats) -> None:
    got: list[Any] = []

    def provider(messages: list[Any], response_format: Any = None) -> Iterator[str]:
        got.append(response_format)
        yield TEXT[:5]
        yield TEXT[5:]

    chat = chats.on(provider, "mine", 4000, response_format=Journey)
    assert chat.send("c", "Where?").parsed == JOURNEY
    assert got[0]["json_schema"]["name"] == "Journey"
    *_, reply = chat.stream("c", "Where?")
    assert reply.parsed == JOURNEY
    for given in ("anything", {"of": "its own"}):
        assert chats.on(provider, "mine", 4000, response_format=given).send("c", "Where?").parsed is None
        assert got[-1] == given
    with pytest.raises(errors.InvalidArgument, match="it takes none"):
        chats.on(lambda _: TEXT, "mine", 4000, response_format=Journey)


class Own(ModelAPI):
    """An API that has no parameter of this name, and asks in its instructions."""

    def request(self, head: Any, sent: Any, stream: bool) -> Any:  # noqa: ARG002
        return {"schema": head["response_format"]["json_schema"]["schema"], "said": sent}

    def accepted_options(self, client: Any) -> Any:  # noqa: ARG002
        return {"response_format"}

    def read(self, response: Any) -> Answer:
        return Answer.of_message({"content": response}, finish_reason="end")


def test_an_api_of_the_callers_own(chats: Chats) -> None:
    def client(schema: Any, said: Any) -> str:
        assert schema["required"] == ["city", "degrees"]
        return WEATHER if len(said) < 3 else "SECRET"

    chat = chats.on(client, "mine", 4000, api=Own(), response_format=Weather)
    assert chat.send("c", "How is it?").parsed == Weather("Oslo", -3)
    with pytest.raises(errors.ModelError, match="json_invalid; finish_reason 'end'"):
        _ = chat.send("c", "How is it?").parsed
