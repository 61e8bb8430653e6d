"""Models that are not OpenAI's: functions, whole and in pieces, and APIs of the caller's own."""

import asyncio
import functools
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conformance.test_chat import TOOLS, refused
from tests.support.chats import Chats
from tests.support.stores import Stores
from tokenmem import AsyncChat, Chat, Reply, errors
from tokenmem.chat import Answer, ModelAPI, StreamReader
from tokenmem.chat.base import BaseChat
from tokenmem.chat.options import OF_A_TURN, OF_CHAT
from tokenmem.chat.settings import api_of
from tokenmem.testing import Answer as Scripted
from tokenmem.testing import ModelServer

PIECES = ["At ", "21:", "58."]


def generator(messages: list[Any]) -> Iterator[str]:
    assert messages[-1]["role"] == "user"
    yield from PIECES


def iterator(_: list[Any]) -> Iterator[str]:
    return iter(PIECES)


async def async_generator(messages: list[Any]) -> AsyncIterator[str]:
    for piece in generator(messages):
        await asyncio.sleep(0)
        yield piece


async def async_function(messages: list[Any]) -> AsyncIterator[str]:
    return async_generator(messages)


class CallableObject:
    def __call__(self, messages: list[Any]) -> Iterator[str]:
        return generator(messages)


class AsyncCallableObject:
    async def __call__(self, messages: list[Any]) -> AsyncIterator[str]:
        return async_generator(messages)


def models(stores: Stores) -> list[Callable[..., Any]]:
    """Functions that yield; in AsyncChat the asynchronous ones too."""
    plain: list[Callable[..., Any]] = [generator, iterator, CallableObject()]
    return [*plain, async_generator, async_function, AsyncCallableObject()] if stores.is_async else plain


def test_a_function_that_yields_streams(chats: Chats, stores: Stores) -> None:
    for number, model in enumerate(models(stores)):
        chat = chats.on(model, "mine", 1000)
        *pieces, reply = chat.stream(f"c{number}", "When does it leave?")
        assert pieces == PIECES
        assert (reply.text, reply.message.content, reply.call.status) == ("At 21:58.", "At 21:58.", "ok")
        assert reply.call.finish_reason == "stop"
        again = chat.send(f"c{number}", "Once more?")
        assert (again.text, again.message.position) == ("At 21:58.", 4)


def test_what_a_function_yields_must_be_text(chats: Chats) -> None:
    def broken(_: list[Any]) -> Iterator[Any]:
        yield "At "
        yield 21

    with pytest.raises(errors.ModelError, match="yielded a int; yield strings"):
        chats.on(broken, "mine", 1000).send("c", "When?")
    question, part = chats.store.messages("c")
    assert (question.content, part.content, part.partial) == ("When?", "At ", True)


def test_a_generator_that_fails_keeps_what_it_has_yielded(chats: Chats) -> None:
    def failing(_: list[Any]) -> Iterator[str]:
        yield "half "
        raise LookupError("gone")

    stream = chats.on(failing, "mine", 1000).stream("c", "When?")
    assert next(stream) == "half "
    with pytest.raises(LookupError):
        next(stream)
    assert [(message.content, message.partial) for message in chats.store.messages("c")[1:]] == [
        ("half ", True)
    ]
    (call,) = chats.store.calls("c")
    assert (call.status, call.error) == ("error", "LookupError")


def test_leaving_the_stream_of_a_function_closes_it(chats: Chats, stores: Stores) -> None:
    closed = threading.Event()

    def endless(_: list[Any]) -> Iterator[str]:
        try:
            while True:
                yield "on "
        finally:
            closed.set()

    stream = chats.on(endless, "mine", 1000).stream("c", "Go")
    assert [next(stream), next(stream)] == ["on ", "on "]
    stream.close()
    assert closed.wait(5)
    _, part = chats.store.messages("c")
    assert part.partial
    assert part.content == "on on "
    (call,) = chats.store.calls("c")
    assert call.status == "cancelled"


@pytest.mark.parametrize("stores", ["sqlite-async", "postgresql-async"], indirect=True)
def test_a_blocking_generator_does_not_block_the_event_loop(stores: Stores) -> None:
    """It is asked for each piece in a thread; a task that is cancelled does not wait for the next one."""
    opened: Any = stores.open()
    go_on, closed = threading.Event(), threading.Event()
    loop_thread = threading.get_ident()

    def slow(_: list[Any]) -> Iterator[str]:
        assert threading.get_ident() != loop_thread
        try:
            yield "first "
            assert go_on.wait(30)
            yield "second"
        finally:
            closed.set()

    async def main() -> None:
        chat = AsyncChat(opened.store, slow, "mine")
        first = asyncio.Event()

        async def read() -> None:
            async with aclosing(chat.stream("c", "Go")) as stream:
                async for _ in stream:
                    first.set()

        reading = asyncio.create_task(read())
        await asyncio.wait_for(first.wait(), 10)
        await asyncio.sleep(0.05)  # the thread is waiting for the second piece now, and the loop still runs
        started = time.perf_counter()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert time.perf_counter() - started < 5
        assert not closed.is_set()
        go_on.set()
        assert await asyncio.to_thread(closed.wait, 10), "the thread closes what has been left"
        _, part = await opened.store.messages("c")
        assert (part.content, part.partial) == ("first ", True)

    stores.loop.run(main())


