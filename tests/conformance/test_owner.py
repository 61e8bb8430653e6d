"""A store for one owner: others' conversations do not exist in it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import AsyncStore, Store, errors
from tokenmem.messages.json_lines import ConversationLine

# Every public method that takes a conversation's id, and how it is called on another owner's.
METHODS: dict[str, Callable[[Store, str], Any]] = {
    "append": lambda store, name: store.append(name, texts(1)),
    "append with expected_position": lambda store, name: store.append(name, texts(1), expected_position=2),
    "append with a wrong position": lambda store, name: store.append(name, texts(1), expected_position=9),
    "append at the start": lambda store, name: store.append(name, texts(1), expected_position=0),
    "append with its key": lambda store, name: store.append(name, texts(1, 2), idempotency_key="k"),
    "append with another's key": lambda store, name: store.append(name, texts(8), idempotency_key="k"),
    "append with keys": lambda store, name: store.append(name, texts(1), keys=["k"]),
    "append with new keys": lambda store, name: store.append(name, texts(1), keys=["new"]),
    "export": lambda store, name: list(store.export(ids=[name])),
    "export in pieces": lambda store, name: list(store.export(ids=[name], pieces=True)),
    "append by another counter": lambda store, name: store.append(name, texts(1), counter=Unit("other")),
    "window": lambda store, name: store.window(name, 1000),
    "a window too small": lambda store, name: store.window(name, 0),
    "a stepped window": lambda store, name: store.window(name, 2, stride=2),
    "messages": lambda store, name: store.messages(name),
    "messages backwards": lambda store, name: store.messages(name, newest_first=True),
    "calls": lambda store, name: store.calls(name),
    "record_call": lambda store, name: store.record_call(name, model="gpt-4o"),
    "versions": lambda store, name: store.versions(name, 1),
    "versions of nothing": lambda store, name: store.versions(name, 9),
    "conversation": lambda store, name: store.conversation(name),
    "update": lambda store, name: store.update(name, title="mine"),
    "merge": lambda store, name: store.update(name, metadata={"mine": 1}, merge=True),
    "append and merge": lambda store, name: store.append(name, texts(1), merge_metadata={"mine": 1}),
    "archive": lambda store, name: store.archive(name),
    "restore": lambda store, name: store.restore(name),
    "move": lambda store, name: store.move(name, owner="ann"),
    "branches": lambda store, name: store.branches(name),
    "edit": lambda store, name: store.edit(name, 1, texts(9)[0]),
    "edit nothing": lambda store, name: store.edit(name, 9, texts(9)[0]),
    "delete_message": lambda store, name: store.delete_message(name, 1),
    "truncate": lambda store, name: store.truncate(name, after=0),
    "message": lambda store, name: store.message(name, 1),
    "message that is not there": lambda store, name: store.message(name, 9),
    "messages but none": lambda store, name: store.messages(name, limit=0),
    "read": lambda store, name: store.read(name),
    "open_tool_calls": lambda store, name: store.open_tool_calls(name),
    "update_message": lambda store, name: store.update_message(name, 1, metadata={"mine": 1}),
    "update_message merging": lambda store, name: store.update_message(name, 1, metadata={}, merge=True),
    "replace": lambda store, name: store.replace(name, texts(9)),
    "replace by nothing": lambda store, name: store.replace(name, []),
    "replace at a wrong position": lambda store, name: store.replace(name, texts(9), expected_position=9),
    "pop": lambda store, name: store.pop(name),
    "pop expecting": lambda store, name: store.pop(name, expected_position=9),
    "delete_messages": lambda store, name: store.delete_messages(name),
    "fork": lambda store, name: store.fork(name, "copy"),
    "fork at": lambda store, name: store.fork(name, "copy", at=1),
    "delete": lambda store, name: store.delete(name),
    "recount": lambda store, name: store.recount(name, "o200k_base"),
}
TABLES = ("conversations", "messages", "append_keys", "llm_calls", "call_prompts", "message_versions")


@pytest.fixture
def ann(stores: Stores) -> Store:
    """A store for ann, in a database in which bob has a conversation, nobody has one, and so has she."""
    store = stores.open(counter=Unit())
    store.append("bobs", texts(1, 2), owner="bob", idempotency_key="k", title="secret")
    store.append("nobodys", texts(1, 2), idempotency_key="k")
    store.append("anns", texts(1, 2), owner="ann", idempotency_key="k")
    stores.sql.age(9)
    stores.sql.age(9, table="conversations")
    return store.for_owner("ann")


def everything(sql: Direct) -> list[list[tuple[Any, ...]]]:
    return [sql.rows(f"SELECT * FROM {{{table}}} ORDER BY 1, 2") for table in TABLES]


@pytest.mark.parametrize("name", ["bobs", "nobodys"])
def test_no_method_reaches_another_owners_conversation(ann: Store, sql: Direct, name: str) -> None:
    before = repr(everything(sql))
    for method, call in METHODS.items():
        with pytest.raises(errors.ConversationNotFound) as caught:
            call(ann, name)
        assert str(caught.value).startswith(f"no conversation {name!r} of owner 'ann'"), method
        assert "'bob'" not in str(caught.value), "whose it is stays hidden"
        assert repr(everything(sql)) == before, method


def test_the_table_of_methods_is_complete() -> None:
    without_id = {"conversations", "import_conversations", "delete_owner", "purge", "verify"}
    without_id |= {"create", "move_owner"}  # of new conversations, and of all of an owner's
    without_id |= {"upgrade", "bind", "for_owner", "transaction", "close", "engine"}
    without_id |= {"anonymize_owner", "usage", "export"}
    for kind in (Store, AsyncStore):
        public = {name for name in dir(kind) if not name.startswith("_")}
        called = {name.split()[0] for name in METHODS} - {"a", "merge"}
        assert public == without_id | called


@pytest.mark.parametrize("name", ["bobs", "nobodys"])
def test_an_import_onto_anothers_conversation_leaves_it(ann: Store, sql: Direct, name: str) -> None:
    before = repr(everything(sql))
    assert ann.import_conversations([ConversationLine(name, texts(5))]) == [None]
    assert repr(everything(sql)) == before


@pytest.mark.parametrize("name", ["bobs", "nobodys"])
def test_a_fork_onto_anothers_conversation_leaves_it(ann: Store, sql: Direct, name: str) -> None:
    before = repr(everything(sql))
    for make in (lambda: ann.fork("anns", name), lambda: ann.create(name)):
        with pytest.raises(errors.ConversationExists) as caught:
            make()
        assert "bob" not in str(caught.value).replace("bobs", "")
    assert repr(everything(sql)) == before


def test_what_takes_no_id_acts_on_ones_own_only(ann: Store, stores: Stores) -> None:
    sql = stores.sql
    sql.run("UPDATE {conversations} SET total_tokens = 99 WHERE id = 'bobs'")
    assert ann.verify() == []
    assert [found.id for found in ann.conversations()] == ["anns"]
    assert [found.id for found in ann.conversations(owner="ann")] == ["anns"]
    assert ann.purge(older_than=timedelta(days=1), dry_run=True).messages == 2
    for refused in (
        lambda: ann.conversations(owner="bob"),
        lambda: ann.delete_owner("bob"),
        lambda: ann.for_owner("bob"),
        lambda: ann.append("new", texts(1), owner="bob"),
        lambda: ann.create("new", owner="bob"),
        lambda: ann.move("anns", owner="bob"),
        lambda: ann.move_owner("bob", "ann"),
        lambda: ann.move_owner("ann", "bob"),
    ):
        with pytest.raises(errors.InvalidArgument, match=r"'ann'.*'bob'"):
            refused()
    with pytest.raises(errors.InvalidArgument, match="'ann'"):
        ann.move("anns", owner=None)
    assert sql.counts()["conversations"] == 3
    assert ann.purge(older_than=timedelta(days=1)).conversations == 1
    assert sql.rows("SELECT id FROM {conversations} ORDER BY id") == [("bobs",), ("nobodys",)]


def test_ones_own_conversations_are_as_without_an_owner(ann: Store, stores: Stores) -> None:
    assert ann.append("anns", texts(3)).last_position == 3
    assert ann.append("new", texts(3)).last_position == 1
    assert ann.append("new", texts(3), owner="ann").last_position == 2
    assert ann.conversation("new").owner == "ann"
    assert ann.window("anns", 5).first_position == 2
    assert [m.token_count for m in ann.messages("anns")] == [1, 2, 3]
    assert ann.update("anns", title="T").title == "T"
    assert ann.edit("anns", 1, texts(9)[0]).token_count == 9
    ann.delete_message("anns", 1)
    assert ann.truncate("anns", after=2) == 1
    assert ann.fork("anns", "copy").owner == "ann"
    assert ann.recount("anns", Unit("ten", factor=10)).total_tokens == 20
    ann.delete("anns")
    assert ann.delete_owner("ann") == 2
    assert stores.sql.counts()["conversations"] == 2


@pytest.mark.parametrize("owner", ["", "x" * 256, None, 5, "a\0b", "\ud800"])
def test_an_owner_is_a_short_text(stores: Stores, owner: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="owner"):
        stores.open().for_owner(owner)
