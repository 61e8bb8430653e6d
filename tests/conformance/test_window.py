"""Windows from the database: which messages, in which order, and what is said about them."""

import copy
import pickle
import random
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest

from tests.support.reference import Reference
from tests.support.stores import Direct, One, Stores, Unit, positions, texts
from tokenmem import Message, Store, errors

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


def call(cost: int) -> Message:
    return Message.assistant(f"{cost}", tool_calls=[CALL])


def result(cost: int) -> Message:
    return Message.tool(f"{cost}", tool_call_id="call_1")


def say(cost: int) -> Message:
    return Message.assistant(f"{cost}")


@pytest.fixture
def counted(stores: Stores) -> Store:
    return stores.open(counter=Unit())


def test_the_newest_that_fit(counted: Store) -> None:
    counted.append("c1", texts(1, 2, 3, 4))
    window = counted.window("c1", 8)
    assert positions(window.messages) == [3, 4]
    assert (window.token_count, window.token_limit, window.omitted) == (7, 8, 2)
    assert (window.first_position, window.last_position) == (3, 4)
    assert window.to_openai() == [{"role": "user", "content": f"{n} tokens"} for n in (3, 4)]
    assert window.messages == tuple(counted.messages("c1", after=2))


def test_exactly_at_the_limit_is_kept(counted: Store) -> None:
    counted.append("c1", texts(1, 2, 3, 4))
    assert [positions(counted.window("c1", limit).messages) for limit in (6, 7, 8, 9, 10, 2**53)] == [
        [4],
        [3, 4],
        [3, 4],
        [2, 3, 4],
        [1, 2, 3, 4],
        [1, 2, 3, 4],
    ]


MIXED: list[dict[str, Any]] = [
    {"role": "system", "content": "1 rule"},
    {"role": "user", "content": "2 naïve\u2028lines", "name": "ann"},
    {"role": "user", "content": [{"type": "text", "text": "3 parts"}]},
    {"role": "assistant", "content": None},
    {"role": "assistant"},
    {"role": "assistant", "content": ""},
]


@pytest.mark.parametrize("tools", [False, True])
@pytest.mark.parametrize("pinned", [False, True])
def test_a_window_is_the_same_however_it_is_looked_at(stores: Stores, tools: bool, pinned: bool) -> None:
    sent = MIXED + ([call(1).to_openai(), result(1).to_openai()] if tools else [])
    store = stores.open(counter=One())
    store.append("c1", sent)
    if pinned:
        store.edit("c1", 1, sent[0], pinned=True)
    for limit in (len(sent), len(sent) - 1):
        expected = sent if limit == len(sent) else [*sent[:pinned], *sent[1 + pinned :]]
        first, second = store.window("c1", limit), store.window("c1", limit)
        assert first.to_openai() == expected == [message.to_openai() for message in first.messages]
        assert first.to_openai() == expected, "after a look at the messages"
        second.to_openai()[1]["role"] = "changed"
        assert second.to_openai() == expected
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(second, protocol)) == first == second
        assert repr(second) == repr(first)
        assert replace(second, omitted=7).messages == first.messages
        assert copy.deepcopy(second) == first
        with pytest.raises(AttributeError, match="message_log"):
            _ = second.message_log  # type: ignore[attr-defined]
        with pytest.raises(FrozenInstanceError):
            second.messages = ()  # type: ignore[misc]


def test_messages_that_cost_nothing(counted: Store) -> None:
    counted.append("c1", texts(0, 5, 0, 0))
    assert positions(counted.window("c1", 0).messages) == [3, 4]
    assert positions(counted.window("c1", 5).messages) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("start_on", "starts"),
    # The conversation costs 1+2+3+4+5+6 = 21; for each limit, where its window starts.
    [
        ("message", {21: 1, 20: 2, 19: 3, 18: 3, 15: 4, 11: 5, 6: 6}),
        ("step", {21: 1, 20: 2, 19: 5, 18: 5, 15: 5, 11: 5, 6: 6}),
        ("turn", {21: 1, 20: 5, 19: 5, 18: 5, 15: 5, 11: 5, 6: 6}),
    ],
)
def test_where_a_window_may_start(counted: Store, start_on: str, starts: dict[int, int]) -> None:
    counted.append("c1", [*texts(1), call(2), result(3), result(4), *texts(5), say(6)])
    found = {limit: counted.window("c1", limit, start_on).first_position for limit in starts}  # type: ignore[arg-type]
    assert found == starts


def test_a_call_id_that_comes_twice_means_the_newest_call(counted: Store) -> None:
    counted.append("c1", [*texts(1), call(1), result(1), *texts(1), call(1), result(1), *texts(1)])
    starts = [counted.window("c1", limit).first_position for limit in range(1, 8)]
    assert starts == [7, 7, 5, 4, 4, 2, 1]


