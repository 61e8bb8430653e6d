"""From JSON Lines into a database and back: whole, once, and in constant memory."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support import programs
from tests.support.commands import Answer, done, environment, only_line, run
from tests.support.stores import Unit, texts
from tokenmem import Message, Store
from tokenmem.cli import exporting
from tokenmem.messages.json_lines import parse_line, render_line
from tokenmem.messages.parsing import digest
from tokenmem.operations import export

DATA = Path(__file__).parents[3] / "shared" / "data"
SHARED_CONVERSATIONS = int(os.environ.get("TOKENMEM_TEST_SHARED_CONVERSATIONS", "60"))  # of each log
HI = {"role": "user", "content": "hi"}


def line(conversation_id: Any, *contents: str, **rest: Any) -> str:
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"id": conversation_id, "messages": messages, **rest})


def import_text(url: str, *lines: str | bytes, options: Sequence[str] = ()) -> Answer:
    text = b"\n".join(each if isinstance(each, bytes) else each.encode() for each in lines)
    return run("import", "-", *options, stdin=text, url=url)


def exported(url: str, *arguments: str) -> list[Any]:
    return [json.loads(each) for each in done("export", *arguments, url=url).out.splitlines()]


def test_conversations_come_back_whole(ready_url: str, tmp_path: Path) -> None:
    counter = "transcript:cl100k_base:Human:AI"
    named = {"owner": "ada", "title": "A title", "token_counter": counter}
    lines = [
        line("a", "one", "two", **named, metadata={"x": [1, -0.0]}, pinned=[1]),
        line("b", "火车 🚂"),
        json.dumps(
            {"id": "c", "messages": [{"role": "user", "content": None, "odd": {"k": 1}}], "source": "s"}
        ),
    ]
    answer = import_text(ready_url, *lines, options=["--json"])
    assert answer.code == 0
    assert {key: answer.json[key] for key in ("imported", "messages", "bad_lines")} == {
        "imported": 3,
        "messages": 4,
        "bad_lines": 0,
    }
    first = exported(ready_url)
    assert first[0].items() >= json.loads(lines[0]).items()
    assert repr(first[0]["metadata"]["x"][1]) == "-0.0"
    assert first[1]["token_counter"] == "o200k_base"
    assert first[2]["metadata"] == {"source": "s"}
    done("export", "--output", str(tmp_path / "all.jsonl.gz"), url=ready_url)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    done("db", "upgrade", url=other)
    done("import", str(tmp_path / "all.jsonl.gz"), url=other)
    assert exported(other) == first


def test_an_import_repeated_changes_nothing(ready_url: str) -> None:
    lines = [line("a", "one"), line("b", "two"), line("a", "one")]
    assert import_text(ready_url, *lines, options=["--json"]).json["already_there"] == 1
    before = rows(ready_url, created=True)
    again = import_text(ready_url, *lines, options=["--json"]).json
    assert (again["imported"], again["already_there"]) == (0, 3)
    assert rows(ready_url, created=True) == before


def test_what_was_appended_by_other_means_is_known(ready_url: str) -> None:
    with Store(ready_url) as store:
        store.append("a", [Message.user("one")])
        store.append("a", [Message.user("two")])
    text = done("export", url=ready_url).out
    again = import_text(ready_url, text, options=["--json"]).json
    assert (again["imported"], again["already_there"]) == (0, 1)


def test_a_conversation_that_went_on_is_still_the_same(ready_url: str) -> None:
    import_text(ready_url, line("a", "one"))
    with Store(ready_url) as store:
        store.append("a", [Message.user("two")])
    assert import_text(ready_url, line("a", "one"), options=["--json"]).json["already_there"] == 1


def test_a_taken_id_gets_a_second_one(ready_url: str) -> None:
    long = "x" * 255
    lines = [line("a", "one"), line("a", "two"), line(long, "one"), line(long, "two")]
    marks = ["#" + digest(parse_line(line("a", "two")).messages)[:8]] * 2
    expected = ["a", "a" + marks[0], long, long[:246] + marks[1]]
    answer = import_text(ready_url, *lines, options=["--json"])
    assert answer.code == 0
    assert "stored as" in answer.err
    assert [each["new_id"] for each in answer.json["renamed_list"]] == [expected[1], expected[3]]
    assert answer.json["renamed_list"][0]["line"] == 2
    assert {each["id"] for each in exported(ready_url)} == set(expected)
    again = import_text(ready_url, *lines, options=["--json"])
    assert (again.json["imported"], again.json["already_there"], again.json["renamed"]) == (0, 4, 0)
    assert again.err == ""


def test_another_owners_id_is_not_touched(ready_url: str) -> None:
    lines = [line("a", "one", owner="ada"), line("a", "two", owner="bob"), line("b", "three")]
    assert import_text(ready_url, *lines, options=["--owner", "eve"]).code == 0
    found = {each["id"]: each["owner"] for each in exported(ready_url)}
    assert len(found) == 3
    assert found.pop("a") == "ada"
    assert found.pop("b") == "eve"
    assert list(found.values()) == ["bob"]
    assert [each["owner"] for each in exported(ready_url, "--owner", "bob")] == ["bob"]
    assert run("export", "a", "--owner", "bob", url=ready_url).code == 1


BAD_LINES: list[tuple[str | bytes, str]] = [
    ("17", "a int"),
    ("[1]", "a list"),
    ("{", "not JSON"),
    (b'{"id": "x", "messages": [{"role": "user", "content": "\xff"}]}', "not UTF-8"),
    ("[" * 100_000, "nests deeper"),
    ('{"id": "x",', "not JSON at character 1"),
    (line("x", "hi", source="a", metadata={"source": "b"}), "'source' stands in the line and"),
    ('{"messages": []}', "no id"),
    ('{"id": "x"}', "no messages"),
    ('{"id": "x", "messages": []}', "messages is empty"),
    ('{"id": "x", "messages": 5}', "messages is a int"),
    ('{"id": "x", "messages": [5]}', "messages[0]"),
    (line(17, "hi"), "conversation_id is a int"),
    (line("", "hi"), "conversation_id"),
    (line("x" * 256, "hi"), "256 characters"),
    (line("x", "a\0b"), "NUL character at position 1"),
    (line("x", "a\ud800"), "surrogate"),
    (line("x\0", "hi"), "NUL"),
    (line("x", "hi", owner=5), "owner"),
    (line("x", "hi", title="t" * 256), "title"),
    (line("x", "hi", metadata=5), "metadata"),
    (line("x", "hi", pinned=5), "pinned"),
    (line("x", "hi", pinned=[2]), "pinned"),
    ('{"id": "x", "messages": [{"role": "robot", "content": "hi"}]}', "the role is"),
    ('{"id": "x", "messages": [{"role": "user", "content": 5}]}', "content"),
    ('{"id": "x", "messages": [{"role": "user", "content": "hi", "n": NaN}]}', "nan"),
    (
        '{"id": "x", "messages": [{"role": "user", "content": "", "deep": ' + "[" * 400 + "]" * 400 + "}]}",
        "nests deeper",
    ),
]


def test_bad_lines_are_named_and_the_rest_imported(ready_url: str) -> None:
    lines = [each for bad, _ in BAD_LINES for each in (bad, "  ")]
    answer = import_text(ready_url, line("first", "hi"), *lines, line("last", "hi"), options=["--json"])
    assert answer.code == 1
    assert answer.json["imported"] == 2
    bad = answer.json["bad_list"]
    assert [each["line"] for each in bad] == [2 + 2 * index for index in range(len(BAD_LINES))]
    told = answer.err.splitlines()
    for (_, words), each, said in zip(BAD_LINES, bad, told, strict=True):
        assert words in each["reason"]
        assert said.startswith(f"tokenmem: <stdin> line {each['line']}: ")
    assert "Traceback" not in answer.err
    assert [each["id"] for each in exported(ready_url)] == ["first", "last"]
    assert done("verify", url=ready_url).code == 0


def test_text_that_is_unusual_but_right(ready_url: str) -> None:
    long = "word " * 2_000_000
    lines = [b"\xef\xbb\xbf" + line("bom", "hi").encode(), "", "\t \r", line("crlf", "hi") + "\r"]
    lines += [line("long", long), line("end", "<|endoftext|>")]
    answer = import_text(ready_url, *lines, options=["--json"])
    assert (answer.code, answer.json["imported"]) == (0, 4)
    (found,) = exported(ready_url, "long")
    assert found["messages"][0]["content"] == long


def test_files_that_cannot_be_read_do_not_stop_the_others(ready_url: str, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(line("a", "hi"))
    (tmp_path / "empty.jsonl").touch()
    many = "\n".join(line(f"z{number}", "hi" * number) for number in range(2000))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(many.encode())[:5000])
    names = ["none.jsonl", "", "cut.jsonl.gz", "empty.jsonl", "good.jsonl"]
    answer = run("import", *(str(tmp_path / name) for name in names), "--json", url=ready_url)
    assert answer.code == 1
    reasons = [each["reason"] for each in answer.json["bad_list"]]
    assert "No such file" in reasons[0]
    assert "Is a directory" in reasons[1]
    assert "damaged" in reasons[2]
    assert len(answer.err.splitlines()) == 3
    assert "a" in {each["id"] for each in exported(ready_url)}


def test_another_counter_counts(ready_url: str) -> None:
    import_text(ready_url, line("a", "hi"), options=["--counter", "cl100k_base"])
    with Store(ready_url) as store:
        assert store.conversation("a").token_counter == "cl100k_base"
    answer = import_text(ready_url, line("b", "hi"), options=["--counter", "nope"])
    assert answer.code == 1
    assert "'nope'" in only_line(answer)


def test_nothing_is_imported_without_tables(database_url: str, tmp_path: Path) -> None:
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    (tmp_path / "x.jsonl").write_text("\n".join([line("a", "hi")] * 10))
    answer = run("import", str(tmp_path / "x.jsonl"), url=database_url)
    assert answer.code == 1
    assert "tokenmem db upgrade" in only_line(answer)


def test_an_export_replaces_its_file_only_when_complete(ready_url: str, tmp_path: Path) -> None:
    import_text(ready_url, line("a", "hi"))
    target = tmp_path / "all.jsonl"
    target.write_text("as it was")
    assert run("export", "a", "none", "--output", str(target), url=ready_url).code == 1
    assert target.read_text() == "as it was"
    (tmp_path / "link").symlink_to(target)
    answer = done("export", "--output", str(tmp_path / "link"), url=ready_url)
    assert answer.out == ""
    assert "1 conversation, 1 message" in answer.err
    assert json.loads(target.read_text())["id"] == "a"
    assert sorted(path.name for path in tmp_path.glob("*l*") if "tokenmem.db" not in path.name) == [
        "all.jsonl",
        "link",
    ]
    assert list(tmp_path.glob(".*")) == []
    assert "Is a directory" in only_line(run("export", "--output", str(tmp_path), url=ready_url))
    done("export", "--output", os.devnull, url=ready_url)
    assert not Path(os.devnull).is_file()


def test_a_conversation_without_messages_is_exported_too(ready_url: str) -> None:
    import_text(ready_url, line("a", "hi"), line("b", "hi"))
    with Store(ready_url) as store:
        store.delete_message("a", 1)
        text = done("export", url=ready_url).out
        assert [json.loads(each)["id"] for each in text.splitlines()] == ["a", "b"]
        store.delete("a")
        tally = import_text(ready_url, text, options=["--json"]).json
        assert (tally["imported"], tally["already_there"], tally["bad_lines"]) == (1, 1, 0)
        assert store.append("a", texts(1)).first_position == 2
    assert import_text(ready_url, text, options=["--json"]).json["already_there"] == 2


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_import_goes_on(stop: signal.Signals, ready_url: str, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    lines = [line(f"c{number:04}", f"message {number}", "and another") for number in range(600)]
    path.write_text("\n".join(lines))
    with Store(ready_url) as store:
        with programs.start("-m", "tokenmem", "import", str(path), env=environment(ready_url)) as importing:
            while not store.conversations(after="c0009", limit=1):
                assert importing.poll() is None
                time.sleep(0.005)
            importing.send_signal(stop)
            told = importing.stderr.read().decode()
            code = importing.wait()
        assert len(store.conversations(limit=None)) < 600
        assert store.verify() == []
    if stop == signal.SIGINT:
        assert code == 130
        assert "run the same command again" in told
        assert len(told.splitlines()) == 1
    answer = done("import", str(path), "--json", url=ready_url).json
    assert answer["imported"] + answer["already_there"] == 600
    assert answer["already_there"] >= 10
    assert [each["id"] for each in exported(ready_url)] == [f"c{number:04}" for number in range(600)]
    assert done("verify", url=ready_url).code == 0


MEASURED = """
import re, sys
from tokenmem.cli import app
try:
    app()
