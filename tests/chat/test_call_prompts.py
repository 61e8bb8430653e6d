"""What was sent with a conversation's calls goes with the conversation, and stays while it is there."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.support.stores import Direct, Unit, texts
from tokenmem import Store
from tokenmem.database.schema import DEFAULT_SCHEMA

PROMPT = "INSERT INTO {}call_prompts (conversation_id, digest, instructions) VALUES ('{}', 'd', 'Be kind.')"
CALL = (
    "INSERT INTO {}llm_calls (conversation_id, number, model, status, prompt_digest)"
    " VALUES ('{}', 1, 'm', 'ok', 'd')"
)
NUMBERED = "UPDATE {}conversations SET last_call = 1 WHERE id = '{}'"


class Prompted:
    """A store with two conversations of two owners, each with a call and what was sent with it."""

    def __init__(self, url: str) -> None:
        self.store = Store(url, counter=Unit())
        self.sql = Direct(url)
        self.prefix = f"{DEFAULT_SCHEMA}." if url.startswith("postgresql") else ""
        for conversation_id, owner in (("c1", "ann"), ("c2", "bob")):
            self.store.append(conversation_id, texts(1, 2, 3), owner=owner)
            for statement in (PROMPT, CALL, NUMBERED):
                self.sql.run(statement.format(self.prefix, conversation_id))
        self.sql.run("UPDATE {conversations} SET last_call = 1")

    def left(self) -> list[str]:
        """The conversations of which what was sent is still known."""
        found = self.sql.rows(f"SELECT conversation_id FROM {self.prefix}call_prompts ORDER BY 1")
        return [conversation_id for (conversation_id,) in found]

    def sent(self) -> list[tuple[str, str | None]]:
        query = f"SELECT conversation_id, instructions FROM {self.prefix}call_log ORDER BY 1"
        return [(conversation_id, instructions) for conversation_id, instructions in self.sql.rows(query)]

    def close(self) -> None:
        self.store.close()
        self.sql.close()


@pytest.fixture
def prompted(ready_url: str) -> Iterator[Prompted]:
    prompted = Prompted(ready_url)
    yield prompted
    prompted.close()


def test_delete(prompted: Prompted) -> None:
    prompted.store.delete("c1")
    assert prompted.left() == ["c2"]


def test_delete_owner(prompted: Prompted) -> None:
    assert prompted.store.delete_owner("bob") == 1
    assert prompted.left() == ["c1"]


def test_purge_of_some_messages_and_of_all(prompted: Prompted) -> None:
    day = timedelta(days=1)
    prompted.sql.age(3, where="position < 3 OR conversation_id = 'c2'")
    prompted.sql.age(3, where="id = 'c2'", table="conversations")
    assert prompted.store.purge(older_than=day, dry_run=True).conversations == 1
    assert prompted.left() == ["c1", "c2"]
    assert prompted.store.purge(older_than=day).conversations == 1
    assert prompted.left() == ["c1"]
    assert prompted.sent() == [("c1", "Be kind.")]
    assert prompted.store.verify() == []


def test_truncate_leaves_the_calls_and_what_they_sent(prompted: Prompted) -> None:
    assert prompted.store.truncate("c1", after=0) == 3
    assert prompted.sent() == [("c1", "Be kind."), ("c2", "Be kind.")]


def test_a_fork_has_made_no_calls(prompted: Prompted) -> None:
    prompted.store.fork("c1", "copy")
    assert prompted.sent() == [("c1", "Be kind."), ("c2", "Be kind.")]
    prompted.store.delete("c1")
    assert prompted.left() == ["c2"]
    assert prompted.store.verify() == []
