"""The scripted server, as the real client sync or async sees it."""

import asyncio
import importlib.util
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import openai
import pytest

from tokenmem.testing import (
    Answer,
    Cut,
    Failure,
    ModelServer,
    RawReply,
    Reply,
    Request,
    Script,
    Stall,
    StreamError,
    ToolCallSpec,
)

HI: Any = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
ASK: Any = {"model": "gpt-5", "input": "hi", "include": ["reasoning.encrypted_content"]}
CALLS: Any = [ToolCallSpec("add", {"a": 1, "b": [2, 3]}, "call_1"), ("now", "not JSON")]
TEXT = "Grüße aus 東京, wie geht es dir heute? 👋🏽"
# While a stream is read, older clients let the errors of their HTTP library through. A timeout is one.
BROKEN = (
    openai.APIConnectionError,
    *(
        importlib.import_module(each).TransportError
        for each in ("httpx", "httpx2")
        if importlib.util.find_spec(each)
    ),
)
Serve = Callable[[Script], Any]


@contextmanager
def served(script: Script, **options: Any) -> Iterator[tuple[ModelServer, Any]]:
    """A running server, and a client of it that tries again as often as it does by itself."""
    with (
        ModelServer(script, **options) as server,
        openai.OpenAI(base_url=server.base_url, api_key="k") as client,
    ):
        yield server, client


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server for a script, and returns a client of it that tries once."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(served(script))[1].with_options(max_retries=0, timeout=20)


def stream_chat(client: Any, **options: Any) -> list[Any]:
    return list(client.chat.completions.create(**HI, stream=True, **options))


def test_a_chat_completion(serve: Serve) -> None:
    client = serve(Answer(TEXT, tool_calls=CALLS, reasoning="hm", extra={"mood": "fine"}))
    done = client.chat.completions.create(**HI)
    (choice,) = done.choices
    assert (choice.message.content, choice.finish_reason) == (TEXT, "tool_calls")
    first, second = choice.message.tool_calls
    assert (first.id, first.function.name) == ("call_1", "add")
    assert first.function.arguments == '{"a": 1, "b": [2, 3]}'
    assert (second.id[:5], second.function.arguments) == ("call_", "not JSON")
    assert choice.message.model_extra == {"mood": "fine"}
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.usage.prompt_tokens_details.cached_tokens == 0
    assert client.chat.completions.with_raw_response.create(**HI).headers["x-request-id"].startswith("req_")


def test_a_streamed_chat_completion_says_the_same(serve: Serve) -> None:
    client = serve(Answer(TEXT, tool_calls=CALLS))
    chunks = stream_chat(client, stream_options={"include_usage": True})
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == TEXT
    calls: dict[int, str] = {}
    for chunk in chunks[:-1]:
        for call in chunk.choices[0].delta.tool_calls or ():
            calls[call.index] = calls.get(call.index, "") + call.function.arguments
    assert calls == {0: '{"a": 1, "b": [2, 3]}', 1: "not JSON"}
    assert chunks[-2].choices[0].finish_reason == "tool_calls"
    assert (chunks[-1].choices, [chunk.usage for chunk in chunks[:-1] if chunk.usage]) == ([], [])
    assert chunks[-1].usage == client.chat.completions.create(**HI).usage
    with client.chat.completions.stream(**HI) as events:
        message = events.get_final_completion().choices[0].message
    assert (message.content, message.tool_calls[1].function.arguments) == (TEXT, "not JSON")
    assert all(chunk.choices for chunk in stream_chat(client))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(refusal="I will not."), (None, "I will not.", "stop")),
        (Answer("cut o", finish_reason="length"), ("cut o", None, "length")),
        (Answer("", finish_reason="content_filter"), ("", None, "content_filter")),
        (Answer(), (None, None, "stop")),
    ],
)
def test_answers_of_every_kind_in_a_chat(answer: Answer, said: tuple[Any, ...], serve: Serve) -> None:
    client = serve(answer)
    whole = client.chat.completions.create(**HI).choices[0]
    assert (whole.message.content, whole.message.refusal, whole.finish_reason) == said
    choices = [chunk.choices[0] for chunk in stream_chat(client)]
    streamed = ["".join(getattr(c.delta, key) or "" for c in choices) for key in ("content", "refusal")]
    assert (*streamed, choices[-1].finish_reason) == tuple(text or "" for text in said)