finally:  # not getrusage: that remembers the peak of the process that forked this one
    print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/status"):
        pytest.skip("only Linux tells a process's peak memory without its parent's")
    peaks: dict[str, list[int]] = {"import": [], "export": []}
    for size in (100, 1000):
        url = f"sqlite:///{tmp_path / str(size)}.db"
        path = tmp_path / f"{size}.jsonl"
        path.write_text("\n".join(line(f"c{number}", f"{number} " * 1500, "yes") for number in range(size)))
        done("db", "upgrade", url=url)
        for command in (["import", str(path)], ["export", "--output", os.devnull]):
            # Started anew: one that is forked from another would have that one's memory too.
            program = [sys.executable, "-c", MEASURED, *command]
            result = subprocess.run(program, capture_output=True, env=environment(url), timeout=120)
            assert result.returncode == 0, result.stderr
            peaks[command[0]].append(int(result.stderr.split()[-1]))
    for small, large in peaks.values():
        assert large - small < 3_000  # kilobytes; the larger file has 5,000


def shared_files() -> list[Path]:
    """The logs of conversations: other files there hold other things."""
    files = [path for path in sorted(DATA.glob("*.jsonl")) if holds_conversations(path)]
    if not files:
        pytest.skip(f"{DATA} is not there: it holds other people's logs, which are not part of the project")
    return files


