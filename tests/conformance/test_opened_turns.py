"""`Chat.open` raises what goes wrong before the model answers; the rest is read from the turn."""

import asyncio
import gc
from dataclasses import replace
from typing import Any

import openai
import pytest

from tests.support.chats import Chats, said
from tokenmem import AsyncStore, Chat, Store, errors
from tokenmem.chat import AsyncChat, Turn
from tokenmem.testing import Answer, Cut, Failure, ModelServer, RawReply, Stall, StreamError

TEXT = "one two three four five six seven"
EVENTS_BEFORE_TEXT = {"chat": 1, "responses": 4}
"""How many events a stream has before the first of its text."""


def statuses(chats: Chats) -> list[tuple[str, bool]]:
    return [(call.status, call.running) for call in chats.store.calls("c")]


def test_the_text_is_read_from_the_turn_and_then_the_reply(
    chats: Chats, server: ModelServer, api: str
) -> None:
    server.reply_with([Answer("Hello."), Stall(EVENTS_BEFORE_TEXT[api] + 7, 0.1, Answer(TEXT, chunks=7))])
    chat = chats.open("o3-mini", api=api, temperature=1)
    chat.send("c", "Hi")
    turn = chat.open("c", "Count.", idempotency_key="k", call_metadata={"trace": 7})
    began = turn.call
    assert (began.number, turn.user_position, began.last_position) == (2, 3, 3)
    assert [began] == chats.store.calls("c", after=1)
    assert began.running
    assert "call 2 of 'c'" in repr(turn)
    with pytest.raises(errors.InvalidArgument, match="to the end first"):
        _ = turn.reply
    pieces = list(turn)
    assert len(pieces) == 7
    assert "".join(pieces) == turn.reply.text == TEXT == said(chats)[-1]
    assert turn.call == turn.reply.call == chats.store.calls("c")[-1]
    assert (turn.call.status, turn.call.metadata, turn.user_position) == ("ok", {"trace": 7}, 3)
    assert turn.call == replace(
        began, **{name: getattr(turn.call, name) for name in ("status", "error", "running", *ENDED)}
    )
    assert list(turn) == []
    assert chats.store.verify() == []


ENDED = (
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens", "cache_write_tokens"),
    *("reply_position", "reply_messages", "latency_ms", "first_token_ms", "finish_reason", "request_id"),
)


def test_what_is_refused_before_anything_is_stored(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(Answer("Hello."))
    chat = chats.open(api=api, token_limit=60)
    chat.for_owner("ann").send("c", "Hi", idempotency_key="k")
    for asked, options, error in (
        (chat.for_owner("bob"), {}, errors.ConversationNotFound),
        (chat, {"idempotency_key": "k"}, errors.IdempotencyConflict),
        (chat, {"expected_position": 1}, errors.PositionConflict),
        (chat, {"message": "word " * 100}, errors.WindowTooSmall),
        (chat, {"message": "a\0b"}, errors.InvalidMessage),
        (chat, {"messages": []}, errors.InvalidArgument),
        (chat, {"conversation_id": ""}, errors.InvalidArgument),
    ):
        with pytest.raises(error):
            asked.open(**{"conversation_id": "c", "message": "Again"} | options)
    assert said(chats) == ["Hi", "Hello."]
    assert len(server.requests) == 1
    assert statuses(chats) == [("ok", False)]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Failure(429, headers={"x-should-retry": "false"}), openai.RateLimitError),
        (Failure(401), openai.AuthenticationError),
        (Failure(503, headers={"x-should-retry": "false"}), openai.InternalServerError),
        (StreamError(), (openai.APIError, errors.ModelError)),
        (Cut(), Exception),
    ],
    ids=["429", "401", "503", "an error in place of the first event", "no event at all"],
)
def test_what_the_model_refuses_is_raised_by_open(
    chats: Chats, server: ModelServer, api: str, reply: Any, error: Any
) -> None:
    server.reply_with([reply, Answer("Now.")])
    chat = chats.open(api=api)
    with pytest.raises(error):
        chat.open("c", "Hi", idempotency_key="k")
    assert said(chats) == ["Hi"]
    assert statuses(chats) == [("error", False)]
    turn = chat.open("c", "Hi", idempotency_key="k")  # as after any failure
    assert "".join(turn) == "Now."
    assert statuses(chats) == [("error", False), ("ok", False)]
    assert said(chats) == ["Hi", "Now."]


