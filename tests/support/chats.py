"""Chats of a store, sync or async, with one face; and what their models are asked."""

from collections.abc import Callable, Iterator
from typing import Any

import openai

from tests.support.stores import Stores
from tokenmem import AsyncChat, Chat, Reply
from tokenmem.chat import AsyncTurn
from tokenmem.testing import ModelServer


class Chats:
    """Chats of a store, sync or async, in the face of a Chat."""

    def __init__(self, stores: Stores, server: ModelServer) -> None:
        self._stores = stores
        self._server = server
        self.store: Any = stores.open()
        self._clients: list[Any] = []

    def open(self, model: str = "gpt-4o", token_limit: int = 4000, **options: Any) -> Any:
        kind: Any = openai.AsyncOpenAI if self._stores.is_async else openai.OpenAI
        client = kind(base_url=self._server.base_url, api_key="test", max_retries=0, timeout=20)
        self._clients.append(client)
        return self.on(client, model, token_limit, **options)

    def on(self, client: Any, *arguments: Any, **options: Any) -> Any:
        if not self._stores.is_async:
            return Chat(self.store, client, *arguments, **options)
        return Awaited(AsyncChat(self.store.store, client, *arguments, **options), self._stores.loop)

    def close(self) -> None:
        for client in self._clients:
            closing = client.close()
            if self._stores.is_async:
                self._stores.loop.run(closing)


class Awaited:
    def __init__(self, chat: AsyncChat, loop: Any) -> None:
        self._chat = chat
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            answer = getattr(self._chat, name)(*arguments, **options)
            if isinstance(answer, AsyncChat):
                return Awaited(answer, self._loop)
            if hasattr(answer, "__anext__"):
                return self._iterated(answer)
            result = self._loop.run(answer)
            return AwaitedTurn(result, self._loop) if isinstance(result, AsyncTurn) else result

        return call

    def _iterated(self, stream: Any) -> Iterator[str | Reply]:
        end = object()

        async def following() -> Any:
            return await anext(stream, end)

        async def close() -> None:
            await stream.aclose()

        try:
            while (part := self._loop.run(following())) is not end:
                yield part
        finally:
            self._loop.run(close())


class AwaitedTurn:
    """An AsyncTurn in the face of a Turn."""

    def __init__(self, turn: AsyncTurn, loop: Any) -> None:
        self._turn = turn
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._turn, name)

    def __iter__(self) -> Iterator[str]:
        async def following() -> Any:
            return await anext(self._turn, None)

        while (piece := self._loop.run(following())) is not None:
            yield piece

    def __repr__(self) -> str:
        return repr(self._turn)

    def close(self) -> None:
        self._loop.run(self._turn.aclose())


def said(chats: Chats, conversation_id: str = "c") -> list[str | None]:
    """What is stored of a conversation, as people read it."""
    return [message.content for message in chats.store.messages(conversation_id)]
