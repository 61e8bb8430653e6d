"""The readable text of a message is what the view `message_log` shows, for whatever a store can hold."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.prompt_histories import anything_stored, stored
from tokenmem import Message
from tokenmem.database.engine import open_engine
from tokenmem.errors import InvalidMessage
from tokenmem.messages.message import marked_partial
from tokenmem.messages.parsing import parse_message
from tokenmem.messages.text import readable_text
from tokenmem.operations.rows import values_of

DATA = Path(__file__).parents[3] / "shared" / "data"


class Log:
    """Messages put into a conversation as rows, in whatever way they came to be, and what the view shows."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.schema = "tokenmem." if engine.dialect.name == "postgresql" else ""

    def of(self, messages: list[Message]) -> list[str | None]:
        columns = "role, kind, content, payload, token_count, pinned"
        values = ", ".join(f":{name}" for name in columns.split(", "))
        rows = [
            {"position": position, **values_of(message, 1)} for position, message in enumerate(messages, 1)
        ]
        with self.engine.begin() as connection:
            self._run(connection, "DELETE FROM {}messages")
            self._run(connection, "DELETE FROM {}conversations")
            self._run(connection, "INSERT INTO {}conversations (id, token_counter) VALUES ('c1', 'unit')")
            new = f"INSERT INTO {{}}messages (conversation_id, position, tokens_before, {columns})"
            self._run(connection, f"{new} VALUES ('c1', :position, 0, {values})", rows)
            found = self._run(connection, "SELECT text FROM {}message_log ORDER BY position")
            return [row.text for row in found]

    def _run(self, connection: sa.Connection, statement: str, rows: Any = None) -> Any:
        return connection.execute(sa.text(statement.format(self.schema)), rows)


@contextmanager
def opened(url: str) -> Iterator[Log]:
    engine = open_engine(url)
    yield Log(engine)
    engine.dispose()


@pytest.fixture
def log(ready_url: str) -> Iterator[Log]:
    with opened(ready_url) as found:
        yield found


def check(log: Log, messages: list[Message]) -> None:
    for message, shown in zip(messages, log.of(messages), strict=True):
        assert readable_text(message) == shown, message


def part(text: str | None, rest: dict[str, Any] | None = None, **payload: Any) -> Message:
    return marked_partial(Message("assistant", text, payload={"role": "assistant", **payload}), rest or {})


EXAMPLES: list[tuple[dict[str, Any] | Message, str | None]] = [
    ({"role": "user", "content": "hi"}, "hi"),
    ({"role": "user", "content": None}, None),
    ({"role": "assistant", "content": "", "refusal": ""}, ""),
    ({"role": "assistant", "content": "No.", "refusal": "I will not."}, "No.\nI will not."),
    ({"role": "assistant", "content": None, "refusal": {"why": 1.0}}, '{"why":1.0}'),
    ({"role": "user", "content": ["bare", {"type": "image_url"}, {"text": "x"}, {}]}, "bare\nx\n[image_url]"),
    ({"role": "user", "content": [{"type": "text", "text": 5}]}, None),
    ({"role": "user", "content": [{"type": "tool_result", "content": [1, "ü"]}]}, '[1,"ü"]'),
    ({"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}, "f()"),
    ({"role": "assistant", "function_call": {"name": "f", "arguments": "1"}}, "f(1)"),
    ({"role": "assistant", "tool_calls": [{"custom": {"name": "f", "input": "x"}}, {}]}, "f(x)\n?()"),
    ({"role": "assistant", "tool_calls": [], "function_call": {"name": "f"}}, None),
    ({"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":1}'}, 'f({"x":1})'),
    ({"type": "function_call", "call_id": "a", "name": "f", "arguments": None, "input": "x"}, "f()"),
    ({"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "x"}, "f(x)"),
    ({"type": "custom_tool_call", "call_id": "a", "name": None, "input": "x"}, "?(x)"),
    ({"type": "shell_call", "call_id": "a", "action": {"commands": []}}, 'shell_call({"commands":[]})'),
    ({"type": "apply_patch_call", "call_id": "a", "operation": True}, "apply_patch_call(true)"),
    ({"type": "function_call_output", "call_id": "a", "output": "rain"}, "rain"),
    ({"type": "function_call_output", "call_id": "a", "output": {"type": "screen"}}, "[screen]"),
    ({"type": "function_call_output", "call_id": "a", "output": [7, "x", {"type": "y"}]}, "[y]"),
    ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "why"}]}, "[reasoning] why"),
    ({"type": "web_search_call", "id": "ws"}, "[web_search_call]"),
    ({"type": "mcp_call", "output": "found"}, "[mcp_call]"),
    (part("Once"), "Once [incomplete]"),
    (part(None), "[incomplete]"),
    (part("Once", {"tool_calls": [{"name": "f"}]}, refusal="No"), "Once\nNo [incomplete]"),
]


def test_what_is_shown_of_a_message(log: Log) -> None:
    messages = [each if isinstance(each, Message) else parse_message(each) for each, _ in EXAMPLES]
    texts = [text for _, text in EXAMPLES]
    assert list(map(readable_text, messages)) == texts
    assert log.of(messages) == texts


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "arguments", "input", "text", "type", "é", "a.b"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def objects(*keys: str, **named: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(keys, json_values), **named})


