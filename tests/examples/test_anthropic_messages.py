"""The example of a provider with a form of its own, against a server that checks that provider's rules."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.anthropic_messages import AnthropicMessages, APIError, AsyncClient, Client
from tests.conformance.test_chat import TOOLS
from tests.support.anthropic_server import AnthropicServer, Says, problems_in
from tests.support.chats import Awaited
from tests.support.stores import Stores
from tokenmem import AsyncChat, Chat, Message, errors

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = "You know every timetable."
TWO_CALLS = Says(
    ["Let me ", "see."], calls=[("toolu_1", "weather", {"city": "Turin"}), ("toolu_2", "time", {})]
)


class Chats:
    """Chats of a store with the example's API, sync or async, in the face of a Chat."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.store: Any = stores.open()
        self._clients: list[Any] = []

    def open(self, server: AnthropicServer, **options: Any) -> Any:
        kind = AsyncClient if self.stores.is_async else Client
        client = kind(api_key="test", base_url=server.base_url, timeout=20)
        self._clients.append(client)
        given: dict[str, Any] = {
            "model": "claude-sonnet-4-5",
            "token_limit": 2000,
            "instructions": INSTRUCTIONS,
        }
        given |= {"api": AnthropicMessages(), **options}
        if self.stores.is_async:
            return Awaited(AsyncChat(self.store.store, client, **given), self.stores.loop)
        return Chat(self.store, client, **given)

    def close(self) -> None:
        for client in self._clients:
            closing = client.close()
            if self.stores.is_async:
                self.stores.loop.run(closing)


@pytest.fixture
def chats(stores: Stores) -> Iterator[Chats]:
    chats = Chats(stores)
    yield chats
    chats.close()


def say(chat: Any, how: str, *arguments: Any, **options: Any) -> Any:
    """A turn, whole or as a stream, whose pieces are the reply's text."""
    method = {"send": "stream", "send_tool_results": "stream_tool_results"}
    if options.pop("stream"):
        *pieces, reply = getattr(chat, method[how])(*arguments, **options)
        assert "".join(pieces) == reply.text
        return reply
    return getattr(chat, how)(*arguments, **options)


STREAM = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@STREAM
def test_turns(chats: Chats, stream: bool) -> None:
    with AnthropicServer([Says(["At ", "21:58."]), Says(["Yes."], stop_reason="max_tokens")]) as server:
        chat = chats.open(server, temperature=0)
        first = say(chat, "send", "c", "When does it leave?", stream=stream)
        second = say(chat, "send", "c", "Every day?", max_tokens=5, stream=stream)
    assert server.problems == []
    assert (first.text, first.call.finish_reason, first.call.request_id) == ("At 21:58.", "end_turn", "req_1")
    assert (second.text, second.call.finish_reason, second.call.output_tokens) == ("Yes.", "max_tokens", 9)
    asked = server.requests[1]
    mark = {"cache_control": {"type": "ephemeral"}}
    assert asked["system"] == [{"type": "text", "text": INSTRUCTIONS, **mark}]
    assert asked["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "When does it leave?", **mark}]},
        {"role": "assistant", "content": [{"type": "text", "text": "At 21:58."}]},
        {"role": "user", "content": [{"type": "text", "text": "Every day?", **mark}]},
    ]
    assert (asked["temperature"], asked["max_tokens"], asked.get("stream", False)) == (0, 5, stream)


@STREAM
def test_the_prompt_cache(chats: Chats, stream: bool) -> None:
    """All that a request sent the next one has from the cache, as long as the window's start stays."""
    with AnthropicServer([Says([f"Answer {number}."]) for number in range(30)]) as server:
        chat = chats.open(server, token_limit=400)
        replies = [
            say(chat, "send", "c", f"Question {number}, please?", stream=stream) for number in range(30)
        ]
    assert server.problems == []
    assert replies[0].call.cached_tokens == 0
    written = [each.call.cache_write_tokens for each in replies]
    assert all(tokens is not None and tokens >= 0 for tokens in written)
    assert any(written)
    whole = [each.call.input_tokens for each in replies]
    from_cache = [each.call.cached_tokens for each in replies]
    assert all(read < tokens for read, tokens in zip(from_cache, whole, strict=True))
    # Only where the window has moved on does the cache have no more than the instructions.
    moved = [index for index, read in enumerate(from_cache) if index and read < whole[index - 1]]
    assert 0 < len(moved) < 10
    assert all(from_cache[index] > 0 for index in moved)


