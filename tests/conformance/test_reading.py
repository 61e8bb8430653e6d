"""message, messages without payload and since, read, missing="empty", fall_back, open_tool_calls."""

import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.conformance.test_concurrency import in_processes, opened
from tests.support.processes import NEW
from tests.support.stores import Direct, Stores, Unit, positions, texts
from tokenmem import Message, OpenToolCall, Store, ToolCall, Window, errors
from tokenmem.messages.message import MessageWithoutPayload
from tokenmem.operations.open_tool_calls import REACH

SAID = datetime(2021, 5, 4, 12, 0, 0, tzinfo=UTC)
BIG = {"role": "user", "content": [{"type": "text", "text": "seen"}, {"type": "image_url", "image_url": {}}]}


@pytest.fixture
def counted(stores: Stores) -> Store:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 3, 4), owner="ann", metadata={"a": 1})
    return store


def chat_calls(*ids: str) -> Message:
    function = {"name": "look", "arguments": '{"at": 1}'}
    calls = [{"id": each, "type": "function", "function": function} for each in ids]
    return Message.assistant(tool_calls=calls)


def item(call_id: str, **others: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": "{}", **others}


# --- message


def test_message(counted: Store) -> None:
    assert counted.message("c1", 2) == counted.messages("c1")[1]
    counted.delete_message("c1", 2)
    for position in (2, 5, 2**53):
        with pytest.raises(errors.MessageNotFound, match=f"position {position}.*last position is 4"):
            counted.message("c1", position)
    with pytest.raises(errors.ConversationNotFound):
        counted.message("none", 1)
    with pytest.raises(errors.InvalidArgument, match="position is 0"):
        counted.message("c1", 0)


def test_message_not_found_is_what_it_was_before(counted: Store) -> None:
    for operation in (
        lambda: counted.edit("c1", 9, texts(1)[0]),
        lambda: counted.delete_message("c1", 9),
        lambda: counted.update_message("c1", 9, metadata={}),
    ):
        with pytest.raises(errors.MessageNotFound) as caught:
            operation()
        assert isinstance(caught.value, errors.InvalidArgument)
        assert isinstance(caught.value, LookupError)
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), errors.MessageNotFound)


# --- messages(payload=False)


def test_a_list_without_payloads_does_not_pretend(store: Store) -> None:
    store.append("c1", [Message.user("plain"), BIG, chat_calls("k1"), Message.tool("r", tool_call_id="k1")])
    whole, listed = store.messages("c1"), store.messages("c1", payload=False)
    for message, other in zip(whole, listed, strict=True):
        assert other.payload is None
        assert (other.position, other.role, other.kind, other.content, other.token_count, other.pinned) == (
            *(message.position, message.role, message.kind, message.content),
            *(message.token_count, message.pinned),
        )
        assert (other.created_at, other.metadata) == (message.created_at, message.metadata)
    assert listed[0] == whole[0], "nothing is missing of it"
    assert listed[0].to_openai() == {"role": "user", "content": "plain"}
    for message in listed[1:]:
        assert isinstance(message, MessageWithoutPayload)
        with pytest.raises(errors.InvalidMessage, match=f"message {message.position} .* payload=True"):
            message.to_openai()
        with pytest.raises(errors.InvalidMessage, match="without its payload"):
            message.partial  # noqa: B018
        with pytest.raises(errors.InvalidMessage, match="without its payload"):
            store.append("c2", [message])
        assert pickle.loads(pickle.dumps(message)) == message
    assert positions(store.messages("c1", payload=False, newest_first=True, limit=2)) == [4, 3]
    with pytest.raises(errors.InvalidArgument, match="payload is a str"):
        store.messages("c1", payload="no")  # type: ignore[arg-type]


def test_a_payload_is_not_read_where_it_is_not_asked_for(stores: Stores, store: Store, sql: Direct) -> None:
    store.append("c1", [BIG])
    if stores.dialect == "sqlite":  # where a column can hold what is no JSON at all
        sql.run("UPDATE {messages} SET payload = 'no JSON'")
        with pytest.raises(errors.DatabaseError, match="payload is damaged"):
            store.messages("c1")
    assert [m.content for m in store.messages("c1", payload=False)] == ["seen"]


