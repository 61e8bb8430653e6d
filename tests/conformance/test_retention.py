"""Purge, recount and verify."""

from datetime import timedelta

import pytest

from tests.support.stores import Direct, Stores, Unit, positions, texts
from tokenmem import Message, Store, errors
from tokenmem.operations import recount, verify

DAY = timedelta(days=1)


@pytest.fixture
def counted(stores: Stores) -> Store:
    return stores.open(counter=Unit())


def test_purge_drops_the_oldest_messages(counted: Store, sql: Direct) -> None:
    counted.append("c1", [Message.system("9", pinned=True), *texts(1, 2, 3, 4)])
    sql.age(3, where="position <= 3")
    assert counted.purge(older_than=timedelta(days=4)) == counted.purge(older_than=timedelta(days=9))
    assert counted.purge(older_than=DAY, dry_run=True).messages == 3
    assert positions(counted.messages("c1")) == [1, 2, 3, 4, 5]
    purged = counted.purge(older_than=DAY)
    assert (purged.conversations, purged.messages) == (0, 3)
    assert positions(counted.messages("c1")) == [4, 5]
    conversation = counted.conversation("c1")
    assert (conversation.message_count, conversation.total_tokens, conversation.last_position) == (2, 19, 5)
    assert counted.append("c1", texts(5)).first_position == 6
    assert counted.purge(older_than=DAY).messages == 0
    assert counted.verify() == []


def test_purge_leaves_an_old_message_behind_a_young_one(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(1, 2, 3))
    sql.age(3, where="position = 3")
    assert counted.purge(older_than=DAY).messages == 0


def test_purge_removes_conversations_in_which_all_is_old(counted: Store, sql: Direct) -> None:
    counted.append("old", texts(1, 2), idempotency_key="k")
    counted.append("touched", texts(1, 2))
    counted.append("new", texts(1))
    sql.age(3, where="conversation_id <> 'new'")
    sql.age(3, where="id = 'old'", table="conversations")
    would = counted.purge(older_than=DAY, dry_run=True)
    assert (would.conversations, would.messages) == (1, 4)
    assert counted.purge(older_than=DAY) == would
    assert [(c.id, c.message_count) for c in counted.conversations()] == [("new", 1), ("touched", 0)]
    assert counted.append("touched", texts(5)).first_position == 3
    assert counted.verify() == []


def test_purge_finds_old_messages_in_a_young_fork(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(1, 2))
    sql.age(3, where="position = 1")
    sql.age(3, table="conversations")
    counted.fork("c1", "copy")
    assert counted.purge(older_than=DAY).messages == 2
    assert positions(counted.messages("copy")) == [2]


def test_purge_takes_any_number_of_conversations(counted: Store, sql: Direct) -> None:
    for number in range(101):  # more than one transaction takes
        counted.append(f"c{number}", texts(1))
    sql.age(3)
    sql.age(3, table="conversations")
    assert counted.purge(older_than=DAY).conversations == 101
    assert sql.counts()["messages"] == 0


def test_purge_for_one_owner(counted: Store, sql: Direct) -> None:
    counted.append("a", texts(1), owner="ann")
    counted.append("b", texts(1), owner="bob")
    sql.age(3)
    sql.age(3, table="conversations")
    assert counted.for_owner("ann").purge(older_than=DAY).conversations == 1
    assert [conversation.id for conversation in counted.conversations()] == ["b"]


def test_recount(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 3))
    store.delete_message("c1", 2)
    ten = Unit("ten", factor=10)
    conversation = store.recount("c1", ten)
    assert (conversation.token_counter, conversation.total_tokens) == ("ten", 40)
    assert [m.token_count for m in store.messages("c1")] == [10, 30]
    assert store.window("c1", 39).first_position == 3
    assert store.append("c1", texts(1), counter=ten).total_tokens == 50
    assert store.recount("c1", "o200k_base").token_counter == "o200k_base"
    assert stores.open().append("c1", texts(1)).first_position == 5
    assert store.verify() == []


