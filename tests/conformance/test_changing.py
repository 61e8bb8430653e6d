"""replace, pop, delete_messages: one transaction each, totals moved, versions gone with their messages."""

from typing import Any

import pytest

from tests.conformance.test_concurrency import in_processes, opened
from tests.support.stores import Direct, Stores, Unit, positions, texts
from tokenmem import Message, Store, errors

CANARY = "the yellow canary"


@pytest.fixture
def counted(stores: Stores) -> Store:
    """A store whose conversation c1 holds messages that cost 1, 2, 3, 4 and 5, and c2 one that costs 9."""
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 3, 4, 5), owner="ann", title="T")
    store.append("c2", texts(9))
    return store


def costs(store: Store, conversation_id: str = "c1") -> list[tuple[int, int]]:
    return [(m.position, m.token_count) for m in store.messages(conversation_id, limit=None)]


def head(store: Store) -> tuple[int, int, int]:
    found = store.conversation("c1")
    assert store.verify() == []
    assert costs(store, "c2") == [(1, 9)]
    return found.last_position, found.message_count, found.total_tokens


def versions(sql: Direct) -> str:
    return "message_versions" if sql.engine.dialect.name == "sqlite" else "tokenmem.message_versions"


def add_version(sql: Direct, position: int, version: int = 1) -> None:
    now = "'2026-01-01T00:00:00.000Z'" if sql.engine.dialect.name == "sqlite" else "now()"
    sql.run(
        f"INSERT INTO {versions(sql)} (conversation_id, position, version, part, since_revision,"
        " replaced_at_revision, replaced_at, token_count, role, kind, content)"
        f" VALUES ('c1', {position}, {version}, 1, {version - 1}, {version}, {now}, 1, 'user', 'message',"
        f" '{CANARY}')"
    )


def state(sql: Direct) -> tuple[Any, ...]:
    return sql.rows("SELECT revision, updated_at FROM {conversations} WHERE id = 'c1'")[0]


# --- pop


def test_pop(counted: Store, sql: Direct) -> None:
    before, newest = state(sql), counted.messages("c1")[-1]
    assert counted.pop("c1") == newest
    assert head(counted) == (5, 4, 10)
    after = state(sql)
    assert after[0] == before[0] + 1
    assert after[1] >= before[1]
    assert counted.append("c1", texts(7)).first_position == 6
    assert counted.pop("c1").token_count == 7
    assert [counted.pop("c1").position for _ in range(4)] == [4, 3, 2, 1]
    assert head(counted) == (6, 0, 0)
    revision = state(sql)
    with pytest.raises(errors.MessageNotFound, match="holds no message"):
        counted.pop("c1")
    with pytest.raises(errors.ConversationNotFound):
        counted.pop("none")
    assert state(sql) == revision
    assert counted.append("c1", texts(2)).total_tokens == 2
    assert head(counted) == (7, 1, 2)


def test_pop_takes_the_message_that_is_meant_or_none(counted: Store) -> None:
    assert counted.pop("c1", expected_position=5).position == 5
    for seen in (5, 3, 99):  # as of someone who pops the same message twice
        with pytest.raises(errors.PositionConflict, match="position 4") as caught:
            counted.pop("c1", expected_position=seen)
        assert (caught.value.expected_position, caught.value.last_position) == (seen, 4)
    assert counted.pop("c1", expected_position=4).position == 4
    with pytest.raises(errors.InvalidArgument):
        counted.pop("c1", expected_position=0)


def test_pop_returns_all_of_a_message(store: Store) -> None:
    given = {"role": "user", "content": [{"type": "text", "text": "x"}], "name": "n"}
    store.append("c1", [given])
    store.update_message("c1", 1, metadata={"a": 1})
    popped = store.pop("c1")
    assert (popped.to_openai(), popped.metadata) == (given, {"a": 1})


# --- delete_messages


@pytest.mark.parametrize(
    ("bounds", "gone", "total"),
    [
        ({}, [1, 2, 3, 4, 5], 0),
        ({"after": 3}, [4, 5], 6),
        ({"before": 3}, [1, 2], 15),  # as after a purge: totals count from the first message on
        ({"after": 1, "before": 4}, [2, 3], 10),
        ({"after": 1, "before": 4, "limit": 1}, [2], 13),
        ({"limit": 2}, [1, 2], 15),
        ({"after": 2, "limit": 99}, [3, 4, 5], 3),
        ({"after": 4, "before": 5}, [], 15),
        ({"after": 9}, [], 15),
        ({"before": 0}, [], 15),
        ({"limit": 0}, [], 15),
        ({"before": 2**53}, [1, 2, 3, 4, 5], 0),
    ],
)
def test_delete_messages(
    counted: Store, sql: Direct, bounds: dict[str, int], gone: list[int], total: int
) -> None:
    before, revision = counted.messages("c1"), state(sql)
    removed = counted.delete_messages("c1", **bounds)
    assert removed == [message for message in before if message.position in gone]
    assert costs(counted) == [(n, n) for n in range(1, 6) if n not in gone]
    assert head(counted) == (5, 5 - len(gone), total)
    assert state(sql)[0] == revision[0] + bool(gone)
    if not gone:
        assert state(sql) == revision, "nothing has changed"
    assert counted.append("c1", texts(7)).first_position == 6
    assert counted.window("c1", 7).first_position == 6
    left = sum(message.token_count for message in counted.messages("c1"))
    assert counted.window("c1", left).token_count == left
    assert counted.verify() == []


