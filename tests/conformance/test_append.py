"""Append: what goes in, in which order, once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import Enum

import pytest

from tests.support.stores import Direct, One, Stores, Unit, positions, texts
from tokenmem import Appended, Message, Store, errors

pytestmark = pytest.mark.every_variant


def test_positions_and_totals_count_on(store: Store) -> None:
    first = store.append("c1", texts(3, 4), counter=Unit())
    assert first == Appended(first_position=1, last_position=2, token_count=7, total_tokens=7)
    assert not first.replayed


def test_a_second_append_goes_behind_the_first(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(3, 4))
    assert store.append("c1", texts(5)) == Appended(3, 3, token_count=5, total_tokens=12)
    assert [m.token_count for m in store.messages("c1")] == [3, 4, 5]
    assert stores.sql.rows("SELECT position, tokens_before FROM {messages} ORDER BY position") == [
        (1, 0),
        (2, 3),
        (3, 7),
    ]
    conversation = store.conversation("c1")
    assert (conversation.last_position, conversation.message_count, conversation.total_tokens) == (3, 3, 12)
    assert store.verify() == []


def test_conversations_do_not_share_positions(store: Store) -> None:
    store.append("a", [Message.user("x")])
    assert store.append("b", [Message.user("x")]).first_position == 1


def test_a_new_conversation_takes_owner_title_and_metadata(store: Store) -> None:
    store.append("c1", [Message.user("x")], owner="ann", title="T", metadata={"b": [1, -0.0], "a": None})
    conversation = store.conversation("c1")
    assert (conversation.id, conversation.owner, conversation.title) == ("c1", "ann", "T")
    assert repr(conversation.metadata) == "{'b': [1, -0.0], 'a': None}"
    assert conversation.token_counter == "o200k_base"


def test_an_old_conversation_keeps_title_and_metadata(store: Store) -> None:
    store.append("c1", [Message.user("x")], title="old", metadata={"a": 1})
    store.append("c1", [Message.user("x")], title="new", metadata={"a": 2})
    conversation = store.conversation("c1")
    assert (conversation.title, conversation.metadata) == ("old", {"a": 1})


def test_a_plain_conversation_has_no_owner_no_title_and_empty_metadata(store: Store) -> None:
    store.append("c1", [Message.user("x")])
    conversation = store.conversation("c1")
    assert (conversation.owner, conversation.title, conversation.metadata) == (None, None, {})


def test_an_owner_must_be_the_conversations(store: Store, sql: Direct) -> None:
    store.append("c1", [Message.user("x")], owner="ann")
    store.append("c1", [Message.user("x")], owner="ann")
    store.append("c1", [Message.user("x")])
    store.append("c2", [Message.user("x")])
    before = sql.counts()
    for conversation, owner in [("c1", "bob"), ("c2", "ann")]:
        with pytest.raises(errors.ConversationNotFound, match=conversation):
            store.append(conversation, [Message.user("x")], owner=owner)
    assert sql.counts() == before


# --- idempotency


def test_a_repeated_key_stores_nothing_and_tells_the_first_answer(store: Store, sql: Direct) -> None:
    first = store.append("c1", [Message.user("x"), Message.assistant("y")], idempotency_key="k")
    again = store.append(
        "c1", [{"content": "x", "role": "user"}, Message.assistant("y")], idempotency_key="k"
    )
    assert (again.first_position, again.last_position, again.token_count, again.total_tokens) == (
        first.first_position,
        first.last_position,
        first.token_count,
        first.total_tokens,
    )
    assert again.replayed
    assert sql.counts() == {
        "conversations": 1,
        "messages": 2,
        "append_keys": 1,
        "llm_calls": 0,
        "call_prompts": 0,
        "message_versions": 0,
    }


def test_a_replay_after_other_appends_tells_its_own_positions(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1))
    store.append("c1", texts(2, 3), idempotency_key="k")
    store.append("c1", texts(4))
    assert store.append("c1", texts(2, 3), idempotency_key="k") == Appended(2, 3, 5, 10, replayed=True)


def test_a_key_with_other_messages_conflicts(store: Store, sql: Direct) -> None:
    store.append("c1", [Message.user("x")], idempotency_key="key-7")
    before = sql.counts()
    others: list[list[Message]] = [
        [Message.user("z")],
        [Message.user("x"), Message.user("x")],
        [Message.assistant("x")],
        [Message.user("x", pinned=True)],
    ]
    for messages in others:
        with pytest.raises(errors.IdempotencyConflict, match="key-7"):
            store.append("c1", messages, idempotency_key="key-7")
    assert sql.counts() == before


def test_keys_belong_to_their_conversation(store: Store) -> None:
    store.append("c1", [Message.user("x")], idempotency_key="k")
    assert not store.append("c2", [Message.user("y")], idempotency_key="k").replayed
    assert not store.append("c1", [Message.user("x")], idempotency_key="K").replayed


def test_a_replay_after_truncate_and_edit_still_stores_nothing(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(2, 3, 4), idempotency_key="k")
    store.edit("c1", 1, texts(7)[0])
    store.truncate("c1", after=2)
    again = store.append("c1", texts(2, 3, 4), idempotency_key="k")
    assert (again.first_position, again.last_position, again.replayed) == (1, 3, True)
    store.truncate("c1", after=0)
    assert store.append("c1", texts(2, 3, 4), idempotency_key="k").replayed
    assert store.messages("c1") == []


def test_a_key_goes_with_its_conversation(store: Store) -> None:
    store.append("c1", [Message.user("x")], idempotency_key="k")
    store.delete("c1")
    assert not store.append("c1", [Message.user("y")], idempotency_key="k").replayed


def test_a_replay_does_not_mind_that_the_conversation_moved_on(store: Store) -> None:
    store.append("c1", [Message.user("x")], idempotency_key="a", expected_position=0)
    store.append("c1", [Message.user("y")], idempotency_key="b", expected_position=1)
    assert store.append("c1", [Message.user("x")], idempotency_key="a", expected_position=0).replayed
    assert store.append("c1", [Message.user("y")], idempotency_key="b", expected_position=1).replayed


def test_another_owner_learns_nothing_from_a_key(store: Store) -> None:
    store.append("c1", [Message.user("x")], owner="ann", idempotency_key="k")
    with pytest.raises(errors.ConversationNotFound):
        store.append("c1", [Message.user("x")], owner="bob", idempotency_key="k")


def test_a_replay_needs_no_counter_of_the_conversation(stores: Stores) -> None:
    stores.open(counter=Unit("mine")).append("c1", texts(5), idempotency_key="k")
    assert stores.open().append("c1", texts(5), idempotency_key="k").replayed


# --- expected_position


def test_expected_position(store: Store, sql: Direct) -> None:
    assert store.append("c1", [Message.user("x")], expected_position=0).last_position == 1
    assert store.append("c1", [Message.user("x")] * 2, expected_position=1).last_position == 3
    before = sql.counts()
    for wrong in (0, 1, 2, 4, 2**53):
        with pytest.raises(errors.PositionConflict) as caught:
            store.append("c1", [Message.user("x")], expected_position=wrong)
        assert (caught.value.expected_position, caught.value.last_position) == (wrong, 3)
    assert sql.counts() == before


def test_expected_position_of_a_missing_conversation(store: Store, sql: Direct) -> None:
    with pytest.raises(errors.PositionConflict) as caught:
        store.append("gone", [Message.user("x")], expected_position=3)
    assert (caught.value.expected_position, caught.value.last_position) == (3, 0)
    assert sql.counts()["conversations"] == 0


def test_expected_position_counts_what_was_removed(store: Store) -> None:
    store.append("c1", [Message.user("x")] * 3)
    store.truncate("c1", after=1)
    assert store.append("c1", [Message.user("y")], expected_position=3).first_position == 4
    assert positions(store.messages("c1")) == [1, 4]


# --- counters


def test_a_conversation_is_counted_by_the_counter_that_it_began_with(stores: Stores) -> None:
    one, ten = Unit("one"), Unit("ten", factor=10)
    stores.open(counter=one).append("c1", texts(3))
    store = stores.open(counter=ten)
    store.append("c2", texts(3))
    assert store.append("c2", texts(1), counter=one).token_count == 10
    assert store.conversation("c2").token_counter == "ten"
    with pytest.raises(errors.UnknownTokenCounter, match="one"):
        store.append("c1", texts(3))
    assert store.append("c1", texts(3), counter=one).total_tokens == 6
    assert store.verify() == []


def test_the_counter_of_another_store_is_found_by_its_name(stores: Stores) -> None:
    stores.open(counter="cl100k_base").append("c1", [Message.user("你好，世界")])
    appended = stores.open(counter="o200k_base").append("c1", [Message.user("你好，世界")])
    assert appended.total_tokens == 2 * appended.token_count
    assert stores.open().conversation("c1").token_counter == "cl100k_base"


@pytest.mark.parametrize(
    ("given", "stored"), [("gpt-4o", "o200k_base"), ("gpt-4", "cl100k_base"), ("o200k_base", "o200k_base")]
)
def test_a_counter_may_be_named_by_its_model(stores: Stores, given: str, stored: str) -> None:
    stores.open(counter=given).append("c1", [Message.user("x")])
    assert stores.open().conversation("c1").token_counter == stored


def test_an_unknown_counter_is_refused_at_once(stores: Stores) -> None:
    with pytest.raises(errors.UnknownTokenCounter, match="nonsense"):
        stores.open(counter="nonsense")
    with pytest.raises(errors.UnknownTokenCounter, match="nonsense"):
        stores.open().append("c1", [Message.user("x")], counter="nonsense")


def test_a_counter_that_fails_stores_nothing(stores: Stores) -> None:
    class Broken:
        name = "broken"

        def count(self, _: Message) -> int:
            raise StopIteration  # the nastiest: it must not look like the end of something

    with pytest.raises((StopIteration, RuntimeError)):
        stores.open(counter=Broken()).append("c1", [Message.user("x")])
    assert stores.sql.counts()["conversations"] == 0


# An AsyncStore belongs to one event loop; test_lifecycle.py shares one among tasks.
@pytest.mark.parametrize("stores", ["sqlite-sync", "postgresql-sync"], indirect=True)
def test_twenty_threads_share_one_store(stores: Stores) -> None:
    store = stores.open()
    ready = threading.Barrier(20)

    def work(number: int) -> list[int]:
        ready.wait()
        found = []
        for turn in range(5):
            pair = [Message.user(f"{number} {turn}"), Message.assistant(f"{number} {turn}")]
            found.append(store.append("c1", pair).first_position)
            window = store.window("c1", 100)
            assert window.token_count <= 100
        return found

    with ThreadPoolExecutor(20) as pool:
        firsts = sorted(position for found in pool.map(work, range(20)) for position in found)
    assert firsts == list(range(1, 200, 2))
    stored = store.messages("c1", limit=None)
    assert all(stored[i].content == stored[i + 1].content for i in range(0, 200, 2))
    assert store.verify() == []


class CalledLikeAModel:
    """A counter of somebody's own whose name is a model's, which tiktoken's counters go by too."""

    name = "gpt-4o"

    def count(self, message: Message) -> int:
        return len(str(message.content))