def test_it_returns_before_there_is_any_text(chats: Chats, server: ModelServer, api: str) -> None:
    """A model that reasons for minutes keeps nobody from the status and the headers."""
    server.reply_with(Stall(after=1, answer=Answer(TEXT)))
    turn = chats.open(api=api).open("c", "Hi")
    assert statuses(chats) == [("cancelled", True)]
    turn.close()
    assert statuses(chats) == [("cancelled", False)]
    assert said(chats) == ["Hi"]
    turn.close()  # once is as good as twice
    assert list(turn) == []
    with pytest.raises(errors.InvalidArgument):
        _ = turn.reply


def test_what_breaks_later_is_raised_while_it_is_read(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(StreamError(after=8, answer=Answer(TEXT, chunks=7)))
    turn = chats.open(api=api).open("c", "Hi")
    delivered: list[str] = []
    with pytest.raises((openai.APIError, errors.ModelError)):
        delivered.extend(turn)
    assert "".join(delivered) == said(chats)[1] != ""
    assert chats.store.messages("c")[1].partial
    assert statuses(chats) == [("error", False)]


def test_who_stops_reading_cancels(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(Stall(EVENTS_BEFORE_TEXT[api] + 2, answer=Answer(TEXT, chunks=7)))
    turn = chats.open(api=api).open("c", "Hi")
    pieces = iter(turn)
    first = next(pieces)
    turn.close()
    assert statuses(chats) == [("cancelled", False)]
    assert str(said(chats)[1]).startswith(first)


def test_a_repeated_request_opens_the_stored_reply(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Answer("Booked.")])
    chat = chats.open(api=api)
    first = chat.send("c", "Book a bed.", idempotency_key="k")
    turn = chat.open("c", "Book a bed.", idempotency_key="k")
    assert (turn.call, turn.user_position) == (first.call, 1)
    assert list(turn) == ["Booked."]
    assert turn.reply.replayed
    assert turn.reply.text == "Booked."
    left = chat.open("c", "Book a bed.", idempotency_key="k")
    left.close()
    assert statuses(chats) == [("ok", False)]


def test_a_model_that_answers_at_once(chats: Chats) -> None:
    """A function: its whole answer is stored before there is anything to read."""
    chat = chats.on(lambda messages: f"You said {messages[-1]['content']}.", "parrot", 1000)
    turn = chat.open("c", "Hi")
    assert (turn.call.status, turn.user_position, said(chats)) == ("ok", 1, ["Hi", "You said Hi."])
    assert list(turn) == ["You said Hi."]
    assert turn.reply.call == turn.call

    def fails(_: Any) -> str:
        raise LookupError("no model today")

    with pytest.raises(LookupError):
        chats.on(fails, "m", 1000).open("c", "And now?")
    assert [status for status, _ in statuses(chats)] == ["ok", "error"]


def test_an_answer_that_only_calls_tools_has_no_text(chats: Chats, server: ModelServer, api: str) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    server.reply_with([Answer(tool_calls=[("weather", {"city": "Turin"})]), RawReply({"error": "x"}, 500)])
    chat = chats.open(api=api, tools=[tool])
    turn = chat.open("c", "How is it?")
    assert list(turn) == []
    assert [call.name for call in turn.reply.tool_calls] == ["weather"]


def test_with_blocks(ready_url: str) -> None:
    slow = Stall(after=4, answer=Answer(TEXT, chunks=7))
    with (
        ModelServer([slow, slow, slow, Stall(after=0)]) as server,
        openai.OpenAI(base_url=server.base_url, api_key="test") as client,
        Store(ready_url) as store,
    ):
        with Chat(store, client).open("c", "Hi") as turn:
            assert isinstance(turn, Turn)
            assert next(turn)
        assert [call.status for call in store.calls("c")] == ["cancelled"]
        Chat(store, client).open("d", "Hi")  # forgotten
        gc.collect()
        assert [call.status for call in store.calls("d")] == ["cancelled"]
        assert not store.calls("d")[0].running

        async def leave() -> None:
            async with (
                openai.AsyncOpenAI(base_url=server.base_url, api_key="test") as client,
                AsyncStore(ready_url) as awaited,
            ):
                async with await AsyncChat(awaited, client).open("e", "Hi") as turn:
                    assert await anext(turn)
                assert [call.running for call in await awaited.calls("e")] == [False]
                opening = asyncio.create_task(AsyncChat(awaited, client).open("f", "Hi"))
                while len(server.requests) < 4:
                    await asyncio.sleep(0.005)
                opening.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await opening
                assert [call.running for call in await awaited.calls("f")] == [False]

        asyncio.run(leave())
        assert store.verify() == []