def test_stride_moves_the_start_in_steps(counted: Store) -> None:
    starts = []
    for _ in range(40):
        counted.append("c1", texts(10))
        starts.append(counted.window("c1", 100, stride=50).first_position)
    assert starts == [1] * 10 + [6] * 5 + [11] * 5 + [16] * 5 + [21] * 5 + [26] * 5 + [31] * 5


def test_a_stride_that_leaves_nothing_gives_way(counted: Store) -> None:
    counted.append("c1", texts(60, 50))
    assert positions(counted.window("c1", 100, stride=1000).messages) == [2]


@pytest.mark.parametrize("start_on", ["message", "step", "turn"])
def test_too_small(counted: Store, start_on: str) -> None:
    counted.append("c1", texts(1, 30))
    with pytest.raises(
        errors.WindowTooSmall, match=r"'c1': message 2.* 30 tokens and the limit is 29"
    ) as caught:
        counted.window("c1", 29, start_on)  # type: ignore[arg-type]
    error = caught.value
    assert (error.conversation_id, error.position, error.token_count, error.token_limit) == ("c1", 2, 30, 29)


def test_too_small_for_a_step(counted: Store) -> None:
    counted.append("c1", [*texts(1), call(20), result(30)])
    assert positions(counted.window("c1", 30, "message").messages) == [3]
    with pytest.raises(errors.WindowTooSmall) as caught:
        counted.window("c1", 49)
    assert (caught.value.position, caught.value.token_count) == (2, 50)
    assert positions(counted.window("c1", 50).messages) == [2, 3]


@pytest.mark.parametrize("start_on", ["step", "turn"])
@pytest.mark.parametrize("limit", [2, 9, 30, 61, 71])
def test_the_limit_that_an_error_names_is_enough(counted: Store, start_on: str, limit: int) -> None:
    counted.append("c1", [*texts(100, 2), call(10), *(result(20) for _ in range(3))])
    counted.edit("c1", 2, Message.user("2"), pinned=True)
    with pytest.raises(errors.WindowTooSmall, match="message 3") as caught:
        counted.window("c1", limit, start_on=start_on)  # type: ignore[arg-type]
    assert caught.value.token_count == 72
    window = counted.window("c1", caught.value.token_count, start_on=start_on)  # type: ignore[arg-type]
    assert positions(window.messages) == [2, 3, 4, 5, 6]


def test_results_whose_call_is_not_stored_are_no_window_at_any_limit(counted: Store) -> None:
    counted.append("c1", [result(20), result(3)])
    with pytest.raises(errors.WindowTooSmall, match="from message 1 on there are only tool results"):
        counted.window("c1", 1000)


def test_too_small_for_the_pinned(counted: Store) -> None:
    counted.append("c1", [Message.system("20", pinned=True), *texts(1), Message.user("5", pinned=True)])
    with pytest.raises(errors.WindowTooSmall) as caught:
        counted.window("c1", 24)
    assert (caught.value.position, caught.value.token_count) == (3, 25)
    with pytest.raises(errors.WindowTooSmall) as caught:
        counted.window("c1", 25)
    assert caught.value.token_limit == 25
    assert positions(counted.window("c1", 26).messages) == [1, 3, 2]


def test_pinned_messages_come_first_and_are_paid_for(counted: Store) -> None:
    counted.append("c1", [Message.system("10", pinned=True), *texts(5, 5)])
    counted.append("c1", [Message.user("7", pinned=True), *texts(5, 5, 5)])
    window = counted.window("c1", 30)
    assert positions(window.messages) == [1, 4, 6, 7]
    assert (window.token_count, window.omitted) == (27, 3)
    assert (window.first_position, window.last_position) == (6, 7)
    assert positions(counted.window("c1", 2**53).messages) == [1, 4, 2, 3, 5, 6, 7]
    counted.edit("c1", 4, Message.user("7"), pinned=False)
    assert positions(counted.window("c1", 30).messages) == [1, 5, 6, 7]


def test_only_pinned_messages(counted: Store) -> None:
    counted.append("c1", [Message.system("10", pinned=True)])
    window = counted.window("c1", 10)
    assert positions(window.messages) == [1]
    assert (window.first_position, window.last_position, window.omitted) == (0, 0, 0)
    with pytest.raises(errors.WindowTooSmall):
        counted.window("c1", 9)


def test_a_conversation_without_messages_has_an_empty_window(counted: Store) -> None:
    counted.append("c1", texts(5))
    counted.truncate("c1", after=0)
    window = counted.window("c1", 0)
    assert (window.messages, window.token_count, window.omitted) == ((), 0, 0)


