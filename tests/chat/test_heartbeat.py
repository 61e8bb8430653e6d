"""Signs of life of running calls, sync and async."""

import asyncio
import time
from typing import Any

import pytest

from tests.support.stores import Direct, Stores
from tokenmem import AsyncChat, AsyncStore, Chat, Store
from tokenmem.chat import heartbeat, runners
from tokenmem.chat.heartbeat import Heart
from tokenmem.execution.effects import Write


class Counting:
    """A runner that counts the writes it is given."""

    def __init__(self) -> None:
        self.writes = 0

    def run(self, _: Any) -> None:
        self.writes += 1


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.02)
    monkeypatch.setattr(heartbeat, "_LOOK", 0.01)
    monkeypatch.setattr(runners, "BEAT", 0.02)


def test_a_call_beats_until_it_is_stopped_and_the_thread_ends() -> None:
    heart, first, second = Heart(), Counting(), Counting()
    write = Write(lambda _: None)
    calls = [heart.start(first, write), heart.start(second, write)]
    wait_for(lambda: first.writes >= 2 and second.writes >= 2)
    heart.stop(calls[0])
    stopped_at = first.writes
    wait_for(lambda: second.writes >= stopped_at + 5)
    assert first.writes <= stopped_at + 1  # the one that was under way
    heart.stop(calls[1])
    wait_for(lambda: heart._thread is None)
    again = heart.start(first, write)
    wait_for(lambda: first.writes > stopped_at + 1)
    heart.stop(again)


def test_a_forked_process_has_a_heart_of_its_own() -> None:
    heart, parents, own = Heart(), Counting(), Counting()
    call = heart.start(parents, Write(lambda _: None))
    heart._forget()  # as a child does: the thread is not there, the call is the parent's
    mine = heart.start(own, Write(lambda _: None))
    assert heart._calls == {mine}
    wait_for(lambda: own.writes >= 1)
    heart.stop(call)
    heart.stop(mine)


OLD = {"postgresql": "2000-01-01 00:00:00+00", "sqlite": "2000-01-01T00:00:00.000Z"}


def test_a_call_is_running_however_long_it_takes(stores: Stores, sql: Direct) -> None:
    """Without a beat its row would soon be older than the lease."""
    view = "call_log" if stores.dialect == "sqlite" else "tokenmem.call_log"

    def slow(_: list[Any]) -> str:
        sql.run(f"UPDATE {{llm_calls}} SET alive_at = '{OLD[stores.dialect]}'")
        wait_for(lambda: sql.value(f"SELECT status FROM {view}") == "running")
        return "done"

    async def ask_async() -> None:
        async with AsyncStore(stores.url) as store:
            await AsyncChat(store, slow, "m", 1000).send("c", "hi")

    if stores.is_async:
        asyncio.run(ask_async())
    else:
        with Store(stores.url) as store:
            Chat(store, slow, "m", 1000).send("c", "hi")
    assert sql.value("SELECT count(*) FROM {llm_calls} WHERE status = 'ok' AND alive_at IS NULL") == 1
