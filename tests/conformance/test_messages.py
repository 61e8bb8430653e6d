"""What comes back equals what went in, on both engines."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessage, ChatCompletionUserMessageParam

from tests.support.stores import Direct, Stores, positions, same_json
from tokenmem import Message, Store, errors

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}

# id: (the message, its kind, the text that a person reads)
MESSAGES: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "plain": ({"role": "user", "content": "hi"}, "message", "hi"),
    "empty": ({"role": "user", "content": ""}, "message", ""),
    "null": ({"role": "assistant", "content": None}, "message", None),
    "absent": ({"role": "assistant"}, "message", None),
    "spaces": ({"role": "user", "content": "  \n\t x \r\n "}, "message", "  \n\t x \r\n "),
    "system": ({"role": "system", "content": "be brief"}, "message", "be brief"),
    "developer": ({"role": "developer", "content": "be brief"}, "message", "be brief"),
    "name": ({"role": "user", "content": "hi", "name": "ann"}, "message", "hi"),
    "refusal": ({"role": "assistant", "content": None, "refusal": "I can't."}, "message", None),
    "refusal with text": ({"role": "assistant", "content": "no", "refusal": None}, "message", "no"),
    "refusal part": (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        "message",
        None,
    ),
    "unknown keys": (
        {"role": "assistant", "content": "x", "reasoning": "hm", "annotations": [], "x": {"y": None}},
        "message",
        "x",
    ),
    "parts": (
        {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE, {"type": "text", "text": "!"}]},
        "message",
        "look\n!",
    ),
    "no parts": ({"role": "user", "content": []}, "message", None),
    "image": ({"role": "user", "content": [IMAGE]}, "message", None),
    "audio": (
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
        },
        "message",
        None,
    ),
    "file": ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, "message", None),
    "string parts": ({"role": "user", "content": ["a", {"type": "text", "text": "b"}]}, "message", "a\nb"),
    "call": ({"role": "assistant", "content": None, "tool_calls": [CALL]}, "tool_call", None),
    "call without content": ({"role": "assistant", "tool_calls": [CALL, CALL]}, "tool_call", None),
    "call with text": ({"role": "assistant", "content": "wait", "tool_calls": [CALL]}, "tool_call", "wait"),
    "no calls": ({"role": "assistant", "content": "x", "tool_calls": []}, "message", "x"),
    "null calls": ({"role": "assistant", "content": "x", "tool_calls": None}, "message", "x"),
    "result": ({"role": "tool", "content": "7", "tool_call_id": "call_1"}, "tool_result", "7"),
    "result parts": (
        {"role": "tool", "content": [{"type": "text", "text": "7"}], "tool_call_id": "call_1"},
        "tool_result",
        "7",
    ),
    "old call": (
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        "tool_call",
        None,
    ),
    "old result": ({"role": "function", "name": "f", "content": "1"}, "tool_result", "1"),
    "numbers": (
        {"role": "user", "content": "x", "n": [-0.0, 0.0, 1.0, 1, 1e22, 5e-324, 0.1, 2**53 + 1, -(2**200)]},
        "message",
        "x",
    ),
    "truth": ({"role": "user", "content": "x", "n": [True, False, None, 0, 1]}, "message", "x"),
    "scripts": (
        {"role": "user", "content": "🙂 👨‍👩‍👧 漢字 \u2028\u2029 é e\u0301 \U0010ffff"},
        "message",
        None,
    ),
    "controls": ({"role": "user", "content": "\x01\x1b[0m\x7f\ufeff\ufffe"}, "message", None),
    "keys": ({"role": "user", "content": "x", "": 1, "🙂\u2028": 2, "a.b": 3, "$c": 4}, "message", "x"),
    "looks like SQL": (
        {"role": "user", "content": "%s :id {now} '; DROP TABLE messages; --", "%(id)s": ":x"},
        "message",
        None,
    ),
    "special tokens": ({"role": "user", "content": "<|endoftext|><|im_start|>"}, "message", None),
    "deep": ({"role": "user", "content": "x", "a": [[[[[{"b": [[]]}]]]]]}, "message", "x"),
    "long key": ({"role": "user", "content": "x", "k" * 3000: "v"}, "message", "x"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_every_kind_of_message_comes_back(store: Store, sql: Direct, case: str) -> None:
    message, kind, text = MESSAGES[case]
    text = message["content"] if text is None and isinstance(message.get("content"), str) else text
    given = copy.deepcopy(message)
    store.append("c1", [given])
    assert same_json(given, message), "append has changed the caller's message"
    (stored,) = store.messages("c1")
    assert same_json(stored.to_openai(), message)
    assert (stored.role, stored.kind, stored.content) == (message["role"], kind, text)
    assert (stored.position, stored.pinned) == (1, False)
    assert stored.token_count > 0
    # A Message read from one conversation may be appended to another, and pages give what windows give.
    store.append("c2", [stored])
    assert same_json(store.messages("c2")[0].to_openai(), message)
    if kind != "tool_result":
        assert same_json(store.window("c1", 100_000).to_openai(), [message])
    assert sql.value("SELECT content FROM {messages} WHERE conversation_id = 'c1'") == text
    payload = sql.value("SELECT CAST(payload AS text) FROM {messages} WHERE conversation_id = 'c1'")
    assert (payload is None) == (set(message) == {"role", "content"} and isinstance(message["content"], str))


def test_all_of_them_in_one_append(store: Store) -> None:
    originals = [message for message, _, _ in MESSAGES.values()]
    store.append("c1", originals)
    assert same_json([message.to_openai() for message in store.messages("c1")], originals)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
openai_messages = st.builds(
    lambda extra, rest: {**extra, **rest},
    st.dictionaries(st.sampled_from(["x", "refusal", "annotations", "é"]), json_values, max_size=3),
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool"])},
        optional={
            "content": st.none()
            | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
            | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": json_values}), max_size=3),
            "tool_calls": st.lists(st.fixed_dictionaries({"id": json_values}), max_size=2),
            "tool_call_id": json_values,
        },
    ),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(originals=st.lists(openai_messages, min_size=1, max_size=6))
def test_any_message_comes_back(store: Store, originals: list[dict[str, Any]]) -> None:
    before = store.append("c1", [Message.user("a conversation may go on for ever")]).last_position
    store.append("c1", originals)
    back = store.messages("c1", after=before, limit=None)
    assert same_json([message.to_openai() for message in back], originals)


def test_messages_of_the_openai_package(store: Store) -> None:
    reply = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [CALL], "unknown": [1]}
    store.append(
        "c1",
        [
            ChatCompletionUserMessageParam(role="user", content="hi"),
            ChatCompletionMessage.model_validate(reply),
            ChatCompletionMessage(role="assistant", content="x"),
        ],
    )
    assert same_json(
        [message.to_openai() for message in store.messages("c1")],
        [{"role": "user", "content": "hi"}, reply, {"role": "assistant", "content": "x"}],
    )


def test_messages_made_with_the_constructors(store: Store) -> None:
    store.append(
        "c1",
        (
            message
            for message in [
                Message.system("s", pinned=True),
                Message.user([{"type": "text", "text": "u"}, IMAGE]),
                Message.assistant(tool_calls=[CALL]),
                Message.tool("7", tool_call_id="call_1"),
                Message.assistant(),
                Message("developer", "d"),
            ]
        ),
    )
    stored = store.messages("c1")
    assert same_json(
        [message.to_openai() for message in stored],
        [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "u"}, IMAGE]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "7", "tool_call_id": "call_1"},
            {"role": "assistant", "content": None},
            {"role": "developer", "content": "d"},
        ],
    )
    assert [message.pinned for message in stored] == [True, *[False] * 5]


def test_a_returned_message_is_the_callers_to_change(store: Store) -> None:
    store.append("c1", [{"role": "user", "content": "x", "extra": {"list": [1]}}])
    (message,) = store.messages("c1")
    message.to_openai()["extra"]["list"].append(2)
    assert message.to_openai()["extra"] == {"list": [1]}


def test_paging(store: Store) -> None:
    store.append("c1", [Message.user(str(number)) for number in range(1, 131)])
    assert positions(store.messages("c1")) == list(range(1, 101))
    assert positions(store.messages("c1", limit=None)) == list(range(1, 131))
    assert positions(store.messages("c1", limit=3, newest_first=True)) == [130, 129, 128]
    assert positions(store.messages("c1", after=128)) == [129, 130]
    assert positions(store.messages("c1", before=3)) == [1, 2]
    assert positions(store.messages("c1", after=4, before=8, limit=2)) == [5, 6]
    assert positions(store.messages("c1", after=4, before=8, limit=2, newest_first=True)) == [7, 6]
    assert positions(store.messages("c1", after=130)) == []
    assert positions(store.messages("c1", before=0)) == []
    assert positions(store.messages("c1", after=7, before=3)) == []


def test_a_conversation_without_messages_has_an_empty_page(store: Store) -> None:
    store.append("c1", [Message.user("x")])
    store.truncate("c1", after=0)
    assert store.messages("c1") == []
    with pytest.raises(errors.ConversationNotFound, match="c2"):
        store.messages("c2")


def test_paging_leaves_out_what_was_deleted(store: Store) -> None:
    store.append("c1", [Message.user(str(number)) for number in range(1, 6)])
    store.delete_message("c1", 3)
    assert positions(store.messages("c1", limit=3)) == [1, 2, 4]


def test_conversations_in_the_order_of_their_ids(store: Store) -> None:
    ids = ["b", "a", "A", "é", "z", "10", "9", "漢", "a b"]
    for conversation_id in ids:
        store.append(conversation_id, [Message.user("x")], owner="ann" if conversation_id < "b" else None)
    ordered = sorted(ids)  # by code point, on both engines
    assert [found.id for found in store.conversations()] == ordered
    assert [found.id for found in store.conversations(limit=2)] == ordered[:2]
    assert [found.id for found in store.conversations(after=ordered[4], limit=None)] == ordered[5:]
    assert [found.id for found in store.conversations(owner="ann")] == [i for i in ordered if i < "b"]
    assert store.conversations(owner="nobody") == []


def test_times_are_aware_and_utc(stores: Stores) -> None:
    store = stores.open()
    if stores.dialect == "postgresql":
        name = sa.make_url(stores.url).database
        stores.sql.run(f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kathmandu'")
        store = stores.open()  # its connections are new
    began = datetime.now(UTC)
    store.append("c1", [Message.user("x")])
    conversation, (message,) = store.conversation("c1"), store.messages("c1")
    for moment in (conversation.created_at, conversation.updated_at, message.created_at):
        assert moment is not None
        assert moment.tzinfo is UTC
        assert abs(moment - began) < timedelta(minutes=2)
    if stores.dialect == "postgresql":
        stores.sql.run(f"ALTER DATABASE {name} RESET TimeZone")


def test_a_change_moves_updated_at_only(store: Store, sql: Direct) -> None:
    store.append("c1", [Message.user("x")])
    sql.age(3, table="conversations")
    old = store.conversation("c1")
    store.append("c1", [Message.user("x")])
    new = store.conversation("c1")
    assert new.created_at == old.created_at
    assert new.updated_at - old.updated_at > timedelta(days=2)