parts = objects("type", "text", "refusal", "name", "input", "content") | st.text("ab", max_size=3)
functions = objects("name", "arguments", "input")
calls = objects("id", "name", "arguments", function=functions | json_values, custom=functions | json_values)
contents = st.lists(parts, max_size=3) | st.none() | st.text("ab\n", max_size=3)
odd_messages = st.tuples(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool", "function", "system"])})
    | st.fixed_dictionaries(
        {
            "type": st.sampled_from(["function_call", "custom_tool_call", "function_call_output", "x_output"])
            | st.sampled_from(["reasoning", "web_search_call", "mcp_call", "computer_call"])
        },
        optional={"call_id": st.sampled_from(["a", "", None])},
    )
    | st.fixed_dictionaries({"role": st.just("assistant"), "type": json_values}),
    objects(
        *("refusal", "function_call", "arguments", "name", "input", "action", "operation", "call_id"),
        content=contents,
        tool_calls=st.lists(calls, max_size=3) | st.none(),
        output=st.lists(parts | json_values, max_size=3) | parts | json_values,
        summary=st.lists(parts, max_size=2),
    ),
).map(lambda both: both[1] | both[0])


def test_histories_of_both_apis(log: Log) -> None:
    @given(st.lists(anything_stored, min_size=1, max_size=8))
    @settings(max_examples=50)
    def alike(history: list[Any]) -> None:
        check(log, stored(history))

    alike()


def test_no_message_is_too_odd(log: Log) -> None:
    @given(st.lists(st.tuples(odd_messages, st.booleans()), min_size=1, max_size=8))
    @settings(max_examples=60)
    def alike(history: list[tuple[dict[str, Any], bool]]) -> None:
        messages = []
        for given_message, is_cut_off in history:
            try:
                message = parse_message(given_message)
            except InvalidMessage:
                continue
            messages.append(marked_partial(message, {}) if is_cut_off else message)
        if messages:
            check(log, messages)

    alike()


def shape(value: Any, key: str = "") -> Any:
    """What tells one kind of message from another: keys, types and roles, but no texts and numbers."""
    if isinstance(value, dict):
        if key in ("arguments", "parameters"):
            return "object"
        return frozenset((name, shape(inner, name)) for name, inner in value.items())
    if isinstance(value, list):
        return frozenset(shape(inner) for inner in value)
    return value if key in ("type", "role") else (type(value).__name__, bool(value))


def logged_messages(record: dict[str, Any]) -> list[Any]:
    request = record.get("request", record)
    given_messages = request.get("messages", request.get("input"))
    return given_messages if isinstance(given_messages, list) else []


@pytest.mark.parametrize(
    "name",
    [
        "support-agent-tools",
        "assistant-chat",
        "tool-calls-en-zh",
        "multilingual-chat",
        "coding-sessions",
        "provider-recordings",
        "bills",
    ],
)
def test_every_shape_in_real_logs(log: Log, name: str) -> None:
    file = DATA / f"{name}.jsonl"
    if not file.exists():
        pytest.skip(f"{file} is not here: it is other people's work and no part of the project")
    found: dict[Any, Message] = {}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            for message in logged_messages(json.loads(line)):
                if (of := shape(message)) not in found:
                    try:
                        found[of] = parse_message(message)
                    except InvalidMessage:
                        continue  # made up to be refused
    assert found
    check(log, list(found.values()))
