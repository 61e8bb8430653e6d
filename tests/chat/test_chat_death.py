"""Processes that die, hang or repeat each other while a model answers: every reply is stored once."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from tests.support.processes import NEW
from tests.support.stores import Direct
from tokenmem import AsyncChat, AsyncStore, Chat, Store
from tokenmem.operations.calls import DIED, LEASE, UNFINISHED
from tokenmem.testing import Answer, Failure, ModelServer, Request, Stall
from tokenmem.testing.replies import Reply as ScriptedReply

PATIENCE = 120.0  # seconds; only a test that fails waits as long
MODES = pytest.mark.parametrize(("mode", "api"), [("sync", "chat"), ("async", "responses")])


class Child:
    """A process that sends one message and tells what came of it: the text, and whether it was replayed."""

    def __init__(self, url: str, server: ModelServer, api: str, mode: str, method: str = "send") -> None:
        self._ours, theirs = NEW.Pipe()
        arguments = (theirs, url, server.base_url, api, mode, method)
        self.process = NEW.Process(target=_in_child, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    def is_ready(self) -> None:
        """Wait until it is about to send."""
        assert self.answer() == "ready"

    def go(self) -> None:
        self._ours.send("go")

    def answer(self) -> Any:
        assert self._ours.poll(PATIENCE), "the child process does not answer"
        return self._ours.recv()

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self._ours.close()


def _in_child(parent: Any, url: str, base_url: str, api: Any, mode: str, method: str) -> None:
    parent.send("ready")
    parent.recv()
    send = _send_async if mode == "async" else _send
    try:
        parent.send(send(url, base_url, api, method))
    except Exception as error:
        parent.send(type(error).__name__)


def _send(url: str, base_url: str, api: Any, method: str) -> tuple[str, bool]:
    with (
        Store(url) as store,
        OpenAI(base_url=base_url, api_key="test", max_retries=0, timeout=PATIENCE) as client,
    ):
        sent: Any = getattr(Chat(store, client, api=api), method)("c1", "Hello", idempotency_key="k")
        reply = sent if method == "send" else list(sent)[-1]
        return reply.text, reply.replayed


def _send_async(url: str, base_url: str, api: Any, method: str) -> tuple[str, bool]:
    async def send() -> tuple[str, bool]:
        async with (
            AsyncStore(url) as store,
            AsyncOpenAI(base_url=base_url, api_key="test", max_retries=0, timeout=PATIENCE) as client,
        ):
            sent: Any = getattr(AsyncChat(store, client, api=api), method)("c1", "Hello", idempotency_key="k")
            reply = await sent if method == "send" else [each async for each in sent][-1]
            return reply.text, reply.replayed

    return asyncio.run(send())


@contextmanager
def children(*made: Child) -> Iterator[None]:
    """Child processes that begin to send at once, and do not outlive the test."""
    try:
        for child in made:
            child.is_ready()
        for child in made:
            child.go()
        yield
    finally:
        for child in made:
            child.end()


def wait_for(condition: Callable[[], Any]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "what is waited for does not come"
        time.sleep(0.005)


def let_lease_run_out(url: str) -> None:
    """Make the last sign of life of running calls older than the lease, in place of waiting as long."""
    sql = Direct(url)
    older = (
        f"strftime('%Y-%m-%dT%H:%M:%fZ', alive_at, '-{LEASE + 1} seconds')"
        if url.startswith("sqlite")
        else f"alive_at - interval '{LEASE + 1} seconds'"
    )
    sql.run(f"UPDATE {{llm_calls}} SET alive_at = {older} WHERE alive_at IS NOT NULL")
    sql.close()


def logged_statuses(url: str) -> list[str]:
    sql = Direct(url)
    view = "call_log" if url.startswith("sqlite") else "tokenmem.call_log"
    rows = sql.rows(f"SELECT status FROM {view} ORDER BY number")
    sql.close()
    return [status for (status,) in rows]


def said(url: str) -> list[str | None]:
    with Store(url) as store:
        assert store.verify() == []
        return [message.content for message in store.messages("c1")]


@pytest.mark.parametrize(
    ("mode", "method", "api"),
    [("sync", "send", "chat"), ("sync", "stream", "responses"), ("async", "stream", "chat")],
)
def test_a_process_is_killed_while_the_model_stalls(ready_url: str, api: Any, mode: str, method: str) -> None:
    with ModelServer(Stall(after=6, seconds=600)) as server:
        child = Child(ready_url, server, api, mode, method)
        with children(child):
            wait_for(lambda: server.requests)
            child.signal(signal.SIGKILL)
            child.process.join()
        with Store(ready_url) as store:
            (call,) = store.calls("c1")
        assert (call.status, call.error, call.reply_position) == ("cancelled", UNFINISHED, None)
        assert said(ready_url) == ["Hello"]
        assert logged_statuses(ready_url) == ["running"]
        let_lease_run_out(ready_url)
        assert logged_statuses(ready_url) == ["died"]

        server.reply_with(Answer("Here I am."))
        assert _send(ready_url, server.base_url, api, "send") == ("Here I am.", False)
        assert _send(ready_url, server.base_url, api, "send") == ("Here I am.", True)
        assert len(server.requests) == 2
        assert server.problems == []
    assert said(ready_url) == ["Hello", "Here I am."]
    with Store(ready_url) as store:
        ended = [(call.status, call.error, call.reply_position) for call in store.calls("c1")]
    assert ended == [("cancelled", DIED, None), ("ok", None, 2)]


class Held:
    """A script whose first reply is held back until it is released."""

    def __init__(self, *then: ScriptedReply) -> None:
        self.released = threading.Event()
        self._then = iter(then)

    def __call__(self, request: Request) -> ScriptedReply:
        if request.number:
            return next(self._then)
        assert self.released.wait(PATIENCE)
        return Answer("The first reply.")


@contextmanager
def taken_for_dead(url: str, server: ModelServer, child: Child) -> Iterator[None]:
    """The child's call is under way, but the child stands still for longer than its lease."""
    with children(child):
        wait_for(lambda: server.requests)
        child.signal(signal.SIGSTOP)
        try:
            let_lease_run_out(url)
            yield
        finally:
            child.signal(signal.SIGCONT)
            child.process.join(PATIENCE)