# --- messages(since=, limit=0)


@pytest.mark.parametrize("payload", [True, False])
def test_since_filters_the_page_by_when_it_was_said(store: Store, payload: bool) -> None:
    moments = [0, 10, -5, 5, 20]  # seconds; history comes in any order
    given = [Message("user", str(s), created_at=SAID + timedelta(seconds=s)) for s in moments]
    store.append("c1", given)
    store.append("c1", [Message.user("now"), Message("user", "to come", created_at=SAID.replace(year=2999))])

    def found(since: datetime, **others: Any) -> list[int]:
        return positions(store.messages("c1", since=since, payload=payload, **others))

    assert found(SAID) == [1, 2, 4, 5, 6, 7]
    assert found(SAID + timedelta(seconds=5)) == [2, 4, 5, 6, 7]
    assert found(SAID + timedelta(seconds=5), newest_first=True, limit=2, before=6) == [5, 4]
    assert found(SAID, after=2, limit=2) == [4, 5]
    assert found(datetime.now(UTC) + timedelta(days=1)) == [7]
    assert found(datetime.max.replace(tzinfo=UTC)) == []
    assert found(datetime.min.replace(tzinfo=UTC)) == [1, 2, 3, 4, 5, 6, 7]
    elsewhere = timezone(timedelta(hours=2))
    assert found((SAID + timedelta(seconds=10)).astimezone(elsewhere)) == [2, 5, 6, 7]


def test_since_tells_microseconds_apart(store: Store) -> None:
    steps = [0, 1, 999, 1000, 1001, 123000, 123456]
    given = [Message("user", str(s), created_at=SAID + timedelta(microseconds=s)) for s in steps]
    store.append("c1", given)
    for since in [*steps, 500, 122999, 123001, 123457]:
        found = store.messages("c1", since=SAID + timedelta(microseconds=since))
        assert [int(str(m.content)) for m in found] == [s for s in steps if s >= since], since


def test_since_is_a_time_with_a_zone(counted: Store) -> None:
    for bad, match in [
        (SAID.replace(tzinfo=None), "without a time zone"),
        ("2021-05-04", "since is a str"),
        (SAID.date(), "since is a date"),
    ]:
        with pytest.raises(errors.InvalidArgument, match=match):
            counted.messages("c1", since=bad)  # type: ignore[arg-type]
    with pytest.raises(errors.ConversationNotFound):
        counted.messages("none", since=SAID)
    assert counted.messages("c1", since=datetime.max.replace(tzinfo=UTC)) == []


def test_a_page_of_none(counted: Store) -> None:
    assert counted.messages("c1", limit=0) == []
    assert counted.messages("c1", limit=0, payload=False, since=SAID, newest_first=True) == []
    with pytest.raises(errors.ConversationNotFound):
        counted.messages("none", limit=0)


# --- read


def test_read(counted: Store) -> None:
    conversation, messages = counted.read("c1")
    assert (conversation, messages) == (counted.conversation("c1"), counted.messages("c1"))
    assert positions(counted.read("c1", limit=2)[1]) == [3, 4], "the newest, in order"
    assert counted.read("c1", limit=0) == (conversation, [])
    counted.truncate("c1", after=0)
    assert counted.read("c1") == (counted.conversation("c1"), [])
    with pytest.raises(errors.ConversationNotFound):
        counted.read("none")
    counted.append("c2", [BIG, chat_calls("k")], counter="o200k_base")
    assert counted.read("c2")[1] == counted.messages("c2")