def test_a_response_whole_and_streamed(serve: Serve) -> None:
    client = serve(Answer(TEXT, tool_calls=CALLS, reasoning="Let me think."))
    whole = client.responses.create(**ASK)
    with client.responses.stream(**ASK) as stream:
        events = list(stream)
        streamed = stream.get_final_response()
    for response in (whole, streamed):
        thought, message, first, second = response.output
        assert (thought.type, thought.summary[0].text) == ("reasoning", "Let me think.")
        assert thought.encrypted_content
        assert (message.type, response.output_text, response.status) == ("message", TEXT, "completed")
        assert (first.call_id, first.arguments, second.arguments) == (
            "call_1",
            '{"a": 1, "b": [2, 3]}',
            "not JSON",
        )
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
        assert response.usage.output_tokens_details.reasoning_tokens > 0
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event.type.removeprefix("response.") for event in events))
    assert " ".join(kinds) == (
        "created in_progress output_item.added reasoning_summary_part.added reasoning_summary_text.delta "
        "reasoning_summary_text.done reasoning_summary_part.done output_item.done content_part.added "
        "output_text.delta output_text.done content_part.done function_call_arguments.delta "
        "function_call_arguments.done completed"
    )
    silent = client.responses.create(model="gpt-5", input="hi")
    assert silent.output[0].encrypted_content is None  # nobody asked for it


def test_responses_that_end_otherwise(serve: Serve) -> None:
    items: Any = [{"type": "hologram", "id": "ho_1", "rays": 7}, {"type": "web_search_call", "id": "ws_1"}]
    client = serve(
        [
            Answer("cut o", finish_reason="length"),
            Answer(refusal="No."),
            Answer(items=items),
            Answer(items=items),
        ]
    )
    *_, last = client.responses.create(**ASK, stream=True)
    assert (last.type, last.response.incomplete_details.reason) == (
        "response.incomplete",
        "max_output_tokens",
    )
    with client.responses.stream(**ASK) as stream:
        assert stream.get_final_response().output[0].content[0].refusal == "No."
    assert [item.to_dict() for item in client.responses.create(**ASK).output] == items
    done = [e.item.to_dict() for e in client.responses.create(**ASK, stream=True) if "item.done" in e.type]
    assert done == items


def test_usage_can_be_told_and_text_cut_as_one_likes(serve: Serve) -> None:
    told = {"prompt_tokens": 5000, "prompt_tokens_details": {"cached_tokens": 4096}}
    client = serve(Answer("abcdef", usage=told, chunks=2))
    usage = client.chat.completions.create(**HI).usage
    assert (usage.prompt_tokens, usage.total_tokens) == (5000, 5000 + usage.completion_tokens)
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.audio_tokens) == (4096, 0)
    contents = [chunk.choices[0].delta.content for chunk in stream_chat(client)]
    assert [content for content in contents if content] == ["abc", "def"]


def test_failures_are_the_clients_errors(serve: Serve) -> None:
    client = serve(
        [Failure(429, "slow", "slow down", {"retry-after": "7"}), Failure(500), Failure(400, "bad")]
    )
    with pytest.raises(openai.RateLimitError, match="slow down") as caught:
        client.chat.completions.create(**HI)
    assert (caught.value.code, caught.value.response.headers["retry-after"]) == ("slow", "7")
    with pytest.raises(openai.InternalServerError):
        stream_chat(client)
    with pytest.raises(openai.BadRequestError):
        client.responses.create(**ASK)


def test_errors_within_a_stream(serve: Serve) -> None:
    broken = StreamError(after=3, message="gone", answer=Answer(TEXT))
    client = serve([broken, broken, StreamError(event="response.failed"), broken])
    chunks: list[Any] = []
    with pytest.raises(openai.APIError, match="gone"):
        chunks.extend(client.chat.completions.create(**HI, stream=True))
    assert len(chunks) == 3
    events = list(client.responses.create(**ASK, stream=True))
    assert (len(events), events[-1].type, events[-1].message) == (4, "error", "gone")
    (failed,) = client.responses.create(**ASK, stream=True)
    assert (failed.type, failed.response.error.code) == ("response.failed", "server_error")
    with pytest.raises(openai.InternalServerError, match="gone"):
        client.chat.completions.create(**HI)