def test_recount_counts_anew_what_changes_meanwhile(stores: Stores) -> None:
    stores.open(counter=Unit()).append("c1", texts(1, 2, 3))

    class Meddling(Unit):
        """Lets another process change the conversation while it is being counted."""

        meddled = False

        def count(self, message: Message) -> int:
            if not self.meddled:
                self.meddled = True
                with Store(stores.url, counter=Unit()) as other:
                    other.edit("c1", 1, texts(7)[0])
                    other.delete_message("c1", 2)
                    other.append("c1", texts(9))
            return super().count(message)

    store = stores.open()
    assert store.recount("c1", Meddling("ten", factor=10)).total_tokens == 190
    assert [m.token_count for m in store.messages("c1")] == [70, 30, 90]
    assert store.verify() == []


def test_recount_when_a_page_is_emptied_meanwhile(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recount, "PAGE", 2)
    stores.open(counter=Unit()).append("c1", texts(1, 2, 3, 4, 5))

    class Removing(Unit):
        removed = False

        def count(self, message: Message) -> int:
            if message.content == "5 tokens" and not self.removed:
                self.removed = True
                with Store(stores.url, counter=Unit()) as other:
                    other.delete_message("c1", 3)
                    other.delete_message("c1", 4)
                    other.append("c1", texts(6, 7, 8))
            return super().count(message)

    store = stores.open()
    assert store.recount("c1", Removing("ten", factor=10)).total_tokens == 290
    assert [(m.position, m.token_count) for m in store.messages("c1")] == [
        (1, 10),
        (2, 20),
        (5, 50),
        (6, 60),
        (7, 70),
        (8, 80),
    ]
    assert store.verify() == []


def test_recount_of_more_than_a_page_after_a_purge(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(*[2] * 2050))
    sql.age(3, where="position <= 40")
    counted.purge(older_than=DAY)
    assert counted.recount("c1", Unit("ten", factor=10)).total_tokens == 2010 * 20
    assert counted.verify() == []


def test_recount_by_a_counter_that_fails_changes_nothing(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(1, 2))
    before = sql.rows("SELECT * FROM {messages} ORDER BY position")
    with pytest.raises(errors.UnknownTokenCounter, match="nonsense"):
        counted.recount("c1", "nonsense")
    with pytest.raises(errors.InvalidArgument, match="bad"):
        counted.recount("c1", Unit("bad", factor=-1))
    assert sql.rows("SELECT * FROM {messages} ORDER BY position") == before


DAMAGE = {
    "token_count": ("UPDATE {messages} SET token_count = 7 WHERE position = 2", 2, "running total"),
    "tokens_before": ("UPDATE {messages} SET tokens_before = 99 WHERE position = 2", 2, "running total"),
    "newest token_count": ("UPDATE {messages} SET token_count = 7 WHERE position = 3", None, "total_tokens"),
    "negative": ("UPDATE {messages} SET token_count = -1, tokens_before = 7 WHERE position = 3", 3, "tokens"),
    "below zero": ("UPDATE {messages} SET tokens_before = -1 WHERE position = 1", 1, "tokens"),
    "lost in the middle": ("DELETE FROM {messages} WHERE position = 2", 1, "running total"),
    "lost first": ("DELETE FROM {messages} WHERE position = 1", None, "message_count"),
    "lost newest": ("DELETE FROM {messages} WHERE position = 3", None, "total_tokens"),
    "all lost": ("DELETE FROM {messages}", None, "message_count"),
    "message_count": ("UPDATE {conversations} SET message_count = 4", None, "message_count"),
    "total_tokens": ("UPDATE {conversations} SET total_tokens = 7", None, "total_tokens"),
    "last_position": ("UPDATE {conversations} SET last_position = 2", None, "last_position"),
    "changed, and not in the list of those": (
        "UPDATE {conversations} SET recent_at = NULL, created_at = '2001-02-03T04:05:06.789Z'",
        None,
        "updated_at of one that has not changed",
    ),
    "stamped late": (
        "UPDATE {conversations} SET updated_at = '2026-01-01T00:00:00.000Z',"
        " recent_at = '2026-01-01T00:00:00.001Z'",
        None,
        "recent_at, up to 30 seconds late",
    ),
    "stamped early": (
        "UPDATE {conversations} SET updated_at = '2026-01-01T00:00:30.000Z',"
        " recent_at = '2026-01-01T00:00:00.000Z'",
        None,
        "recent_at, up to 30 seconds late",
    ),
    "forked from nowhere": ("UPDATE {conversations} SET forked_at = 2", None, "parent_id and forked_at"),
    "forked at no place": ("UPDATE {conversations} SET parent_id = 'x'", None, "parent_id and forked_at"),
    "added": (
        "INSERT INTO {messages} (conversation_id, position, role, kind, content, token_count, tokens_before,"
        " pinned) VALUES ('c1', 4, 'user', 'message', 'x', 1, 6, false)",
        None,
        "last_position",
    ),
}