@pytest.mark.parametrize("stores", ["sqlite-sync"], indirect=True)
def test_a_chat_cannot_await(chats: Chats) -> None:
    for model in (async_generator, async_function, AsyncCallableObject()):
        with refused("client is an async function"):
            chats.on(model, "mine", 1000)
    with pytest.raises(errors.InvalidArgument, match="use AsyncChat"):
        chats.on(lambda messages: async_generator(messages), "mine", 1000).send("c", "Hi")


class Shouting(ModelAPI):
    """A provider with a client and a form of its own, that streams."""

    def endpoint(self, client: Any) -> Callable[..., Any]:
        return client.shout  # type: ignore[no-any-return]

    def accepted_options(self, client: Any) -> frozenset[str]:  # noqa: ARG002
        return frozenset({"volume"})

    def instructions(self, text: str) -> dict[str, Any]:
        return {"rules": text}

    def request(self, head: dict[str, Any], sent: Any, stream: bool) -> dict[str, Any]:
        return {**head, "lines": [f"{each['role']}: {each['content']}" for each in sent], "live": stream}

    def read(self, response: Any) -> Answer:
        return Answer.of_message(
            {"content": response["said"], "mood": "loud"}, usage={"input_tokens": 7}, request_id="r1"
        )

    def reader(self, response: Any) -> StreamReader | None:
        return None if isinstance(response, dict) else ShoutReader()


class ShoutReader:
    def __init__(self) -> None:
        self.words: list[str] = []
        self.complete = False

    def feed(self, event: Any) -> str:
        if event is None:
            self.complete = True
            return ""
        self.words.append(event)
        return str(event)

    def answer(self) -> Answer:
        return Answer.of_message({"content": "".join(self.words)}, finish_reason="over")

    def part(self) -> Answer:
        return Answer.part_of_message("".join(self.words))


class Shouter:
    """The client of that provider."""

    def __init__(self, *, is_complete: bool = True) -> None:
        self.asked: list[dict[str, Any]] = []
        self.is_complete = is_complete

    def shout(self, **request: Any) -> Any:
        self.asked.append(request)
        said = request["lines"][-1].upper()
        if not request["live"]:
            return {"said": said}
        return iter([said[:3], said[3:], *([None] if self.is_complete else [])])


class AsyncShouter(Shouter):
    async def shout(self, **request: Any) -> Any:
        answer = super().shout(**request)
        return answer if isinstance(answer, dict) else self._stream(answer)

    async def _stream(self, events: Iterator[Any]) -> AsyncIterator[Any]:
        for event in events:
            yield event


def shouters(stores: Stores, **options: Any) -> list[Shouter]:
    return [Shouter(**options), AsyncShouter(**options)] if stores.is_async else [Shouter(**options)]


def test_an_api_of_the_callers_own(chats: Chats, stores: Stores) -> None:
    for number, client in enumerate(shouters(stores)):
        chat = chats.on(client, "mine", 1000, api=Shouting(), instructions="Shout.", volume=3)
        reply: Reply = chat.send(f"c{number}", "hi")
        assert (reply.text, reply.call.input_tokens, reply.call.request_id) == ("USER: HI", 7, "r1")
        assert reply.message.to_openai() == {"role": "assistant", "content": "USER: HI", "mood": "loud"}
        *pieces, streamed = chat.stream(f"c{number}", "ho", volume=4)
        assert (pieces, streamed.text) == (["USE", "R: HO"], "USER: HO")
        assert streamed.call.finish_reason == "over"
        assert [
            {key: each[key] for key in ("model", "rules", "volume", "live")} for each in client.asked
        ] == [
            {"model": "mine", "rules": "Shout.", "volume": 3, "live": False},
            {"model": "mine", "rules": "Shout.", "volume": 4, "live": True},
        ]
        assert client.asked[1]["lines"] == ["user: hi", "assistant: USER: HI", "user: ho"]
        with refused("'loudness' is no option of a request here; use one of volume"):
            chat.send(f"c{number}", "hi", loudness=3)


