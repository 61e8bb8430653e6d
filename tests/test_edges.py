"""The window against plain Python: made-up conversations, and every prefix of the real ones."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.support.reference import Reference, allowed_starts, dependencies, is_valid
from tests.support.stores import positions
from tokenmem import Message, Store, Window, errors
from tokenmem.edges import Before, calls_to_look_for, choose_start, step_starts, stepped_budget
from tokenmem.messages.calls import call_ids

DATA = Path(__file__).parents[2] / "shared" / "data"
LIMITS = (50, 200, 500, 1000, 2000, 4000, 8000, 16_000, 32_000)
# Every conversation and every setting, in place of a sample: TOKENMEM_TEST_ALL_DATA=1
EXHAUSTIVE = bool(os.environ.get("TOKENMEM_TEST_ALL_DATA"))


# --- pure parts

costs = st.integers(0, 30)
ids = st.sampled_from(["a", "b", "c"])  # few, so that ids come again


@st.composite
def items(draw: st.DrawFn) -> list[Message]:
    """A reply of the Responses API with calls, each an item of its own, and their outputs."""
    called = draw(st.lists(ids, min_size=1, max_size=3, unique=True))
    calls = [
        Message(
            "assistant",
            None,
            kind="tool_call",
            payload={"type": "function_call", "call_id": name},
            token_count=draw(costs),
        )
        for name in called
    ]
    results = [
        Message(
            "tool",
            "x",
            kind="tool_result",
            payload={"type": "function_call_output", "call_id": name},
            token_count=draw(costs),
        )
        for name in draw(st.permutations(called))
    ]
    return [*calls, *results]


@st.composite
def steps(draw: st.DrawFn) -> list[Message]:
    """A piece of a conversation that a provider would take."""
    kinds = ["user", "assistant", "call", "call without ids", "old call", "reasoning", "items"]
    kind = draw(st.sampled_from(kinds))
    if kind == "items":
        return draw(items())
    if kind in ("user", "assistant"):
        return [Message(kind, "x", token_count=draw(costs))]
    if kind == "reasoning":
        return [
            Message("assistant", None, kind="reasoning", payload={}, token_count=draw(costs)),
            Message("assistant", "x", token_count=draw(costs)),
        ]
    called = draw(st.lists(ids, min_size=1, max_size=3, unique=True)) if kind == "call" else [""]
    if kind == "call":
        payload: dict[str, Any] = {"role": "assistant", "tool_calls": [{"id": name} for name in called]}
    else:
        payload = {"role": "assistant", "function_call": {"name": "f"}}
    call = Message("assistant", None, kind="tool_call", payload=payload, token_count=draw(costs))
    between = draw(
        st.lists(st.builds(Message, st.just("assistant"), st.just("x"), token_count=costs), max_size=1)
    )
    results = [
        Message(
            "tool",
            "x",
            kind="tool_result",
            payload={"role": "tool"} | ({"tool_call_id": name} if name else {}),
            token_count=draw(costs),
        )
        for name in draw(st.permutations(called))
    ]
    # A message may come between a call and a result whose id names the call.
    return [call, *(between if kind == "call" else []), *results]


conversations = st.lists(steps(), max_size=12).map(lambda pieces: [m for piece in pieces for m in piece])


@given(conversations, st.data())
def test_what_is_loaded_suffices_to_know_the_allowed_starts(
    conversation: list[Message], data: st.DataObject
) -> None:
    """A window sees the newest messages, and of those before them a kind and the ids of some calls."""
    start = data.draw(st.integers(0, len(conversation)))
    earlier, newest = conversation[:start], conversation[start:]
    called = {call_id for message in earlier for call_id in call_ids(message)}
    before = Before(earlier[-1].kind if earlier else None, frozenset(calls_to_look_for(newest) & called))
    assert step_starts(newest, before) == allowed_starts(conversation, "step")[start:]


@given(conversations)
def test_an_allowed_start_cuts_no_step(conversation: list[Message]) -> None:
    allowed = step_starts(conversation)
    for start, may_start in enumerate(allowed):
        cut = any(earlier < start <= later for earlier, later in dependencies(conversation))
        assert may_start == (not cut)
        if may_start:
            assert is_valid(conversation[start:])
            assert conversation[start].kind != "tool_result"


@given(
    conversations,
    st.lists(st.integers(-5, 300), min_size=1, max_size=2),
    st.sampled_from(["message", "step", "turn"]),
    st.booleans(),
)
def test_the_longest_suffix_that_fits(
    conversation: list[Message], budgets: list[int], start_on: str, fall_back: bool
) -> None:
    def longest(boundary: str, budget: int) -> int | None:
        for start, allowed in enumerate(allowed_starts(conversation, boundary)):
            if allowed and sum(message.token_count for message in conversation[start:]) <= budget:
                return start
        return None

    boundaries = ["turn", "step"] if start_on == "turn" and fall_back else [start_on]
    found = [longest(boundary, budget) for boundary in boundaries for budget in budgets]
    expected = next((start for start in found if start is not None), None)
    assert choose_start(conversation, budgets, start_on, fall_back=fall_back) == expected


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.none() | st.integers(1, 5000))
def test_the_budget_moves_in_steps(total: int, limit: int, stride: int | None) -> None:
    budget = stepped_budget(total, limit, stride)
    assert budget <= min(total, limit)
    dropped = total - budget
    if total <= limit:
        assert dropped == 0
    elif stride:
        assert dropped % stride == 0
        assert budget > limit - stride
    else:
        assert budget == limit


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80), st.integers(40, 200), st.integers(1, 100))
def test_a_stepped_start_stays_put_while_less_than_a_stride_is_added(
    sizes: list[int], limit: int, stride: int
) -> None:
    assume(stride <= limit)
    starts: list[tuple[int, int]] = []
    for count in range(1, len(sizes) + 1):
        total, before = sum(sizes[:count]), 0
        least = total - stepped_budget(total, limit, stride)
        for index in range(count + 1):
            if before >= least:
                break
            before += sizes[index]
        starts.append((least, index))
    assert starts == sorted(starts), "a window's start never moves back"
    assert all(least % stride == 0 for least, _ in starts)


# --- the store, on real conversations


def conversations_of(file: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            yield record["id"], record["messages"]


def sample(file: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """The conversations to try: by a hash of their ids, the same in every run."""
    found = conversations_of(file)
    if EXHAUSTIVE:
        return list(found)
    chosen = sorted(found, key=lambda each: crc32(each[0].encode()))
    return list(islice((each for each in chosen if len(each[1]) <= 60), 4))


def settings_for(number: int) -> list[tuple[int, str, int | None]]:
    """Limits, starts and strides to try on a prefix; in a sample each prefix gets some of them."""
    every = [
        (limit, start_on, stride)
        for limit in LIMITS
        for start_on in ("message", "step", "turn")
        for stride in (None, limit // 8)
    ]
    return every if EXHAUSTIVE else every[number % 6 :: 6]


def answer(
    store: Store, name: str, limit: int, start_on: Any, stride: int | None
) -> Window | errors.WindowTooSmall:
    try:
        return store.window(name, limit, start_on, stride)
    except errors.WindowTooSmall as error:
        return error


def check_prefix(store: Store, name: str, stored: Sequence[Message], number: int) -> int:
    reference = Reference(stored)
    for limit, start_on, stride in settings_for(number):
        where = (name, len(stored), limit, start_on, stride)
        expected = reference.window(limit, start_on, stride)
        window = answer(store, name, limit, start_on, stride)
        if isinstance(window, errors.WindowTooSmall):
            assert expected is None, where
            assert window.token_count > limit or not is_valid(stored), where
            continue
        assert expected is not None, where
        assert positions(window.messages) == positions(expected), where
        assert window.token_count == sum(m.token_count for m in window.messages) <= limit, where
        assert (window.last_position, window.omitted) == (len(stored), len(stored) - len(expected)), where
        if start_on != "message":
            assert window.messages[0].kind != "tool_result", where
            # Valid wherever the conversation itself is.
            assert is_valid(window.messages) or not is_valid(stored), where
    return len(settings_for(number))


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "name",
    [
        "support-agent-tools",
        "assistant-chat",
        "tool-calls-en-zh",
        "multilingual-chat",
        "coding-sessions",
        "provider-recordings",
    ],
)
def test_every_prefix_of_real_conversations(ready_url: str, name: str) -> None:
    file = DATA / f"{name}.jsonl"
    if not file.exists():
        pytest.skip(f"{file} is not here: it is other people's work and no part of the project")
    windows = prefixes = 0
    with Store(ready_url) as store:
        for number, (conversation_id, messages) in enumerate(sample(file)):
            conversation = f"{conversation_id} {number}"  # one of the files has an id twice
            for message in messages:
                store.append(conversation, [message])
                stored = store.messages(conversation, limit=None)
                windows += check_prefix(store, conversation, stored, prefixes)
                prefixes += 1
            assert [each.to_openai() for each in store.messages(conversation, limit=None)] == messages
        assert store.verify() == []
    assert windows >= prefixes > 0
    print(f"{name}: {prefixes} prefixes, {windows} windows")
