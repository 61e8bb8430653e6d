"""Streams that nobody reads to their end: what had come is stored, the call on record, nothing leaks."""

import asyncio
import gc
import itertools
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.chat_plans import FOREIGN_GENERATORS, Plans
from tests.support.stores import Stores
from tokenmem import AsyncChat, Chat, Reply, Store
from tokenmem.testing import Answer, ModelServer, Stall
from tokenmem.testing.replies import Reply as ScriptedReply

STREAMS = int(os.environ.get("TOKENMEM_TEST_CANCELLED_STREAMS", "42"))  # 2000 is what is promised
AT_ONCE = 20
TEXT = " ".join(f"word{number}" for number in range(20))
PIECES = 20
EVENTS_BEFORE_TEXT = {"chat": 1, "responses": 4}
"""How many events a stream has before the first of its text."""

ASYNC = pytest.mark.parametrize("stores", ["sqlite-async", "postgresql-async"], indirect=True)
SYNC = pytest.mark.parametrize("stores", ["sqlite-sync", "postgresql-sync"], indirect=True)
APIS = pytest.mark.parametrize("api", ["chat", "responses"])


@dataclass
class Reader:
    """Reads one stream, and knows when it is to be cancelled.

    Attributes:
        chat: whose stream it is.
        id: the conversation.
        options: of the request.
        asked: is set when the server has the request.
        until: after how many pieces the reader is to be cancelled.
        pieces: what has been read.
        replies: the Reply, where it came to that.
        has_enough: is set when so many pieces have been read.
    """

    chat: AsyncChat
    id: str
    options: dict[str, Any]
    asked: threading.Event
    until: int
    pieces: list[str] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    has_enough: asyncio.Event = field(default_factory=asyncio.Event)

    def stream(self) -> Any:
        return self.chat.stream(self.id, "Say something long.", **self.options)

    def take(self, piece: str | Reply) -> bool:
        """Take a piece; True where it is the last that is wanted."""
        if isinstance(piece, Reply):
            self.replies.append(piece)
            return False
        self.pieces.append(piece)
        if len(self.pieces) == self.until:
            self.has_enough.set()
        return len(self.pieces) == self.until

    async def read(self) -> None:
        async for piece in self.stream():
            self.take(piece)

    async def moment(self) -> None:
        """The moment at which it is to be cancelled; it is in a stall, or waits for more text."""
        while not self.asked.is_set():
            await asyncio.sleep(0.001)
        if self.until:
            await self.has_enough.wait()


async def cancel_task(reader: Reader) -> None:
    task = asyncio.create_task(reader.read())
    await reader.moment()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_twice(reader: Reader) -> None:
    """The second time while the first is being recorded."""
    task = asyncio.create_task(reader.read())
    await reader.moment()
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_scope(reader: Reader) -> None:
    """Anyio's scopes cancel again and again until the task is out."""

    async def read() -> None:
        with scope:
            await reader.read()

    scope = anyio.CancelScope()
    task = asyncio.create_task(read())
    await reader.moment()
    scope.cancel()
    await task
    assert scope.cancelled_caught or reader.replies


async def time_out(reader: Reader) -> None:
    async def read() -> None:
        async with limit:
            await reader.read()

    limit = asyncio.timeout(None)
    task = asyncio.create_task(read())
    await reader.moment()
    limit.reschedule(0)
    with pytest.raises(TimeoutError):
        await task


async def leave_loop(reader: Reader) -> None:
    async with aclosing(reader.stream()) as stream:
        async for piece in stream:
            if reader.take(piece):
                break


async def forget_stream(reader: Reader) -> None:
    """Left without being closed: the event loop closes it when it is garbage."""
    async for piece in reader.stream():
        if reader.take(piece):
            break


async def cancel_send(reader: Reader) -> None:
    task = asyncio.create_task(reader.chat.send(reader.id, "Say something long.", **reader.options))
    while not reader.asked.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


Way = Callable[[Reader], Awaitable[None]]
WAYS: list[Way] = [
    cancel_task,
    cancel_twice,
    cancel_scope,
    time_out,
    leave_loop,
    forget_stream,
    cancel_send,
]


def interrupted(random: Random, way: Way, api: str) -> tuple[ScriptedReply, int]:
    """A reply that does not end by itself, and after how many pieces of it the reader is to be cancelled."""
    answer = Answer(TEXT, chunks=PIECES)
    if way is cancel_send:
        return Stall(answer=answer), 0
    until = random.randint(1 if way in (leave_loop, forget_stream) else 0, PIECES - 2)
    if until == 0:
        return Answer(TEXT, delay=60), 0  # not even the headers come
    if random.random() < 0.5:
        return Stall(after=EVENTS_BEFORE_TEXT[api] + until, answer=answer), until
    # Flowing text, which stalls before its last piece: cancelled late it is, but never too late.
    flowing = Answer(TEXT, chunks=PIECES, chunk_delay=0.001)
    return Stall(after=EVENTS_BEFORE_TEXT[api] + PIECES - 1, answer=flowing), until


@ASYNC
@APIS
@FOREIGN_GENERATORS
@pytest.mark.timeout(120 + STREAMS)
def test_cancelled_streams(stores: Stores, api: Any) -> None:
    opened: Any = stores.open()
    plans = Plans()
    with ModelServer(plans) as server:
        stores.loop.run(cancel_all(opened.store, server, plans, api))
        assert server.problems == []
    assert opened.verify() == []


async def cancel_all(store: Any, server: ModelServer, plans: Plans, api: Any) -> None:
    async with AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0, timeout=60) as client:
        chat = AsyncChat(store, client, api=api)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with places:
                await cancel_one(chat, plans, api, number)

        await asyncio.gather(*map(one, range(STREAMS)))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"tasks are left over: {others}"


