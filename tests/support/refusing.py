"""Servers that refuse some messages, and what is on record of it."""

import json
from typing import Any

from tests.support.chats import Chats
from tokenmem.testing import Answer, Failure
from tokenmem.testing.replies import Reply, Request

BAD = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "https://x.org/BAD"}},
]


def sent(request: Request) -> str:
    return json.dumps(request.body.get("messages", request.body.get("input")))


def refusing(message: str, code: str | None = None, *words: str) -> Any:
    """A server that refuses every prompt with one of these words in it."""

    def answer(request: Request) -> Reply:
        if any(word in sent(request) for word in words or ("BAD",)):
            return Failure(
                400, code, message.replace("{name}", "messages" if "messages" in request.body else "input")
            )
        return Answer("Fine.")

    return answer


def changes(chats: Chats, number: int) -> list[Any]:
    found = chats.store.calls("c")[number - 1].changes or []
    return [(each["position"], each["change"]) for each in found]
