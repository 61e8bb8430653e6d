"""Update, edit, delete_message, truncate, fork, delete, delete_owner."""

import pytest

from tests.support.stores import Direct, Stores, Unit, positions, texts
from tokenmem import Message, Store, errors

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@pytest.fixture
def counted(stores: Stores) -> Store:
    """A store whose conversation c1 holds messages that cost 1, 2, 3 and 4, and c2 one that costs 9."""
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 3, 4), owner="ann", title="T", metadata={"a": 1})
    store.append("c2", texts(9))
    return store


def costs(store: Store, conversation_id: str = "c1") -> list[tuple[int, int]]:
    return [(m.position, m.token_count) for m in store.messages(conversation_id, limit=None)]


def test_update(counted: Store) -> None:
    assert counted.update("c1", title="New").title == "New"
    changed = counted.update("c1", metadata={"b": [None, -0.0]})
    assert (changed.title, repr(changed.metadata)) == ("New", "{'b': [None, -0.0]}")
    assert counted.update("c1", metadata={}).metadata == {}
    assert counted.update("c1") == counted.conversation("c1")
    assert counted.update("c1", metadata={"b": 1, "c": {"x": 1}}).title == "New"
    merged = counted.update("c1", metadata={"c": {"y": None}, "d": True}, merge=True)
    assert merged.metadata == {"b": 1, "c": {"y": None}, "d": True}, (
        "a key that is given is replaced as a whole"
    )
    assert counted.update("c1", metadata={}, merge=True).metadata == merged.metadata
    assert counted.update("c1", title=None).title is None
    assert counted.conversation("c1").metadata == merged.metadata
    assert counted.update("c1", metadata=None).metadata == {}
    assert [counted.update("c1", keep=keep).keep for keep in (True, None, False)] == [True, True, False]
    assert counted.conversation("c2").title is None


def test_edit_moves_the_totals_behind_it(counted: Store, sql: Direct) -> None:
    edited = counted.edit("c1", 2, {"role": "assistant", "content": "20 tokens", "extra": 1})
    assert (edited.position, edited.role, edited.token_count) == (2, "assistant", 20)
    assert edited.to_openai() == {"role": "assistant", "content": "20 tokens", "extra": 1}
    assert costs(counted) == [(1, 1), (2, 20), (3, 3), (4, 4)]
    assert sql.rows(
        "SELECT tokens_before FROM {messages} WHERE conversation_id = 'c1' ORDER BY position"
    ) == [(0,), (1,), (21,), (24,)]
    assert counted.conversation("c1").total_tokens == 28
    assert counted.conversation("c2").total_tokens == 9
    assert counted.edit("c1", 2, texts(20)[0]).payload is None
    assert counted.verify() == []


def test_edit_keeps_when_it_was_stored_and_what_is_pinned(counted: Store) -> None:
    old = counted.messages("c1")[0]
    assert not old.pinned
    assert counted.edit("c1", 1, texts(1)[0], pinned=True).pinned
    kept = counted.edit("c1", 1, texts(5)[0])
    assert kept.pinned
    assert kept.created_at == old.created_at
    assert not counted.edit("c1", 1, Message.user("5", pinned=True), pinned=False).pinned
    assert counted.edit("c1", 1, Message.user("5", pinned=True)).pinned


def test_only_plain_messages_are_pinned(counted: Store, sql: Direct) -> None:
    call, result = Message.assistant("1", tool_calls=[CALL]), Message.tool("1", tool_call_id="call_1")
    counted.edit("c1", 1, texts(1)[0], pinned=True)
    before = sql.rows("SELECT * FROM {messages} ORDER BY conversation_id, position")
    for message in (call, result):
        with pytest.raises(errors.InvalidMessage, match="pinned"):
            counted.edit("c1", 1, message)
        with pytest.raises(errors.InvalidMessage, match="pinned"):
            counted.edit("c1", 2, message, pinned=True)
        with pytest.raises(errors.InvalidMessage, match="pinned"):
            counted.append("c1", [Message(message.role, "1", payload=message.payload, pinned=True)])
    assert sql.rows("SELECT * FROM {messages} ORDER BY conversation_id, position") == before
    assert counted.edit("c1", 1, call, pinned=False).kind == "tool_call"


def test_edit_counts_by_the_conversations_counter(stores: Stores) -> None:
    stores.open(counter="cl100k_base").append("c1", [Message.user("x")])
    stores.open().edit("c1", 1, Message.user("你好，世界"))
    edited = stores.open().messages("c1")[0].token_count
    stores.open(counter="cl100k_base").append("c2", [Message.user("你好，世界")])
    assert edited == stores.open().messages("c2")[0].token_count


