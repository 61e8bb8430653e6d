"""Data beside a message: kept and returned, but never counted, sent, or part of what a key stands for."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.chats import Chats
from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import Message, Store, errors
from tokenmem.counting.counters import counter_named
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.parsing import digest, parse_messages
from tokenmem.testing import Answer, ModelServer

FOREIGN = {"id": "msg_1", "nested": {"list": [1, -0.0, None, True], "text": "ü🙂"}, "note": "x" * 2000}
SAID = datetime(2021, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
SENTENCE = "The train to Turin leaves at 21:58 from platform 4."


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(lambda _: Answer("Thanks.")) as running:
        yield running


def with_data(text: str, metadata: Any = FOREIGN, created_at: datetime | None = None) -> Message:
    return Message("user", text, metadata=metadata, created_at=created_at)


@pytest.mark.parametrize("count", [1, 3, 10, 300])
def test_each_way_of_storing_keeps_data_and_time(store: Store, count: int) -> None:
    """Values, one JSON text, COPY: with data on some of the messages, on all of them, and on none."""
    given = []
    for number in range(count):
        metadata = {**FOREIGN, "number": number} if number % 3 == 0 else {} if number % 3 == 1 else None
        given.append(with_data(f"{number} {SENTENCE}", metadata, SAID if number % 2 == 0 else None))
    stored = store.append("c1", given)
    plain = store.append("c2", [Message.user(str(message.content)) for message in given])
    assert (stored.token_count, stored.total_tokens) == (plain.token_count, plain.total_tokens)
    found = store.messages("c1", limit=None)
    assert [repr(m.metadata) for m in found] == [repr(m.metadata) for m in given]
    for message, came in zip(found, given, strict=True):
        assert message.created_at is not None
        if came.created_at is None:
            assert abs(datetime.now(UTC) - message.created_at) < timedelta(minutes=5)
        else:
            assert message.created_at == SAID
    others = store.messages("c2", limit=None)
    assert [m.token_count for m in found] == [m.token_count for m in others]
    assert [m.to_openai() for m in found] == [m.to_openai() for m in others]
    assert store.verify() == []


def test_every_way_of_reading_returns_it(store: Store) -> None:
    store.append("c1", [Message.system("s", pinned=True, metadata={"p": 1}), with_data("a", created_at=SAID)])
    for found in (
        store.messages("c1"),
        list(store.window("c1", 1000).messages),
        [store.message("c1", 1), store.message("c1", 2)],
        store.read("c1")[1],
        store.messages("c1", payload=False),
        store.fork("c1", "copy") and store.messages("copy"),
    ):
        assert [(m.metadata, m.created_at == SAID) for m in found] == [({"p": 1}, False), (FOREIGN, True)]
    assert store.window("c1", 1000).to_openai() == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "a"},
    ]


def test_a_sentence_with_foreign_data_counts_and_is_sent_as_the_sentence(store: Store) -> None:
    store.append("beside", [with_data(SENTENCE)])
    store.append("plain", [Message.user(SENTENCE)])
    beside, plain = store.window("beside", 1000), store.window("plain", 1000)
    assert beside.token_count == plain.token_count
    assert beside.to_openai() == plain.to_openai() == [{"role": "user", "content": SENTENCE}]
    assert counter_named("o200k_base").count(beside.messages[0]) == beside.token_count
    assert store.conversation("beside").total_tokens == store.conversation("plain").total_tokens


def test_all_kinds_of_messages_carry_it(store: Store) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    made = [
        Message.system("s", metadata={"n": 0}),
        Message.user([{"type": "text", "text": "t"}], metadata={"n": 1}),
        Message.assistant(tool_calls=[call], metadata={"n": 2}),
        Message.tool("r", tool_call_id="c", metadata={"n": 3}),
        Message.assistant("a", metadata={"n": 4}),
    ]
    store.append("c1", made)
    assert [m.metadata for m in store.messages("c1")] == [{"n": n} for n in range(5)]
    assert all("metadata" not in message for message in store.window("c1", 1000).to_openai())


def test_a_key_stands_for_the_messages_alone(store: Store) -> None:
    first = store.append("c1", [with_data("a", {"try": 1})], idempotency_key="k")
    again = store.append("c1", [with_data("a", {"try": 2}, SAID)], idempotency_key="k")
    assert (again.replayed, again.first_position) == (True, first.first_position)
    assert store.message("c1", 1).metadata == {"try": 1}
    assert digest(parse_messages([with_data("a")])) == digest(parse_messages([Message.user("a")]))
    with pytest.raises(errors.IdempotencyConflict):
        store.append("c1", [with_data("b", {"try": 1})], idempotency_key="k")


def test_a_key_of_that_name_in_a_providers_message_stays_payload(store: Store, sql: Direct) -> None:
    given = {"role": "user", "content": "a", "metadata": {"theirs": [1]}}
    store.append("c1", [given])
    found = store.message("c1", 1)
    assert (found.metadata, found.to_openai()) == (None, given)
    assert sql.value("SELECT metadata FROM {messages}") is None
    store.update_message("c1", 1, metadata={"ours": 2})
    found = store.message("c1", 1)
    assert (found.metadata, found.to_openai()) == ({"ours": 2}, given)


def test_an_import_keeps_it(store: Store) -> None:
    lines = [ConversationLine(f"c{n}", [with_data("a", {"n": n}, SAID), *texts(1)]) for n in range(3)]
    assert None not in store.import_conversations(lines)
    for number in range(3):
        first, second = store.messages(f"c{number}")
        assert (first.metadata, first.created_at, second.metadata) == ({"n": number}, SAID, None)


@pytest.mark.parametrize("bad", ["text", [1], 5, {"a": object()}, {"a": float("nan")}, {"a\x00": 1}, {1: 2}])
def test_what_is_no_json_object_is_refused(store: Store, sql: Direct, bad: Any) -> None:
    store.append("c1", texts(1))
    with pytest.raises(errors.InvalidMessage, match="metadata"):
        store.append("c1", [with_data("secret words", bad)])
    with pytest.raises(errors.InvalidArgument, match="metadata") as caught:
        store.update_message("c1", 1, metadata=bad)
    assert "secret" not in str(caught.value)
    assert sql.value("SELECT count(*) FROM {messages} WHERE metadata IS NOT NULL") == 0


def test_update_message_sets_merges_and_clears(store: Store, sql: Direct) -> None:
    store.append("c1", [with_data("a", {"keep": {"x": 1}, "old": 1}), *texts(2)])
    state = "SELECT revision, updated_at, recent_at, total_tokens FROM {conversations}"
    before = sql.rows(state)[0]
    plain = store.message("c1", 1)
    merged = store.update_message("c1", 1, metadata={"old": {"y": 2}, "new": None}, merge=True)
    assert merged.metadata == {"keep": {"x": 1}, "old": {"y": 2}, "new": None}
    assert merged == store.message("c1", 1)
    assert (merged.content, merged.token_count, merged.created_at) == (
        plain.content,
        plain.token_count,
        plain.created_at,
    )
    assert store.update_message("c1", 1, metadata={"all": 1}).metadata == {"all": 1}
    assert store.update_message("c1", 1, metadata={}).metadata == {}
    assert store.update_message("c1", 1, metadata=None).metadata is None
    assert store.update_message("c1", 1, metadata={"a": 1}, merge=True).metadata == {"a": 1}
    after = sql.rows(state)[0]
    assert after[0] == before[0] + 5
    assert after[1:] == before[1:], "a rating is no activity"
    assert store.message("c1", 2).metadata is None


def test_update_message_says_what_is_wrong(store: Store, sql: Direct) -> None:
    store.append("c1", texts(1))
    revision = sql.value("SELECT revision FROM {conversations}")
    with pytest.raises(errors.MessageNotFound, match=r"position 2.*last position is 1"):
        store.update_message("c1", 2, metadata={})
    with pytest.raises(errors.ConversationNotFound):
        store.update_message("none", 1, metadata={})
    with pytest.raises(errors.InvalidArgument, match="metadata is None"):
        store.update_message("c1", 1, metadata=None, merge=True)
    with pytest.raises(errors.InvalidArgument, match="merge is a str"):
        store.update_message("c1", 1, metadata={}, merge="yes")  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="position is 0"):
        store.update_message("c1", 0, metadata={})
    assert sql.value("SELECT revision FROM {conversations}") == revision


def test_an_edit_keeps_the_places_data_unless_the_message_has_its_own(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", [with_data("1", {"rating": 5}, SAID)])
    assert store.edit("c1", 1, {"role": "user", "content": "2"}).metadata == {"rating": 5}
    assert store.edit("c1", 1, Message.user("3")).metadata == {"rating": 5}
    edited = store.edit("c1", 1, Message.user("4", metadata={"own": 1}))
    assert (edited.metadata, edited.created_at) == ({"own": 1}, SAID)
    assert store.edit("c1", 1, Message.user("4", metadata={})).metadata == {}


def test_a_turn_stores_it_and_does_not_send_it(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    chat.send("c1", Message.user(SENTENCE, metadata=FOREIGN))
    chat.send("c1", "And back?")
    store: Store = chats.store
    assert [m.metadata for m in store.messages("c1")] == [FOREIGN, None, None, None]
    assert server.problems == []
    for request in server.requests:
        assert "msg_1" not in str(request.body)
        assert request.body["messages"][0] == {"role": "user", "content": SENTENCE}


def test_the_view_shows_it(store: Store, sql: Direct) -> None:
    store.append("c1", [with_data("a", {"rating": 5}), *texts(1)])
    view = "message_log" if sql.engine.dialect.name == "sqlite" else "tokenmem.message_log"
    rows = sql.rows(f"SELECT metadata FROM {view} WHERE conversation_id = 'c1' ORDER BY position")
    assert rows == [('{"rating":5}',), (None,)]


def test_a_removed_message_takes_it_along(store: Store, sql: Direct) -> None:
    store.append("c1", [with_data("a", {"canary": "yellow"}), *texts(1)])
    store.delete_message("c1", 1)
    assert sql.value("SELECT count(*) FROM {messages} WHERE metadata IS NOT NULL") == 0
