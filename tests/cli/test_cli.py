"""The commands, except import, export and demo."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.commands import done, environment, on_terminal, only_line, process, run
from tokenmem import Message, Store, __version__
from tokenmem.database.migrate import head

COMMANDS = [
    "calls",
    "chat",
    "demo",
    "import",
    "export",
    "ls",
    "show",
    "window",
    "verify",
    "rm",
    "purge",
    "recount",
    "erase",
]
GROUPED = ["upgrade", "downgrade", "current", "check", "sql"]

CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}
    ],
}


@pytest.fixture
def filled(ready_url: str) -> str:
    """A database with a few conversations."""
    with Store(ready_url) as store:
        store.append("c1", [Message.system("Be brief.", pinned=True), Message.user("How is Oslo?"), CALL])
        store.append("c1", [Message.tool("rain", tool_call_id="a"), Message.assistant("It rains.")])
        store.append("c2", [Message.user("hi")], owner="ada", title="A title", metadata={"a": 1})
        store.append(
            "c3", [Message.user("hello"), Message.assistant("\x1b[31m火车\u202e\u009b2J\nnext\tend")]
        )
    return ready_url


def test_show_prints_calls_and_results_of_both_apis(filled: str) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city":"Oslo"}'}
    output = {"type": "function_call_output", "call_id": "a", "output": "rain"}
    with Store(filled) as store:
        store.append("items", [call, output, {"type": "reasoning", "summary": []}])
    lines = done("show", "c1", url=filled).out.splitlines()
    assert lines[3].split("\t")[-1] == 'weather({"city":"Oslo"})'
    texts = [line.split("\t")[-1] for line in done("show", "items", url=filled).out.splitlines()[1:]]
    assert texts == ['weather({"city":"Oslo"})', "rain", "[reasoning]"]


def test_the_version_is_shown() -> None:
    assert done("--version").out == f"tokenmem {__version__}\n"
    assert process("--version").out == f"tokenmem {__version__}\n"


@pytest.mark.parametrize("command", [*([name] for name in COMMANDS), *(["db", name] for name in GROUPED)])
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    text = done(*command, "--help").out
    assert f"Example: tokenmem {' '.join(command)}" in text


def test_help_lists_all_commands() -> None:
    text = done("--help").out
    assert all(f"\n  {name} " in text for name in [*COMMANDS, "db"])
    assert "..." not in text.partition("Commands:")[2]


@pytest.mark.parametrize("arguments", [[], ["db"]])
def test_a_group_alone_shows_its_help_as_wrong_usage(arguments: list[str]) -> None:
    answer = run(*arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert "Commands:" in answer.err


def test_help_loads_nothing_heavy() -> None:
    program = """