@pytest.mark.parametrize("position", [5, 2**53])
def test_there_must_be_a_message_at_the_position(counted: Store, position: int) -> None:
    with pytest.raises(errors.InvalidArgument, match=f"position {position}.*last position is 4"):
        counted.edit("c1", position, texts(1)[0])
    with pytest.raises(errors.InvalidArgument, match=f"position {position}.*last position is 4"):
        counted.delete_message("c1", position)
    assert costs(counted) == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_delete_message(counted: Store) -> None:
    counted.delete_message("c1", 2)
    assert costs(counted) == [(1, 1), (3, 3), (4, 4)]
    conversation = counted.conversation("c1")
    assert (conversation.last_position, conversation.message_count, conversation.total_tokens) == (4, 3, 8)
    counted.delete_message("c1", 4)
    assert counted.append("c1", texts(7)).first_position == 5
    assert counted.conversation("c1").total_tokens == 11
    with pytest.raises(errors.InvalidArgument, match="position 2"):
        counted.delete_message("c1", 2)
    assert counted.verify() == []


def test_truncate(counted: Store) -> None:
    counted.delete_message("c1", 2)
    assert counted.truncate("c1", after=2) == 2
    assert counted.truncate("c1", after=2) == 0
    assert costs(counted) == [(1, 1)]
    assert counted.append("c1", texts(5)).first_position == 5
    assert counted.truncate("c1", after=0) == 2
    conversation = counted.conversation("c1")
    assert (conversation.last_position, conversation.message_count, conversation.total_tokens) == (5, 0, 0)
    assert counted.append("c1", texts(5)).total_tokens == 5
    assert costs(counted, "c2") == [(1, 9)]
    assert counted.verify() == []


@pytest.mark.parametrize(("at", "kept"), [(None, [1, 3, 4]), (4, [1, 3, 4]), (2, [1]), (1, [1]), (0, [])])
def test_fork(counted: Store, at: int | None, kept: list[int]) -> None:
    counted.delete_message("c1", 2)
    copy = counted.fork("c1", "copy", at=at)
    assert (copy.owner, copy.title, copy.metadata, copy.token_counter) == ("ann", "T", {"a": 1}, "unit")
    assert copy.last_position == (4 if at is None else at)
    assert (copy.message_count, copy.total_tokens) == (len(kept), sum(kept))
    assert counted.messages("copy") == [m for m in counted.messages("c1") if m.position in kept]
    assert counted.verify() == []
    assert counted.append("copy", texts(5)).first_position == copy.last_position + 1
    assert costs(counted) == [(1, 1), (3, 3), (4, 4)]
    assert counted.verify() == []


def test_a_fork_has_keys_of_its_own(counted: Store) -> None:
    counted.append("c1", texts(5), idempotency_key="k")
    counted.fork("c1", "copy")
    assert not counted.append("copy", texts(6), idempotency_key="k").replayed


def test_a_fork_needs_a_free_id_and_a_position_that_is_there(counted: Store, sql: Direct) -> None:
    before = sql.counts()
    for taken in ("c2", "c1"):
        with pytest.raises(errors.ConversationExists, match=taken):
            counted.fork("c1", taken)
    with pytest.raises(errors.InvalidArgument, match="ends at position 4; it has no 5"):
        counted.fork("c1", "copy", at=5)
    assert sql.counts() == before


def test_delete(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(5), idempotency_key="k")
    sql.run(
        "INSERT INTO {llm_calls} (conversation_id, number, model, status) VALUES ('c1', 1, 'm', 'ok'),"
        " ('c2', 1, 'm', 'ok')"
    )
    counted.delete("c1")
    assert sql.counts() == {
        "conversations": 1,
        "messages": 1,
        "append_keys": 0,
        "llm_calls": 1,
        "call_prompts": 0,
        "message_versions": 0,
    }
    with pytest.raises(errors.ConversationNotFound):
        counted.delete("c1")
    assert counted.append("c1", texts(5)).first_position == 1


def test_delete_owner(counted: Store, sql: Direct) -> None:
    counted.append("c3", texts(1), owner="ann", idempotency_key="k")
    counted.append("c4", texts(1), owner="bob")
    assert counted.delete_owner("ann") == 2
    assert counted.delete_owner("ann") == 0
    assert [conversation.id for conversation in counted.conversations()] == ["c2", "c4"]
    assert sql.counts() == {
        "conversations": 2,
        "messages": 2,
        "append_keys": 0,
        "llm_calls": 0,
        "call_prompts": 0,
        "message_versions": 0,
    }


def test_nothing_changes_a_conversation_that_is_not_there(counted: Store, sql: Direct) -> None:
    before = sql.counts()
    for operation in (
        lambda: counted.update("none", title="x"),
        lambda: counted.edit("none", 1, texts(1)[0]),
        lambda: counted.delete_message("none", 1),
        lambda: counted.truncate("none", after=0),
        lambda: counted.fork("none", "copy"),
        lambda: counted.delete("none"),
        lambda: counted.recount("none", "o200k_base"),
        lambda: counted.window("none", 10),
        lambda: counted.messages("none"),
        lambda: counted.conversation("none"),
    ):
        with pytest.raises(errors.ConversationNotFound, match="none"):
            operation()
    assert sql.counts() == before


def test_positions_grow_whatever_was_removed(counted: Store) -> None:
    counted.truncate("c1", after=2)
    counted.append("c1", texts(5, 6))
    counted.delete_message("c1", 6)
    counted.append("c1", texts(7))
    assert positions(counted.messages("c1")) == [1, 2, 5, 7]
    assert counted.verify() == []