def test_delete_messages_in_a_conversation_with_gaps(counted: Store) -> None:
    counted.delete_message("c1", 3)
    assert positions(counted.delete_messages("c1", after=1, limit=2)) == [2, 4]
    assert costs(counted) == [(1, 1), (5, 5)]
    assert head(counted) == (5, 2, 6)
    with pytest.raises(errors.ConversationNotFound):
        counted.delete_messages("none")


def test_head_after_head_and_middle_after_head(counted: Store) -> None:
    counted.delete_messages("c1", limit=2)
    counted.delete_messages("c1", limit=1)
    assert head(counted) == (5, 2, 15)
    counted.append("c1", texts(6))
    counted.delete_messages("c1", after=4, before=6)
    assert costs(counted) == [(4, 4), (6, 6)]
    assert head(counted) == (6, 2, 16)
    counted.delete_messages("c1", after=4)
    assert head(counted) == (6, 1, 10)
    counted.truncate("c1", after=0)
    assert head(counted) == (6, 0, 6)
    counted.append("c1", texts(1))
    assert counted.window("c1", 1).token_count == 1


# --- replace


def test_replace_all(counted: Store, sql: Direct) -> None:
    revision = state(sql)
    stored = counted.replace("c1", texts(10, 20))
    assert (stored.first_position, stored.last_position) == (6, 7)
    assert (stored.token_count, stored.total_tokens, stored.replayed) == (30, 30, False)
    assert costs(counted) == [(6, 10), (7, 20)]
    assert head(counted) == (7, 2, 30)
    assert state(sql)[0] == revision[0] + 1
    assert counted.conversation("c1").title == "T"


@pytest.mark.parametrize("count", [1, 3, 10, 300])
def test_replace_behind_a_position(counted: Store, count: int) -> None:
    counted.update_message("c1", 2, metadata={"kept": 1})
    new = [Message.user("2", metadata={"n": n}, pinned=n == 1) for n in range(count)]
    stored = counted.replace("c1", new, after=2)
    assert (stored.first_position, stored.last_position) == (6, 5 + count)
    assert (stored.token_count, stored.total_tokens) == (2 * count, 3 + 2 * count)
    found = counted.messages("c1", limit=None)
    assert positions(found) == [1, 2, *range(6, 6 + count)]
    assert [m.metadata for m in found] == [None, {"kept": 1}, *({"n": n} for n in range(count))]
    assert [m.pinned for m in found[2:]] == [n == 1 for n in range(count)]
    assert head(counted) == (5 + count, 2 + count, 3 + 2 * count)


def test_replace_by_nothing_truncates(counted: Store, sql: Direct) -> None:
    counted.edit("c1", 4, texts(4)[0], pinned=True)
    stored = counted.replace("c1", [], after=3)
    assert (stored.first_position, stored.last_position) == (6, 5)
    assert (stored.token_count, stored.total_tokens) == (0, 6)
    assert costs(counted) == [(1, 1), (2, 2), (3, 3)]
    revision = state(sql)
    assert counted.replace("c1", [], after=3) == stored
    assert state(sql) == revision, "nothing has changed"
    counted.replace("c1", iter([]))
    assert head(counted) == (5, 0, 0)
    assert counted.replace("c1", texts(7)).first_position == 6
    assert head(counted) == (6, 1, 7)


def test_replace_where_nothing_stands_behind_appends(counted: Store) -> None:
    for after in (5, 6):
        counted.replace("c1", texts(6), after=after)
    assert head(counted) == (7, 7, 27)


def test_replace_is_all_or_nothing(counted: Store, sql: Direct) -> None:
    before = sql.rows("SELECT * FROM {messages} ORDER BY conversation_id, position"), state(sql)
    for operation, kind in (
        (lambda: counted.replace("none", texts(1)), errors.ConversationNotFound),
        (lambda: counted.replace("none", []), errors.ConversationNotFound),
        (lambda: counted.replace("c1", texts(1), expected_position=4), errors.PositionConflict),
        (lambda: counted.replace("c1", [], expected_position=0), errors.PositionConflict),
        (lambda: counted.replace("c1", [{"role": "nobody", "content": "x"}]), errors.InvalidMessage),
        (lambda: counted.replace("c1", texts(1)[0]), errors.InvalidMessage),
        (lambda: counted.replace("c1", "text"), errors.InvalidMessage),
        (lambda: counted.replace("c1", texts(1), after=-1), errors.InvalidArgument),
        (lambda: counted.replace("c1", texts(1), after=99), errors.InvalidArgument),
        (lambda: counted.replace("c1", texts(1), after=None), errors.InvalidArgument),
    ):
        with pytest.raises(kind):
            operation()  # type: ignore[no-untyped-call]
    assert (sql.rows("SELECT * FROM {messages} ORDER BY conversation_id, position"), state(sql)) == before
    assert counted.replace("c1", texts(1), expected_position=5).last_position == 6


