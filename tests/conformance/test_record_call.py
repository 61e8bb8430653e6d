"""record_call: for those who ask the model themselves."""

import threading
from typing import Any

import pytest

from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import Chat, LLMCall, Message, Store, errors


@pytest.fixture
def counted(stores: Stores) -> Store:
    """A store whose conversation c1 holds messages that cost 1, 2, 3 and 4, the first pinned."""
    store = stores.open(counter=Unit())
    store.append("c1", [Message.system("1", pinned=True), *texts(2, 3, 4)], owner="ann")
    return store


FULL: dict[str, Any] = {
    "model": "claude",
    "first_position": 3,
    "last_position": 4,
    "window_tokens": 17,
    "input_tokens": 20,
    "cached_tokens": 5,
    "cache_write_tokens": 6,
    "output_tokens": 7,
    "reasoning_tokens": 2,
    "reply_position": 4,
    "reply_messages": 1,
    "latency_ms": 900,
    "first_token_ms": 80,
    "finish_reason": "end_turn",
    "status": "ok",
    "error": None,
    "request_id": "req_1",
    "api": "messages",
    "token_limit": 2**53,
    "options": {"temperature": 0.5},
    "metadata": {"trace": "ä", "deep": [{"a": None}]},
    "pinned": (1,),
    "changes": [{"position": 3, "change": "cut"}],
}


def test_all_of_it_is_on_record(counted: Store, sql: Direct) -> None:
    call = counted.record_call("c1", **FULL, instructions="Be kind.", tools=[{"name": "look"}])
    assert {name: getattr(call, name) for name in FULL} == FULL
    assert (call.conversation_id, call.number, call.running) == ("c1", 1, False)
    assert call.revision == sql.value("SELECT revision FROM {conversations} WHERE id = 'c1'")
    assert counted.calls("c1") == [call]
    assert sql.rows("SELECT instructions, tools FROM {call_prompts}") in (
        [("Be kind.", '[{"name":"look"}]')],
        [("Be kind.", [{"name": "look"}])],
    )
    assert counted.verify() == []


def test_little_is_enough(counted: Store) -> None:
    call = counted.record_call("c1", model="m")
    told = {name: getattr(call, name) for name in FULL if name not in ("model", "status")}
    assert (call.model, call.status) == ("m", "ok")
    assert set(told.values()) == {None}
    assert counted.record_call("c1", model="m", status="error", error="timeout").number == 2
    refused = counted.record_call("c1", model="m", status="refused", error="BadRequestError 400")
    assert (refused.number, refused.status, counted.calls("c1")[-1]) == (3, "refused", refused)


def test_a_window_says_what_to_pass(counted: Store) -> None:
    """Pinned messages among the window's positions are its own; 0 stands for no window."""
    for limit in (5, 8, 100):
        window = counted.window("c1", limit)
        call = counted.record_call(
            "c1",
            model="m",
            first_position=window.first_position,
            last_position=window.last_position,
            pinned=[each.position for each in window.messages if each.pinned],
        )
        assert call.window_tokens == window.token_count
    counted.edit("c1", 3, texts(3)[0], pinned=True)
    call = counted.record_call("c1", model="m", first_position=2, last_position=4, pinned=[3, 1])
    assert (call.pinned, call.window_tokens) == ((1,), 10)
    call = counted.record_call("c1", model="m", first_position=0, last_position=0, pinned=[3, 1])
    assert (call.first_position, call.last_position, call.pinned) == (None, None, (1, 3))


def test_the_window_is_counted_by_the_running_totals(counted: Store) -> None:
    counted.delete_message("c1", 3)
    counted.edit("c1", 2, texts(20)[0])
    window = {"first_position": 2, "last_position": 4}
    assert counted.record_call("c1", model="m", **window).window_tokens == 24
    assert counted.record_call("c1", model="m", **window, pinned=[1]).window_tokens == 25
    assert counted.record_call("c1", model="m", **window, window_tokens=3).window_tokens == 3
    assert counted.record_call("c1", model="m", first_position=3, last_position=3).window_tokens is None
    assert counted.record_call("c1", model="m", pinned=[1]).window_tokens == 1
    counted.edit("c1", 2, Message.user(f"{2**31 - 1}"))
    assert counted.record_call("c1", model="m", **window).window_tokens is None, "no column holds it"


def test_it_is_a_change_of_the_conversation_but_not_of_what_a_turn_reads(counted: Store, sql: Direct) -> None:
    before = counted.conversation("c1")
    revision = sql.value("SELECT revision FROM {conversations} WHERE id = 'c1'")
    sql.age(1, "id = 'c1'", "conversations")
    counted.record_call("c1", model="m")
    after = counted.conversation("c1")
    assert after.updated_at >= before.updated_at
    assert sql.value("SELECT revision FROM {conversations} WHERE id = 'c1'") == revision
    assert sql.value("SELECT last_call FROM {conversations} WHERE id = 'c1'") == 1


def test_what_it_sent_stays_on_record_when_messages_are_edited(counted: Store, stores: Stores) -> None:
    counted.record_call("c1", model="m", first_position=2, last_position=3, pinned=[1])
    counted.record_call("c1", model="m", first_position=2, last_position=2)
    for position in (1, 2, 3):
        counted.edit("c1", position, texts(50 + position)[0], pinned=False)
    counted.record_call("c1", model="m", first_position=2, last_position=2, pinned=[])
    prefix = "tokenmem." if stores.dialect == "postgresql" else ""
    found = stores.sql.rows(f"SELECT number, content FROM {prefix}call_windows ORDER BY number, position")
    assert found == [(1, "1"), (1, "2 tokens"), (1, "3 tokens"), (2, "2 tokens"), (3, "52 tokens")]


