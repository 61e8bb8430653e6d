"""One request with the answer that it gets, and what every rendering of it needs."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tokenmem.testing.replies import Answer, JSONObject, Request, StreamError

# How long the pieces of a streamed text are, in characters: about as long as tokens.
_PIECES = (3, 7, 4, 8, 5, 6)


class Ids:
    """Ids that no other answer of this server has, nor, by chance alone, one of another server."""

    def __init__(self) -> None:
        self._server = secrets.token_hex(5)
        self._numbers = itertools.count(1)  # next() of it is atomic

    def new(self, prefix: str) -> str:
        """An id such as `call_5f0c1e9a7b000012`."""
        return f"{prefix}{self._server}{next(self._numbers):06x}"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer.

    Attributes:
        request: what was asked.
        answer: what is said.
        ids: where ids come from.
        prompt_tokens: what the prompt costs, in tokens.
        cached_tokens: how many of those the cache had.
        answer_tokens: what text and calls cost, in tokens, without the reasoning.
        reasoning_tokens: what the reasoning costs, in tokens.
        created: when it was answered, in seconds since 1970.
    """

    request: Request
    answer: Answer
    ids: Ids = field(repr=False)
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    reasoning_tokens: int
    created: int

    @property
    def model(self) -> str:
        """The model that was asked for."""
        return str(self.request.body.get("model", ""))

    @property
    def finish_reason(self) -> str:
        """Why the answer ends, in the words of Chat Completions."""
        return self.answer.finish_reason or ("tool_calls" if self.answer.tool_calls else "stop")


class Rendering(Protocol):
    """An exchange in the form of one endpoint."""

    def body(self) -> JSONObject:
        """The answer as a whole."""

    def events(self) -> list[bytes]:
        """The answer as server-sent events."""

    def error_event(self, error: StreamError, sent: int) -> bytes:
        """The event that says that the stream failed, after so many events."""


def pieces(text: str, count: int | None) -> Iterator[str]:
    """The text in so many pieces, fewer where it is shorter; None for pieces as long as tokens."""
    if count is not None:
        count = max(1, min(count, len(text)))
        cuts = [len(text) * index // count for index in range(count + 1)]
        yield from (text[start:end] for start, end in itertools.pairwise(cuts) if start < end)
        return
    start = 0
    for length in itertools.cycle(_PIECES):
        if start >= len(text):
            return
        yield text[start : start + length]
        start += length


def dump(value: object) -> str:
    """JSON as the provider writes it, in as few characters as can be."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def error_body(status: int, code: str | None, message: str) -> JSONObject:
    """The provider's JSON for an error."""
    kind = "requests" if status == 429 else "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def with_usage(
    usage: JSONObject, replaced: Mapping[str, object] | None, parts: tuple[str, str]
) -> JSONObject:
    """The usage with some of its keys replaced; details are merged, and the total is the sum of the parts."""
    given = dict(replaced or {})
    for key, value in given.items():
        known = usage.get(key)
        both = isinstance(known, dict) and isinstance(value, Mapping)
        usage[key] = {**known, **value} if both else value  # type: ignore[dict-item]
    if "total_tokens" not in given:
        usage["total_tokens"] = usage[parts[0]] + usage[parts[1]]
    return usage