def test_replace_counts_by_the_conversations_counter(stores: Stores) -> None:
    stores.open(counter="cl100k_base").append("c1", [Message.user("x")])
    stores.open().replace("c1", [Message.user("你好，世界")])
    stores.open(counter="cl100k_base").append("c2", [Message.user("你好，世界")])
    assert stores.open().message("c1", 2).token_count == stores.open().message("c2", 1).token_count
    store = stores.open(counter=Unit())
    store.append("c3", texts(5))
    with pytest.raises(errors.UnknownTokenCounter):
        stores.open().replace("c3", texts(6))
    assert costs(store, "c3") == [(1, 5)]


def test_replace_counts_again_where_the_counter_has_changed_meanwhile(stores: Stores) -> None:
    ten = Unit("ten", factor=10)

    class Recounts(Unit):
        def count(self, message: Message) -> int:
            if not done:
                done.append(True)
                other.recount("c1", "cl100k_base")
            return super().count(message)

    done: list[bool] = [True]
    other = Store(stores.url, counter=ten)
    store = stores.open(counter=Recounts())
    store.append("c1", texts(1, 2))
    done.clear()
    stored = store.replace("c1", texts(3), after=1)
    assert store.conversation("c1").token_counter == "cl100k_base"
    assert store.message("c1", 3).token_count == stored.token_count
    assert store.verify() == []
    other.close()


# --- versions and keys


REMOVALS: dict[str, Any] = {
    "delete_message": lambda store: store.delete_message("c1", 4),
    "delete_messages": lambda store: store.delete_messages("c1", after=3, before=5),
    "truncate": lambda store: store.truncate("c1", after=3),
    "replace": lambda store: store.replace("c1", texts(1), after=3),
    "replace by nothing": lambda store: store.replace("c1", [], after=3),
    "pop": lambda store: (store.pop("c1"), store.pop("c1")),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_versions_go_with_their_message(counted: Store, sql: Direct, name: str) -> None:
    for position, version in ((2, 1), (4, 1), (4, 2)):
        add_version(sql, position, version)
    counted.append("c1", [Message.user(f"6 {CANARY}")])
    counted.pop("c1")
    REMOVALS[name](counted)
    assert sql.rows(f"SELECT position FROM {versions(sql)}") == [(2,)]
    assert sql.value("SELECT count(*) FROM {messages} WHERE content LIKE '%canary%'") == 0
    assert counted.verify() == []


@pytest.mark.parametrize("name", REMOVALS)
def test_a_key_stays_known_when_its_messages_are_gone(counted: Store, name: str) -> None:
    counted.truncate("c1", after=3)
    first = counted.append("c1", texts(6, 7), idempotency_key="k")
    counted.delete_messages("c1", after=3)
    again = counted.append("c1", texts(6, 7), idempotency_key="k")
    assert (again.replayed, again.first_position, again.token_count) == (True, first.first_position, 0)
    assert costs(counted) == [(1, 1), (2, 2), (3, 3)]


# --- several at once


def pop_all(number: int, barrier: Any, url: str) -> list[int]:
    with opened(url) as store:
        found = []
        barrier.wait()
        while True:
            try:
                found.append(store.pop("c1").position)
            except errors.MessageNotFound:
                return found


def test_of_those_who_pop_at_once_each_gets_another(ready_url: str) -> None:
    with opened(ready_url) as store:
        store.append("c1", [Message.user("some words") for _ in range(96)])
        found = in_processes(8, pop_all, ready_url)
        assert sorted(position for each in found for position in each) == list(range(1, 97))
        assert all(each == sorted(each, reverse=True) for each in found)
        assert store.read("c1")[0].message_count == 0
        assert store.verify() == []


def change_all(number: int, barrier: Any, url: str) -> int:
    """Merges, replaces, deletions and pops beside appends; how many merges."""
    with opened(url) as store:
        barrier.wait()
        for turn in range(10):
            store.update_message("c1", 1, metadata={f"{number}/{turn}": turn}, merge=True)
            store.append("c1", [Message.user(f"{number} {turn}"), Message.user("x")])
            if number % 4 == 0:
                store.replace("c1", [Message.user("instead of all")], after=1)
            elif number % 4 == 1:
                store.delete_messages("c1", after=1, limit=2)
            elif number % 4 == 2 and turn % 3 == 0:
                store.truncate("c1", after=max(store.conversation("c1").last_position - 3, 1))
        return 10


def test_changes_at_once_lose_nothing(ready_url: str) -> None:
    with opened(ready_url) as store:
        store.append("c1", [Message.user("the first")])
        in_processes(8, change_all, ready_url)
        expected = {f"{number}/{turn}": turn for number in range(8) for turn in range(10)}
        assert store.message("c1", 1).metadata == expected
        assert store.verify() == []
        conversation, messages = store.read("c1")
        assert conversation.message_count == len(messages)
        assert conversation.last_position >= 8 * 10 * 2
