"""`tokenmem demo`: the main job, on a new file, twice, and what it says is true."""

import re
import sqlite3
from pathlib import Path

from tests.support.commands import Answer, done, on_terminal, process, run
from tokenmem import Store
from tokenmem.cli.demo.command import CONVERSATION, TOKEN_LIMIT
from tokenmem.cli.demo.journey import TOWN_FORGOTTEN

SENT = re.compile(
    r"^  sent +[◆■·]+  (\d+) of (\d+) tokens: messages? 1(?: to (\d+)| and (\d+) to (\d+))?$", re.M
)


def starts(text: str) -> list[int]:
    """Where each window begins, behind the pinned first message."""
    return [int(found[4] or 2) for found in SENT.finditer(text)]


def test_the_window_moves_and_stays_within_the_limit(tmp_path: Path) -> None:
    answer = process("demo", cwd=tmp_path)
    assert (answer.code, answer.err) == (0, "")
    text = answer.out
    assert len(text.splitlines()) < 100
    assert len(SENT.findall(text)) == 9  # eight turns, one of them with two calls
    assert all(int(found[1]) <= int(found[2]) == TOKEN_LIMIT for found in SENT.finditer(text))
    begun = starts(text)
    assert begun == sorted(begun)
    assert begun[-1] > begun[0]
    assert "fell out" in text
    assert TOWN_FORGOTTEN in text
    with Store(f"sqlite:///{tmp_path / 'tokenmem-demo.db'}") as store:
        messages = store.messages(CONVERSATION, limit=None)
        assert [message.kind for message in messages].count("tool_call") == 1
        assert store.verify() == []
    results = [message.position for message in messages if message.kind == "tool_result"]
    assert not set(results) & set(begun)
    (result,) = results
    assert f"'message' begins at {result}, tool" in text
    assert f"'step' begins at {result + 1}, assistant" in text


def test_its_sql_can_be_run(tmp_path: Path) -> None:
    text = process("demo", cwd=tmp_path).out
    commands = re.findall(r'^  sqlite3 -header -column (\S+) "(.+)"$', text, re.M)
    assert len(commands) == 3
    for name, statement in commands:
        connection = sqlite3.connect(tmp_path / name)
        found = connection.execute(statement).fetchall()
        connection.close()
        assert found
        if "LIKE" in statement:
            assert str(found[0][2]) in text
    ours = re.findall(r"^  tokenmem (.+)$", text, re.M)
    assert len(ours) == 2
    for arguments in ours:
        assert process(*arguments.split(), cwd=tmp_path).code == 0


def test_a_second_demo_takes_another_file(tmp_path: Path) -> None:
    (tmp_path / "tokenmem-demo.db").write_text("a file of the user's")
    for _ in range(2):
        assert process("demo", cwd=tmp_path).code == 0
    assert (tmp_path / "tokenmem-demo.db").read_text() == "a file of the user's"
    assert (tmp_path / "tokenmem-demo-2.db").exists()
    assert (tmp_path / "tokenmem-demo-3.db").exists()


def test_it_leaves_the_users_own_database_alone(tmp_path: Path) -> None:
    assert process("demo", cwd=tmp_path, url=f"sqlite:///{tmp_path / 'mine.db'}").code == 0
    assert not (tmp_path / "mine.db").exists()


def test_a_named_database_gets_a_conversation_each_time(database_url: str) -> None:
    first, second = (demo_on(database_url) for _ in range(2))
    assert f"conversation {CONVERSATION} " in first.out
    assert f"conversation {CONVERSATION}-2 " in second.out
    assert [each["id"] for each in done("ls", "--json", url=database_url).json] == [
        CONVERSATION,
        f"{CONVERSATION}-2",
    ]
    assert starts(first.out) == starts(second.out)
    assert done("verify", url=database_url).code == 0


def demo_on(url: str) -> Answer:
    return done("demo", "--url", url)


def test_it_is_shown_in_color_on_a_terminal(sqlite_url: str) -> None:
    text = on_terminal(["demo", "--url", sqlite_url], sqlite_url)
    assert "\x1b[" in text
    assert "■" in text


def test_a_database_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    answer = run("demo", "--url", f"sqlite:///{tmp_path}")
    assert answer.code == 1
    assert "it is a directory" in answer.err
