"""What the process has done already from which those are forked that get killed: what is slow the first time.

The first turn of a process imports for a second and a half; a killed one would die there most of the time.
"""

import httpx
from openai import OpenAI

import tests.torture.classes
from tests.support.stores import One
from tokenmem import Chat, Store

CLASSES = tests.torture.classes.CLASSES
REPLY = b"""data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,\
"delta":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n"""


def answer(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=REPLY)


def take_a_turn() -> None:
    """In memory, and with nobody at the other end: no thread and no socket may be left behind."""
    transport = httpx.Client(transport=httpx.MockTransport(answer))
    with Store("sqlite://", counter=One()) as store, OpenAI(api_key="test", http_client=transport) as client:
        store.upgrade()
        list(Chat(store, client).stream("c", "x", idempotency_key="k"))


take_a_turn()
