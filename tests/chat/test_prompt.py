"""From any window to a prompt that the provider takes: by both APIs, from any history.

Not mended is what has no valid form: ids, names and keys that the provider refuses in themselves, parts that
no role may send, and a history of which nothing is left.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.prompt_histories import (
    APIS,
    CHAT,
    Dicts,
    histories,
    prepared,
    problems,
    sent,
    stored,
    valid_histories,
)
from tokenmem.chat.prompt import NO_RESULT, calls_beside, unanswered
from tokenmem.errors import InvalidMessage
from tokenmem.messages.calls import answered_ids, call_ids
from tokenmem.messages.conversions import has_chat_form, has_item_form
from tokenmem.messages.items import without_repeated_items
from tokenmem.messages.message import Message

BOTH = pytest.mark.parametrize("api", APIS, ids=["chat", "responses"])


# ---- properties -----------------------------------------------------------------------------------------


@BOTH
@settings(max_examples=120, deadline=None)
@given(history=histories)
def test_any_history_becomes_a_prompt_that_the_provider_accepts(api: Any, history: list[Any]) -> None:
    prompt = sent(api, history)
    assert not prompt or problems(api, prompt) == []


@BOTH
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_valid_history_is_sent_as_it_is(api: Any, data: st.DataObject) -> None:
    history = data.draw(valid_histories(api))
    assert problems(api, history) == []
    assert sent(api, history) == history
    assert prepared(api, stored(history)) == stored(history)


@BOTH
@settings(max_examples=60, deadline=None)
@given(history=histories)
def test_what_is_prepared_once_stays_as_it_is(api: Any, history: list[Any]) -> None:
    messages = prepared(api, stored(history))
    assert prepared(api, messages) == messages
    if prompt := sent(api, history):
        assert sent(api, prompt) == prompt


@BOTH
@settings(max_examples=60, deadline=None)
@given(history=histories)
def test_nothing_that_was_said_to_the_model_is_lost(api: Any, history: list[Any]) -> None:
    told = [m for m in stored(history) if m.role in ("user", "system", "developer")]
    assert [m for m in prepared(api, stored(history)) if m.role in ("user", "system", "developer")] == told
    roles = [
        each["role"] for each in sent(api, history) if each.get("role") in ("user", "system", "developer")
    ]
    assert roles == [message.role for message in told]


def answered(messages: Sequence[Message]) -> set[int]:
    """The positions of results that have a call before them: the newest with the id, and the first result."""
    waiting: dict[str, int] = defaultdict(int)
    found = set()
    for message in messages:
        if message.kind == "tool_result":
            for call_id in answered_ids(message):
                if waiting[call_id] > 0:
                    waiting[call_id] -= 1
                    found.add(message.position)
        else:
            ids = call_ids(message)
            waiting |= {call_id: ids.count(call_id) for call_id in ids}
    return found


@BOTH
@settings(max_examples=80, deadline=None)
@given(history=histories)
def test_every_result_with_a_call_is_there_once_and_the_rest_in_order(api: Any, history: list[Any]) -> None:
    has_form = has_chat_form if api is CHAT else has_item_form
    there = [message for message in stored(history) if has_form(message)]
    expected = answered(there if api is CHAT else without_repeated_items(there))
    messages = prepared(api, stored(history))
    results = [m.position for m in messages if m.kind == "tool_result" and m.position and answered_ids(m)]
    assert sorted(results) == sorted(expected)
    rest = [message.position for message in messages if message.kind != "tool_result"]
    assert rest == sorted(set(rest))
    assert all(position for position in rest)  # only results are made up


@BOTH
@settings(max_examples=80, deadline=None)
@given(history=histories, data=st.data())
def test_what_was_sent_is_sent_again_up_to_the_first_open_call(
    api: Any, history: list[Any], data: st.DataObject
) -> None:
    """The provider's prompt cache works by prefix: what is added changes nothing before an open call."""
    earlier = history[: data.draw(st.integers(0, len(history)))]
    before = [repr(message) for message in prepared(api, stored(earlier))]
    after = [repr(message) for message in prepared(api, stored(history))]
    open_at = next((n for n, text in enumerate(before) if NO_RESULT in text), len(before))
    # A call that no text can answer is not sent while it is open, with the reasoning that led to it.
    if any(kind in str(earlier) for kind in ("computer_call", "tool_search_call")):
        return
    assert after[:open_at] == before[:open_at]
    was, now = sent(api, earlier), sent(api, history)
    open_at = next((n for n, each in enumerate(was) if NO_RESULT in str(each)), len(was))
    # Items of one reply become one message of Chat Completions, so that its last may still grow.
    settled = max(open_at - 1, 0) if api is CHAT else open_at
    assert now[:settled] == was[:settled]


odd_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.sampled_from(["", "a", "text", "output_text", "message"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "text", "id", "url", "function", "name"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)
odd_keys = (
    *(
        "content",
        "tool_calls",
        "function_call",
        "tool_call_id",
        "call_id",
        "output",
        "arguments",
        "name",
        "id",
    ),
    *("refusal", "audio", "summary", "encrypted_content", "custom", "action", "phase", "status"),
)
odd_messages = st.builds(
    lambda head, rest: {**rest, **head},
    st.one_of(
        st.builds(
            lambda role: {"role": role},
            st.sampled_from(["user", "assistant", "tool", "function", "system", "developer"]),
        ),
        st.builds(
            lambda kind, call_id: {"type": kind, "call_id": call_id},
            st.sampled_from(
                ["function_call", "function_call_output", "reasoning", "x_call", "x_call_output"]
            ),
            st.sampled_from(["a", "", None]),
        ),
        st.builds(lambda kind: {"role": "assistant", "type": kind}, odd_values),
    ),
    st.dictionaries(st.sampled_from(odd_keys), odd_values, max_size=5),
)


@BOTH
@settings(max_examples=100, deadline=None)
@given(history=st.lists(odd_messages, max_size=5))
def test_no_payload_is_too_odd(api: Any, history: Dicts) -> None:
    messages = []
    for message in history:
        try:
            messages += stored([message])
        except InvalidMessage:
            continue
    json.dumps(api.render(prepared(api, messages)), allow_nan=False)
    unanswered(messages)
    calls_beside(messages, unanswered(messages))
