"""The models, OpenAI's through the real client, and how a chain calls whatever else it is given."""

import asyncio
import functools
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from tokenmem import ConversationChain, ConversationTokenBufferMemory, OpenAIChat, OpenAICompletion, Store
from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.langchain.llms import ask, ask_async, check_llm, text_of
from tokenmem.testing import Answer, Failure, ModelServer, RawReply, Reply

MODELS = [OpenAICompletion, OpenAIChat]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer([]) as running:
        yield running
        assert running.problems == []


@pytest.fixture
def client(server: ModelServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="key", max_retries=0) as client:
        yield client


def asked(server: ModelServer) -> list[tuple[str, dict[str, Any]]]:
    return [(request.path, request.body) for request in server.requests]


def async_client(server: ModelServer) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.base_url, api_key="key", max_retries=0)


def test_completion_sends_the_prompt_and_returns_the_text_unstripped(
    server: ModelServer, client: openai.OpenAI
) -> None:
    server.reply_with([Answer(" Hi there!\n")])
    assert OpenAICompletion(client=client)("Human: hi\nAI:") == " Hi there!\n"
    body = {
        "model": "gpt-3.5-turbo-instruct",
        "prompt": "Human: hi\nAI:",
        "temperature": 0.7,
        "max_tokens": 256,
    }
    assert asked(server) == [("/v1/completions", body)]


def test_chat_sends_one_users_message(server: ModelServer, client: openai.OpenAI) -> None:
    server.reply_with([Answer(" Hi! ")])
    llm = OpenAIChat("gpt-4o", client=client, temperature=0)
    assert llm.invoke("hello", stop=["\n"]) == " Hi! "
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0,
        "stop": ["\n"],
    }
    assert asked(server) == [("/v1/chat/completions", body)]


@pytest.mark.parametrize("model", MODELS)
def test_awaited_it_asks_the_same(
    model: type[OpenAICompletion | OpenAIChat], server: ModelServer, client: openai.OpenAI
) -> None:
    async def awaited() -> str:
        async with async_client(server) as client:
            return await model(async_client=client).ainvoke("hello", top_p=0.5)

    server.reply_with(Answer("yes"))
    assert asyncio.run(awaited()) == "yes"
    assert asyncio.run(model(client=client).ainvoke("hello", top_p=0.5)) == "yes"  # in a thread
    assert model(client=client).invoke("hello", top_p=0.5) == "yes"
    first, second, third = asked(server)
    assert first == second == third


@pytest.mark.parametrize("model", MODELS)
def test_clients_of_its_own_are_made_at_first_use(
    model: type[OpenAICompletion | OpenAIChat], server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = model()
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    server.reply_with([Answer("one"), Answer("two"), Answer("three")])
    assert llm("a") == "one"
    assert llm.client is llm.client
    llm.client.close()

    async def awaited() -> str:
        text = await llm.ainvoke("b")
        assert llm.async_client is llm.async_client
        await llm.async_client.close()
        return text

    # Two event loops in turn: connections of the first are of no use to the second.
    assert [asyncio.run(awaited()), asyncio.run(awaited())] == ["two", "three"]


def test_no_api_key_is_openais_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(openai.OpenAIError, match="OPENAI_API_KEY"):
        OpenAICompletion()("hi")


def test_a_failed_request_is_openais_own_error(server: ModelServer, client: openai.OpenAI) -> None:
    server.reply_with([Failure(429, message="slow down")])
    with pytest.raises(openai.RateLimitError, match="slow down"):
        OpenAIChat(client=client)("hi")


@pytest.mark.parametrize(
    ("reply", "said"),
    [(Answer(None), "finish_reason 'stop'"), (RawReply({"choices": []}), "no choices")],
    ids=["null", "no choices"],
)
def test_an_answer_without_text(reply: Reply, said: str, server: ModelServer, client: openai.OpenAI) -> None:
    server.reply_with([reply])
    with pytest.raises(InvalidMessage, match=said):
        OpenAIChat(client=client)("hi")


def test_clients_of_the_wrong_kind(server: ModelServer, client: openai.OpenAI) -> None:
    wrong: Any = async_client(server)
    with pytest.raises(InvalidArgument, match="pass it as async_client"):
        OpenAIChat(client=wrong)
    with pytest.raises(InvalidArgument, match="pass it as client"):
        OpenAIChat(async_client=client)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="only async_client was given"):
        OpenAIChat(async_client=wrong)("hi")
    with pytest.raises(InvalidArgument, match="stream"):
        OpenAICompletion(stream=True)


