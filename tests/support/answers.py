"""Clients whose servers answer with what they are given, and the answers of both of OpenAI's APIs."""

import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

from tests.support.chats import Chats
from tests.support.stores import Stores
from tokenmem import Message
from tokenmem.messages.unstorable import scrubbed, unescaped

Dicts = list[dict[str, Any]]


def said(finish: Any = "stop", **message: Any) -> dict[str, Any]:
    whole = {"role": "assistant", **message}
    return {"choices": [{"index": 0, "message": whole, "finish_reason": finish}]}


def chunk(finish: Any = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(call_id: Any, arguments: Any, name: Any = "book", **keys: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function, **keys}


class Server:
    """A client whose server answers with what it is given: a body, or a list of chunks or events."""

    def __init__(self, stores: Stores, answer: Any) -> None:
        create = self._create_async if stores.is_async else self._create
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=create))
        self.responses = SimpleNamespace(create=create)
        self.answer = answer
        self.requests: Dicts = []

    def _create(self, **request: Any) -> Any:
        self.requests.append(request)
        answer = self.answer
        return iter(answer) if isinstance(answer, list) else answer

    async def _create_async(self, **request: Any) -> Any:
        answer = self._create(**request)
        return self._events(answer) if isinstance(self.answer, list) else answer

    async def _events(self, answer: Any) -> AsyncIterator[Any]:
        for each in answer:
            yield each


def text_of(message: Message) -> str:
    return "" if message.kind == "reasoning" else scrubbed(unescaped(message.content or ""))


def item(text: str, **keys: Any) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "role": "assistant", "content": [part], **keys}


def asking(chats: Chats, stores: Stores) -> Callable[..., Any]:
    """Ask a model that answers so; what was delivered is what is stored, and the next turn sends it."""
    number = iter(range(1000))

    def ask(answer: Any, api: str = "chat", *, stream: bool | None = None) -> Any:
        server, name = Server(stores, answer), f"c{next(number)}"
        chat = chats.on(server, "m", 8000, api=api)
        if isinstance(answer, list) if stream is None else stream:
            *pieces, reply = chat.stream(name, "Hi")
            assert "".join(pieces) == reply.text
        else:
            reply = chat.send(name, "Hi")
        stored = chats.store.messages(name)[1:]
        assert [each.to_openai() for each in stored] == [each.to_openai() for each in reply.messages]
        assert "".join(map(text_of, stored)) == reply.text
        assert reply.call.status == "ok"
        server.answer = said(content="Next.") if api == "chat" else {"output": [item("Next.")]}
        for each in reply.tool_calls:
            chats.store.append(name, [Message.tool("done", tool_call_id=each.id)])
        chat.send(name, "And?")
        assert "tokenmem" not in json.dumps(server.requests)
        assert chats.store.verify() == []
        return reply

    return ask
