"""A small client of Anthropic's Messages API, sync and async, with the HTTP library that openai brings."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

try:
    import httpx2 as httpx  # openai 3
except ImportError:
    import httpx  # openai 2

JSONObject = dict[str, Any]


class APIError(Exception):
    """The provider has refused a request.

    Attributes:
        status_code: the HTTP status, which the record of the call tells too.
        code: the provider's type of error, likewise.
        request_id: the provider's id of the request, likewise.
    """

    def __init__(self, response: Any) -> None:
        try:
            error = response.json()["error"]
        except (ValueError, KeyError, TypeError):
            error = {}
        super().__init__(f"{response.status_code} {error.get('type')}: {error.get('message')}")
        self.status_code = response.status_code
        self.code = error.get("type")
        self.request_id = response.headers.get("request-id")


def _settings(api_key: str | None, base_url: str | None, timeout: float) -> JSONObject:
    key = api_key or os.environ["ANTHROPIC_API_KEY"]
    return {
        "base_url": base_url or os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
        "headers": {"x-api-key": key, "anthropic-version": "2023-06-01"},
        "timeout": timeout,
    }


class Client:
    """Sends requests; without arguments as ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL say."""

    def __init__(self, api_key: str | None = None, base_url: str | None = None, timeout: float = 600) -> None:
        self._http = httpx.Client(**_settings(api_key, base_url, timeout))

    def create(self, **request: Any) -> JSONObject | Events:
        """The response, or a stream of events."""
        asked = self._http.build_request("POST", "/v1/messages", json=request)
        response = self._http.send(asked, stream=True)
        if response.status_code == 200 and request.get("stream"):
            return Events(response)
        response.read()
        return _body(response)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


class AsyncClient:
    """The same, awaited."""

    def __init__(self, api_key: str | None = None, base_url: str | None = None, timeout: float = 600) -> None:
        self._http = httpx.AsyncClient(**_settings(api_key, base_url, timeout))

    async def create(self, **request: Any) -> JSONObject | AsyncEvents:
        """The response, or a stream of events."""
        asked = self._http.build_request("POST", "/v1/messages", json=request)
        response = await self._http.send(asked, stream=True)
        if response.status_code == 200 and request.get("stream"):
            return AsyncEvents(response)
        await response.aread()
        return _body(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def _body(response: Any) -> JSONObject:
    if response.status_code != 200:
        raise APIError(response)
    return {**response.json(), "request_id": response.headers.get("request-id")}


class Events:
    """The events of a stream."""

    def __init__(self, response: Any) -> None:
        self.request_id = response.headers.get("request-id")
        self.close = response.close
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[JSONObject]:
        return self

    def __next__(self) -> JSONObject:
        return next(json.loads(line[5:]) for line in self._lines if line.startswith("data:"))


class AsyncEvents:
    """The same, awaited."""

    def __init__(self, response: Any) -> None:
        self.request_id = response.headers.get("request-id")
        self.close = response.aclose
        self._lines = response.aiter_lines()

    def __aiter__(self) -> AsyncIterator[JSONObject]:
        return self

    async def __anext__(self) -> JSONObject:
        async for line in self._lines:
            if line.startswith("data:"):
                event: JSONObject = json.loads(line[5:])
                return event
        raise StopAsyncIteration
