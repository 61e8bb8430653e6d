"""Token counters: never below the bill, and known by name."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tokenmem.counting import message_costs
from tokenmem.counting.counters import (
    DEFAULT_COUNTER,
    TiktokenCounter,
    TokenCounter,
    TranscriptCounter,
    counter_named,
)
from tokenmem.errors import InvalidArgument, UnknownTokenCounter
from tokenmem.messages.message import Message

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "provider-recordings.jsonl"
O200K = TiktokenCounter("o200k_base")
REPLY_OPENING = 3  # tokens that end every prompt, whatever is in it

ODD_KEYS = [
    *("role", "content", "name", "tool_calls", "function_call", "function", "custom", "arguments", "type"),
    *("text", "image_url", "url", "detail", "input_audio", "data", "file", "file_data", "refusal"),
]


class TestChatMessages:
    def test_a_message_costs_openai_s_published_recipe(self) -> None:
        # The cookbook's example prompt: six messages, 129 tokens for gpt-4 and 124 for gpt-4o.
        example = [
            (
                "system",
                None,
                "You are a helpful, pattern-following assistant that translates corporate jargon "
                "into plain English.",
            ),
            ("system", "example_user", "New synergies will help drive top-line growth."),
            ("system", "example_assistant", "Things working well together will increase revenue."),
            (
                "system",
                "example_user",
                "Let's circle back when we have more bandwidth to touch base on "
                "opportunities for increased leverage.",
            ),
            ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
            (
                "user",
                None,
                "This late pivot means we don't have time to boil the ocean for the client deliverable.",
            ),
        ]
        prompt = [
            Message(role, content, payload={"role": role, "name": name} if name else None)
            for role, name, content in example
        ]
        costs = [sum(map(TiktokenCounter(model).count, prompt)) for model in ("gpt-4", "gpt-4o")]
        assert [cost + REPLY_OPENING for cost in costs] == [129, 124]

    def test_null_and_empty_content_cost_the_frame_only(self) -> None:
        assert O200K.count(Message.user("")) == O200K.count(Message.assistant(None)) == 4

    def test_keys_that_refer_or_describe_are_free(self) -> None:
        plain = Message.assistant("hi")
        payload: dict[str, Any] = {
            "role": "assistant",
            "refusal": None,
            "audio": None,
            "annotations": [],
            "id": "x" * 99,
        }
        assert O200K.count(Message("assistant", "hi", payload=payload)) == O200K.count(plain)
        result = Message.tool("hi", tool_call_id="call_" + "x" * 99)
        assert O200K.count(result) == O200K.count(Message("tool", "hi"))

    @pytest.mark.parametrize("key", ["refusal", "reasoning_details", "encrypted_thoughts"])
    def test_keys_that_bear_text_cost_it(self, key: str) -> None:
        message = Message(
            "assistant", None, payload={"role": "assistant", "content": None, key: "not a word"}
        )
        assert O200K.count(message) == 4 + O200K.count_text("not a word")

    def test_text_parts_count_each_by_itself(self) -> None:
        parts: list[dict[str, Any]] = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
        assert O200K.count(Message.user(parts)) == 4 + 2

    def test_an_unknown_part_costs_its_json_text(self) -> None:
        part = {"type": "hologram", "depth": [1, 2]}
        expected = O200K.count_text('{"type":"hologram","depth":[1,2]}')
        assert O200K.count(Message.user([part])) == 4 + expected

    def test_a_call_costs_its_name_twice_and_its_arguments(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        one = O200K.count(Message.assistant(tool_calls=[call])) - 4
        assert one == 11 + 2 * 2 + 1
        assert O200K.count(Message.assistant(tool_calls=[call, call])) - 4 == 2 * one + 5
        legacy = {"role": "assistant", "content": None, "function_call": call["function"]}
        assert O200K.count(Message("assistant", payload=legacy)) - 4 == one
        item = {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"}
        assert O200K.count(Message("assistant", kind="tool_call", payload=item)) - 4 == one
        custom = {"id": "c", "type": "custom", "custom": {"name": "get_weather", "input": "{}"}}
        assert O200K.count(Message.assistant(tool_calls=[custom])) - 4 == one

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_an_odd_payload_never_raises(self, data: st.DataObject) -> None:
        names = st.sampled_from(ODD_KEYS)
        kinds = st.sampled_from(
            [*message_costs._PARTS, "function_call", "data:image/png;base64,iVBORw0KGgo", "data:,"]
        )
        leaf = st.none() | st.booleans() | st.integers() | st.floats() | kinds | st.text(max_size=9)
        odd = st.recursive(leaf, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=4))
        payload: Any = data.draw(odd)
        message = Message("user", data.draw(st.none() | st.text(max_size=9)), payload=payload)
        assert O200K.count(message) >= 4

    def test_values_that_are_not_json_never_raise(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        for value in ({1, 2}, b"bytes", endless, {("a",): 1}, "\ud800"):
            assert O200K.count(Message("user", payload={"role": "user", "x": value})) > 4


class TestTranscripts:
    def test_lines_cost_what_langchain_counts(self) -> None:
        counter = TranscriptCounter("cl100k_base")
        messages = [
            Message.user("hi"),
            Message.assistant("whats up"),
            Message.user("not much you"),
            Message.assistant("not much"),
        ]
        assert [counter.line(message) for message in messages] == [
            "Human: hi", "AI: whats up", "Human: not much you", "AI: not much",
        ]  # fmt: skip
        assert [counter.count(message) for message in messages] == [3, 4, 5, 4]

    def test_every_role_has_its_prefix(self) -> None:
        counter = TranscriptCounter("cl100k_base", human_prefix="人类", ai_prefix="")
        roles = ("user", "assistant", "system", "developer", "function", "tool", "critic")
        assert [counter.line(Message(role, "x")) for role in roles] == [
            "人类: x", ": x", "System: x", "System: x", "Function: x", "Tool: x", "critic: x",
        ]  # fmt: skip
        assert counter.line(Message.assistant(None)) == ": "

    @given(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
        st.sampled_from(["AI", "a:b", "%41", ""]),
    )
    def test_the_name_says_everything(self, human_prefix: str, ai_prefix: str) -> None:
        assume("\0" not in human_prefix)
        counter = TranscriptCounter("gpt-4", human_prefix, ai_prefix)
        assert counter.name.isascii()
        assert counter.name.startswith("transcript:cl100k_base:")
        assert counter_named(counter.name) == counter

    @pytest.mark.parametrize("prefix", ["a\0b", "\ud800", "x" * 300, "人" * 40, None, 7])
    def test_a_prefix_that_cannot_be_stored_is_refused(self, prefix: Any) -> None:
        with pytest.raises(InvalidArgument):
            TranscriptCounter("cl100k_base", human_prefix=prefix)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("o200k_base", "o200k_base"),
            ("gpt-4o", "o200k_base"),
            ("gpt-5-mini", "o200k_base"),
            ("gpt-4", "cl100k_base"),
            ("o200k_harmony", "o200k_harmony"),
            ("transcript:cl100k_base:Human:AI", "transcript:cl100k_base:Human:AI"),
        ],
    )
    def test_a_name_gives_its_counter_the_same_every_time(self, name: str, expected: str) -> None:
        counter = counter_named(name)
        assert counter.name == expected
        assert counter is counter_named(name)
        assert counter == pickle.loads(pickle.dumps(counter))
        assert isinstance(counter, TokenCounter)

    def test_the_default_is_shipped(self) -> None:
        assert TiktokenCounter() == counter_named(DEFAULT_COUNTER)

    @pytest.mark.parametrize(
        "name",
        ["", "nonsense", "transcript:", "transcript:cl100k_base:Human", "transcript:x:Human:AI",
         "transcript:cl100k_base:%48uman:AI", "transcript:cl100k_base:%FF:AI",
         "transcript:cl100k_base:%zz:AI",
         "transcript:cl100k_base:" + quote("人" * 40) + ":AI", None, 7, []],
    )  # fmt: skip
    def test_an_unknown_name_is_named_with_a_remedy(self, name: Any) -> None:
        with pytest.raises(UnknownTokenCounter, match=r"name one|write transcript:"):
            counter_named(name)

    def test_a_near_miss_is_suggested(self) -> None:
        with pytest.raises(UnknownTokenCounter, match=r"'o200k_bas'.*did you mean 'o200k_base'"):
            TiktokenCounter("o200k_bas")

    def test_a_frozen_class_of_the_user_s_own_is_a_counter(self) -> None:
        class Letters:
            name = "letters"

            def count(self, message: Message) -> int:
                return len(message.content or "")

        own: TokenCounter = Letters()
        assert isinstance(own, TokenCounter)
        assert not isinstance(object(), TokenCounter)


@pytest.fixture(scope="module")
def bills() -> list[dict[str, Any]]:
    """OpenAI's recorded calls that say what was billed."""
    if not RECORDINGS.exists():
        pytest.skip("the recordings of providers' calls are not beside this repository")
    rows = map(json.loads, RECORDINGS.read_text().splitlines())
    return [row for row in rows if "//api.openai.com/" in row["uri"] and row["usage"]]