@pytest.mark.parametrize("after", [0, 2, 999])
def test_a_cut_connection(after: int, serve: Serve) -> None:
    client = serve(Cut(after, Answer(TEXT)))
    chunks: list[Any] = []
    for create, asked in ((client.chat.completions.create, HI), (client.responses.create, ASK)):
        with pytest.raises(openai.APIConnectionError):
            create(**asked)
        chunks.clear()
        with pytest.raises(BROKEN):
            chunks.extend(create(**asked, stream=True))
        assert len(chunks) == after or after == 999
        assert not any("completed" in getattr(chunk, "type", "") for chunk in chunks)


def test_a_stall_goes_on_and_delays_are_kept(serve: Serve) -> None:
    slow = Answer("abc", chunks=1, delay=0.05, chunk_delay=0.05)
    client = serve([Stall(2, 0.2, Answer("abc")), Stall(0, 0.2, Answer("abc")), slow, Stall(1, 9)])
    times = [time.monotonic() for _ in client.chat.completions.create(**HI, stream=True)]
    assert times[2] - times[1] > 0.15
    begun = time.monotonic()
    assert client.chat.completions.create(**HI).choices[0].message.content == "abc"
    assert time.monotonic() - begun > 0.2
    begun = time.monotonic()
    assert len(stream_chat(client)) == 3
    assert time.monotonic() - begun > 0.2  # before the first, and between three and [DONE]
    with pytest.raises(BROKEN):
        stream_chat(client.with_options(timeout=0.2))


def test_closing_wakes_whatever_waits() -> None:
    before = threading.active_count()
    with ModelServer(Stall(1, 60)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="test", max_retries=0)
        streams = [iter(client.chat.completions.create(**HI, stream=True)) for _ in range(5)]
        assert [next(stream).choices[0].delta.role for stream in streams] == ["assistant"] * 5
        assert server.open_streams == 5
        begun = time.monotonic()
    assert time.monotonic() - begun < 0.5
    assert threading.active_count() == before
    for stream in streams:
        with pytest.raises(BROKEN):
            list(stream)
    server.close()
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
    client.close()


def test_a_client_that_leaves_ends_its_stream() -> None:
    with served(Stall(2, 60)) as (server, client):
        stream = client.chat.completions.create(**HI, stream=True)
        next(iter(stream))
        assert server.open_streams == 1
        stream.close()
        until = time.monotonic() + 5
        while server.open_streams and time.monotonic() < until:
            time.sleep(0.005)
        assert (server.open_streams, server.problems) == (0, [])


def test_replies_go_by_order_of_arrival_and_then_there_are_none() -> None:
    with served([Answer("one"), Answer("two")]) as (server, client):
        texts = [client.chat.completions.create(**HI).choices[0].message.content for _ in range(2)]
        assert texts == ["one", "two"]
        with pytest.raises(openai.InternalServerError, match="no reply left"):
            client.chat.completions.create(**HI)  # not repeated by the client
        assert [(request.number, request.path) for request in server.requests] == [
            (number, "/v1/chat/completions") for number in range(3)
        ]
        assert server.requests[0].body == HI
        assert server.requests[0].headers["authorization"] == "Bearer k"
        assert len(server.problems) == 1


def test_a_script_that_fails_says_so() -> None:
    def broken(request: Request) -> Reply:
        raise KeyError(request.number)

    not_a_reply: Any = ["text"]
    for script, said in ((broken, "KeyError: 0"), (not_a_reply, "is a str")):
        with served(script) as (server, client):
            with pytest.raises(openai.InternalServerError, match=said):
                client.chat.completions.create(**HI)
            assert said in server.problems[0]