@pytest.fixture(params=[None, "conversations", "messages"])
def _one_at_a_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify by one statement, or by one for each conversation, for either of the two reasons."""
    if request.param:
        monkeypatch.setattr(verify, "BATCH" if request.param == "conversations" else "BATCH_MESSAGES", 1)


@pytest.mark.usefixtures("_one_at_a_time")
@pytest.mark.parametrize("case", DAMAGE)
def test_verify_finds_damage(counted: Store, sql: Direct, case: str) -> None:
    statement, position, what = DAMAGE[case]
    counted.append("c1", texts(1, 2, 3))
    assert counted.verify() == []
    sql.run(statement)
    found = counted.verify()
    assert (position, True) in {(problem.position, what in problem.detail) for problem in found}
    assert {problem.conversation_id for problem in found} == {"c1"}
    assert counted.for_owner("ann").verify() == []


@pytest.mark.usefixtures("_one_at_a_time")
def test_verify_finds_messages_without_a_conversation(stores: Stores) -> None:
    if stores.dialect == "postgresql":
        stores.sql.run("ALTER TABLE {messages} DISABLE TRIGGER ALL")
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2))
    store.append("c2", texts(1))
    remove = "DELETE FROM {conversations} WHERE id = 'c1'"
    if stores.dialect == "postgresql":
        stores.sql.run("ALTER TABLE {conversations} DISABLE TRIGGER ALL")
        stores.sql.run(remove)
        stores.sql.run("ALTER TABLE {conversations} ENABLE TRIGGER ALL")
        stores.sql.run("ALTER TABLE {messages} ENABLE TRIGGER ALL")
    else:
        stores.sql.run(remove)
    (problem,) = store.verify()
    assert (problem.conversation_id, problem.position) == ("c1", None)
    assert "2 where 0" in problem.detail
    assert store.for_owner("ann").verify() == []
    with pytest.raises(errors.DatabaseError):
        store.append("c1", texts(5))


@pytest.mark.usefixtures("_one_at_a_time")
def test_verify_finds_every_conversation_that_is_wrong(counted: Store, sql: Direct) -> None:
    for name in ("a", "b", "c"):
        counted.append(name, texts(1, 2), owner=name)
    sql.run("UPDATE {conversations} SET total_tokens = 0 WHERE id <> 'b'")
    assert [problem.conversation_id for problem in counted.verify()] == ["a", "c"]
    assert [problem.conversation_id for problem in counted.for_owner("c").verify()] == ["c"]


def test_verify_tells_in_the_order_of_ids_and_positions(counted: Store, sql: Direct) -> None:
    names = ["Z", "a", "b", "é", "\U0001f600"]
    for name in reversed(names):
        counted.append(name, texts(*range(1, 13)))
    sql.run("UPDATE {messages} SET token_count = 0")
    sql.run("UPDATE {conversations} SET total_tokens = 0, forked_at = 1")
    found = [(problem.conversation_id, problem.position) for problem in counted.verify()]
    assert len(found) == len(names) * 13
    assert found == sorted(found, key=lambda each: (each[0], each[1] or 0))
