"""Create, archive, restore, move, move_owner, branches."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import Chat, Store, errors
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.operations import organize


@pytest.fixture
def counted(stores: Stores) -> Store:
    return stores.open(counter=Unit())


def revision(sql: Direct, name: str) -> int:
    return int(sql.value("SELECT revision FROM {conversations} WHERE id = :id", id=name))


def times(sql: Direct, name: str) -> tuple[Any, ...]:
    return sql.rows("SELECT created_at, updated_at, recent_at FROM {conversations} WHERE id = :id", id=name)[
        0
    ]


def test_create(counted: Store, sql: Direct) -> None:
    made = counted.create("c1", owner="ann", counter="cl100k_base", title="T", metadata={"a": [1]}, keep=True)
    assert made == counted.conversation("c1")
    assert (made.owner, made.token_counter, made.title, made.metadata) == (
        "ann",
        "cl100k_base",
        "T",
        {"a": [1]},
    )
    assert (made.last_position, made.message_count, made.total_tokens, made.keep) == (0, 0, 0, True)
    assert (made.parent_id, made.forked_at, made.archived_at) == (None, None, None)
    assert made.created_at == made.updated_at
    assert times(sql, "c1")[2] is None
    plain = counted.create("c2")
    assert (plain.owner, plain.token_counter, plain.title, plain.metadata) == (None, "unit", None, {})
    assert counted.messages("c2") == []
    assert counted.for_owner("bob").create("c3").owner == "bob"
    assert counted.verify() == []


def test_an_id_is_made_once(counted: Store, sql: Direct) -> None:
    counted.create("c1", title="first")
    for make in (lambda: counted.create("c1", owner="ann"), lambda: counted.for_owner("ann").create("c1")):
        with pytest.raises(errors.ConversationExists, match="'c1' exists already"):
            make()
    assert sql.rows("SELECT title, owner FROM {conversations}") == [("first", None)]
    for wrong in (
        {"conversation_id": "x" * 256},
        {"conversation_id": "n", "keep": None},
        {"conversation_id": "n", "metadata": []},
        {"conversation_id": "n", "title": ""},
        {"conversation_id": "n", "owner": ""},
    ):
        with pytest.raises(errors.InvalidArgument):
            counted.create(**wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.UnknownTokenCounter):
        counted.create("n", counter="nonsense")
    assert sql.counts()["conversations"] == 1


def test_two_that_make_the_same_id(stores: Stores) -> None:
    """One has made it, the other is told so, however close they are."""
    barrier = threading.Barrier(4)

    def make(number: int) -> list[bool]:
        made = []
        with Store(stores.url) as store:
            for turn in range(10):
                barrier.wait()
                try:
                    store.create(f"c{turn}", title=str(number))
                    made.append(True)
                except errors.ConversationExists:
                    made.append(False)
        return made

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(make, range(4)))
    assert [sum(column) for column in zip(*outcomes, strict=True)] == [1] * 10


def test_what_is_created_is_used_as_any_other(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    for name in ("a", "b", "c", "d"):
        store.create(name, owner="ann", title="T", metadata={"x": 1})
    assert store.append("a", texts(2), expected_position=0, title="other", owner="ann").last_position == 1
    assert store.append("b", texts(2), idempotency_key="k").last_position == 1
    assert store.append("b", texts(2), idempotency_key="k").replayed
    assert store.import_conversations([ConversationLine("c", texts(1))]) == [None]
    assert store.conversation("a").title == "T"
    with pytest.raises(errors.PositionConflict):
        store.append("d", texts(1), expected_position=1)
    with pytest.raises(errors.ConversationNotFound):
        store.append("d", texts(1), owner="bob")
    copy = store.fork("d", "e")
    assert (copy.parent_id, copy.forked_at, copy.message_count) == ("d", 0, 0)
    assert copy.created_at == copy.updated_at
    assert store.window("d", 10).messages == ()
    assert store.verify() == []


def test_a_chat_in_a_conversation_that_was_created(stores: Stores) -> None:
    store = Store(stores.url) if stores.is_async else stores.open()
    store.create("c1", title="T", metadata={"a": 1})
    reply = Chat(store, lambda _: "Hello", "gpt-4o", 1000).send("c1", "Hi", expected_position=0)
    assert reply.text == "Hello"
    found = store.conversation("c1")
    assert (found.title, found.metadata, found.message_count) == ("T", {"a": 1}, 2)
    assert store.verify() == []
    store.close()


def test_archive_and_restore(counted: Store, sql: Direct) -> None:
    for name in ("a", "b", "c"):
        counted.append(name, texts(1), owner="ann")
    counted.append("b", texts(2))
    sql.age(1, table="conversations")
    before, old_times, old_revision = counted.conversation("b"), times(sql, "b"), revision(sql, "b")
    listed = counted.conversations(order="recent")
    away = counted.archive("b")
    assert away.archived_at is not None
    assert away.updated_at == before.updated_at
    assert counted.archive("b") == away == counted.conversation("b"), "once is as good as twice"
    assert (times(sql, "b"), revision(sql, "b")) == (old_times, old_revision + 1)
    assert [m.token_count for m in counted.messages("b")] == [1, 2]
    assert counted.restore("b") == before
    assert counted.restore("b") == before
    assert (times(sql, "b"), revision(sql, "b")) == (old_times, old_revision + 2)
    assert counted.conversations(order="recent") == listed
    for operation in (counted.archive, counted.restore):
        with pytest.raises(errors.ConversationNotFound, match="none"):
            operation("none")
    assert counted.verify() == []


def test_an_append_leaves_it_archived(counted: Store) -> None:
    counted.append("c1", texts(1))
    away = counted.archive("c1")
    counted.append("c1", texts(1), merge_metadata={"a": 1})
    counted.update("c1", title="x")
    found = counted.conversation("c1")
    assert found.archived_at == away.archived_at
    assert found.updated_at >= away.updated_at
    assert counted.conversations() == counted.conversations(order="recent") == []
    assert counted.fork("c1", "copy").archived_at is None
    counted.delete("c1")
    assert counted.append("c1", texts(1)).last_position == 1
    assert counted.conversation("c1").archived_at is None


def test_move(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(1), owner="guest", title="T")
    counted.append("c1", texts(2))
    old_times, old_revision = times(sql, "c1"), revision(sql, "c1")
    assert counted.move("c1", owner="ann").owner == "ann"
    assert counted.move("c1", owner="ann").title == "T"
    assert (times(sql, "c1"), revision(sql, "c1")) == (old_times, old_revision + 1)
    assert counted.for_owner("ann").move("c1", owner="ann").owner == "ann"
    with pytest.raises(errors.ConversationNotFound):
        counted.for_owner("guest").conversation("c1")
    assert [m.token_count for m in counted.for_owner("ann").messages("c1")] == [1, 2]
    assert counted.move("c1", owner=None).owner is None
    with pytest.raises(errors.ConversationNotFound):
        counted.for_owner("ann").move("c1", owner="ann")
    with pytest.raises(errors.ConversationNotFound):
        counted.move("none", owner="ann")
    with pytest.raises(errors.InvalidArgument):
        counted.move("c1", owner="")
    assert counted.verify() == []


COUNTS = (
    *("calls", "failed_calls", "estimated_calls", "input_tokens", "cached_tokens"),
    *("cache_write_tokens", "output_tokens", "reasoning_tokens"),
)


def keep_usage(sql: Direct, owner: str, day: str, first: int) -> None:
    numbers = ", ".join(str(first + number) for number in range(len(COUNTS)))
    sql.run(
        f"INSERT INTO {{usage_kept}} (owner, day, model, {', '.join(COUNTS)})"
        f" VALUES ('{owner}', '{day}', 'm', {numbers})"
    )


def test_move_owner(counted: Store, sql: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(organize, "BATCH", 3)
    sql.run("DELETE FROM {usage_kept}")
    for number in range(7):
        counted.append(f"c{number}", texts(1), owner="guest")
    counted.archive("c2")
    counted.append("other", texts(1), owner="bob")
    counted.append("nobodys", texts(1))
    for owner, day, first in (
        ("guest", "2026-01-01", 1),
        ("guest", "2026-01-02", 20),
        ("ann", "2026-01-01", 100),
    ):
        keep_usage(sql, owner, day, first)
    keep_usage(sql, "bob", "2026-01-01", 7)
    old = {f"c{number}": (times(sql, f"c{number}"), revision(sql, f"c{number}")) for number in range(7)}
    assert counted.move_owner("guest", "ann") == 7
    assert counted.move_owner("guest", "ann") == 0
    assert counted.move_owner("ann", "ann") == 0
    for name, (before, number) in old.items():
        assert (times(sql, name), revision(sql, name)) == (before, number + 1)
    assert sorted(sql.rows("SELECT owner, count(*) FROM {conversations} GROUP BY owner"), key=str) == [
        ("ann", 7), ("bob", 1), (None, 1)
    ]  # fmt: skip
    assert sql.rows(f"SELECT owner, day, {', '.join(COUNTS)} FROM {{usage_kept}} ORDER BY owner, day") == [
        ("ann", "2026-01-01", *range(101, 117, 2)),
        ("ann", "2026-01-02", *range(20, 28)),
        ("bob", "2026-01-01", *range(7, 15)),
    ]
    sql.run("DELETE FROM {usage_kept}")
    for wrong in (("", "ann"), ("ann", ""), (None, "ann"), ("ann", None)):
        with pytest.raises(errors.InvalidArgument):
            counted.move_owner(*wrong)  # type: ignore[arg-type]
    assert counted.verify() == []


def test_a_move_that_was_interrupted_goes_on(
    counted: Store, sql: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(organize, "BATCH", 2)
    for number in range(5):
        counted.append(f"c{number}", texts(1), owner="guest")
    original, steps = organize.move_owner, []

    def interrupted(*arguments: Any) -> organize.MoveStep:
        if len(steps) == 1:
            raise KeyboardInterrupt
        steps.append(1)
        return original(*arguments)

    monkeypatch.setattr(organize, "move_owner", interrupted)
    with pytest.raises(KeyboardInterrupt):
        counted.move_owner("guest", "ann")
    monkeypatch.setattr(organize, "move_owner", original)
    assert sql.value("SELECT count(*) FROM {conversations} WHERE owner = 'ann'") == 2
    assert counted.move_owner("guest", "ann") == 3


def test_moves_of_one_owner_to_two_at_the_same_time(
    stores: Stores, sql: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each conversation goes to one of them, and each counts those that it moved."""
    monkeypatch.setattr(organize, "BATCH", 4)
    store = stores.open(counter=Unit())
    for number in range(40):
        store.append(f"c{number}", texts(1), owner="guest")
    keep_usage(sql, "guest", "2026-01-01", 5)
    barrier = threading.Barrier(5)

    def move(owner: str) -> int:
        with Store(stores.url, counter=Unit()) as mine:
            barrier.wait()
            return mine.move_owner("guest", owner)

    def append(number: int) -> int:
        with Store(stores.url, counter=Unit()) as mine:
            barrier.wait()
            return sum(mine.append(f"c{each}", texts(1)).last_position for each in range(number, 40, 2))

    with ThreadPoolExecutor(5) as pool:
        moves = [pool.submit(move, owner) for owner in ("ann", "bob", "ann")]
        appends = [pool.submit(append, number) for number in range(2)]
        counts = [each.result() for each in moves]
        assert sum(each.result() for each in appends) == 80
    found = dict(sql.rows("SELECT owner, count(*) FROM {conversations} GROUP BY owner"))
    assert found.get("ann", 0) == counts[0] + counts[2]
    assert found.get("bob", 0) == counts[1]
    assert sum(counts) == 40
    assert sql.value("SELECT sum(calls) FROM {usage_kept} WHERE owner <> 'guest'") == 5
    sql.run("DELETE FROM {usage_kept}")
    assert store.verify() == []


def test_branches(counted: Store) -> None:
    counted.append("c1", texts(1, 2, 3), owner="ann")
    counted.append("c2", texts(1))
    assert counted.branches("c1") == []
    for name, at in (("z", 2), ("a", 0), ("é", None)):
        counted.fork("c1", name, at=at)
    counted.fork("z", "grandchild")
    counted.archive("a")
    assert [(each.id, each.parent_id, each.forked_at) for each in counted.branches("c1")] == [
        ("a", "c1", 0),
        ("z", "c1", 2),
        ("é", "c1", 3),
    ]
    assert counted.branches("c1") == [counted.conversation(name) for name in ("a", "z", "é")]
    assert [each.id for each in counted.branches("z")] == ["grandchild"]
    counted.move("z", owner="bob")
    assert [each.id for each in counted.for_owner("ann").branches("c1")] == ["a", "é"]
    counted.delete("c1")
    with pytest.raises(errors.ConversationNotFound, match="c1"):
        counted.branches("c1")
    assert counted.conversation("a").parent_id == "c1"
    assert counted.verify() == []
