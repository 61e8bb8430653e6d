"""Processes are killed in the middle of a turn with a model; the next one sends the same again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from openai import AsyncOpenAI, OpenAI

from tests.support.stores import Direct, One
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.processes import PATIENCE, started, wait_until
from tokenmem import AsyncChat, AsyncStore, Chat, Store
from tokenmem.operations.calls import LEASE
from tokenmem.testing import Answer, ModelServer, Request

TURNS_EACH = 5
"""Turns of a conversation; each is killed once and then sent again."""

PIECES = 8


def run(case: Case) -> Outcome:
    """One process a turn, killed at some moment of it; then the same turn again, with the same key."""
    random = case.random
    sent, acknowledged = [], 0
    with ModelServer(reply, count=lambda _: 1) as server:
        latest = 1.2 * undisturbed(case, server.base_url)
        for turn in range(case.size):
            conversation_id, key = f"c{turn // TURNS_EACH}", f"k{turn}"
            sent.append((conversation_id, key))
            begun = case.directory / f"{turn}.begun"
            process = started(take_turn, case, server.base_url, conversation_id, key, str(begun))
            wait_until(begun.exists, "a turn's beginning")
            time.sleep(random.random() * latest)
            process.kill()
            process.join()
            process.close()
            let_leases_run_out(case.url)
            with case.breaking():
                take_turn(case, server.base_url, conversation_id, key)
            acknowledged += 1
        problems = server.problems
    with Store(case.url, counter=One()) as store:
        return settled(store, sent, acknowledged, problems)


def undisturbed(case: Case, base_url: str) -> float:
    """How long a turn takes in a process of its own, in seconds."""
    begun = case.directory / "undisturbed.begun"
    process = started(take_turn, case, base_url, "undisturbed", "k", str(begun))
    wait_until(begun.exists, "a turn's beginning")
    began = time.monotonic()
    process.join()
    return time.monotonic() - began


def reply(request: Request) -> Answer:
    """What the model says names what it was asked."""
    asked = request.body["messages"][-1]["content"]
    return Answer(f"The answer to {asked}, at some length.", chunks=PIECES, chunk_delay=0.005)


def take_turn(case: Case, base_url: str, conversation_id: str, key: str, begun: str = "") -> None:
    """Send one message, and read the reply to its end."""
    options: dict[str, Any] = {"base_url": base_url, "api_key": "test", "max_retries": 0, "timeout": PATIENCE}
    if case.mode == "sync":
        with Store(case.url, counter=One()) as store, OpenAI(**options) as client:
            note(begun)
            list(Chat(store, client).stream(conversation_id, key, idempotency_key=key))
    else:
        asyncio.run(take_turn_async(case.url, options, conversation_id, key, begun))


async def take_turn_async(url: str, options: Any, conversation_id: str, key: str, begun: str) -> None:
    async with AsyncStore(url, counter=One()) as store, AsyncOpenAI(**options) as client:
        note(begun)
        async for _ in AsyncChat(store, client).stream(conversation_id, key, idempotency_key=key):
            pass


def note(begun: str) -> None:
    if begun:
        with open(begun, "w"):
            pass


def let_leases_run_out(url: str) -> None:
    """Make signs of life older than the lease of a call, in place of waiting as long."""
    older = (
        f"strftime('%Y-%m-%dT%H:%M:%fZ', alive_at, '-{LEASE + 1} seconds')"
        if url.startswith("sqlite")
        else f"alive_at - interval '{LEASE + 1} seconds'"
    )
    sql = Direct(url)
    sql.run(f"UPDATE {{llm_calls}} SET alive_at = {older} WHERE alive_at IS NOT NULL")
    sql.close()


def settled(store: Store, sent: list[tuple[str, str]], acknowledged: int, problems: list[Any]) -> Outcome:
    failures = [f"the provider would refuse: {each}" for each in problems[:3]]
    statuses: Counter[str] = Counter()
    lost = doubled = 0
    for conversation_id in sorted({name for name, _ in sent}):
        statuses.update(call.status for call in store.calls(conversation_id, limit=None))
        said = Counter(str(message.content) for message in store.messages(conversation_id, limit=None))
        for name, key in sent:
            if name == conversation_id:
                replies = [text for text in said if text.startswith(f"The answer to {key},")]
                whole = said[f"The answer to {key}, at some length."]
                lost += whole == 0 or said[key] == 0
                doubled += whole > 1 or said[key] > 1
                if len(replies) > 1:
                    failures.append(f"{name}: a part stands beside the whole reply to {key}")
    return Outcome(
        operations=2 * len(sent),
        faults=len(sent),
        acknowledged=acknowledged,
        lost=lost,
        doubled=doubled,
        problems=len(store.verify()),
        figures={f"calls that are {status}": count for status, count in sorted(statuses.items())},
        failures=tuple(failures),
    )


@contextmanager
def without_keys() -> Iterator[None]:
    """The control: the second process sends the message again without its key."""
    whole = Chat.stream

    def keyless(chat: Chat, *arguments: Any, idempotency_key: str | None = None, **options: Any) -> Any:
        return whole(chat, *arguments, **options)

    with patched(Chat, "stream", keyless), suppress(Exception):
        yield


CLASS = FaultClass(
    name="killed_turns",
    claim="Processes are killed with SIGKILL while a model answers, before it, and after; another sends the "
    "same with the same key once the call's lease has run out. Question and reply are stored once "
    "each, and every prompt is one that the provider takes.",
    counts="kills",
    run=run,
    cases=(("sqlite", "sync"), ("sqlite", "async"), ("postgresql", "sync"), ("postgresql", "async")),
    short=2,
    long=150,
    planted=(PlantedFault("turns that are sent again without a key", without_keys, "sqlite", "sync", 10),),
)