def _stored(message: dict[str, Any]) -> Message:
    if isinstance(message.get("content"), str):
        payload = {key: value for key, value in message.items() if key != "content"}
        return Message(message["role"], message["content"], payload=payload)
    return Message(message["role"], payload=message)


def _counted(row: dict[str, Any]) -> int:
    counter = TiktokenCounter(row["model"])
    return REPLY_OPENING + sum(counter.count(_stored(message)) for message in row["messages"][:-1])


def _texts_only(row: dict[str, Any]) -> bool:
    return all(isinstance(message.get("content"), str) and not message.get("tool_calls")
               for message in row["messages"][:-1])  # fmt: skip


class TestAgainstTheBill:
    def test_text_is_exact_for_gpt_4o_and_4_1(self, bills: list[dict[str, Any]]) -> None:
        rows = [
            row for row in bills
            if row["model"].startswith(("gpt-4o", "gpt-4.1"))
            and "search" not in row["model"] and not row["tools"] and _texts_only(row)
        ]  # fmt: skip
        assert len(rows) >= 10
        assert [_counted(row) for row in rows] == [row["usage"]["prompt_tokens"] for row in rows]

    def test_no_prompt_without_tools_is_counted_below(self, bills: list[dict[str, Any]]) -> None:
        # o1-mini is told more than was sent, whatever was sent.
        rows = [row for row in bills if not row["tools"] and row["model"] != "o1-mini"]
        assert len(rows) >= 15
        assert [row["id"] for row in rows if _counted(row) < row["usage"]["prompt_tokens"]] == []

    def test_calls_cost_at_least_their_bill(self, bills: list[dict[str, Any]]) -> None:
        # What the schemas cost is known from a prompt of text alone with the same tools.
        schemas = {
            (row["model"], json.dumps(row["tools"])): row["usage"]["prompt_tokens"] - _counted(row)
            for row in bills if row["tools"] and _texts_only(row)
        }  # fmt: skip
        compared = 0
        for row in bills:
            schema = schemas.get((row["model"], json.dumps(row["tools"])))
            calls = sum(len(message.get("tool_calls") or ()) for message in row["messages"][:-1])
            if schema is None or not calls:
                continue
            over = _counted(row) + schema - row["usage"]["prompt_tokens"]
            only_calls = all(isinstance(m.get("content"), str | None) for m in row["messages"][:-1])
            assert 0 <= over <= (6 * calls if only_calls else 3_000)
            compared += 1
        assert compared >= 5
