"""The commands about models: `chat`, with OpenAI's own client on loopback, and `calls`."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.commands import Answer as FinishedCall
from tests.support.commands import done, environment, on_terminal, only_line, run
from tests.support.stores import Direct
from tokenmem import Message, Store
from tokenmem.chat import Chat
from tokenmem.models import LLMCall
from tokenmem.testing import Answer, Cut, Failure, ModelServer, Request, Stall, StreamError

AT_ONCE = {"x-should-retry": "false"}
CTRL_C = b"\x03"
CTRL_D = b"\x04"
LONG = Answer("The night train leaves at 21:58, from platform 4.", chunks=8)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A model that says hello, found as the openai package finds it."""
    with ModelServer(Answer("Hello!")) as running:
        monkeypatch.setenv("OPENAI_BASE_URL", running.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "test")
        yield running
        assert running.problems == []


def stored(url: str, conversation_id: str = "c1") -> list[tuple[str, str | None]]:
    with Store(url) as store:
        return [(each.role, each.content) for each in store.messages(conversation_id)]


def recorded(url: str, conversation_id: str = "c1") -> list[LLMCall]:
    with Store(url) as store:
        return store.calls(conversation_id)


def read(running: programs.Piped, size: int) -> bytes:
    """So many bytes of what it writes."""
    read = b""
    while len(read) < size:
        piece = running.stdout.read(size - len(read))
        assert piece, f"it ended behind {read!r}"
        read += piece
    return read