@MODES
def test_who_was_taken_for_dead_returns_the_reply_of_the_other(ready_url: str, api: Any, mode: str) -> None:
    script = Held(Answer("The second reply."))
    with ModelServer(script) as server:
        child = Child(ready_url, server, api, mode)
        with taken_for_dead(ready_url, server, child):
            assert _send(ready_url, server.base_url, api, "send") == ("The second reply.", False)
            script.released.set()
            child.signal(signal.SIGCONT)
            assert child.answer() == ("The second reply.", True)
        assert len(server.requests) == 2
        assert server.problems == []
    assert said(ready_url) == ["Hello", "The second reply."]
    assert logged_statuses(ready_url) == ["cancelled", "ok"]


@MODES
def test_who_was_taken_for_dead_says_so_where_the_other_failed(ready_url: str, api: Any, mode: str) -> None:
    script = Held(Failure(500), Answer("The third reply."))
    with ModelServer(script) as server:
        child = Child(ready_url, server, api, mode)
        with taken_for_dead(ready_url, server, child):
            with pytest.raises(Exception, match="500"):
                _send(ready_url, server.base_url, api, "send")
            script.released.set()
            child.signal(signal.SIGCONT)
            assert child.answer() == "ModelError"
        assert said(ready_url) == ["Hello"]
        assert _send(ready_url, server.base_url, api, "send") == ("The third reply.", False)
    assert said(ready_url) == ["Hello", "The third reply."]
    assert logged_statuses(ready_url) == ["cancelled", "error", "ok"]


@MODES
def test_two_processes_send_the_same_at_once(ready_url: str, api: Any, mode: str) -> None:
    with ModelServer([Answer("The only reply.", delay=0.3)]) as server:
        one, other = (Child(ready_url, server, api, mode) for _ in range(2))
        with children(one, other):
            answers = [one.answer(), other.answer()]
        assert len(server.requests) == 1
        assert server.problems == []
    assert sorted(answers) == [("The only reply.", False), ("The only reply.", True)]
    assert said(ready_url) == ["Hello", "The only reply."]
    assert logged_statuses(ready_url) == ["ok"]
