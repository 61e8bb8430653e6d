"""Processes that send to one conversation at once, with edits and pins beside them.

No prompt misses a message that was committed before it, none is lost, and every send ends within three tries
and the append that comes first then.
"""

import asyncio
import os
import random
import time
from collections import Counter
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from tests.conformance.test_concurrency import Words, in_processes
from tokenmem import AsyncChat, AsyncStore, Chat, Message, Store
from tokenmem.chat.start import CONFLICTS

SENDS = int(os.environ.get("TOKENMEM_TEST_SENDS", "40"))  # 1000 is what the project promises
LIMIT = 400  # tokens: some forty messages, or a few less than are pinned and sent
SENDERS = 2

Prompt = tuple[str, list[str]]
"""A question, and the names of the messages that were sent with it, in order."""


def name_of(content: str) -> str:
    """What a message is called, whatever an edit has made of the rest."""
    return content.split()[0]


def send(number: int, barrier: Barrier, url: str) -> tuple[list[Prompt], int]:
    """Send, every other time with a key; what was sent, and the most reads that one send took."""
    prompts: list[Prompt] = []
    most = 0

    def model(messages: list[dict[str, Any]], **_: Any) -> str:
        names = [name_of(message["content"]) for message in messages]
        prompts.append((names[-1], names))
        return f"answer-to-{names[-1]} " + "word " * 8

    with Store(url, counter=Words()) as store:
        reads = counted_reads(store._runner)
        chat = Chat(store, model, "words", LIMIT, stride=None)
        barrier.wait(60)
        for turn in range(SENDS):
            before = reads["Read"]
            key = f"{number}-{turn}" if turn % 2 else None
            chat.send("c", f"question-{number}-{turn} " + "word " * 8, idempotency_key=key)
            most = max(most, reads["Read"] - before)
    return prompts, most


def send_async(number: int, barrier: Barrier, url: str) -> tuple[list[Prompt], int]:
    """The same with an AsyncChat, and four tasks at once."""
    prompts: list[Prompt] = []

    async def model(messages: list[dict[str, Any]], **_: Any) -> str:
        names = [name_of(message["content"]) for message in messages]
        prompts.append((names[-1], names))
        return f"answer-to-{names[-1]} " + "word " * 8

    async def some(chat: AsyncChat, task: int) -> None:
        for turn in range(task, SENDS, 4):
            key = f"{number}-{turn}" if turn % 2 else None
            await chat.send("c", f"question-{number}-{turn} " + "word " * 8, idempotency_key=key)

    async def all_of_them() -> None:
        async with AsyncStore(url, counter=Words()) as store:
            chat = AsyncChat(store, model, "words", LIMIT, stride=None)
            barrier.wait(60)
            await asyncio.gather(*(some(chat, task) for task in range(4)))

    asyncio.run(all_of_them())
    return prompts, 0


def counted_reads(runner: Any) -> Counter[str]:
    """Counts a runner's effects by their kind."""
    counts: Counter[str] = Counter()
    run = runner.run

    def noted(effect: Any) -> Any:
        counts[type(effect).__name__] += 1
        return run(effect)

    runner.run = noted
    return counts


def edit(number: int, barrier: Barrier, url: str) -> int:
    """Edit, pin and unpin messages while others send; returns how often."""
    chance, done = random.Random(number), 0
    pinned: int | None = None
    with Store(url, counter=Words()) as store:
        barrier.wait(60)
        idle_since, last = time.monotonic(), 0
        while time.monotonic() - idle_since < 1.5:
            conversation = store.conversation("c")
            if conversation.last_position != last:
                idle_since, last = time.monotonic(), conversation.last_position
            position, pin = chance.randint(max(1, last - 30), last), None
            if chance.random() < 0.3:
                position, pin = (position, True) if pinned is None else (pinned, False)
                pinned = position if pin else None
            (message,) = store.messages("c", after=position - 1, limit=1)
            words = ["word"] * chance.choice([8, 8, 6])  # mostly an edit of equal cost
            text = " ".join([name_of(str(message.content)), *words])
            store.edit("c", position, Message(message.role, text), pinned=pin)
            done += 1
            time.sleep(chance.random() * 0.01)
    return done


def _act(number: int, barrier: Barrier, url: str, sender: Any) -> Any:
    return edit(number, barrier, url) if number == SENDERS else sender(number, barrier, url)


@pytest.mark.parametrize("sender", [send, send_async])
def test_no_prompt_misses_a_message_and_none_is_lost(ready_url: str, sender: Any) -> None:
    with Store(ready_url, counter=Words()) as store:
        store.append("c", [Message.user("start " + "word " * 8, pinned=True)])
    *sent, edits = in_processes(SENDERS + 1, _act, ready_url, sender)
    assert edits > SENDS / 10, "nothing was edited beside them"
    with Store(ready_url, counter=Words()) as store:
        assert store.verify() == []
        messages = store.messages("c", limit=None)
        calls = store.calls("c", limit=None)
    names = {message.position: name_of(str(message.content)) for message in messages}
    assert sorted(names) == list(range(1, len(messages) + 1))
    questions = [f"question-{number}-{turn}" for number in range(SENDERS) for turn in range(SENDS)]
    expected = ["start", *questions, *(f"answer-to-{question}" for question in questions)]
    assert sorted(names.values()) == sorted(expected), "something is lost, or stored twice"
    assert [call.number for call in calls] == list(range(1, len(questions) + 1))
    assert {call.status for call in calls} == {"ok"}
    seen_by = {names[call.last_position or 0]: call for call in calls}
    for prompts, most in sent:
        for question, prompt in prompts:
            call = seen_by[question]
            window = [
                names[place] for place in range(call.first_position or 0, (call.last_position or 0) + 1)
            ]
            # Pinned ones come first, so that each stands once, there or in its place.
            assert set(window) <= set(prompt), f"{question} was asked without {set(window) - set(prompt)}"
            assert len(prompt) == len(set(prompt))
        assert most <= CONFLICTS + 2, f"{most} reads in one send"