def append_and_pop(number: int, barrier: Any, url: str, done: Any) -> int:
    with opened(url) as store:
        barrier.wait()
        if number < 2:  # reads while the others write
            reads = 0
            while not done.is_set() or reads < 20:
                conversation, messages = store.read("c1")
                assert conversation.message_count == len(messages)
                assert conversation.total_tokens == sum(m.token_count for m in messages)
                assert [m.position for m in messages] == sorted({m.position for m in messages})
                reads += 1
            return reads
        for turn in range(30):
            store.append("c1", [Message.user("a b"), Message.user("c")])
            if turn % 3 == 0:
                store.pop("c1")
        done.set()
        return 0


def test_what_read_returns_is_of_one_moment(ready_url: str) -> None:
    with opened(ready_url) as store:
        store.append("c1", [Message.user("first words")])
    done = NEW.Event()
    found = in_processes(4, append_and_pop, ready_url, done)
    assert min(found[:2]) >= 20


# --- missing="empty"


def test_a_conversation_that_is_not_there_may_be_empty(counted: Store) -> None:
    other = counted.for_owner("bob")
    for store, name in ((counted, "none"), (other, "c1"), (other, "none")):
        assert store.messages(name, missing="empty") == []
        assert store.calls(name, missing="empty") == []
        assert store.read(name, missing="empty") == (None, [])
        window = store.window(name, 100, missing="empty")
        assert window == Window((), 0, 100, 0, 0, 0)
        assert window.to_openai() == []
        for read in (store.messages, store.calls, store.read):
            with pytest.raises(errors.ConversationNotFound):
                read(name, missing="error")  # type: ignore[operator]
    assert counted.conversations(owner="ann")[0].id == "c1"
    assert len(counted.conversations()) == 1, "nothing was made"


def test_what_is_there_is_the_same_either_way(counted: Store) -> None:
    assert counted.messages("c1", missing="empty") == counted.messages("c1")
    assert counted.read("c1", missing="empty") == counted.read("c1")
    assert counted.window("c1", 7, missing="empty") == counted.window("c1", 7)
    assert counted.calls("c1", missing="empty") == []
    with pytest.raises(errors.WindowTooSmall):
        counted.window("c1", 1, missing="empty")
    anything: Any = counted
    for read in (anything.messages, anything.calls, anything.read, lambda n, **o: anything.window(n, 9, **o)):
        with pytest.raises(errors.InvalidArgument, match="missing is 'none'; use one of error, empty"):
            read("c1", missing="none")


# --- window(fall_back=False)


