"""A user's program that a type checker has nothing to say about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine

from tokenmem import (
    Appended,
    AsyncChat,
    AsyncStore,
    Chat,
    Conversation,
    LLMCall,
    Message,
    OpenToolCall,
    Problem,
    Purged,
    Reply,
    Store,
    TiktokenCounter,
    TokenCounter,
    ToolCall,
    Window,
    errors,
)
from tokenmem.chat import Answer, ModelAPI, StreamReader
from tokenmem.testing import ModelServer


class Trip(BaseModel):
    """What a model is to answer."""

    city: str


class Letters:
    """A counter of the user's own."""

    name: str = "letters"

    def count(self, message: Message) -> int:
        return len(message.content or "")


class Client:
    """A client of a provider of the user's own."""

    def ask(self, **request: object) -> dict[str, str]:
        return {"text": str(request)}


class API(ModelAPI):
    """How that provider is spoken to."""

    def endpoint(self, client: Client) -> Callable[..., dict[str, str]]:
        return client.ask

    def read(self, response: dict[str, str]) -> Answer:
        return Answer.of_message({"content": response["text"]}, usage={"input_tokens": 1})

    def reader(self, response: object) -> StreamReader | None:
        return Reader() if isinstance(response, Iterator) else None


class Reader:
    """How its streams are put together."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self.complete: bool = False

    def feed(self, event: str) -> str:
        self._pieces.append(event)
        self.complete = event.endswith(".")
        return event

    def answer(self) -> Answer:
        return Answer.of_message({"content": "".join(self._pieces)})

    def part(self) -> Answer:
        return Answer.part_of_message("".join(self._pieces))


def weather(city: str) -> str:
    return f"sunny in {city}"


def says(messages: list[dict[str, object]]) -> str:
    return f"{len(messages)}"


def says_in_pieces(messages: list[dict[str, object]], temperature: float = 1) -> Iterator[str]:
    yield f"{len(messages)} at {temperature}"


async def says_later(messages: list[dict[str, object]]) -> AsyncIterator[str]:
    yield f"{len(messages)}"


def keep(store: Store) -> None:
    counter: TokenCounter = TiktokenCounter("gpt-4o")
    stored: Appended = store.append("c", [{"role": "user", "content": "hi"}, Message.assistant("hello")])
    window: Window = store.window("c", token_limit=stored.total_tokens)
    content: object = window.to_openai()[0]["content"]
    first: dict[str, Any] = window.messages[0].to_openai()
    page: list[Message] = store.messages("c", newest_first=True)
    calls: list[LLMCall] = store.calls("c")
    conversation: Conversation = store.recount("c", counter)
    purged: Purged = store.purge(older_than=timedelta(days=1), dry_run=True)
    problems: list[Problem] = store.verify()
    with store.engine.begin() as connection:
        _ = store.bind(connection).append("c", page)
    try:
        store.delete(conversation.id)
    except errors.ConversationNotFound as error:
        print(error, content, first, calls, purged.messages, problems)


def ask(client: OpenAI, window: Window) -> str | None:
    completion = client.chat.completions.create(model="gpt-4o", messages=window.to_openai())
    response = client.responses.create(model="gpt-4o", input=window.to_openai())
    print(response.output_text)
    return completion.choices[0].message.content


async def ask_async(client: AsyncOpenAI, window: Window) -> str | None:
    completion = await client.chat.completions.create(model="gpt-4o", messages=window.to_openai())
    return completion.choices[0].message.content


def chat(store: Store, tools: Sequence[Mapping[str, object]]) -> None:
    model = Chat(store, OpenAI(), model="gpt-4o", token_limit=8000, instructions="Be brief.", tools=tools)
    reply: Reply = model.send("c", "Hello", idempotency_key="k", temperature=0)
    called: tuple[ToolCall, ...] = reply.tool_calls
    trip: Trip = model.send("c", "Where?", response_format=Trip).parsed
    print(trip.city)
    with model.open("c", "And?") as turn:
        pieces: list[str] = list(turn)
        print(turn.reply.text, turn.call.number + turn.user_position, pieces)
    for part in model.stream("c", "And?"):
        print(part if isinstance(part, str) else part.call.number)
    reply = model.run("c", "How is it?", functions={"weather": weather})
    print(
        Chat(store).send("c"), Chat(store, says), Chat(store, says_in_pieces, "mine", temperature=0), called
    )
    print(Chat(store, Client(), api=API()), Chat(store, OpenAI(), api="responses"), model.for_owner("ann"))


async def chat_async(store: AsyncStore) -> None:
    engine: AsyncEngine = store.engine
    async with engine.begin() as connection:
        _ = await store.bind(connection).append("c", [Message.user("hi")])
    model = AsyncChat(store, AsyncOpenAI(), api="responses")
    reply: Reply = await model.send("c", "Hello")
    async with await model.open("c", "And?") as turn:
        pieces: list[str] = [piece async for piece in turn]
        print(turn.reply.text, pieces)
    async with aclosing(model.stream("c", "And?")) as stream:
        async for part in stream:
            print(part if isinstance(part, str) else part.text)
    print(AsyncChat(store, says_later), AsyncChat(store, says), AsyncChat(store, Client(), api=API()), reply)


def serve() -> None:
    with ModelServer([]) as server, Store("sqlite://", counter=Letters()) as store:
        store.upgrade()
        keep(store)
        print(server.base_url)


def changes(store: Store) -> tuple[str | None, list[OpenToolCall]]:
    """What is read as a whole has a title; where the conversation may be missing, it may be None."""
    conversation, messages = store.read("c1")
    perhaps, _ = store.read("c1", missing="empty")
    with store.transaction() as bound, bound.transaction() as inner:
        stored: Appended = inner.replace("c1", messages, after=2)
        last: Message = bound.pop("c1", expected_position=stored.last_position)
        rated: Message = inner.update_message("c1", last.position - 1, metadata={"rating": 5}, merge=True)
        gone: list[Message] = inner.delete_messages("c1", before=rated.position)
    title = perhaps.title if perhaps else conversation.title
    return title, store.open_tool_calls(gone[0].role)


async def changes_awaited(store: AsyncStore) -> str | None:
    conversation, _ = await store.read("c1")
    async with store.transaction() as bound:
        await bound.append("c1", [])
    return conversation.title
