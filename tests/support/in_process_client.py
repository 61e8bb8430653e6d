"""A client that asks a scripted server without a connection: for many conversations in little time."""

import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import openai

from tokenmem.testing import Failure, ModelServer


class Refused(openai.OpenAIError):
    """What the server answers instead of a reply, as the openai package raises it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.status_code = failure.status
        self.code = failure.code
        self.body = {"error": {"message": failure.message, "code": failure.code}}


def client_of(server: ModelServer, headers: dict[str, str], *, is_async: bool) -> Any:
    """A client that has what a chat asks for.

    Args:
        server: the server; it need not be started.
        headers: of every request.
        is_async: whether it is to be awaited.
    """

    def ask(path: str, body: dict[str, Any]) -> Any:
        request, reply = server._model.receive(path, json.loads(json.dumps(body)), headers)
        if isinstance(reply, Failure):
            raise Refused(reply)
        rendering = server._model.render(request, reply)  # type: ignore[arg-type]
        return _events(rendering.events()) if server._model.streams(request) else rendering.body()

    def endpoint(path: str) -> Any:
        def create(**body: Any) -> Any:
            return ask(path, body)

        async def create_async(**body: Any) -> Any:
            answer = ask(path, body)
            return answer if isinstance(answer, dict) else _awaited(answer)

        return SimpleNamespace(create=create_async if is_async else create)

    return SimpleNamespace(
        chat=SimpleNamespace(completions=endpoint("/v1/chat/completions")),
        responses=endpoint("/v1/responses"),
    )


def _events(events: list[bytes]) -> Iterator[Any]:
    for event in events:
        data = event.partition(b"data: ")[2].strip()
        if data != b"[DONE]":
            yield json.loads(data)


async def _awaited(events: Iterator[Any]) -> AsyncIterator[Any]:
    for event in events:
        yield event
