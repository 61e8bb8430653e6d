"""`tokenmem ls` by recency, of the archive and by the beginning of ids; and what takes all conversations."""

import json

import pytest

from tests.support.commands import done, run
from tokenmem import Message, Store


@pytest.fixture
def filled(ready_url: str) -> str:
    with Store(ready_url) as store:
        for name in ("a1", "a2", "b1", "b2"):
            store.append(name, [Message.user("hi")], owner="ada" if name < "b" else None)
        store.append("a1", [Message.user("again")])
        store.archive("b2")
    return ready_url


def listed(*options: str, url: str) -> list[str]:
    return [each["id"] for each in json.loads(done("ls", "--json", *options, url=url).out)]


def test_ls(filled: str) -> None:
    assert listed(url=filled) == ["a1", "a2", "b1"]
    assert listed("--recent", url=filled) == ["a1", "b1", "a2"]
    assert listed("--recent", "--owner", "ada", url=filled) == ["a1", "a2"]
    assert listed("--archived", url=filled) == listed("--archived", "--recent", url=filled) == ["b2"]
    assert listed("--prefix", "a", url=filled) == ["a1", "a2"]
    assert listed("--prefix", "b", "--recent", url=filled) == ["b1"]


def test_ls_names_where_the_next_page_begins(filled: str) -> None:
    first = run("ls", "--recent", "--limit", "2", url=filled)
    more = first.err.strip().rpartition("There are more: ")[2].split()
    assert more[0] == "--before"
    assert listed("--recent", *more, url=filled) == ["a2"]
    assert "--after a2" in run("ls", "--limit", "2", url=filled).err
    wrong = run("ls", "--before", more[1], url=filled)
    assert wrong.code == 1
    assert "--" not in wrong.out


def test_archived_ones_are_exported_recounted_and_verified(filled: str) -> None:
    lines = done("export", url=filled).out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a1", "a2", "b1", "b2"]
    assert json.loads(done("verify", "--json", url=filled).out)["conversations"] == 4
    recounted = done("recount", "--all", "--counter", "cl100k_base", "--json", url=filled).out
    assert json.loads(recounted)["recounted"] == 4