def eventually(condition: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it has not come true"
        time.sleep(0.02)


def child(*arguments: str, url: str) -> programs.Piped:
    """The command as a process of its own, with pipes."""
    return programs.start("-m", "tokenmem", *arguments, env=environment(url))


class Terminal:
    """The command on a terminal of its own, whose keys it obeys as a person's."""

    def __init__(self, *arguments: str, url: str) -> None:
        self.ours, theirs = pty.openpty()
        self.process = programs.Program(
            ["-m", "tokenmem", *arguments],
            (theirs, theirs, theirs),
            env=environment(url) | {"TERM": "dumb"},
            leads=True,
        )
        os.close(theirs)
        self.written = ""

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def wait_for(self, text: str) -> None:
        """Read until this has been written; the next wait begins behind it."""
        until = time.monotonic() + 30
        while text not in self.written:
            assert time.monotonic() < until, f"{text!r} is not in {self.written!r}"
            if select.select([self.ours], [], [], 0.1)[0]:
                self._read()
        self.written = self.written.partition(text)[2]

    def interrupt(self) -> None:
        """Press Ctrl-C until it is answered: the kernel may deliver one just before a wait."""
        self.written = ""
        for _ in range(6):
            self.press(CTRL_C)
            until = time.monotonic() + 5
            while time.monotonic() < until:
                if "tokenmem: cancelled" in self.written or self.process.poll() is not None:
                    return
                if select.select([self.ours], [], [], 0.1)[0]:
                    with suppress(OSError):
                        self._read()
        pytest.fail("Ctrl-C has no effect")

    def end(self) -> int:
        """What is left is read, and the exit code is told."""
        with suppress(OSError):  # Linux answers so where nobody holds the other end any more
            while True:
                self._read()
        return self.process.wait(30)

    def _read(self) -> None:
        piece = os.read(self.ours, 65536)
        if not piece:
            raise OSError
        self.written += piece.decode(errors="replace").replace("\r\n", "\n")

    def close(self) -> None:
        self.process.kill()
        self.process.wait(30)
        os.close(self.ours)


@contextmanager
def terminal(*arguments: str, url: str) -> Iterator[Terminal]:
    shown = Terminal(*arguments, url=url)
    try:
        yield shown
    finally:
        shown.close()


@pytest.mark.parametrize("command", ["calls", "chat"])
def test_they_have_help_with_an_example(command: str) -> None:
    assert f"Example: tokenmem {command} c1" in done(command, "--help").out
    assert f"\n  {command} " in done("--help").out


def test_one_turn(server: ModelServer, ready_url: str) -> None:
    answer = done("chat", "c1", "Hi", url=ready_url)
    assert (answer.out, answer.err) == ("Hello!\n", "")
    assert stored(ready_url) == [("user", "Hi"), ("assistant", "Hello!")]
    done("chat", "c1", "And again", url=ready_url)
    sent = server.requests[-1]
    assert [message["content"] for message in sent.body["messages"]] == ["Hi", "Hello!", "And again"]
    assert sent.body["model"] == "gpt-4o-mini"
    assert sent.body["stream"] is True
    assert [call.status for call in recorded(ready_url)] == ["ok", "ok"]


def test_the_options_reach_the_model(server: ModelServer, ready_url: str, tmp_path: Path) -> None:
    (tmp_path / "brief.txt").write_text("Be brief.")
    given = ["--model", "gpt-4o", "--instructions", f"@{tmp_path}/brief.txt", "--owner", "ada"]
    done("chat", "c1", "Hi", *given, url=ready_url)
    body = server.requests[0].body
    assert body["model"] == "gpt-4o"
    assert body["messages"][0]["content"] == "Be brief."
    assert [each["owner"] for each in done("ls", "--json", url=ready_url).json] == ["ada"]
    assert "'c1'" in only_line(run("chat", "c1", "Hi", "--owner", "eve", url=ready_url))


def test_the_responses_api(server: ModelServer, ready_url: str) -> None:
    assert done("chat", "c1", "Hi", "--api", "responses", url=ready_url).out == "Hello!\n"
    assert server.requests[0].path == "/v1/responses"


def test_another_server(ready_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with ModelServer(Answer("Here.")) as other:
        assert done("chat", "c1", "Hi", "--base-url", other.base_url, url=ready_url).out == "Here.\n"


def test_a_turn_in_json(server: ModelServer, ready_url: str) -> None:
    told = done("chat", "c1", "Hi", "--json", url=ready_url).json
    assert told["text"] == "Hello!"
    assert told["call"] == done("calls", "c1", "--json", url=ready_url).json[0]
    assert told["call"]["status"] == "ok"
    assert "stream" not in server.requests[0].body
    lines = done("chat", "c1", "--json", stdin=b"One\nTwo\n", url=ready_url).out
    first, end = json.JSONDecoder().raw_decode(lines)
    assert first["call"]["number"] == 2
    assert json.loads(lines[end:])["call"]["number"] == 3


@pytest.mark.parametrize("end", [b"", b"\nnever said\n", b"  \nnever said\n", b"/exit\nnever said\n"])
def test_a_turn_a_line(server: ModelServer, ready_url: str, end: bytes) -> None:
    server.reply_with([Answer("First."), Answer("Second.\n")])
    answer = done("chat", "c1", stdin=b"One\r\nTwo\n" + end, url=ready_url)
    assert (answer.out, answer.err) == ("First.\nSecond.\n", "")
    assert [content for role, content in stored(ready_url) if role == "user"] == ["One", "Two"]


def test_no_line_is_no_turn(server: ModelServer, ready_url: str) -> None:
    assert done("chat", "c1", stdin=b"", url=ready_url).out == ""
    assert server.requests == []


def test_what_is_no_utf8_is_not_sent(server: ModelServer, ready_url: str) -> None:
    answer = process_with_input(ready_url, b"\xff\xfe\nHi\n")
    assert answer.code == 1
    assert answer.out == "Hello!\n"
    only_line(answer)
    assert [content for role, content in stored(ready_url) if role == "user"] == ["Hi"]


def process_with_input(url: str, text: bytes) -> FinishedCall:
    with child("chat", "c1", url=url) as running:
        return running.communicate(text)


def test_an_answer_comes_piece_by_piece(server: ModelServer, ready_url: str) -> None:
    server.reply_with(Stall(after=4, seconds=60, answer=LONG))
    with child("chat", "c1", "When?", url=ready_url) as running:
        assert read(running, 18) == b"The night train le"  # while the model is silent
        running.send_signal(signal.SIGINT)
        finished = running.communicate()
    assert (finished.code, finished.out) == (130, "\n")
    assert finished.err.splitlines() == ["tokenmem: cancelled; what had come of the answer is stored"]
    assert [call.status for call in recorded(ready_url)] == ["cancelled"]
    assert stored(ready_url) == [("user", "When?"), ("assistant", "The night train le")]


def test_ctrl_c_before_the_first_piece(server: ModelServer, ready_url: str) -> None:
    server.reply_with(Stall(answer=LONG))
    with child("chat", "c1", "When?", url=ready_url) as running:
        eventually(lambda: server.requests)
        running.send_signal(signal.SIGINT)
        finished = running.communicate()
    assert (finished.code, finished.out) == (130, "")
    assert stored(ready_url) == [("user", "When?")]
    assert [call.status for call in recorded(ready_url)] == ["cancelled"]


def test_a_dialogue_on_a_terminal(server: ModelServer, ready_url: str) -> None:
    server.reply_with([Answer("At ten."), Stall(after=4, answer=LONG), Answer("From platform 4.")])
    with terminal("chat", "c1", url=ready_url) as shown:
        shown.wait_for("> ")
        shown.press(b"When?\n")
        shown.wait_for("At ten.\n> ")
        shown.press(b"Sure?\n")
        shown.wait_for("The night train le")
        shown.interrupt()
        shown.wait_for("> ")
        shown.press(b"Where?\n")
        shown.wait_for("From platform 4.\n> ")
        shown.interrupt()
        assert shown.end() == 130
        assert "Traceback" not in shown.written
    assert [call.status for call in recorded(ready_url)] == ["ok", "cancelled", "ok"]
    said = [content for _, content in stored(ready_url)]
    assert said[:3] == ["When?", "At ten.", "Sure?"]
    assert said[3:] == ["The night train le", "Where?", "From platform 4."]


@pytest.mark.parametrize("keys", [CTRL_D, b"\n", b"/exit\n"])
def test_a_dialogue_ends(server: ModelServer, sqlite_url: str, keys: bytes) -> None:
    done("db", "upgrade", url=sqlite_url)
    with terminal("chat", "c1", url=sqlite_url) as shown:
        shown.wait_for("> ")
        shown.press(keys)
        assert shown.end() == 0
    assert server.requests == []


def test_a_model_cannot_command_the_terminal(server: ModelServer, ready_url: str) -> None:
    server.reply_with(Answer("a\x1b[2Jb\u202e\n\tc", chunks=1))
    assert done("chat", "c1", "Hi", url=ready_url).out == "a\\x1b[2Jb\\u202e\n\tc\n"


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_refusal_is_shown(server: ModelServer, ready_url: str, api: str) -> None:
    server.reply_with(Answer(refusal="I will not."))
    assert "I will not." in done("chat", "c1", "Hi", "--api", api, url=ready_url).out


FAILURES = [
    (Failure(401, "invalid_api_key", "no: Hi, secret", AT_ONCE), "AuthenticationError 401 invalid_api_key"),
    (Failure(429, "rate_limit_exceeded", "Hi, secret", AT_ONCE), "RateLimitError 429 rate_limit_exceeded"),
    (Failure(404, "model_not_found", "Hi, secret", AT_ONCE), "NotFoundError 404 model_not_found"),
    (Failure(500, None, "Hi, secret", AT_ONCE), "InternalServerError 500"),
    (StreamError(3, "server_error", "Hi, secret", LONG), "APIError server_error"),
    (Cut(4, LONG), "tokenmem: "),
]


@pytest.mark.parametrize(("reply", "words"), FAILURES)
def test_a_failed_call_is_one_line(
    server: ModelServer, ready_url: str, reply: Failure | StreamError | Cut, words: str
) -> None:
    server.reply_with(reply)
    answer = run("chat", "c1", "Hi, secret", url=ready_url)
    assert answer.code == 1
    line = only_line(answer)
    assert words in line
    assert "again" in line
    assert "secret" not in line
    assert stored(ready_url)[0] == ("user", "Hi, secret")
    assert [call.status for call in recorded(ready_url)] == ["error"]


def test_it_can_ask_again(server: ModelServer, ready_url: str) -> None:
    server.reply_with([Failure(429, headers=AT_ONCE), Answer("At last.")])
    assert "--again" in only_line(run("chat", "c1", "Hi", url=ready_url))
    assert done("chat", "c1", "--again", url=ready_url).out == "At last.\n"
    assert stored(ready_url) == [("user", "Hi"), ("assistant", "At last.")]
    assert "'c2'" in only_line(run("chat", "c2", "--again", url=ready_url))


def test_a_dialogue_goes_on_after_a_failure(server: ModelServer, ready_url: str) -> None:
    server.reply_with([Failure(429, headers=AT_ONCE), Answer("At last."), Answer("And on.")])
    answer = run("chat", "c1", stdin=b"Hi\n/again\nGo on\n", url=ready_url)
    assert answer.code == 1
    assert answer.out == "At last.\nAnd on.\n"
    assert "RateLimitError 429" in only_line(answer)
    assert "/again" in answer.err
    assert [content for role, content in stored(ready_url) if role == "user"] == ["Hi", "Go on"]


def test_a_message_too_long_for_the_limit(server: ModelServer, ready_url: str) -> None:
    answer = run("chat", "c1", "--limit", "50", stdin=b"word " * 100 + b"\nHi\n", url=ready_url)
    assert answer.code == 1
    assert answer.out == "Hello!\n"
    assert "raise token_limit" in only_line(answer)


def test_nobody_answers(ready_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    answer = run("chat", "c1", "Hi", "--base-url", "http://127.0.0.1:1/v1", url=ready_url)
    assert answer.code == 1
    assert "APIConnectionError; " in only_line(answer)
    assert "--base-url" in answer.err


def test_a_call_that_times_out(server: ModelServer, ready_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from openai import OpenAI

    create = OpenAI.__init__

    def hasty(self: OpenAI, **options: object) -> None:
        create(self, **options, timeout=0.3, max_retries=0)  # type: ignore[arg-type]

    monkeypatch.setattr(OpenAI, "__init__", hasty)
    server.reply_with(Stall(after=4, answer=LONG))
    answer = run("chat", "c1", "Hi", url=ready_url)
    assert answer.code == 1
    assert answer.out.startswith("The night ")
    assert answer.out.endswith("\n")
    assert "APITimeoutError; " in only_line(answer)


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key_is_one_line(ready_url: str, monkeypatch: pytest.MonkeyPatch, key: str | None) -> None:
    for name in list(os.environ):
        if name.startswith("OPENAI_"):
            monkeypatch.delenv(name)
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    for arguments in (["Hi"], []):
        answer = run("chat", "c1", *arguments, url=ready_url)
        assert answer.code == 1
        assert "set OPENAI_API_KEY" in only_line(answer)
    assert done("ls", "--json", url=ready_url).json == []


def test_a_key_that_cannot_be_one(ready_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-…")
    line = only_line(run("chat", "c1", "Hi", url=ready_url))
    assert "OPENAI_API_KEY" in line
    assert "sk-" not in line


@pytest.mark.parametrize("base_url", ["nonsense", "http://[bad/v1", "http://host:port/v1"])
def test_a_wrong_base_url_is_one_line(ready_url: str, monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    answer = run("chat", "c1", "Hi", "--base-url", base_url, url=ready_url)
    assert answer.code == 1
    assert "--base-url" in only_line(answer)


@pytest.mark.parametrize(
    "arguments",
    [
        ["chat"],
        ["chat", "c1", ""],
        ["chat", "c1", "Hi", "--again"],
        ["chat", "c1", "Hi", "--api", "telegraph"],
        ["chat", "c1", "Hi", "--limit", "much"],
        ["calls"],
        ["calls", "c1", "--limit", "0"],
    ],
)
def test_wrong_usage(arguments: list[str], server: ModelServer, ready_url: str) -> None:
    answer = run(*arguments, url=ready_url)
    assert answer.code == 2
    assert "--help" in only_line(answer)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chat", "c1", "Hi", "--limit", "-5"], "token_limit is -5"),
        (["chat", "c1", "Hi", "--reserve", "9000"], "raise token_limit"),
        (["chat", "c1", "Hi", "--instructions", "@no/such.txt"], "no/such.txt"),
        (["chat", "c1", "Hi", "--instructions", "@{tmp}/binary"], "no UTF-8 text"),
        (["calls", "c1", "--after", "-3"], "after is -3"),
        (["calls", "nope"], "'nope'"),
    ],
)
def test_wrong_values_are_named(
    arguments: list[str], words: str, server: ModelServer, ready_url: str, tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    answer = run(*(each.format(tmp=tmp_path) for each in arguments), url=ready_url)
    assert answer.code == 1
    assert words in only_line(answer)
    assert server.requests == []


@pytest.mark.parametrize("command", [["calls", "c1"], ["chat", "c1", "Hi"], ["chat", "c1"]])
def test_a_database_without_tables_names_the_command(
    command: list[str], server: ModelServer, database_url: str, tmp_path: Path
) -> None:
    missing = run(*command, url=f"sqlite:///{tmp_path}/none.db")
    assert missing.code == 1
    assert "there is no such file" in only_line(missing)
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    answer = run(*command, stdin=b"Hi\nHi\n", url=database_url)
    assert answer.code == 1
    assert "tokenmem db upgrade" in only_line(answer)
    assert server.requests == []


def test_only_a_chat_loads_openai(ready_url: str) -> None:
    program = """
import sys
from tokenmem.cli import app
try:
    app(["calls", "nope"])
except SystemExit:
    pass
sys.exit("loaded" if "openai" in sys.modules else 0)
"""
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(ready_url), timeout=60)
    assert result.returncode == 0


def test_a_reader_that_goes_away_cancels(server: ModelServer, ready_url: str) -> None:
    words = "word " * 2000
    server.reply_with(Answer(words, chunks=500, chunk_delay=0.005))
    with child("chat", "c1", "Hi", url=ready_url) as running:
        read(running, 5)
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait(60) == 1
    assert [call.status for call in recorded(ready_url)] == ["cancelled"]


@pytest.fixture
def called(ready_url: str) -> str:
    """A conversation with three calls: one that went well, one that failed, one of which nothing is known."""
    usage = {
        "prompt_tokens": 2000,
        "completion_tokens": 120,
        "total_tokens": 2120,
        "prompt_tokens_details": {"cached_tokens": 1500},
        "completion_tokens_details": {"reasoning_tokens": 64},
    }

    def reply(request: Request) -> Answer | Failure:
        if request.number == 1:
            return Failure(429, "rate_limit_exceeded", headers=AT_ONCE)
        return Answer("Hello!", usage=usage)

    from openai import OpenAI, RateLimitError

    with ModelServer(reply) as model, Store(ready_url) as store:
        chat = Chat(store, OpenAI(base_url=model.base_url, api_key="test"), "gpt-4o")
        list(chat.stream("c1", "Hi"))
        with pytest.raises(RateLimitError):
            chat.send("c1", "Are you there?")
        chat.send("c1", "Hm?")
    sql = Direct(ready_url)
    sql.run("""UPDATE {llm_calls} SET input_tokens = NULL, cached_tokens = NULL, output_tokens = NULL,
        reasoning_tokens = NULL, first_position = NULL, last_position = NULL WHERE number = 3""")
    sql.run("UPDATE {llm_calls} SET window_tokens = 2010, latency_ms = 1234, first_token_ms = 56"
            " WHERE number = 1")  # fmt: skip
    sql.close()
    return ready_url


def test_calls_are_listed(called: str) -> None:
    lines = done("calls", "c1", url=called).out.splitlines()
    header, *rows = (line.split("\t") for line in lines[:4])
    first, second, third = (dict(zip(header, row, strict=True)) for row in rows)
    calls = recorded(called)
    assert first | {"time": ""} == {
        "call": "1", "time": "", "model": "gpt-4o", "status": "ok", "window": "1-1", "counted": "2010",
        "billed": "2000", "off": "+0.5%", "cached": "1500", "share": "75%", "output": "120",
        "reasoning": "64", "ms": "1234", "first ms": "56", "finish": "stop", "error": "",
        "request": calls[0].request_id,
    }  # fmt: skip
    assert first["time"] == f"{calls[0].created_at:%Y-%m-%d %H:%M:%S}"
    assert (second["status"], second["error"]) == ("error", "RateLimitError 429 rate_limit_exceeded")
    assert second["window"] == "1-3"
    assert [third[name] for name in ("window", "billed", "off", "cached", "share", "output")] == [""] * 6
    assert lines[4:] == [
        "",
        "3 calls: 2,000 input tokens, 1,500 of them cached (75%); 120 output tokens; 2 without a bill",
    ]


def test_calls_as_json_hold_all_that_is_recorded(called: str) -> None:
    listed = done("calls", "c1", "--json", url=called).json
    for shown, call in zip(listed, recorded(called), strict=True):
        expected = {name: getattr(call, name) for name in LLMCall.__slots__}
        assert call.pinned is not None
        assert shown == expected | {"created_at": call.created_at.isoformat(), "pinned": list(call.pinned)}
        assert shown["revision"] > 0


def test_a_page_of_calls(called: str) -> None:
    def numbers(*options: str) -> tuple[list[int], str]:
        answer = done("calls", "c1", "--json", *options, url=called)
        return [call["number"] for call in answer.json], answer.err

    assert numbers() == ([1, 2, 3], "")
    assert numbers("--limit", "2") == ([1, 2], "There are more: --after 2\n")
    assert numbers("--after", "2") == ([3], "")
    assert numbers("--newest", "--limit", "2") == ([2, 3], "There are more: --limit 20\n")
    assert "\n2 calls shown: 2,000 input" in done("calls", "c1", "--limit", "2", url=called).out


def test_no_calls(ready_url: str) -> None:
    with Store(ready_url) as store:
        store.append("c1", [Message.user("hi")])
    assert done("calls", "c1", "--json", url=ready_url).json == []
    assert "0 calls: 0 input tokens" in done("calls", "c1", url=ready_url).out


def test_calls_on_a_terminal(called: str) -> None:
    text = on_terminal(["calls", "c1"], called)
    assert "─" in text
    assert all(words in text for words in ("2,010", "+0.5%", "1,500", "75%", "3 calls: "))
    assert "reasoning\t" not in text


def test_a_call_without_an_end(server: ModelServer, ready_url: str) -> None:
    server.reply_with(Stall(after=4, answer=LONG))
    with child("chat", "c1", "When?", url=ready_url) as running:
        read(running, 10)
        assert done("calls", "c1", url=ready_url).out.splitlines()[1].split("\t")[3] == "running"
        running.kill()
        running.wait(30)
    sql = Direct(ready_url)
    sql.run("UPDATE {llm_calls} SET alive_at = '2020-01-01T00:00:00.000Z'")
    sql.close()
    status = done("calls", "c1", url=ready_url).out.splitlines()[1].split("\t")[3]
    assert status == "died"


def test_a_long_answer_says_that_it_runs(
    server: ModelServer, ready_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `call_log` would take it for dead after some seconds."""
    monkeypatch.setattr("tokenmem.chat.runners.BEAT", 0.05)
    sql = Direct(ready_url)

    def reply(_: Request) -> Answer:
        begun = sql.value("SELECT alive_at FROM {llm_calls}")
        eventually(lambda: sql.value("SELECT alive_at FROM {llm_calls}") > begun)
        return Answer("Hello!")

    server.reply_with(reply)
    assert done("chat", "c1", "Hi", url=ready_url).out == "Hello!\n"
    sql.close()
