"""The README's backend as printed: uvicorn in a process of its own, over real connections."""

import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.support import backend
from tests.test_documentation import ROOT, blocks
from tokenmem import Store
from tokenmem.testing import Answer, Failure, ModelServer, Stall

EXAMPLE = next(code for _, code in blocks(ROOT / "README.md", "python") if "FastAPI" in code)
AT_ONCE = {"x-should-retry": "false"}
FAILURES = {429: Failure(429, headers=AT_ONCE), 502: Failure(500, headers=AT_ONCE)}


@contextmanager
def running(directory: Path, database_url: str, model_url: str) -> Iterator[int]:
    """The README's backend, and the port on which it listens."""
    (directory / "backend.py").write_text(EXAMPLE, encoding="utf-8")
    environment = {
        "TOKENMEM_URL": database_url,
        "OPENAI_BASE_URL": model_url,
        "OPENAI_API_KEY": "test",
        "PYTHONWARNINGS": "default",
    }
    with backend.running("backend:app", directory, **environment) as port:
        yield port


def post(port: int, path: str, text: str, **headers: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = json.dumps({"text": text})
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", path, body, {"Content-Type": "application/json", **given})
    return connection


def answered(port: int, path: str, text: str, **headers: str) -> tuple[int, str]:
    with closing(post(port, path, text, **headers)) as connection:
        response = connection.getresponse()
        return response.status, response.read().decode()


def said(port: int, path: str, text: str, **headers: str) -> str:
    status, told = answered(port, path, text, **headers)
    assert status == 200, told
    return told


def ended_status(store: Store, number: int) -> str:
    """The status of a call, when it has ended."""
    for _ in range(500):
        calls = store.calls("trip")
        if len(calls) >= number and not str(calls[number - 1].error).startswith("not ended"):
            return calls[number - 1].status
        time.sleep(0.02)
    raise AssertionError("the call has not ended")


def refused(port: int) -> None:
    """What goes wrong before there is any text is told by the status."""
    for status, text, headers in (
        (404, "And whose is this?", {"x_user": "bob"}),
        (409, "And now?", {"x_user": "ann", "idempotency_key": "r1"}),
        (413, "word " * 10_000, {"x_user": "ann"}),
        (422, "a\0b", {"x_user": "ann"}),
        *((status, "Hello again?", {"x_user": "ann"}) for status in FAILURES),
    ):
        found, told = answered(port, "/chats/trip", text, **headers)
        assert found == status, told
        assert text not in told


def test_the_backend_of_the_readme(tmp_path: Path, database_url: str) -> None:
    slow = Stall(after=4, seconds=60, answer=Answer("this is never read to its end"))
    with (
        ModelServer([Answer("At 21:58."), slow, Answer("Still at 21:58."), *FAILURES.values()]) as server,
        running(tmp_path, database_url, server.base_url) as port,
    ):
        keyed = {"x_user": "ann", "idempotency_key": "r1"}
        assert said(port, "/chats/trip", "When does it leave?", **keyed) == "At 21:58."
        assert said(port, "/chats/trip", "When does it leave?", **keyed) == "At 21:58."
        assert len(server.requests) == 1
        with Store(database_url) as store:
            leaving = post(port, "/chats/trip", "And now?", x_user="ann")
            first = leaving.getresponse().read(1)
            leaving.close()
            assert ended_status(store, 2) == "cancelled"
            assert said(port, "/chats/trip", "Hello?", x_user="ann") == "Still at 21:58."
            messages = store.messages("trip")
            assert [message.role for message in messages] == ["user", "assistant"] * 3
            assert messages[3].partial
            assert str(messages[3].content).startswith(first.decode())
            assert store.conversation("trip").owner == "ann"
            refused(port)
            assert len(store.messages("trip")) == 6 + len(FAILURES)
            assert store.verify() == []
        assert server.problems == []