import sys, tokenmem.cli
heavy = {"openai", "alembic", "tiktoken", "sqlalchemy", "rich", "psycopg"} & set(sys.modules)
sys.exit(f"loaded: {heavy}" if heavy else 0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["window", "c1"],
        ["window", "c1", "--limit", "many"],
        ["window", "c1", "--limit", "1", "--start-on", "end"],
        ["ls", "--limit", "0"],
        ["ls", "--frobnicate"],
        ["purge"],
        ["purge", "--older-than", "old"],
        ["purge", "--older-than", "999999999w"],
        ["purge", "--idle-for", "long"],
        ["purge", "--keys-older-than", "-1d"],
        ["purge", "--owner", "ann"],
        ["purge", "--older-than", "1d", "--idle-for", "1d"],
        ["recount", "--counter", "cl100k_base"],
        ["recount", "c1", "--all", "--counter", "cl100k_base"],
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], sqlite_url: str) -> None:
    answer = run(*arguments, url=sqlite_url)
    assert answer.code == 2
    assert "--help" in only_line(answer)
    assert answer.out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["window", "c1", "--limit", "-5"], "token_limit is -5"),
        (["window", "c1", "--limit", "5", "--stride", "0"], "stride is 0"),
        (["show", "c1", "--after", "-3"], "after is -3"),
    ],
)
def test_a_number_out_of_range_is_named(arguments: list[str], words: str, ready_url: str) -> None:
    answer = run(*arguments, url=ready_url)
    assert answer.code == 1
    assert words in only_line(answer)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", ["'nonsense'", "sqlite:///file.db"]),
        ("mysql://joe:hunter2@host/db", ["mysql", "postgresql+psycopg://"]),
        ("my:hunter2@host", ["sqlite:///file.db"]),
        ("postgresql://joe:hunter2@127.0.0.1:1/db", ["127.0.0.1:1", "check that the server runs"]),
        ("postgresql://joe@127.0.0.1:1/db?password=hunter2", ["127.0.0.1:1", "check that the server runs"]),
        ("sqlite:///{tmp}", ["it is a directory"]),
        ("sqlite:///{tmp}/none/x.db", ["none/x.db"]),
    ],
)
@pytest.mark.parametrize(
    "command", [["ls"], ["db", "upgrade"], ["db", "current"], ["verify"], ["import", "-"]]
)
def test_a_wrong_database_is_one_line(command: list[str], url: str, words: list[str], tmp_path: Path) -> None:
    answer = run(*command, "--url", url.format(tmp=tmp_path))
    assert answer.code == 1
    line = only_line(answer)
    assert all(word in line for word in words)
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["show", "c"],
        ["window", "c", "--limit", "9"],
        ["calls", "c"],
        ["verify"],
        ["rm", "c"],
        ["export"],
    ],
)
def test_a_database_without_tables_names_the_command(command: list[str], database_url: str) -> None:
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    answer = run(*command, url=database_url)
    assert answer.code == 1
    assert "tokenmem db upgrade" in only_line(answer)


def test_reading_does_not_create_a_file(tmp_path: Path) -> None:
    answer = run("ls", "--url", f"sqlite:///{tmp_path}/new.db")
    assert answer.code == 1
    assert "there is no such file" in only_line(answer)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_file_can_be_read_and_not_written(sqlite_url: str) -> None:
    with Store(sqlite_url) as store:
        store.upgrade()
        store.append("c1", [Message.user("hi")])
    url = f"sqlite:///file:{sqlite_url.removeprefix('sqlite:///')}?mode=ro&uri=true"
    assert "c1" in done("ls", url=url).out
    for command in (["rm", "c1"], ["recount", "c1", "--counter", "cl100k_base"]):
        answer = run(*command, url=url)
        assert answer.code == 1
        assert "writable" in only_line(answer)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("This is a letter, not a database. " * 100)
    answer = run("ls", "--url", f"sqlite:///{tmp_path}/x.db")
    assert answer.code == 1
    assert "not a database" in only_line(answer)


def test_a_schema_on_sqlite_is_refused(sqlite_url: str) -> None:
    assert "SQLite has no schemas" in only_line(run("db", "upgrade", "--schema", "mine", url=sqlite_url))


