"""What an edit replaces is kept, outside the running total, and goes with its message."""

import threading
from datetime import timedelta
from typing import Any

import pytest

from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import Message, MessageVersion, Store, errors

CANARY = "7 canary"
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture
def counted(stores: Stores) -> Store:
    """A store whose conversation c1 holds messages that cost 1, 2, 3 and 4."""
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 3, 4), owner="ann")
    return store


def revision(sql: Direct, conversation_id: str = "c1") -> int:
    return int(sql.value("SELECT revision FROM {conversations} WHERE id = :id", id=conversation_id))


def contents(found: list[MessageVersion]) -> list[str | None]:
    return [message.content for each in found for message in each.messages]


def test_each_content_stands_from_one_revision_to_another(counted: Store, sql: Direct) -> None:
    assert counted.versions("c1", 2) == []
    first = counted.messages("c1")[1]
    revisions = []
    for number in (20, 21, 22):
        counted.edit("c1", 2, texts(number)[0])
        revisions.append(revision(sql))
        counted.append("c1", texts(5))
    found = counted.versions("c1", 2)
    assert [each.version for each in found] == [1, 2, 3]
    assert contents(found) == ["2 tokens", "20 tokens", "21 tokens"]
    assert [each.since_revision for each in found] == [0, *revisions[:2]]
    assert [each.replaced_at_revision for each in found] == revisions
    assert [each.messages[0].token_count for each in found] == [2, 20, 21]
    assert all(each.replaced_at >= first.created_at for each in found if first.created_at)
    assert counted.versions("c1", 1) == []
    assert counted.verify() == []
    assert counted.conversation("c1").total_tokens == 1 + 22 + 3 + 4 + 3 * 5


def test_a_version_is_the_message_as_it_stood(counted: Store) -> None:
    call = Message.assistant("3", tool_calls=[CALL], metadata={"a": 1})
    stored = counted.append("c1", [call]).first_position
    counted.edit("c1", stored, {"role": "user", "content": "5", "name": "ann"})
    counted.edit("c1", stored, Message.user("6"))
    (one,), (two,) = (each.messages for each in counted.versions("c1", stored))
    assert one.to_openai() == call.to_openai()
    assert (one.position, one.kind, one.token_count) == (stored, "tool_call", 3)
    assert two.to_openai() == {"role": "user", "content": "5", "name": "ann"}


def test_only_another_content_makes_a_version(counted: Store) -> None:
    counted.edit("c1", 2, texts(2)[0])
    counted.edit("c1", 2, texts(2)[0], pinned=True)
    counted.edit("c1", 2, texts(2)[0], pinned=False)
    assert counted.versions("c1", 2) == []
    counted.edit("c1", 2, {"role": "user", "content": "2 tokens", "a": 1, "b": 2})
    counted.edit("c1", 2, {"b": 2, "content": "2 tokens", "a": 1, "role": "user"})
    assert len(counted.versions("c1", 2)) == 1
    counted.edit("c1", 2, {"role": "user", "content": "2 tokens", "a": True, "b": 2})
    assert len(counted.versions("c1", 2)) == 2
    counted.edit("c1", 2, {"role": "assistant", "content": "2 tokens"})
    assert [each.messages[0].role for each in counted.versions("c1", 2)] == ["user"] * 3


def test_an_edit_that_is_refused_keeps_nothing(counted: Store, sql: Direct) -> None:
    counted.edit("c1", 1, texts(1)[0], pinned=True)
    with pytest.raises(errors.InvalidMessage, match="pinned"):
        counted.edit("c1", 1, Message.assistant("1", tool_calls=[CALL]))
    with pytest.raises(errors.InvalidArgument, match="position 9"):
        counted.edit("c1", 9, texts(1)[0])
    assert sql.counts()["message_versions"] == 0


def test_a_store_that_must_not_keeps_none(stores: Stores, sql: Direct) -> None:
    store = stores.open(counter=Unit(), keep_versions=False)
    store.append("c1", texts(1, 2), owner="ann")
    store.edit("c1", 1, texts(5)[0])
    store.for_owner("ann").edit("c1", 1, texts(6)[0])
    with stores.transaction(store) as bound:
        bound.store.edit("c1", 1, texts(7)[0])
        bound.commit()
    assert store.messages("c1")[0].content == "7 tokens"
    assert store.versions("c1", 1) == []
    assert sql.counts()["message_versions"] == 0
    bad: Any = "no"
    with pytest.raises(errors.InvalidArgument, match="keep_versions is a str"):
        stores.open(keep_versions=bad)