@STREAM
def test_tools(chats: Chats, stream: bool) -> None:
    again = Says(calls=[("toolu_1", "time", {"city": "Oslo"})])
    with AnthropicServer([TWO_CALLS, Says(["Sunny."]), again]) as server:
        chat = chats.open(server, tools=TOOLS)
        reply = say(chat, "send", "c", "How is it?", stream=stream)
        assert [(call.id, call.name, call.arguments) for call in reply.tool_calls] == [
            ("toolu_1", "weather", '{"city": "Turin"}'),
            ("toolu_2", "time", "{}"),
        ]
        assert (reply.text, reply.call.finish_reason) == ("Let me see.", "tool_use")
        results = {"toolu_1": "sunny", "toolu_2": ""}
        assert say(chat, "send_tool_results", "c", results, stream=stream).text == "Sunny."
        # The id comes again, as with some servers it does; and the call is left unanswered.
        assert say(chat, "send", "c", "And in Oslo?", stream=stream).text == ""
        server.replies.append(Says(["Never mind."]))
        say(chat, "send", "c", "Never mind.", stream=stream)
    assert server.problems == []
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    described = {"name": "weather", "input_schema": schema, "description": "The weather of a city"}
    assert server.requests[0]["tools"][0] == described
    turns = server.requests[1]["messages"]
    assert [block["type"] for block in turns[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert turns[1]["content"][1]["input"] == {"city": "Turin"}
    assert turns[2]["content"][0] == {
        "type": "tool_result",
        "tool_use_id": "toolu_1",
        "content": [{"type": "text", "text": "sunny"}],
    }
    *_, called, answered = server.requests[3]["messages"]
    assert [block.get("id") for block in called["content"]] == ["toolu_1_2"]
    assert [block["type"] for block in answered["content"]] == ["tool_result", "text"]


def test_run(chats: Chats) -> None:
    with AnthropicServer([TWO_CALLS, Says(["Sunny."])]) as server:
        functions = {"weather": lambda city: {"city": city}, "time": lambda: "noon"}
        assert chats.open(server, tools=TOOLS).run("c", "How is it?", functions=functions).text == "Sunny."
    assert server.problems == []


def test_a_stream_that_is_left_keeps_its_part(chats: Chats) -> None:
    with AnthropicServer([Says(["At ", "21:58", "."], stalls_after=2), Says(["Yes."])]) as server:
        chat = chats.open(server)
        stream = chat.stream("c", "When does it leave?")
        assert [next(stream), next(stream)] == ["At ", "21:58"]
        stream.close()
        assert server.left.wait(10), "the connection is closed"
        assert chat.send("c", "Are you there?").text == "Yes."
    assert server.problems == []
    part = chats.store.messages("c")[1]
    assert (part.content, part.partial) == ("At 21:58", True)
    first, second = chats.store.calls("c")
    assert (first.status, first.request_id, second.status) == ("cancelled", "req_1", "ok")
    assert first.input_tokens > 0


@pytest.mark.parametrize("stores", ["sqlite-async", "postgresql-async"], indirect=True)
@pytest.mark.parametrize("kind", [AsyncClient, Client])
def test_a_task_that_is_cancelled(stores: Stores, kind: Any) -> None:
    """Also with the client that is not async, which an AsyncChat asks in threads."""
    opened: Any = stores.open()

    async def main(server: AnthropicServer) -> None:
        client = kind(api_key="test", base_url=server.base_url, timeout=20)
        chat = AsyncChat(opened.store, client, "claude-sonnet-4-5", api=AnthropicMessages())
        came = asyncio.Event()

        async def read() -> None:
            async for _ in chat.stream("c", "When does it leave?"):
                came.set()

        task = asyncio.create_task(read())
        await asyncio.wait_for(came.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        _, part = await opened.store.messages("c")
        assert (part.content, part.partial) == ("At ", True)
        assert (await chat.send("c", "Are you there?")).text == "Yes."
        closing = client.close()
        if kind is AsyncClient:
            assert await asyncio.to_thread(server.left.wait, 10)
            await closing

    with AnthropicServer([Says(["At ", "21:58", "."], stalls_after=1), Says(["Yes."])]) as server:
        stores.loop.run(main(server))
        assert server.problems == []


@STREAM
def test_errors_are_on_record(chats: Chats, stream: bool) -> None:
    with AnthropicServer([Says(["At "], error="overloaded_error"), Says(["Hi"])]) as server:
        chat = chats.open(server)
        with pytest.raises((APIError, errors.ModelError)):
            say(chat, "send", "c", "When does it leave?", stream=stream)
        chats.store.append("c", [Message.system("Be brief.")])
        assert say(chat, "send", "c", stream=stream).text == "Hi"
    assert server.problems == []
    call = chats.store.calls("c")[0]
    assert (call.status, call.error) == ("error", "ModelError" if stream else "APIError 529 overloaded_error")
    assert call.request_id == "req_1"


def test_any_history_is_a_valid_prompt(chats: Chats) -> None:
    """A window may begin and end anywhere, and hold what this provider has no form for."""
    history: list[Any] = [
        Message.system("Be brief.", pinned=True),
        {"role": "assistant", "content": "Welcome."},
        {"role": "user", "content": "   "},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
            ],
        },
        Message.assistant(tool_calls=[call("a b", "look", "no json"), call("c", "look", "[1]")]),
        Message.tool("a cat", tool_call_id="a b"),
        {"role": "user", "content": "Well?"},
        {"type": "function_call", "call_id": "d", "name": "look", "arguments": "{}"},
        {"role": "developer", "content": "Hurry."},
        {"role": "assistant", "content": None, "refusal": "I will not."},
    ]
    with AnthropicServer([Says(["A cat."]), Says(["Still."])]) as server:
        chats.store.append("c", history)
        chat = chats.open(server, instructions=None)
        assert chat.send("c").text == "A cat."
        assert chat.send("c", "Sure?").text == "Still."
    assert server.problems == []
    asked = server.requests[0]
    assert asked["system"] == [{"type": "text", "text": "Be brief."}]
    assert (asked["messages"][0]["role"], asked["messages"][-1]["content"][-1]["text"]) == ("user", "[go on]")
    assert asked["tool_choice"] == {"type": "none"}


def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_options_of_the_provider(chats: Chats) -> None:
    with AnthropicServer([]) as server:
        with pytest.raises(errors.InvalidArgument, match="did you mean 'max_tokens'"):
            chats.open(server, max_token=5)
        with pytest.raises(errors.InvalidArgument, match="'frequency_penalty' is no option"):
            chats.open(server).send("c", "Hi", frequency_penalty=1)
    assert chats.store.conversations() == []


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}], "first message"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": "x"}], "alternate"),
        ([{"role": "user", "content": " "}], "non-whitespace"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}], "must end with a user"),
        (
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "t", "input": {}}]},
                {"role": "user", "content": "x"},
            ],
            "ids and `tool_result` blocks differ",
        ),
    ],
)
def test_the_server_knows_the_rules(messages: list[Any], named: str) -> None:
    tools = [{"name": "t", "input_schema": {"type": "object"}}]
    body = {"model": "m", "max_tokens": 1, "messages": messages, "tools": tools}
    assert any(named in told for told in problems_in(body))
    del body["max_tokens"]
    assert "max_tokens: Field required" in list(problems_in(body))


def test_the_program(tmp_path: Path) -> None:
    with AnthropicServer([Says(["At ", "21:58."])]) as server:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TOKENMEM_")},
            "ANTHROPIC_API_KEY": "test",
            "ANTHROPIC_BASE_URL": server.base_url,
            "TOKENMEM_URL": f"sqlite:///{tmp_path / 'example.db'}",
        }
        done = subprocess.run(
            [sys.executable, "-m", "examples.anthropic_messages", "When does it leave?"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert server.problems == []
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("At 21:58.\n")