def test_a_counter_of_somebody_else_s_that_is_called_like_a_model(stores: Stores) -> None:
    stores.open(counter=CalledLikeAModel()).append("c1", texts(3))
    other = stores.open()
    for change in (
        lambda: other.append("c1", texts(3)),
        lambda: other.edit("c1", 1, Message.user("x")),
    ):
        with pytest.raises(errors.UnknownTokenCounter, match=r"'gpt-4o'.*recount"):
            change()
    assert other.recount("c1", "gpt-4o").token_counter == "o200k_base"
    assert other.append("c1", texts(3)).first_position == 2


def test_a_message_that_says_one_thing_and_carries_another(store: Store) -> None:
    parts = Message.user([{"type": "text", "text": "old"}])
    call = Message.assistant(tool_calls=[{"id": "x", "type": "function", "function": {"name": "f"}}])
    for message in (replace(parts, content="new"), replace(call, role="user"), replace(call, content="new")):
        with pytest.raises(errors.InvalidMessage, match="payload"):
            store.append("c1", [message])
    store.append("c1", [parts, call])


def test_an_enum_stands_for_its_text(stores: Stores) -> None:
    class Choice(str, Enum):  # noqa: UP042 - a StrEnum prints as its text anyway
        YES = "user"

    store = stores.open(counter=One())
    store.append("c1", [{"role": Choice.YES, "content": Choice.YES}], idempotency_key="k")
    assert store.messages("c1")[0].to_openai() == {"role": "user", "content": "user"}
    plain = [{"role": "user", "content": "user"}]
    assert store.append("c1", plain, idempotency_key="k").replayed
    with pytest.raises(errors.IdempotencyConflict):
        store.append("c1", [{"role": "user", "content": "Choice.YES"}], idempotency_key="k")


def test_a_tools_output_with_a_content_beside_it_comes_back_whole(store: Store) -> None:
    given = {"type": "function_call_output", "call_id": "c", "output": "rain", "content": "sun"}
    store.append("c1", [given])
    assert store.message("c1", 1).to_openai() == given
    assert store.message("c1", 1).content == "rain"
