"""What prompts and answers cost, in tokens, and what a prompt cache would have had of them."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterator

from tokenmem.counting.counters import TiktokenCounter
from tokenmem.counting.encodings import load_encoding
from tokenmem.counting.model_rules import prompt_tokens
from tokenmem.errors import InvalidMessage
from tokenmem.testing.replies import Answer, JSONObject, Request

_COUNTER = TiktokenCounter()
# OpenAI, "Prompt caching": prompts of 1,024 tokens or more, and hits in steps of 128.
_LEAST_CACHED = 1024
_CACHE_STEP = 128
# Ids that no token has, for what stands between two messages.
_SEPARATOR = [-1, -2, -3]


class Meter:
    """Counts the prompts that one server receives.

    Args:
        count: counts a prompt in tokens; None for the counts that tokenmem itself makes.
        cache: whether to answer as if prompts were cached.
    """

    def __init__(self, count: Callable[[Request], int] | None, *, cache: bool) -> None:
        self._count = count or count_prompt
        self._cache = PromptCache() if cache else None

    def prompt(self, request: Request) -> tuple[int, int]:
        """What the prompt costs, in tokens, and how many of those were cached."""
        tokens = self._count(request)
        if self._cache is None:
            return tokens, 0
        return tokens, min(self._cache.hit(request), tokens // _CACHE_STEP * _CACHE_STEP)


class PromptCache:
    """Remembers the beginnings of all prompts, a hash for every 128 tokens."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._lock = threading.Lock()

    def hit(self, request: Request) -> int:
        """How many tokens at the prompt's beginning an earlier prompt had too; it is remembered itself."""
        beginnings = list(_beginnings(request))
        with self._lock:
            unknown = (place for place, each in enumerate(beginnings) if each not in self._known)
            common = next(unknown, len(beginnings)) * _CACHE_STEP
            self._known.update(beginnings)
        return common if common >= _LEAST_CACHED else 0


def count_prompt(request: Request) -> int:
    """What the prompt costs by tokenmem's own counts, in tokens."""
    body = request.body
    messages = body.get("messages", body.get("input"))
    if messages is None or messages == []:
        return sum(map(text_tokens, _segments(body)))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if body.get("instructions"):
        messages = [{"role": "system", "content": body["instructions"]}, *messages]
    try:
        return prompt_tokens(str(body.get("model")), messages, body.get("tools"))
    except (InvalidMessage, TypeError):  # what only a server that is not strict lets in
        return sum(map(text_tokens, _segments(body)))


def answer_tokens(answer: Answer) -> int:
    """What an answer's text and calls cost, in tokens, without its reasoning."""
    texts = [answer.text or "", answer.refusal or ""]
    texts += [f"{call.name}{call.arguments_text}" for call in answer.calls]
    texts += [json.dumps(dict(item)) for item in answer.items or ()]
    return sum(map(text_tokens, texts))


def text_tokens(text: str) -> int:
    """How many tokens a text is."""
    return _COUNTER.count_text(text) if text else 0


def _segments(body: JSONObject) -> Iterator[str]:
    """The prompt in the order in which the provider reads it, each segment as JSON."""
    if body.get("instructions"):
        yield json.dumps({"role": "system", "content": body["instructions"]})
    for key in ("tools", "messages", "input", "prompt"):
        given = body.get(key)
        if isinstance(given, str):
            yield json.dumps({"role": "user", "content": given})
        elif isinstance(given, list):
            yield from map(json.dumps, given)


# A conversation is sent again with every turn, so nearly every segment has been here before.
@functools.lru_cache(maxsize=65_536)
def _tokens(segment: str) -> list[int]:
    value = json.loads(segment)
    plain = (
        isinstance(value, dict) and value.keys() == {"role", "content"} and isinstance(value["content"], str)
    )
    text = f"{value['role']}\n{value['content']}" if plain else segment
    return [*_SEPARATOR, *load_encoding(_COUNTER.name).encode_ordinary(text)]


def _beginnings(request: Request) -> Iterator[int]:
    tokens = [token for segment in _segments(request.body) for token in _tokens(segment)]
    beginning = hash(str(request.body.get("model")))
    for end in range(_CACHE_STEP, len(tokens) + 1, _CACHE_STEP):
        beginning = hash((beginning, *tokens[end - _CACHE_STEP : end]))
        yield beginning
