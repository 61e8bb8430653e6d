"""What comes in: times of its own, keys for each message, characters that no database holds, opaque items."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.test_concurrency import in_processes, opened
from tests.support.stores import Direct, Stores, Unit, positions, texts
from tokenmem import Appended, Message, Store, errors
from tokenmem.messages.unstorable import ESCAPE, ESCAPED

# --- times


TIMES = [
    datetime(2020, 2, 29, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    datetime(1999, 12, 31, 23, 0, 0, 1000, tzinfo=timezone(timedelta(hours=-12))),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2099, 1, 1, tzinfo=UTC),
]


def test_given_times_come_back_equal_and_order_nothing(store: Store, sql: Direct) -> None:
    store.append("c1", [Message("user", str(n), created_at=time) for n, time in enumerate(TIMES)])
    store.append("c1", [Message.user("now")])
    found = store.messages("c1")
    assert [m.content for m in found] == ["0", "1", "2", "3", "4", "now"]
    assert [m.created_at for m in found[:-1]] == TIMES
    assert all(m.created_at is not None and m.created_at.tzinfo is UTC for m in found)
    assert [m.content for m in store.window("c1", 1000).messages] == ["0", "1", "2", "3", "4", "now"]
    assert sql.rows("SELECT position FROM {messages} WHERE stored_at IS NULL") == [(6,)]
    store.fork("c1", "c2")
    assert [m.created_at for m in store.messages("c2")] == [m.created_at for m in found]
    columns = "SELECT position, created_at, stored_at FROM {messages} WHERE conversation_id = '%s' ORDER BY 1"
    assert sql.rows(columns % "c2") == sql.rows(columns % "c1")
    assert store.verify() == []


@pytest.mark.parametrize(
    ("time", "words"),
    [
        (datetime(2024, 1, 1), r"messages\[1\].created_at .* value.replace\(tzinfo=datetime.UTC\)"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "years 1 to 9999"),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))), "years 1 to 9999"),
        ("2024-01-01T00:00:00Z", "is a str"),
        (1_700_000_000, "is a int"),
    ],
)
def test_times_that_are_none_are_refused(store: Store, sql: Direct, time: Any, words: str) -> None:
    with pytest.raises(errors.InvalidMessage, match=words):
        store.append("c1", [Message.user("x"), Message("user", "x", created_at=time)])
    assert sql.counts()["conversations"] == 0


# --- keys


def test_of_a_repeated_batch_only_what_is_new_is_stored(stores: Stores, sql: Direct) -> None:
    store = stores.open(counter=Unit())
    first = store.append("c1", texts(1, 2), keys=["a", "b"], owner="ann", title="T")
    assert first == Appended(1, 2, 3, 3)
    assert first.positions == (1, 2)
    again = store.append("c1", texts(4, 1, 8, 2), keys=["d", "a", "c", "b"])
    assert (again.first_position, again.last_position, again.token_count) == (3, 4, 12)
    assert (again.positions, again.replayed, again.total_tokens) == ((3, 1, 4, 2), False, 15)
    assert [m.token_count for m in store.messages("c1")] == [1, 2, 4, 8]
    known = store.append("c1", texts(8, 1), keys=["c", "a"], expected_position=0)
    assert (known.positions, known.replayed, known.token_count) == ((4, 1), True, 9)
    assert (known.first_position, known.last_position, known.total_tokens) == (1, 4, 15)
    assert len(store.messages("c1")) == 4
    assert sql.rows("SELECT key, first_position, last_position FROM {append_keys} ORDER BY 2") == [
        ("a", 1, 1),
        ("b", 2, 2),
        ("d", 3, 3),
        ("c", 4, 4),
    ]
    assert store.verify() == []


def test_positions_are_told_of_every_append(store: Store) -> None:
    assert store.append("c1", texts(1, 2, 3)).positions == (1, 2, 3)
    assert store.append("c1", texts(4), idempotency_key="k").positions == (4,)
    assert store.append("c1", texts(4), idempotency_key="k").positions == (4,)


def test_keys_are_the_conversations_own_and_one_for_each_message(store: Store, sql: Direct) -> None:
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (["a"], {}, "1 keys and 2 messages"),
        (["a", "a"], {}, r"keys\[0\] and keys\[1\] are both 'a'"),
        (["a", ""], {}, r"keys\[1\]"),
        (["a", 5], {}, r"keys\[1\]"),
        ("ab", {}, "keys is a str"),
        (["a", "b"], {"idempotency_key": "k"}, "either"),
    ]
    for keys, others, words in wrong:
        with pytest.raises(errors.InvalidArgument, match=words):
            store.append("c1", texts(1, 2), keys=keys, **others)
    assert sql.counts()["conversations"] == 0
    store.append("c1", texts(1), keys=["a"])
    assert store.append("c2", texts(1), keys=["a"]).positions == (1,)


def test_a_key_of_another_message_stores_nothing(store: Store, sql: Direct) -> None:
    store.append("c1", texts(1), keys=["a"])
    store.append("c1", texts(5, 6), idempotency_key="request")
    before = sql.counts()
    for key in ("a", "request"):
        with pytest.raises(errors.IdempotencyConflict, match=f"{key!r} has stored another") as told:
            store.append("c1", texts(2, 3), keys=["b", key])
        assert "tokens" not in str(told.value)
    assert sql.counts() == before
    with pytest.raises(errors.IdempotencyConflict):
        store.append("c1", texts(1, 2), idempotency_key="a")


def test_keys_with_positions_owners_and_data_beside(store: Store) -> None:
    old = datetime(2001, 1, 1, tzinfo=UTC)
    sent = [Message("user", "x", created_at=old, metadata={"n": 1}), Message.user("y")]
    store.append("c1", sent, keys=["a", "b"], owner="ann", expected_position=0)
    other = replace(sent[0], metadata={"n": 2}, created_at=None)  # neither is in the digest
    assert store.append("c1", [other], keys=["a"]).replayed
    with pytest.raises(errors.PositionConflict):
        store.append("c1", [*sent, Message.user("z")], keys=["a", "b", "c"], expected_position=1)
    with pytest.raises(errors.PositionConflict):
        store.append("none", sent, keys=["a", "b"], expected_position=3)
    for bobs in (store.for_owner("bob"), store):
        with pytest.raises(errors.ConversationNotFound):
            bobs.append("c1", sent, keys=["a", "b"], owner="bob")
    first = store.messages("c1")[0]
    assert (first.created_at, first.metadata) == (old, {"n": 1})
    store.delete_message("c1", 1)
    gone = store.append("c1", sent, keys=["a", "b"])
    assert (gone.replayed, gone.positions) == (True, (1, 2))


def test_many_keys_in_a_transaction_of_the_callers(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    keys = [f"k{number}" for number in range(500)]
    with stores.transaction(store) as mine:
        mine.store.append("c1", texts(*[1] * 300), keys=keys[:300])
        stored = mine.store.append("c1", texts(*[1] * 500), keys=keys)
        assert stored.positions == tuple(range(1, 501))
        mine.commit()
    assert store.conversation("c1").total_tokens == 500
    assert store.verify() == []


def append_overlapping(number: int, barrier: Any, url: str) -> list[tuple[int, ...]]:
    """Batches of ten, each of which has five of the one before; every process sends them all."""
    with opened(url) as store:
        barrier.wait()
        return [
            store.append(
                "c1",
                [Message.user(f"message {n}") for n in range(start, start + 10)],
                keys=[f"k{n}" for n in range(start, start + 10)],
            ).positions
            for start in range(0, 60, 5)
        ]


def test_processes_that_send_the_same_store_each_key_once(ready_url: str) -> None:
    found = in_processes(8, append_overlapping, ready_url)
    assert all(each == found[0] for each in found)
    with opened(ready_url) as store:
        messages = store.messages("c1", limit=None)
        assert sorted(str(m.content) for m in messages) == sorted(f"message {n}" for n in range(65))
        assert positions(messages) == list(range(1, 66))
        assert store.verify() == []


# --- characters that no database holds

ODD = "a\0b \ud800 \udfff\ud83d\ude00 " + ESCAPE + "0000 \U0001f600 \\u0000"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": ODD},
        {"role": "assistant", "content": None, ODD: {ODD: [ODD]}},
        {"role": "user", "content": [{"type": "text", "text": ODD}, ODD]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": ODD},
        {"type": "function_call_output", "call_id": "c", "output": ODD},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": ODD}]},
        Message.opaque({ODD: ODD}, ODD),
        Message("assistant", ODD, metadata={"a": 1}, created_at=TIMES[0], pinned=True),
    ],
    ids=str,
)
def test_what_no_database_holds_comes_back_equal(store: Store, sql: Direct, message: Any) -> None:
    with pytest.raises(errors.InvalidMessage, match="NUL"):
        store.append("c1", [message])
    assert sql.counts()["conversations"] == 0
    store.append("c1", [message], unstorable="escape")
    (stored,) = store.messages("c1")
    given_ = message.to_openai() if isinstance(message, Message) else message
    assert stored.to_openai() == given_
    assert (stored.payload or {})[ESCAPED] is True
    if isinstance(message, Message):
        assert (stored.data, stored.metadata) == (message.data, message.metadata)
    store.append("c2", [stored])  # as it is stored, in whatever store
    store.fork("c1", "c3")
    for copied in (*store.messages("c2"), *store.messages("c3")):
        assert (copied.content, copied.payload) == (stored.content, stored.payload)
    assert store.window("c1", 10_000, start_on="message").to_openai() == [given_]
    before = stored.token_count
    store.recount("c1", "cl100k_base")
    store.recount("c1", "o200k_base")
    assert store.messages("c1")[0].token_count == before
    assert ESCAPED not in json.dumps(stored.to_openai())
    sql.value("SELECT count(*) FROM {messages} WHERE content LIKE '%x%'")


def test_a_store_says_what_becomes_of_them(stores: Stores, sql: Direct) -> None:
    store = stores.open(unstorable="escape")
    store.append("c1", [Message.user("a\0")])
    edited = store.edit("c1", 1, Message.user(f"b\0{ESCAPE}"))
    assert edited.content == f"b{ESCAPE}0000{ESCAPE}{ESCAPE}"
    assert edited.to_openai()["content"] == f"b\0{ESCAPE}"
    store.for_owner("ann").append("c2", [Message.user("a\0")])
    plain = [{"role": "user", "content": f"{ESCAPE}0000"}, {"role": "user", "content": "x", "n": [ESCAPE]}]
    store.append("c3", plain)
    stores.open().append("c4", plain)
    columns = "SELECT position, content, CAST(payload AS text) FROM {messages} WHERE conversation_id = '%s'"
    assert sql.rows(columns % "c3") == sql.rows(columns % "c4")
    assert [m.to_openai() for m in store.messages("c3")] == plain
    with pytest.raises(errors.InvalidMessage):
        store.append("c5", [Message.user("a\0")], unstorable="refuse")
    for wrong in ("drop", None, 5):
        with pytest.raises(errors.InvalidArgument, match="refuse, escape"):
            stores.open(unstorable=wrong)
    for name in ("owner", "title", "idempotency_key"):
        with pytest.raises(errors.InvalidArgument, match="NUL"):
            store.append("c6", [Message.user("x")], **{name: "a\0"})
    with pytest.raises(errors.InvalidArgument, match="NUL"):
        store.append("c\0", [Message.user("x")])
    with pytest.raises(errors.InvalidMessage, match="metadata"):
        store.append("c6", [Message("user", "x", metadata={"a": "\0"})])
    with pytest.raises(errors.InvalidMessage, match=ESCAPED):
        store.append("c6", [{"role": "user", "content": "x", ESCAPED: True}])


CHARACTERS = st.sampled_from(
    ["\0", "\ud800", "\udc00", "\udbff", "\udfff", ESCAPE, "0000", "d800", "d", "\\", "x"]
)
TEXTS = st.lists(CHARACTERS | st.characters(), max_size=8).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(TEXTS, st.dictionaries(TEXTS.map("k".__add__), VALUES, max_size=2)), min_size=1, max_size=4
    )
)
def test_any_text_comes_back_equal(store: Store, contents: list[tuple[str, dict[str, Any]]]) -> None:
    sent = [{"role": "user", "content": content, **others} for content, others in contents]
    opaque = [Message.opaque(others, content) for content, others in contents]
    stored = store.append("fuzz", [*sent, *opaque], unstorable="escape")
    found = store.messages("fuzz", after=stored.first_position - 1, limit=None)
    assert [m.to_openai() for m in found[: len(sent)]] == sent
    assert [m.data for m in found[len(sent) :]] == [others for _, others in contents]
    assert [m.to_openai()["content"] for m in found[len(sent) :]] == [content for content, _ in contents]


# --- opaque items


def test_an_opaque_item_is_kept_whole_and_counts_as_its_text(store: Store) -> None:
    data = {"role": "user", "type": "event", "deep": [{"a": None}, -0.0, True], "content": "word " * 2000}
    store.append(
        "c1", [Message.opaque(data, "hi there", role="user"), Message.opaque(data), Message.user("hi there")]
    )
    told, silent, same = store.messages("c1")
    assert repr(told.data) == repr(silent.data) == repr(data)
    assert (told.kind, told.role, told.content) == ("other", "user", "hi there")
    assert (told.token_count, silent.token_count) == (same.token_count, 0)
    assert (silent.content, same.data) == (None, None)
    assert store.window("c1", 1000).to_openai() == [
        {"role": "user", "content": "hi there"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "hi there"},
    ]
    for each in (None, [], 5, "x", False):
        store.append("c2", [Message.opaque(each)])
    assert [m.data for m in store.messages("c2")] == [None, [], 5, "x", False]
    store.append("c3", store.messages("c1"))
    assert [m.data for m in store.messages("c3")] == [data, data, None]


def test_opaque_items_that_cannot_be(store: Store) -> None:
    wrong: list[tuple[Any, str]] = [
        (Message.opaque({"a": float("nan")}), "nan"),
        (Message.opaque({1: 2}), "JSON keys"),
        (Message.opaque(object()), "object"),
        (Message.opaque({}, "x", role="tool"), "opaque"),
        (Message.opaque({}, "x", role="robot"), "the role is a string of 5 characters"),
        (replace(Message.opaque({}), pinned=True), "pinned"),
        (replace(Message.opaque({}), kind="message"), "Message.opaque"),
        ({"role": "user", "content": "x", "tokenmem_opaque": 5}, "tokenmem_opaque"),
    ]
    for message, words in wrong:
        with pytest.raises(errors.InvalidMessage, match=words):
            store.append("c1", [message])


def test_items_with_other_data_are_other_messages(store: Store) -> None:
    store.append("c1", [Message.opaque({"a": 1}, "x")], idempotency_key="k")
    assert store.append("c1", [Message.opaque({"a": 1}, "x")], idempotency_key="k").replayed
    with pytest.raises(errors.IdempotencyConflict):
        store.append("c1", [Message.opaque({"a": 2}, "x")], idempotency_key="k")


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "human", "content": [1]},
        {"type": "ai", "content": [None]},
        {"type": "ai", "content": "x", "tool_calls": 5},
        {"role": "user", "parts": [{"type": "step-start"}]},
    ],
)
def test_a_malformed_foreign_message_is_refused(stores: Stores, odd: dict[str, Any]) -> None:
    store = stores.open(counter=Unit())
    with pytest.raises(errors.InvalidMessage, match=r"messages\[0\]"):
        store.append("c1", [odd])
    assert store.conversations() == []