def test_after_a_purge_the_limit_still_counts_what_is_left(counted: Store, sql: Direct) -> None:
    counted.append("c1", texts(*[10] * 10))
    sql.age(3, where="position <= 6")
    counted.purge(older_than=timedelta(days=1))
    assert positions(counted.window("c1", 100).messages) == [7, 8, 9, 10]
    assert positions(counted.window("c1", 40).messages) == [7, 8, 9, 10]
    window = counted.window("c1", 39)
    assert positions(window.messages) == [8, 9, 10]
    assert window.omitted == 1


def test_no_window_starts_right_behind_reasoning(counted: Store, sql: Direct) -> None:
    counted.append("c1", [*texts(1), say(20), say(3), *texts(4)])
    sql.run("UPDATE {messages} SET kind = 'reasoning' WHERE position = 2")
    assert [counted.window("c1", limit).first_position for limit in (28, 27, 26, 4)] == [1, 2, 4, 4]


@pytest.mark.parametrize("seed", range(6))
def test_any_history_of_a_conversation(stores: Stores, seed: int) -> None:
    """Random appends, edits, pins, deletions, truncations, forks and purges, against plain Python."""
    chance = random.Random(seed)
    store, sql = stores.open(counter=Unit()), stores.sql
    name = "c1"
    store.append(name, texts(3))
    for turn in range(40):
        stored = store.messages(name, limit=None)
        at = chance.choice(stored).position if stored else 0
        match chance.randrange(12):
            case 0 if at:
                pinned = chance.choice([True, False])
                store.edit(name, at, Message.user(f"{chance.randrange(9)}"), pinned=pinned)
            case 1 if at:
                store.delete_message(name, at)
            case 2:
                store.truncate(name, after=max(at, len(stored) - 2))
            case 3:
                store.fork(name, f"{name}+", at=store.conversation(name).last_position)
                name += "+"
            case 4 if at:
                sql.age(3, where=f"position < {at // 3} AND conversation_id = '{name}'")
                store.purge(older_than=timedelta(days=1))
            case 5 | 6 | 7:
                results = [result(chance.randrange(9)) for _ in range(chance.randrange(1, 3))]
                store.append(name, [call(chance.randrange(9)), *results])
            case _:
                pin = chance.random() < 0.1
                store.append(
                    name, [Message.user(f"{chance.randrange(9)}", pinned=pin), say(chance.randrange(9))]
                )
        if turn % 3 == 0:
            check_windows(store, sql, name)
    check_windows(store, sql, name)
    assert store.verify() == []


def check_windows(store: Store, sql: Direct, name: str) -> None:
    stored = store.messages(name, limit=None)
    conversation = store.conversation(name)
    assert conversation.message_count == len(stored)
    purged = conversation.total_tokens - sum(message.token_count for message in stored)
    reference = Reference(stored, purged)
    for limit in (0, 4, 11, 25, 60, 1000):
        for start_on, stride in (
            ("message", None),
            ("step", None),
            ("turn", None),
            ("step", 7),
            ("turn", 20),
        ):
            expected = reference.window(limit, start_on, stride)
            try:
                window = store.window(name, limit, start_on, stride)  # type: ignore[arg-type]
            except errors.WindowTooSmall:
                assert expected is None, (limit, start_on, stride)
                continue
            assert expected is not None, (limit, start_on, stride)
            assert positions(window.messages) == positions(expected), (limit, start_on, stride)
            assert window.token_count == sum(m.token_count for m in expected) <= limit
            assert window.omitted == len(stored) - len(expected)


def test_results_that_come_late_and_out_of_order(counted: Store) -> None:
    """Two calls in messages of their own, answered in the other order: all four are one step."""
    first = {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    second = first | {"id": "call_b"}
    counted.append(
        "c1",
        [
            *texts(5),
            Message.assistant("18", tool_calls=[first]),
            Message.assistant("18", tool_calls=[second]),
            Message.tool("5", tool_call_id="call_b"),
            Message.tool("5", tool_call_id="call_a"),
            *texts(5),
        ],
    )
    found = [counted.window("c1", limit).first_position for limit in (5, 33, 50, 51, 56)]
    assert found == [6, 6, 6, 2, 1]


def test_anthropic_s_blocks_are_steps_too(counted: Store) -> None:
    def block(role: str, **part: str) -> dict[str, Any]:
        return {"role": role, "content": [part, {"type": "text", "text": "10"}]}

    counted.append(
        "c1",
        [
            *texts(5),
            block("assistant", type="tool_use", id="t1"),
            block("assistant", type="tool_use", id="t2"),
            block("user", type="tool_result", tool_use_id="t2"),
            block("user", type="tool_result", tool_use_id="t1"),
            *texts(5),
        ],
    )
    assert [counted.window("c1", limit).first_position for limit in (5, 35, 44, 45)] == [6, 6, 6, 2]
    assert counted.window("c1", 36, start_on="turn").first_position == 6