def test_an_unexpected_error_shows_no_content(monkeypatch: pytest.MonkeyPatch, filled: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of somebody's")

    monkeypatch.setattr(Store, "conversations", fail)
    line = only_line(run("ls", url=filled))
    assert "RuntimeError" in line
    assert "secret" not in line


def test_migrations_up_and_down(database_url: str) -> None:
    assert head() in done("db", "upgrade", url=database_url).out
    assert done("db", "upgrade", "--json", url=database_url).json == {"revision": head()}
    assert done("db", "current", url=database_url).out == f"{head()}\n"
    assert done("db", "check", "--json", url=database_url).json == {"differences": []}
    refused = run("db", "downgrade", "base", url=database_url)
    assert refused.code == 1
    assert "--yes" in only_line(refused)
    assert done("db", "check", url=database_url).code == 0
    assert "no tokenmem tables any more" in done("db", "downgrade", "base", "--yes", url=database_url).out
    current = done("db", "current", url=database_url)
    assert current.out == "none\n"
    assert "tokenmem db upgrade" in only_line(current)
    check = run("db", "check", url=database_url)
    assert check.code == 1
    assert "tokenmem db upgrade" in check.out


@pytest.mark.parametrize("command", [["upgrade", "nope"], ["downgrade", "nope", "--yes"], ["sql", "nope"]])
def test_an_unknown_revision_is_one_line(command: list[str], ready_url: str) -> None:
    answer = run("db", *command, url=ready_url)
    assert answer.code == 1
    assert "nope" in only_line(answer)
    assert head() in answer.err


def test_the_sql_of_the_tables_makes_them(sqlite_url: str) -> None:
    text = done("db", "sql", url=sqlite_url).out
    path = sqlite_url.removeprefix("sqlite:///")
    assert not Path(path).exists()
    connection = sqlite3.connect(path)
    connection.executescript(text)
    connection.close()
    assert done("db", "check", url=sqlite_url).code == 0


def test_a_named_schema_is_used(postgres_url: str) -> None:
    done("db", "upgrade", "--schema", "mine", url=postgres_url)
    assert done("verify", "--schema", "mine", "--json", url=postgres_url).json["conversations"] == 0
    assert run("verify", url=postgres_url).code == 1


def test_conversations_are_listed(filled: str) -> None:
    lines = [line.split("\t") for line in done("ls", url=filled).out.splitlines()]
    assert lines[0] == ["id", "owner", "title", "messages", "tokens", "updated"]
    assert [line[0] for line in lines[1:]] == ["c1", "c2", "c3"]
    assert lines[2][:4] == ["c2", "ada", "A title", "1"]
    assert len(done("ls", "--owner", "ada", url=filled).out.splitlines()) == 2
    first = done("ls", "--limit", "2", "--json", url=filled)
    assert [each["id"] for each in first.json] == ["c1", "c2"]
    assert "--after c2" in first.err
    rest = done("ls", "--after", "c2", "--json", url=filled)
    assert [each["id"] for each in rest.json] == ["c3"]
    assert rest.err == ""
    assert first.json[1]["metadata"] == {"a": 1}


def test_messages_are_shown(filled: str) -> None:
    lines = [line.split("\t") for line in done("show", "c1", url=filled).out.splitlines()]
    assert [line[0] for line in lines] == ["position", "1", "2", "3", "4", "5"]
    assert lines[1][1:3] == ["system", "pinned"]
    assert lines[3][5] == 'weather({"city":"Oslo"})'
    shown = done("show", "c1", "--json", url=filled).json
    assert shown[2]["message"] == CALL
    page = done("show", "c1", "--limit", "2", "--after", "1", "--json", url=filled)
    assert [message["position"] for message in page.json] == [2, 3]
    assert "--after 3" in page.err
    newest = done("show", "c1", "--limit", "2", "--newest", "--json", url=filled).json
    assert [message["position"] for message in newest] == [4, 5]
    assert "'nope'" in only_line(run("show", "nope", url=filled))


def test_control_characters_are_shown_escaped(filled: str) -> None:
    text = done("show", "c3", url=filled).out
    assert r"\x1b[31m火车\u202e\x9b2J\nnext\tend" in text
    raw = done("show", "c3", "--json", url=filled)
    assert "\u202e" not in raw.out
    assert raw.json[1]["message"]["content"] == "\x1b[31m火车\u202e\u009b2J\nnext\tend"


def test_the_window_is_shown(filled: str) -> None:
    with Store(filled) as store:
        window = store.window("c1", 40)
    answer = done("window", "c1", "--limit", "40", url=filled).out
    assert f"{window.token_count} of 40 tokens" in answer
    assert "1 pinned" in answer
    assert "left out" in answer
    found = done("window", "c1", "--limit", "40", "--json", url=filled).json
    assert [message["message"] for message in found["messages"]] == window.to_openai()
    assert found["omitted"] == window.omitted
    turn = done("window", "c1", "--limit", "4000", "--start-on", "turn", "--stride", "10", url=filled)
    assert "0 messages left out" in turn.out
    assert "raise token_limit" in only_line(run("window", "c2", "--limit", "1", url=filled))


def test_verify_finds_problems(filled: str) -> None:
    assert done("verify", url=filled).out == "3 conversations checked, no problem found\n"
    engine = sa.create_engine(filled)
    schema = "tokenmem." if engine.dialect.name == "postgresql" else ""
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {schema}messages SET token_count = 999 WHERE position = 2")
    engine.dispose()
    answer = run("verify", url=filled)
    assert answer.code == 1
    assert "c1\t2\t" in answer.out
    listed = run("verify", "--json", url=filled)
    assert listed.code == 1
    assert {problem["conversation_id"] for problem in listed.json["problems"]} == {"c1", "c3"}


def test_conversations_are_removed(filled: str) -> None:
    assert done("rm", "c1", "c2", url=filled).out == "removed c1\nremoved c2\n"
    assert [each["id"] for each in done("ls", "--json", url=filled).json] == ["c3"]
    assert "'c1'" in only_line(run("rm", "c1", url=filled))
    assert done("rm", "c3", "--json", url=filled).json == {"removed": ["c3"]}


def test_old_messages_are_purged(filled: str) -> None:
    assert "removed 0 messages" in done("purge", "--older-than", "90d", url=filled).out
    counts = {"conversations": 3, "messages": 8}
    dry = done("purge", "--older-than", "0s", "--dry-run", "--json", url=filled)
    assert dry.json == counts | {"dry_run": True}
    assert done("purge", "--older-than", "0s", "--json", url=filled).json == counts | {"dry_run": False}
    assert done("ls", "--json", url=filled).json == []


def test_idle_conversations_and_keys_are_purged(filled: str) -> None:
    assert "removed 0 messages; 0 conversations" in done("purge", "--idle-for", "1d", url=filled).out
    assert done("purge", "--keys-older-than", "1d", url=filled).out == "removed 0 idempotency keys\n"
    arguments = ["--idle-for", "0s", "--keys-older-than", "0s"]
    assert done("purge", *arguments, "--owner", "nobody", "--json", url=filled).json["conversations"] == 0
    dry = done("purge", *arguments, "--dry-run", url=filled).out
    assert dry.startswith("would remove 8 messages; 0 idempotency keys; 3 conversations as a whole")
    counts = {"conversations": 3, "messages": 8, "keys": 0, "dry_run": False}
    assert done("purge", *arguments, "--json", url=filled).json == counts
    assert done("ls", "--json", url=filled).json == []


def test_conversations_are_recounted_once(filled: str) -> None:
    one = done("recount", "c1", "--counter", "gpt-4", "--json", url=filled).json
    assert one == {"counter": "cl100k_base", "recounted": 1, "skipped": 0}
    rest = done("recount", "--all", "--counter", "cl100k_base", "--json", url=filled).json
    assert rest == {"counter": "cl100k_base", "recounted": 2, "skipped": 1}
    again = done("recount", "--all", "--counter", "cl100k_base", url=filled)
    assert again.out == "0 conversations recounted by cl100k_base, 3 were so already\n"
    assert done("verify", url=filled).code == 0
    assert "'nope'" in only_line(run("recount", "--all", "--counter", "nope", url=filled))


def test_a_reader_that_goes_away_is_no_error(sqlite_url: str) -> None:
    with Store(sqlite_url) as store:
        store.upgrade()
        for number in range(100):
            store.append(f"c{number}", [Message.user("word " * 1000)])
    command = [sys.executable, "-m", "tokenmem", "export"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(sqlite_url)
    ) as exporting:
        assert exporting.stdout is not None
        assert exporting.stderr is not None
        exporting.stdout.readline()
        exporting.stdout.close()
        assert exporting.stderr.read() == b""
        assert exporting.wait(60) == 1


def test_a_full_disk_is_one_line(sqlite_url: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with Store(sqlite_url) as store:
        store.upgrade()
        store.append("c1", [Message.user("hi")])
    for command in (["ls"], ["export"]):
        with open("/dev/full", "wb") as full:
            result = subprocess.run(
                [sys.executable, "-m", "tokenmem", *command],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(sqlite_url),
                timeout=60,
            )
        assert result.returncode == 1
        assert result.stderr.splitlines() == ["tokenmem: No space left on device; try again"]


def test_a_terminal_gets_a_table_without_control_characters(sqlite_url: str) -> None:
    with Store(sqlite_url) as store:
        store.upgrade()
        store.append("c1", [Message.user("[bold]\x1b[2J火车")])
    text = on_terminal(["show", "c1"], sqlite_url)
    assert r"[bold]\x1b[2J火车" in text
    assert "\x1b[2J" not in text
    assert "─" in text
    assert "position\trole" not in text