def test_what_else_can_be_asked(serve: Serve) -> None:
    client = serve([Answer("a b"), RawReply({"object": "anything"}, 200), Answer("streamed")])
    assert client.completions.create(model="gpt-3.5-turbo-instruct", prompt="x").choices[0].text == "a b"
    assert client.chat.completions.create(**HI).object == "anything"
    chunks = client.completions.create(model="gpt-3.5-turbo-instruct", prompt="x", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "streamed"
    assert "gpt-4o" in [model.id for model in client.models.list()]
    for ask in (client.files.list, lambda: client.embeddings.create(model="m", input="x")):
        with pytest.raises(openai.NotFoundError, match="Invalid URL"):
            ask()
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        urllib.request.urlopen(f"{client.base_url}chat/completions", b"[nonsense")
    assert "could not parse the JSON" in caught.value.read().decode()


def test_an_invalid_prompt_is_refused_unless_told_otherwise() -> None:
    asked: Any = {**HI, "messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}
    with served([Answer("fine")]) as (server, client):
        with pytest.raises(openai.BadRequestError, match="must be a response to a preceeding") as caught:
            client.chat.completions.create(**asked)
        assert caught.value.code == "invalid_request_error"
        assert (len(server.problems), len(server.requests)) == (1, 1)
        assert client.chat.completions.create(**HI).choices  # the reply is still there
    with served([Answer("fine")], strict=False) as (server, client):
        assert client.chat.completions.create(**asked).choices
        assert (len(server.problems), len(server.requests)) == (1, 1)


def test_a_simulated_cache() -> None:
    words = [{"role": "user", "content": f"Word {number}. " * 100} for number in range(10)]
    with served(Answer("ok"), cache=True) as (_, client):

        def cached(*messages: Any) -> tuple[int, int]:
            usage: Any = client.chat.completions.create(model="gpt-4o", messages=messages).usage
            return usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens

        assert cached(*words[:6])[0] == 0
        hit, prompt = cached(*words)
        assert (hit % 128, hit >= 1024, hit < prompt) == (0, True, True)
        assert cached(*words)[0] > hit
        assert cached(words[9], *words)[0] == 0  # another beginning
        assert cached(*words[:1])[0] == 0  # too short
    with served(Answer("ok"), count=lambda _: 77) as (_, client):
        usage: Any = client.responses.create(**ASK).usage
        assert usage.input_tokens == 77


def test_many_at_once_in_threads_and_in_an_event_loop() -> None:
    def echo(request: Request) -> Reply:
        return Answer(request.body["messages"][0]["content"] * 3)

    def prompt(number: int) -> Any:
        return {**HI, "messages": [{"role": "user", "content": f"n{number} "}]}

    async def all_at_once(base_url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0) as client:

            async def one(number: int) -> str:
                stream = await client.chat.completions.create(**prompt(number), stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(*map(one, range(64)))

    with served(echo) as (server, client), ThreadPoolExecutor(64) as pool:
        done = list(pool.map(lambda n: client.chat.completions.create(**prompt(n)), range(64)))
        assert [each.choices[0].message.content for each in done] == [f"n{n} " * 3 for n in range(64)]
        assert len({each.id for each in done}) == 64
        assert asyncio.run(all_at_once(server.base_url)) == [f"n{n} " * 3 for n in range(64)]
        assert [request.number for request in server.requests] == list(range(128))
        assert (server.open_streams, server.problems) == (0, [])


def test_an_asynchronous_response_and_another_process() -> None:
    async def awaited(base_url: str) -> Any:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="test") as client:
            whole = await client.responses.create(**ASK)
            async with client.responses.stream(**ASK) as stream:
                return whole, await stream.get_final_response()

    with ModelServer(Answer(TEXT, reasoning="hm")) as server:
        for response in asyncio.run(awaited(server.base_url)):
            assert (response.output_text, response.output[0].type) == (TEXT, "reasoning")
        program = f"import urllib.request as u; print(u.urlopen('{server.base_url}/models').status)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "200\n"


def test_its_life() -> None:
    server = ModelServer(Answer())
    with pytest.raises(RuntimeError, match="start"):
        server.base_url  # noqa: B018
    with server, pytest.raises(RuntimeError, match="already"):
        server.start()
    code = (
        "import sys, tokenmem.testing; assert 'openai' not in sys.modules and 'tiktoken' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
