"""What a scripted model answers to whom, and what of it must be stored; for the tests of the chat wrapper."""

import inspect
import itertools
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest

from tokenmem import Message
from tokenmem.chat.apis.replies import tool_calls_of
from tokenmem.messages.calls import answered_ids
from tokenmem.testing import (
    Answer,
    Cut,
    Failure,
    Request,
    Stall,
    StreamError,
    ToolCallSpec,
)
from tokenmem.testing.replies import Reply

_HEADER = "x-plan"
WORDS = ("amber", "basin", "copper", "delta", "ember", "fjord", "grove", "harbor", "inlet", "juniper", "kelp")


# Garbage collection may run in a server's thread and meet there the HTTP client's own generators of a stream
# that was cancelled, while the event loop closes them: once in 8,000 streams. Ours must never show up.
FOREIGN_GENERATORS = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <async_generator object (?!AsyncChat)"
    ":pytest.PytestUnraisableExceptionWarning"
)


class Plans:
    """Replies for each turn, found by a header that only the turn's own requests have.

    Many conversations share one server, and what arrives in what order is chance. A turn that asks more often
    than planned finds no reply, and the server notes a problem.
    """

    def __init__(self) -> None:
        self._replies: dict[str, deque[Reply]] = {}
        self._asked: dict[str, threading.Event] = {}
        self._refused: dict[str, Reply] = {}
        self._numbers = itertools.count(1)

    def plan(self, *replies: Reply) -> dict[str, str]:
        """The header of a turn that gets these replies, in this order."""
        key = str(next(self._numbers))
        self._asked[key] = threading.Event()
        self._replies[key] = deque(replies)
        return {_HEADER: key}

    def left(self, header: dict[str, str]) -> int:
        """How many of the turn's replies have not been asked for."""
        key = header[_HEADER]
        return len(self._replies[key]) - (key in self._refused)

    def asked(self, header: dict[str, str]) -> threading.Event:
        """Is set when the turn's first request arrives."""
        return self._asked[header[_HEADER]]

    def __call__(self, request: Request) -> Reply:
        """The server's script."""
        key = request.headers[_HEADER]
        self._asked[key].set()
        replies = self._replies[key]
        refuses = isinstance(replies[0], Failure) and replies[0].status == 400
        if refuses and len(replies) == 1:  # however often and in whatever form it is asked
            return self._refused.setdefault(key, replies[0])
        return replies.popleft()


class Told(NamedTuple):
    """What a stored message says, without what a server makes up."""

    role: str
    kind: str
    text: str
    calls: tuple[tuple[str | None, str, str], ...] = ()
    answers: tuple[str, ...] = ()
    partial: bool = False


def told(message: Message) -> Told:
    calls = tuple((call.id, call.name, call.arguments) for call in tool_calls_of([message]))
    answers = tuple(sorted(answered_ids(message)))
    return Told(message.role, message.kind, message.content or "", calls, answers, message.partial)


def told_by(answer: Answer, api: str) -> list[Told]:
    """The messages as which an answer must be stored."""
    calls = [(call.id, call.name, call.arguments_text) for call in answer.calls]
    if api == "chat":
        kind = "tool_call" if calls else "message"
        return [Told("assistant", kind, answer.text or "", tuple(calls))]
    items = []
    if answer.reasoning is not None:
        items.append(Told("assistant", "reasoning", answer.reasoning))
    if answer.text is not None or answer.refusal is not None:
        items.append(Told("assistant", "message", answer.text or ""))
    return items + [Told("assistant", "tool_call", "", (call,)) for call in calls]


def answer_of(reply: Reply) -> Answer:
    """What a reply would say if nothing went wrong."""
    if isinstance(reply, Answer):
        return reply
    return reply.answer if isinstance(reply, (Stall, Cut, StreamError)) else Answer()


def some_text(random: Random, most: int = 12) -> str:
    return " ".join(random.choices(WORDS, k=random.randint(1, most)))


def some_calls(random: Random, most: int = 3) -> list[ToolCallSpec]:
    """Calls of functions that work, that fail, that are not there, and calls that nobody can read."""
    kinds: list[tuple[str, Any]] = [
        ("weather", {"city": random.choice(WORDS)}),
        ("weather", {"city": random.choice(WORDS)}),
        ("broken", {"why": random.choice(WORDS)}),
        ("unheard_of", {}),
        ("weather", '{"city": "cut o'),
        ("weather", {"town": "an argument that it does not take"}),
    ]
    count = random.randint(1, most)
    return [ToolCallSpec(*random.choice(kinds), f"call_{random.getrandbits(60):x}") for _ in range(count)]


def some_answer(random: Random, *, calls: bool = True) -> Answer:
    """What a model may say: texts, calls, both, a refusal, nothing, or no more than it has thought."""
    chance = random.random()
    reasoning = some_text(random) if random.random() < 0.4 else None
    if chance < 0.3 and calls:
        text = some_text(random) if random.random() < 0.4 else None
        return Answer(text, tool_calls=some_calls(random), reasoning=reasoning)
    if chance < 0.34:
        return Answer(refusal=some_text(random))
    if chance < 0.38:
        return Answer(reasoning=some_text(random), finish_reason="length")
    if chance < 0.41:
        return Answer("")
    finish_reason = "length" if chance < 0.45 else None
    return Answer(some_text(random, 30), reasoning=reasoning, finish_reason=finish_reason)


def some_trouble(random: Random, answer: Answer) -> Reply:
    """How an answer may fail to come."""
    after = random.randint(0, 14)
    return random.choice(
        [
            Failure(429, headers={"retry-after-ms": "1"}),
            Failure(500, headers={"retry-after-ms": "1"}),
            Failure(400, "context_length_exceeded"),
            Stall(after=after, answer=answer),
            Cut(after=after, answer=answer),
            Cut(after=after, answer=answer),
            StreamError(after=after, answer=answer),
            StreamError(after=after, answer=answer, event="response.failed"),
        ]
    )


async def settled(value: Any) -> Any:
    """What a method sync or async returns: the asynchronous ones are awaited."""
    return await value if inspect.isawaitable(value) else value


async def pieces_of(stream: Any) -> AsyncIterator[Any]:
    """The pieces of a stream sync or async. It is not closed: that is what is tested."""
    if hasattr(stream, "__aiter__"):
        async for piece in stream:
            yield piece
    else:
        for piece in stream:
            yield piece


async def close_stream(stream: Any) -> None:
    await settled(stream.aclose() if hasattr(stream, "aclose") else stream.close())


async def read_turn(open_turn: Callable[..., Any], *arguments: Any, **options: Any) -> AsyncIterator[Any]:
    """What a turn that is opened gives, as a stream gives it."""
    turn = await settled(open_turn(*arguments, **options))
    try:
        async for piece in pieces_of(turn):
            yield piece
        yield turn.reply
    finally:
        await close_stream(turn)


def text_of(messages: Sequence[Told]) -> str:
    """What a person reads of a reply; reasoning is none of it."""
    return "".join(each.text for each in messages if each.kind in ("message", "tool_call"))