async def cancel_one(chat: AsyncChat, plans: Plans, api: str, number: int) -> None:
    """Cancel one stream, look at what is stored, and go on with the conversation."""
    random = Random(f"{api}/{number}")
    way = WAYS[number % len(WAYS)]
    reply, until = interrupted(random, way, api)
    header = plans.plan(reply)
    reader = Reader(chat, f"c{number}", {"extra_headers": header}, plans.asked(header), until)
    await way(reader)
    told = f"number {number}, {way.__name__} after {until} pieces of {reply}"
    if way is forget_stream:
        await forgotten_is_recorded(chat, reader.id)
    await check(chat, reader, told)
    after = await chat.send(
        reader.id, "Are you still there?", extra_headers=plans.plan(Answer("Yes, I am still there."))
    )
    assert after.text == "Yes, I am still there.", told


async def forgotten_is_recorded(chat: AsyncChat, conversation_id: str) -> None:
    """Wait until the event loop has closed a stream that became garbage."""
    for look in itertools.count(1):
        (call,) = await chat.store.calls(conversation_id)
        if not str(call.error).startswith("not ended"):
            return
        if look % 50 == 0:
            gc.collect()  # in case a cycle holds it; not at first, as it takes long
        await asyncio.sleep(0.002)


async def check(chat: AsyncChat, reader: Reader, told: str) -> None:
    """The user's message, what the reader had been given and perhaps a little more, and one record."""
    question, *stored = await chat.store.messages(reader.id)
    assert question.content == "Say something long.", told
    (call,) = await chat.store.calls(reader.id)
    delivered = "".join(reader.pieces)
    assert len(stored) == (1 if delivered else 0) or (len(stored) == 1 and not reader.until), told
    assert call.status == "cancelled", told
    assert call.error, told
    assert not call.error.startswith("not ended"), told
    assert call.reply_position == (2 if stored else None), told
    if stored:
        assert stored[0].partial, told
        assert str(stored[0].content).startswith(delivered), told
        assert TEXT.startswith(str(stored[0].content)), told
        assert stored[0].content != TEXT, told


@ASYNC
@APIS
def test_a_long_part_is_stored_although_the_scope_goes_on_cancelling(stores: Stores, api: Any) -> None:
    """Counting it takes a thread, and waiting for that is interrupted too."""
    opened: Any = stores.open()
    long = "word " * 10_000
    reply = Stall(after=EVENTS_BEFORE_TEXT[api] + 1, answer=Answer(long, chunks=2))
    plans = Plans()

    async def main() -> None:
        async with AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client:
            header = plans.plan(reply)
            chat = AsyncChat(opened.store, client, api=api, token_limit=50_000)
            reader = Reader(chat, "c1", {"extra_headers": header}, plans.asked(header), 1)
            await cancel_scope(reader)
            (call,) = await opened.store.calls("c1")
            assert not str(call.error).startswith("not ended")
            stored = (await opened.store.messages("c1"))[1]
            assert stored.content == "".join(reader.pieces) == long[: len(long) // 2]

    with ModelServer(plans) as server:
        stores.loop.run(main())


def check_left(store: Store, delivered: str) -> None:
    """The same as above for streams that the reader has left."""
    question, part = store.messages("c1")
    assert (question.role, question.content) == ("user", "Say something long.")
    assert part.partial
    assert part.content == delivered
    (call,) = store.calls("c1")
    assert (call.status, call.reply_position) == ("cancelled", 2)
    assert not str(call.error).startswith("not ended")
    assert store.verify() == []


def close_early(stream: Any) -> str:
    delivered = next(stream) + next(stream)
    stream.close()
    return str(delivered)


def forget(stream: Any) -> str:
    delivered = next(stream) + next(stream)
    del stream
    gc.collect()
    return str(delivered)


def fail_in_loop(stream: Any) -> str:
    delivered = []
    try:
        for piece in stream:
            delivered.append(piece)
            if len(delivered) == 2:
                raise LookupError  # noqa: TRY301
    except LookupError:
        del stream
        gc.collect()
    return "".join(delivered)


def throw(stream: Any) -> str:
    delivered = next(stream) + next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    return str(delivered)


@SYNC
@APIS
@pytest.mark.parametrize("leave", [close_early, forget, fail_in_loop, throw])
def test_a_stream_that_is_left_early(stores: Stores, api: Any, leave: Callable[[Any], str]) -> None:
    store = stores.open()
    reply = Stall(after=EVENTS_BEFORE_TEXT[api] + 2, answer=Answer(TEXT, chunks=PIECES))
    with (
        ModelServer([reply, Answer("Yes.")]) as server,
        OpenAI(base_url=server.base_url, api_key="test", max_retries=0) as client,
    ):
        chat = Chat(store, client, api=api)
        # Not in a variable here: the reader alone holds the stream.
        check_left(store, leave(chat.stream("c1", "Say something long.")))
        assert chat.send("c1", "Are you still there?").text == "Yes."
        assert server.problems == []


@SYNC
def test_a_stream_that_is_never_read_stores_nothing(stores: Stores) -> None:
    store = stores.open()
    Chat(store, lambda _: "Yes.").stream("c1", "Are you there?").close()  # type: ignore[attr-defined]
    assert store.conversations() == []


@SYNC
def test_a_function_s_text_comes_at_once_and_is_stored_before(stores: Stores) -> None:
    """Who leaves behind its only piece has had the whole reply."""
    store = stores.open()
    stream: Any = Chat(store, lambda _: "All of it.").stream("c1", "Say something.")
    assert next(stream) == "All of it."
    stream.close()
    assert [message.content for message in store.messages("c1")] == ["Say something.", "All of it."]
    (call,) = store.calls("c1")
    assert (call.status, call.reply_position) == ("ok", 2)