def test_a_window_of_whole_turns_or_none(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    answers = [Message.assistant(f"{n}") for n in (5, 5)]
    store.append("c1", [*texts(3), Message.assistant("4"), *texts(2), *answers])
    whole = store.window("c1", 12, "turn", fall_back=False)
    assert (whole.first_position, whole.token_count) == (3, 12)
    assert store.window("c1", 100, "turn", fall_back=False).first_position == 1
    assert store.window("c1", 11, "turn").first_position == 4, "falls back to a step"
    with pytest.raises(errors.WindowTooSmall, match=r"message 3, .* costs 12 tokens") as caught:
        store.window("c1", 11, "turn", fall_back=False)
    assert (caught.value.position, caught.value.token_count, caught.value.token_limit) == (3, 12, 11)
    for stride in (1, 3, 50):
        assert store.window("c1", 12, "turn", stride=stride, fall_back=False).first_position == 3
        with pytest.raises(errors.WindowTooSmall):
            store.window("c1", 11, "turn", stride=stride, fall_back=False)
    assert store.window("c1", 11, "step", fall_back=False).first_position == 4
    with pytest.raises(errors.InvalidArgument, match="fall_back is a int"):
        store.window("c1", 11, "turn", fall_back=0)  # type: ignore[arg-type]


def test_the_newest_turn_is_named_however_long_it_is(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", [*texts(1), *texts(1), *(Message.assistant("1") for _ in range(200))])
    with pytest.raises(errors.WindowTooSmall) as caught:
        store.window("c1", 5, "turn", fall_back=False)
    assert (caught.value.position, caught.value.token_count) == (2, 201)
    assert store.window("c1", 201, "turn", fall_back=False).first_position == 2


def test_without_a_turn_there_is_none(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", [Message.system("1", pinned=True), Message.assistant("1"), Message.assistant("1")])
    with pytest.raises(errors.WindowTooSmall, match="no turn begins in it"):
        store.window("c1", 100, "turn", fall_back=False)
    store.truncate("c1", after=1)
    assert store.window("c1", 100, "turn", fall_back=False).token_count == 1


# --- open_tool_calls


def test_open_tool_calls_of_both_apis(store: Store) -> None:
    store.append("c1", [Message.user("?"), chat_calls("a", "b"), Message.tool("r", tool_call_id="a")])
    (call,) = store.open_tool_calls("c1")
    assert call == OpenToolCall("b", "look", '{"at": 1}', position=2)
    assert isinstance(call, ToolCall)
    store.append("c1", [Message.tool("r", tool_call_id="b")])
    assert store.open_tool_calls("c1") == []
    store.append(
        "c1", [item("x"), item("y"), {"type": "function_call_output", "call_id": "y", "output": "r"}]
    )
    assert store.open_tool_calls("c1") == [OpenToolCall("x", "look", "{}", position=5)]
    custom = {"type": "custom_tool_call", "call_id": "z", "name": "run", "input": "print(1)"}
    store.append("c1", [custom])
    assert store.open_tool_calls("c1")[1] == OpenToolCall("z", "run", "print(1)", custom=True, position=8)


def test_an_id_may_come_again(store: Store) -> None:
    """The result of a call is the first one behind it, before its id is called again."""
    store.append("c1", [chat_calls("1"), Message.tool("r", tool_call_id="1"), chat_calls("1")])
    assert [(call.id, call.position) for call in store.open_tool_calls("c1")] == [("1", 3)]
    store.append("c1", [chat_calls("1"), Message.tool("r", tool_call_id="1")])
    assert [(call.id, call.position) for call in store.open_tool_calls("c1")] == [("1", 3)]
    store.append("c2", [chat_calls("1", "1"), Message.tool("r", tool_call_id="1")])
    assert [(call.id, call.position) for call in store.open_tool_calls("c2")] == [("1", 1)]


def test_calls_of_other_shapes(store: Store) -> None:
    old = {"role": "assistant", "content": None, "function_call": {"name": "old", "arguments": "{}"}}
    part = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 2}}
    store.append("c1", [old, {"role": "assistant", "content": [part]}])
    assert store.open_tool_calls("c1") == [
        OpenToolCall("", "old", "{}", position=1),
        OpenToolCall("t1", "look", '{"at":2}', position=2),
    ]
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "r"}
    store.append(
        "c1", [{"role": "function", "name": "old", "content": "r"}, {"role": "user", "content": [result]}]
    )
    assert store.open_tool_calls("c1") == []


def test_it_agrees_with_the_view(store: Store, sql: Direct) -> None:
    store.append(
        "c1", [chat_calls("a", "b"), item("x"), Message.tool("r", tool_call_id="b"), chat_calls("a")]
    )
    view = "tool_calls" if sql.engine.dialect.name == "sqlite" else "tokenmem.tool_calls"
    rows = sql.rows(f"SELECT position, call_id FROM {view} WHERE unanswered ORDER BY position, number")
    assert [(call.position, call.id) for call in store.open_tool_calls("c1")] == rows


def test_open_tool_calls_look_at_the_newest_messages_alone(stores: Stores) -> None:
    store = stores.open(counter="o200k_base")
    store.append("c1", [chat_calls("a"), *(Message.user("x") for _ in range(REACH - 1))])
    assert [call.id for call in store.open_tool_calls("c1")] == ["a"]
    store.append("c1", [Message.user("x")])
    assert store.open_tool_calls("c1") == []
    store.delete_message("c1", 5)
    assert [call.id for call in store.open_tool_calls("c1")] == ["a"], "messages count, not positions"
    with pytest.raises(errors.ConversationNotFound):
        store.open_tool_calls("none")