def holds_conversations(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return json.loads(file.readline()).keys() >= {"id", "messages"}


def rows(url: str, *, created: bool = False) -> list[tuple[Any, ...]]:
    engine = sa.create_engine(url)
    prefix = "tokenmem." if engine.dialect.name == "postgresql" else ""
    columns = (
        "conversation_id, position, role, kind, content, CAST(payload AS text), token_count, tokens_before"
    )
    when = ", created_at" if created else ""
    with engine.connect() as connection:
        query = f"SELECT {columns}, CAST(pinned AS int){when} FROM {prefix}messages ORDER BY 1, 2"
        found = [tuple(row) for row in connection.exec_driver_sql(query)]
    engine.dispose()
    return found


def some_of_each(directory: Path) -> list[Path]:
    """The first conversations of each of the logs."""
    files = []
    for path in shared_files():
        lines = path.read_text("utf-8").splitlines(keepends=True)
        files.append(directory / path.name)
        files[-1].write_text("".join(lines[:SHARED_CONVERSATIONS]), "utf-8")
    return files


def test_shared_conversations_are_alike_on_both_engines(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    files = some_of_each(tmp_path)
    lines = [json.loads(each) for path in files for each in path.read_text("utf-8").splitlines()]
    command = ["import", *map(str, files), "--json"]
    for url in (sqlite_url, postgres_url):
        done("db", "upgrade", url=url)
    tallies = [done(*command, url=url).json for url in (sqlite_url, postgres_url)]
    assert tallies[0] == tallies[1]
    tally = tallies[0]
    assert (tally["bad_lines"], tally["imported"] + tally["already_there"]) == (0, len(lines))
    for url in (sqlite_url, postgres_url):
        by_id = {each["id"]: each["messages"] for each in exported(url)}
        assert len(by_id) == tally["imported"]
        for each in lines:
            second = f"{each['id']}#{digest(parse_line(json.dumps(each)).messages)[:8]}"
            assert each["messages"] in (by_id[each["id"]], by_id.get(second))
        assert done("verify", "--json", url=url).json == {"conversations": len(by_id), "problems": []}
    stored = rows(sqlite_url)
    assert stored == rows(postgres_url)
    again = done(*command, url=sqlite_url).json
    assert (again["imported"], again["renamed"], again["already_there"]) == (0, 0, len(lines))
    assert rows(sqlite_url) == stored


def test_a_long_conversation_is_exported_as_it_was_at_one_moment(
    ready_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PAGE", 3)
    with Store(ready_url, counter=Unit()) as store, Store(ready_url, counter=Unit()) as other:
        store.append("c1", [Message.system("1", pinned=True), *texts(*range(2, 11))])
        store.append("c2", texts(1))
        (whole,) = store.export(ids=["c1"])
        pieces: list[str] = []

        def write(piece: str) -> None:
            if len(pieces) == 2:  # the first page is written
                other.edit("c1", 9, texts(99)[0])
                other.delete_message("c1", 5)
                other.append("c1", texts(11))
                other.delete("c2")
            pieces.append(piece)

        written = exporting.write_conversations(store, ["c1"], write)
        assert written == (1, 10)
        assert "".join(pieces) == whole
        assert render_line(parse_line(whole)) + "\n" == whole
        assert [message.position for message in store.messages("c1")] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
        assert exporting.write_conversations(store, [], pieces.append) == (1, 10)