def test_a_bound_edit_that_is_rolled_back_keeps_nothing(stores: Stores, counted: Store) -> None:
    with stores.transaction(counted) as bound:
        bound.store.edit("c1", 1, texts(5)[0])
        assert len(bound.store.versions("c1", 1)) == 1
        bound.rollback()
    assert counted.versions("c1", 1) == []


def test_versions_are_asked_for_where_a_message_is(counted: Store) -> None:
    with pytest.raises(errors.ConversationNotFound, match="none"):
        counted.versions("none", 1)
    with pytest.raises(errors.ConversationNotFound, match="c1"):
        counted.for_owner("bob").versions("c1", 1)
    for kind in (errors.MessageNotFound, errors.InvalidArgument, LookupError):
        with pytest.raises(kind, match=r"position 9.*last position is 4"):
            counted.versions("c1", 9)
    with pytest.raises(errors.InvalidArgument, match="position is 0"):
        counted.versions("c1", 0)
    assert counted.for_owner("ann").versions("c1", 1) == []


REMOVALS = {
    "delete_message": lambda store: store.delete_message("c1", 2),
    "truncate": lambda store: store.truncate("c1", after=1),
    "delete": lambda store: store.delete("c1"),
    "delete_owner": lambda store: store.delete_owner("ann"),
    "purge": lambda store: store.purge(older_than=timedelta(days=5)),
}


@pytest.mark.parametrize("removal", REMOVALS)
def test_what_is_removed_is_in_no_table(counted: Store, sql: Direct, removal: str) -> None:
    counted.edit("c1", 2, Message.user(CANARY))
    counted.edit("c1", 2, texts(2)[0])
    counted.edit("c1", 1, texts(1)[0], pinned=False)
    kept = sql.value("SELECT count(*) FROM {message_versions} WHERE content = :canary", canary=CANARY)
    assert kept == 1
    assert sql.value("SELECT count(*) FROM {messages} WHERE content = :canary", canary=CANARY) == 0
    sql.age(9, "position < 3")
    REMOVALS[removal](counted)
    assert sql.counts()["message_versions"] == 0
    assert counted.verify() == []


def test_the_versions_of_what_stays_stay(counted: Store, sql: Direct) -> None:
    for position in (1, 2, 3):
        counted.edit("c1", position, texts(9)[0])
    counted.truncate("c1", after=2)
    sql.age(9, "position = 1")
    counted.purge(older_than=timedelta(days=5))
    assert sql.rows("SELECT position, content FROM {message_versions}") == [(2, "2 tokens")]
    assert counted.verify() == []
    counted.delete("c1")
    counted.append("c1", texts(1, 2))
    assert counted.versions("c1", 2) == []


def test_edits_at_once_lose_no_content(stores: Stores, counted: Store, sql: Direct) -> None:
    def edit(name: int) -> None:
        with Store(stores.url, counter=Unit()) as store:
            for number in range(10):
                store.edit("c1", 3, Message.user(f"{100 * name + number}"))

    threads = [threading.Thread(target=edit, args=(name,)) for name in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = counted.versions("c1", 3)
    now = counted.messages("c1")[2].content
    assert sorted([*contents(found)[1:], now]) == sorted(
        str(100 * name + number) for name in range(1, 5) for number in range(10)
    )
    assert [each.since_revision for each in found[1:]] == [each.replaced_at_revision for each in found[:-1]]
    assert counted.verify() == []


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE {message_versions} SET since_revision = since_revision + 1 WHERE version = 2", "since"),
        ("UPDATE {message_versions} SET since_revision = 1 WHERE version = 1", "since"),
        ("UPDATE {message_versions} SET replaced_at_revision = 0 WHERE version = 2", "replaced_at"),
        ("DELETE FROM {message_versions} WHERE version = 1", "since"),
        ("UPDATE {message_versions} SET position = 77", "versions without a message"),
    ],
)
def test_verify_knows_what_holds_of_versions(counted: Store, sql: Direct, change: str, found: str) -> None:
    for number in (5, 6):
        counted.edit("c1", 2, texts(number)[0])
    counted.append("c2", texts(1))
    assert counted.verify() == []
    sql.run(change)
    problems = counted.verify()
    assert problems
    assert {problem.conversation_id for problem in problems} == {"c1"}
    assert any(found in problem.detail for problem in problems), problems
    assert counted.for_owner("bob").verify() == []