def test_through_the_chain_into_the_database(
    server: ModelServer, client: openai.OpenAI, ready_url: str
) -> None:
    server.reply_with([Answer(" Hello!"), Failure(500, message="broken"), Answer(" Again!")])
    llm = OpenAICompletion(client=client)
    with Store(ready_url) as store:
        memory = ConversationTokenBufferMemory(llm=llm, store=store, conversation_id="c")
        chain = ConversationChain(llm=llm, memory=memory)
        assert chain.predict(input="hi", stop=["Human:"]) == " Hello!"
        assert server.requests[0].body["stop"] == ["Human:"]
        with pytest.raises(openai.InternalServerError, match="broken"):
            chain.predict(input="lost")
        assert chain.predict(input="once more") == " Again!"
        assert [message.content for message in store.messages("c")] == [
            "hi",
            " Hello!",
            "lost",
            "once more",
            " Again!",
        ]
    assert server.requests[2].body["prompt"].endswith("AI:  Hello!\nHuman: once more\nAI:")


def test_repr_names_the_model_and_no_key(client: openai.OpenAI) -> None:
    assert repr(OpenAIChat(client=client)) == "<OpenAIChat gpt-4o-mini>"


def test_openai_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, tokenmem as t; t.OpenAIChat(); t.OpenAICompletion(); assert 'openai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Answers:
    """A model as LangChain's are: every way of calling it says which one it was."""

    def __init__(self, *, content: Any = None) -> None:
        self.content = content

    def answer(self, how: str, prompt: str, stop: Any) -> Any:
        said = f"{how} {prompt} {stop}"
        return said if self.content is None else SimpleNamespace(content=self.content)

    def __call__(self, prompt: str, stop: Any = None) -> Any:
        return self.answer("call", prompt, stop)

    def invoke(self, prompt: str, _config: Any = None, *, stop: Any = None) -> Any:
        return self.answer("invoke", prompt, stop)

    async def ainvoke(self, prompt: str, _config: Any = None, *, stop: Any = None) -> Any:
        return self.answer("ainvoke", prompt, stop)


class AwaitedCall:
    async def __call__(self, prompt: str) -> str:
        return f"awaited {prompt}"


async def awaited(prompt: str) -> str:
    return f"awaited {prompt}"


def plain(prompt: str) -> str:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()  # never in the event loop's own thread
    return f"plain {prompt}"


def test_invoke_goes_before_the_call() -> None:
    assert ask(Answers(), "hi") == "invoke hi None"
    assert ask(Answers(), "hi", stop=["."]) == "invoke hi ['.']"
    assert asyncio.run(ask_async(Answers(), "hi", stop=["."])) == "ainvoke hi ['.']"


def test_functions() -> None:
    assert ask(plain, "hi") == asyncio.run(ask_async(plain, "hi")) == "plain hi"
    for llm in (awaited, AwaitedCall(), functools.partial(awaited), lambda prompt: awaited(prompt)):
        assert asyncio.run(ask_async(llm, "hi")) == "awaited hi"
        with pytest.raises(InvalidArgument, match="must be awaited; use apredict"):
            ask(llm, "hi")


def test_objects_with_one_method() -> None:
    only_async, only_sync = SimpleNamespace(ainvoke=awaited), SimpleNamespace(invoke=plain)
    assert asyncio.run(ask_async(only_async, "hi")) == "awaited hi"
    assert asyncio.run(ask_async(only_sync, "hi")) == ask(only_sync, "hi") == "plain hi"
    with pytest.raises(InvalidArgument, match="must be awaited"):
        ask(only_async, "hi")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (" a ", " a "),
        ("", ""),
        ([], ""),
        (["a", " b"], "a b"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}, {"type": "tool_use"}], "a"),
    ],
)
def test_content_of_a_message(content: Any, text: str) -> None:
    llm = Answers(content=content)
    assert text_of(ask(llm, "hi")) == text_of(asyncio.run(ask_async(llm, "hi"))) == text


@pytest.mark.parametrize("content", [7, b"a", [{"type": "tool_use"}], [7], {"text": "a"}])
def test_no_text(content: Any) -> None:
    with pytest.raises(InvalidMessage, match="no text"):
        text_of(SimpleNamespace(content=content))


@pytest.mark.parametrize("answer", [None, b"a", object(), iter("a")])
def test_what_says_nothing(answer: Any) -> None:
    with pytest.raises(InvalidMessage, match=f"{type(answer).__name__} that has no text"):
        text_of(answer)


@pytest.mark.parametrize(
    ("answer", "text"), [(7, "7"), (True, "True"), ({"a": 1}, "{'a': 1}"), (["a", "b"], "['a', 'b']")]
)
def test_what_is_no_text_is_its_str(answer: Any, text: str) -> None:
    assert text_of(answer) == text


def test_what_cannot_be_called_at_all() -> None:
    check_llm(Answers())
    with pytest.raises(InvalidArgument, match="llm is a str"):
        check_llm("gpt-4o")