def test_a_stream_of_the_callers_api_that_ends_too_early(chats: Chats, stores: Stores) -> None:
    for number, client in enumerate(shouters(stores, is_complete=False)):
        chat = chats.on(client, "mine", 1000, api=Shouting())
        with pytest.raises(errors.ModelError, match="ended before"):
            list(chat.stream(f"c{number}", "hi"))
        _, part = chats.store.messages(f"c{number}")
        assert (part.content, part.partial) == ("USER: HI", True)


@pytest.mark.parametrize("stores", ["sqlite-sync"], indirect=True)
def test_what_is_no_api(chats: Chats) -> None:
    for given in (7, Shouting, object()):
        with refused("api is .*ModelAPI"):
            chats.on(Shouter(), "mine", 1000, api=given)
    with refused("Shouting can only be awaited"):
        chats.on(AsyncShouter(), "mine", 1000, api=Shouting())


def test_misspelt_options_are_refused_before_anything_is_stored(chats: Chats, server: ModelServer) -> None:
    server.reply_with(Scripted("Hi"))
    for api in ("chat", "responses"):
        chat = chats.open(api=api, temperature=0, extra_headers={"x": "1"})
        for named, remedy in (
            ("idempotency_kye", "did you mean 'idempotency_key'"),
            ("temprature", "did you mean 'temperature'"),
            ("token_limit", "pass token_limit to Chat"),
            ("only_this_server", "extra_body"),
        ):
            told = f"{named!r} is no option of a request here; .*{remedy}"
            for act in (
                lambda **given: chat.send("c", "Hi", **given),  # noqa: B023
                lambda **given: list(chat.stream("c", "Hi", **given)),  # noqa: B023
                lambda **given: chat.run("c", "Hi", functions={}, **given),  # noqa: B023
                lambda **given: chat.send_tool_results("c", {"a": "b"}, **given),  # noqa: B023
                lambda **given: list(chat.stream_tool_results("c", {"a": "b"}, **given)),  # noqa: B023
            ):
                with refused(told):
                    act(**{named: 1})
        with refused("'token_limt' is no option .*did you mean 'token_limit'"):
            chats.open(api=api, token_limt=100)
        with refused("pass idempotency_key to the method"):
            chats.open(api=api, idempotency_key="x")
    assert chats.store.conversations() == []
    assert server.requests == []
    given = {"extra_body": {"x_server": 1}, "timeout": 10, "temperature": 1, "metadata": {"a": "b"}}
    assert chats.open().send("c", "Hi", **given).text == "Hi"
    assert server.requests[0].body["x_server"] == 1


def test_a_function_is_judged_by_its_signature(chats: Chats) -> None:
    def strict(messages: list[Any], temperature: float = 1) -> str:
        return f"{len(messages)} at {temperature}"

    chat = chats.on(strict, "mine", 1000, temperature=0)
    assert chat.send("c", "Hi", temperature=2).text == "1 at 2"
    with refused("did you mean 'temperature'"):
        chat.send("c", "Hi", temprature=2)
    with refused("'seed' is no option of a request here; use one of temperature"):
        chats.on(strict, "mine", 1000, seed=2)
    with refused("takes no tools"):
        chats.on(strict, "mine", 1000, tools=TOOLS)
    with refused("it takes none"):
        chats.on(lambda _: "Hi", "mine", 1000, seed=2)
    assert chats.on(lambda _, **given: str(given), "mine", 1000, tools=TOOLS).send("d", "Hi", seed=2)


@pytest.mark.parametrize("stores", ["sqlite-sync"], indirect=True)
def test_a_clients_own_create_is_judged_by_its_signature(chats: Chats) -> None:
    answer = {"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}

    def strict(model: str, messages: list[Any], mood: str = "", prompt_cache_key: str = "") -> Any:
        return answer

    def client(create: Callable[..., Any]) -> Any:
        return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))

    assert chats.on(client(strict), mood="calm").send("c", "Hi").text == "Hi"
    with refused("'temperature' is no option"):
        chats.on(client(strict), temperature=1)
    assert chats.on(client(lambda **_: answer), anything=1).send("c", "Hi", more=2).text == "Hi"
    # What a tracing library puts around the openai package's method may take arguments of its own.
    openais = chats.open()._client
    create = openais.chat.completions.create

    @functools.wraps(create)
    def traced(*_: Any, trace_id: str, **__: Any) -> Any:
        return answer

    openais.chat.completions.create = traced
    assert chats.on(openais).send("c", "Hi", trace_id="t1").text == "Hi"


def test_the_arguments_that_an_option_may_mean() -> None:
    settings = [*inspect.signature(BaseChat.__init__).parameters][3:-1]
    assert set(settings) == set(OF_CHAT)
    turns = {name for method in (Chat.send, Chat.run) for name in inspect.signature(method).parameters}
    assert turns - {"self", "conversation_id", "message", "options"} == set(OF_A_TURN)
    assert type(api_of("chat", lambda _: "")).__name__ == "Function"
