"""Whom a chat asks: a client of the openai package, or a function."""

from __future__ import annotations

from tokenmem.callables import is_async as is_async_function
from tokenmem.errors import InvalidArgument


def opened(client: object, *, is_async: bool) -> object:
    """The client, checked; without one OpenAI's own, which reads OPENAI_API_KEY and OPENAI_BASE_URL.

    Raises:
        InvalidArgument: it is none, or sync where it must be async, or the reverse.
    """
    if client is None:
        from openai import AsyncOpenAI, OpenAI  # half a second

        return AsyncOpenAI() if is_async else OpenAI()
    if not (callable(client) or hasattr(client, "chat") or hasattr(client, "responses")):
        raise InvalidArgument(
            f"client is a {type(client).__name__}; pass an openai client, or a function, or api=…"
        )
    other, remedy = ("OpenAI", "AsyncOpenAI") if is_async else ("AsyncOpenAI", "OpenAI, or use AsyncChat")
    if any(kind.__name__ == other and kind.__module__.startswith("openai") for kind in type(client).__mro__):
        raise InvalidArgument(f"client is an {other}; pass an {remedy}")
    if not is_async and callable(client) and not hasattr(client, "chat") and is_async_function(client):
        raise InvalidArgument("client is an async function; pass a plain one, or use AsyncChat")
    return client