@pytest.mark.parametrize("whose", ["none", "c1"])
def test_there_must_be_such_a_conversation(counted: Store, sql: Direct, whose: str) -> None:
    store = counted.for_owner("bob")
    with pytest.raises(errors.ConversationNotFound, match=whose):
        store.record_call(whose, model="m", first_position=1, last_position=99)
    assert sql.counts()["llm_calls"] == 0
    assert counted.for_owner("ann").record_call("c1", model="m").number == 1


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model has 0 characters"),
    ({"model": None}, "model is a NoneType"),
    ({"first_position": 2}, "pass first_position and last_position"),
    ({"last_position": 2}, "pass first_position and last_position"),
    ({"first_position": 3, "last_position": 2}, "last_position is 2; pass 3"),
    ({"first_position": -1, "last_position": 2}, "first_position is -1"),
    ({"first_position": 0, "last_position": 2}, "pass first_position and last_position"),
    ({"first_position": 2, "last_position": 5}, "no position 5; its last position is 4"),
    ({"reply_position": 5}, "no position 5; its last position is 4"),
    ({"reply_position": 4, "reply_messages": 2}, "no position 5; its last position is 4"),
    ({"reply_messages": 2}, "pass reply_position too"),
    ({"reply_position": 4, "reply_messages": 0}, "reply_messages is 0"),
    ({"pinned": [9]}, "no position 9"),
    ({"pinned": 3}, "pinned is a int"),
    ({"pinned": [True]}, "a position of pinned is True"),
    ({"status": "running"}, "status is 'running'; use one of ok, error, refused, cancelled"),
    ({"input_tokens": -1}, "input_tokens is -1"),
    ({"output_tokens": 2**31}, "output_tokens is 2147483648"),
    ({"latency_ms": 1.5}, "latency_ms is 1.5"),
    ({"cached_tokens": True}, "cached_tokens is True"),
    ({"token_limit": -1}, "token_limit is -1"),
    ({"options": [1]}, "options is a list"),
    ({"metadata": [1]}, "metadata is a list"),
    ({"metadata": {"a": float("nan")}}, "metadata.a is nan"),
    ({"error": "\0"}, "error has a NUL"),
    ({"error": 4}, "error is a int"),
    ({"request_id": "x" * 256}, "request_id has 256 characters"),
    ({"changes": [{"position": 1}]}, r"changes\[0\] is no change"),
    ({"changes": [{"position": 1, "change": "cut", "text": "said"}]}, r"changes\[0\] is no change"),
    ({"instructions": "\ud800"}, "instructions has half of a surrogate pair"),
    ({"tools": [3]}, r"tools\[0\] is a int"),
    ({"tools": "x"}, "tools is a str"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(sorted(wrong)) for wrong, _ in WRONG])
def test_wrong_arguments_write_nothing(
    counted: Store, sql: Direct, wrong: dict[str, Any], message: str
) -> None:
    before = sql.rows("SELECT last_call, updated_at FROM {conversations}"), sql.counts()
    with pytest.raises(errors.InvalidArgument, match=message):
        counted.record_call("c1", **({"model": "m"} | wrong))
    assert (sql.rows("SELECT last_call, updated_at FROM {conversations}"), sql.counts()) == before


def test_free_text_among_options_is_not_kept(counted: Store) -> None:
    options = {"temperature": 1, "stop": "said", "user": 7, "reasoning_effort": "high", "x y": 1}
    assert counted.record_call("c1", model="m", options=options).options == {
        "temperature": 1,
        "reasoning_effort": "high",
    }
    assert counted.record_call("c1", model="m", options={"stop": "said"}).options is None
    long = "what was said, in a place where a name belongs"
    assert counted.record_call("c1", model="m", options={"reasoning_effort": long}).options is None


def test_it_joins_the_callers_transaction(stores: Stores, counted: Store) -> None:
    with stores.transaction(counted) as bound:
        assert bound.store.record_call("c1", model="m").number == 1
        bound.rollback()
    assert counted.calls("c1") == []
    with stores.transaction(counted) as bound:
        with pytest.raises(errors.InvalidArgument):
            bound.store.record_call("c1", model="m", reply_position=9)
        bound.store.record_call("c1", model="m")
        bound.commit()
    assert [call.number for call in counted.calls("c1")] == [1]
    assert counted.verify() == []


def test_calls_at_once_have_numbers_of_their_own_beside_turns(stores: Stores, store: Store) -> None:
    store.append("c2", texts(1, 2, 3, 4))
    failures: list[BaseException] = []

    def work(name: int) -> None:
        try:
            with Store(stores.url) as own:
                chat = Chat(own, lambda _: "7 x", "m", 100_000)
                for number in range(10):
                    if name % 2:
                        own.record_call("c2", model=f"m{name}", first_position=1, last_position=4)
                    else:
                        chat.send("c2", f"{number} x")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    calls: list[LLMCall] = store.calls("c2", limit=None)
    assert [call.number for call in calls] == list(range(1, 41))
    assert {call.status for call in calls} == {"ok"}
    assert store.verify() == []
