"""What a request costs by its model's bill: known answers, properties, and recorded bills."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenmem.counting.counters import TiktokenCounter
from tokenmem.counting.model_rules import Patches, Tiles, difference, family_of, prompt_tokens, request_tokens
from tokenmem.messages.message import Message

RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "provider-recordings.jsonl"
O200K = TiktokenCounter("o200k_base")
MODELS = ["gpt-4o", "gpt-5", "gpt-4", "o3", "somebody-s-model"]

TEXT = {"type": "string"}


def _tool(name: str, description: str, properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def _described(description: str, **schema: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **schema}


# OpenAI's cookbook, "How to count tokens with tiktoken": its example of counting tools.
COOKBOOK_TOOL = _tool(
    "get_current_weather",
    "Get the current weather in a given location",
    {
        "location": _described("The city and state, e.g. San Francisco, CA"),
        "unit": _described("The unit of temperature to return", enum=["celsius", "fahrenheit"]),
    },
    ["location"],
)
COOKBOOK_PROMPT = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
COOKBOOK_JARGON = [
    (
        "system",
        None,
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    ("system", "example_user", "New synergies will help drive top-line growth."),
    ("system", "example_assistant", "Things working well together will increase revenue."),
    (
        "system",
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities "
        "for increased leverage.",
    ),
    ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
    (
        "user",
        None,
        "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    ),
]

# Bills published with the tests of ruby_llm and ruby_llm-mcp (MIT), for gpt-4.1-nano and gpt-5-nano.
PUBLISHED = [
    (
        "What's the weather in Berlin? (52.5200, 13.4050)",
        _tool(
            "weather",
            "Gets current weather for a location",
            {
                "latitude": _described("Latitude (e.g., 52.5200)"),
                "longitude": _described("Longitude (e.g., 13.4050)"),
            },
            ["latitude", "longitude"],
        ),
        (88, 169),
    ),
    (
        "What's the best language to learn?",
        _tool("best_language_to_learn", "Gets the best language to learn", {}, []),
        (48, 129),
    ),
    (
        'Call the any-of params tool for task "Review PR" with status "pending" and report the result.',
        _tool(
            "any_of_params",
            "Uses params DSL any_of support",
            {
                "task": _described("Task description"),
                "status": {
                    "description": "Optional task status",
                    "anyOf": [{"type": "string", "enum": ["pending", "done"]}, {"type": "null"}],
                },
            },
            ["task", "status"],
        ),
        (87, 168),
    ),
    (
        "Call the object params tool with window start 2025-01-01 and end 2025-01-02 and include the result.",
        _tool(
            "object_params",
            "Uses params DSL object support",
            {
                "window": {
                    "type": "object",
                    "description": "Time window to schedule",
                    "properties": {"start": _described("ISO start"), "end": _described("ISO end")},
                    "required": ["start", "end"],
                }
            },
            ["window"],
        ),
        (92, 173),
    ),
]


def _user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def _schema_tokens(schema: Any, model: str = "gpt-4o") -> int:
    return request_tokens(model, [{"type": "function", "name": "f", "parameters": schema}])


class TestFamilies:
    @pytest.mark.parametrize(
        ("model", "name"),
        [
            ("gpt-4o", "gpt-4o"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("chatgpt-4o-latest", "gpt-4o"),
            ("ft:gpt-4o-mini:acme::AbC123", "gpt-4o"),
            ("ft:gpt-4o-mini-2024-07-18:acme:o3:AbC123", "gpt-4o"),
            ("openai-gpt-4.1", "gpt-4o"),
            ("GPT-4.5-preview", "gpt-4o"),
            ("azure/my-gpt-4o", "gpt-4o"),
            ("openai/gpt-5-mini", "gpt-5"),
            ("gpt-5.6-sol", "gpt-5"),
            ("gpt-5-chat-latest", "gpt-5"),
            ("o3-mini-2025-01-31", "o-series"),
            ("o1-mini", "o-series"),
            ("gpt-4-turbo", "gpt-4"),
            ("gpt-4-0613", "gpt-4"),
            ("gpt-35-turbo", "gpt-4"),
            ("gpt-3.5-turbo", "gpt-4"),
            ("gpt-oss-120b", "unknown"),
            ("claude-sonnet-4-6", "unknown"),
            ("foo3", "unknown"),
            ("", "unknown"),
        ],
    )
    def test_names_are_understood(self, model: str, name: str) -> None:
        assert family_of(model).name == name

    def test_families_know_their_encoding_and_whether_they_reason(self) -> None:
        assert [family_of(model).encoding for model in ("gpt-4", "gpt-5", "x")] == [
            "cl100k_base", "o200k_base", "o200k_base",
        ]  # fmt: skip
        assert [family_of(model).reasoning for model in ("gpt-5-mini", "o3", "gpt-4.1", "gpt-5-chat")] == [
            True, True, False, False,
        ]  # fmt: skip

    def test_an_unknown_model_costs_the_most(self) -> None:
        tools = [COOKBOOK_TOOL]
        most = request_tokens("unheard-of", tools)
        assert all(request_tokens(model, tools) <= most for model in MODELS if model != "gpt-4")


class TestKnownAnswers:
    @pytest.mark.parametrize(("model", "tokens"), [("gpt-4", 129), ("gpt-4o", 124), ("gpt-4o-mini", 124)])
    def test_the_cookbook_s_text(self, model: str, tokens: int) -> None:
        messages = [
            {"role": role, "content": text} | ({"name": name} if name else {})
            for role, name, text in COOKBOOK_JARGON
        ]
        assert prompt_tokens(model, messages) == tokens

    @pytest.mark.parametrize(
        ("model", "tokens"), [("gpt-4", 105), ("gpt-3.5-turbo", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)]
    )
    def test_the_cookbook_s_tools(self, model: str, tokens: int) -> None:
        assert prompt_tokens(model, COOKBOOK_PROMPT, [COOKBOOK_TOOL]) == tokens

    @pytest.mark.parametrize(("text", "tool", "bills"), PUBLISHED)
    def test_published_bills(self, text: str, tool: dict[str, Any], bills: tuple[int, int]) -> None:
        counted = [prompt_tokens(model, [_user(text)], [tool]) for model in ("gpt-4.1-nano", "gpt-5-nano")]
        assert counted == list(bills)

    def test_a_published_bill_of_earlier_replies(self) -> None:
        messages = [
            _user("Who is the creator of the programming language Ruby?"),
            {
                "role": "assistant",
                "content": "Yukihiro Matsumoto, commonly known as Matz, is the creator of the Ruby "
                "programming language (first released in 1995).",
            },
            _user("What year did he create Ruby?"),
        ]
        assert prompt_tokens("gpt-5-nano", messages[:1]) == 16
        assert prompt_tokens("gpt-5-nano", messages) == 63

    def test_a_published_bill_of_parallel_calls(self) -> None:
        names = [("simple_multiply", '{"x": 3, "y": 4}'), ("add", '{"a": 5, "b": 7}')]
        calls = [
            {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in names
        ]
        number = {"type": "number"}
        tools = [
            _tool(
                "simple_multiply",
                "Multiply two numbers together",
                {
                    "x": number | {"description": "First number"},
                    "y": number | {"description": "Second number"},
                },
                ["x", "y"],
            ),
            _tool("add", "Addes two numbers together", {"a": number, "b": number}, ["a", "b"]),
        ]
        messages = [
            _user("Can you multiply 3 and 4, then add 5 and 7?"),
            {"role": "assistant", "content": None, "tool_calls": calls},
            *({"role": "tool", "tool_call_id": name, "content": "12"} for name, _ in names),
        ]
        assert prompt_tokens("gpt-4.1", messages[:1], tools) == 94
        assert prompt_tokens("gpt-4.1", messages, tools) == 162


class TestTools:
    def test_without_tools_only_the_reply_is_opened(self) -> None:
        assert [request_tokens(model) for model in ("gpt-4o", "gpt-5", "o3-mini", "gpt-4")] == [3, 2, 2, 3]
        assert request_tokens("gpt-4o", []) == request_tokens("gpt-4o", None)

    @pytest.mark.parametrize("model", MODELS)
    def test_both_apis_forms_cost_the_same(self, model: str) -> None:
        responses_form = {"type": "function", **COOKBOOK_TOOL["function"], "strict": True}
        assert request_tokens(model, [responses_form]) == request_tokens(model, [COOKBOOK_TOOL])

    @pytest.mark.parametrize("model", MODELS)
    def test_instructions_never_make_tools_dearer(self, model: str) -> None:
        alone = request_tokens(model, [COOKBOOK_TOOL], has_instructions=False)
        assert request_tokens(model, [COOKBOOK_TOOL]) <= alone

    def test_custom_and_hosted_tools_cost_something(self) -> None:
        grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /[a-z ]+/ " * 20}
        custom = {"type": "custom", "name": "run", "description": "Runs SQL", "format": grammar}
        chat_form = {
            "type": "custom",
            "custom": {key: custom[key] for key in ("name", "description", "format")},
        }
        for tool in (custom, chat_form):
            assert request_tokens("gpt-5", [tool]) > 87 + O200K.count_text(str(grammar["definition"]))
        assert request_tokens("gpt-5", [{"type": "web_search"}]) > 400

    @pytest.mark.parametrize("model", MODELS)
    def test_what_says_more_costs_more(self, model: str) -> None:
        schema: Any = TEXT
        costs = []
        for _ in range(10):
            schema = {"type": "object", "properties": {"deeper": schema}, "required": ["deeper"]}
            costs.append(_schema_tokens(schema, model))
        assert costs == sorted(set(costs))

    def test_references_are_written_out_and_may_be_circular(self) -> None:
        point = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}
        inline = {"type": "object", "properties": {"at": point}}
        by_name = {
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/Point"}},
            "$defs": {"Point": point},
        }
        assert _schema_tokens(by_name) == _schema_tokens(inline)
        tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}
        assert _schema_tokens(tree) < 200
        missing = {"type": "object", "properties": {"at": {"$ref": "#/$defs/Nowhere"}}}
        assert _schema_tokens(missing) > _schema_tokens({"type": "object", "properties": {}})

    def test_references_that_double_stay_bounded(self) -> None:
        definitions: dict[str, Any] = {"D0": TEXT}
        for level in range(1, 40):
            inner = {"$ref": f"#/$defs/D{level - 1}"}
            definitions[f"D{level}"] = {"type": "object", "properties": {"a": inner, "b": inner}}
        schema = {"type": "object", "properties": {"x": {"$ref": "#/$defs/D39"}}, "$defs": definitions}
        assert 1_000 < _schema_tokens(schema) < 100_000

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_no_schema_raises_and_more_tools_never_cost_less(self, data: st.DataObject) -> None:
        tools = data.draw(st.lists(_tools(), max_size=3))
        more = [*tools, data.draw(_tools())]
        for model in ("gpt-4o", "gpt-5"):
            costs = [request_tokens(model, some) for some in ([], tools, more)]
            assert costs == sorted(costs)

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_the_order_of_a_schema_s_keys_does_not_matter(self, data: st.DataObject) -> None:
        schema = data.draw(_schemas())
        assert _schema_tokens(_reversed(schema)) == _schema_tokens(schema)

    def test_what_is_no_tool_costs_its_text(self) -> None:
        endless: list[Any] = []
        endless.append(endless)
        odd: list[Any] = [None, 7, "tool", [], {"type": ["x"]}, {"name": endless}, {"type": "function"}]
        assert all(request_tokens("gpt-4o", [each]) > 3 for each in odd)


_KEYS = [
    *("type", "properties", "required", "items", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs"),
    *("description", "title", "default", "examples", "additionalProperties", "prefixItems", "nullable"),
    *("minimum", "pattern"),
]
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=5)
    | st.sampled_from(["object", "array", "string", "integer", "#", "#/$defs/a"])
)
_JSON = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*_KEYS, "a", "b"]), inner, max_size=5)
    ),
    max_leaves=20,
)


def _schemas() -> st.SearchStrategy[Any]:
    """Schemas as they should be, with every key that is read."""
    leaf = st.fixed_dictionaries(
        {"type": st.sampled_from(["string", "integer", "boolean", "null"])},
        optional={
            "description": st.text(max_size=9),
            "enum": st.lists(st.text(max_size=3), min_size=1, max_size=3),
            "default": _LEAVES,
            "minimum": st.integers(0, 9),
        },
    )
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
            st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=3)}),
            st.fixed_dictionaries(
                {
                    "type": st.just("object"),
                    "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
                    "required": st.lists(st.sampled_from("abc"), max_size=2),
                }
            ),
        ),
        max_leaves=8,
    )


def _tools() -> st.SearchStrategy[Any]:
    function = st.fixed_dictionaries(
        {"name": st.sampled_from(["f", "get_weather"]), "parameters": _schemas() | _JSON},
        optional={"description": st.text(max_size=9) | _JSON},
    )
    return (
        function
        | function.map(lambda inner: {"type": "function", "function": inner})
        | function.map(lambda inner: {"type": "custom", "custom": inner})
        | st.fixed_dictionaries({"type": _JSON})
    )


def _reversed(schema: Any) -> Any:
    """The schema with its own keys the other way round; its members stay as they are."""
    if isinstance(schema, list):
        return [_reversed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    turned = {key: _reversed(schema[key]) for key in reversed(schema) if key != "properties"}
    if "properties" in schema:
        turned["properties"] = {name: _reversed(member) for name, member in schema["properties"].items()}
    return turned


class TestCorrections:
    def test_plain_text_needs_none_but_a_reply_s_channel(self) -> None:
        for model in MODELS:
            assert difference(model, Message.user("hi")) == difference(model, Message.system("hi")) == 0
        assert [difference(model, Message.assistant("hi")) for model in ("gpt-4o", "gpt-4", "gpt-5")] == [
            0,
            0,
            2,
        ]

    def test_a_call_costs_gpt_4o_less_and_gpt_5_the_same(self) -> None:
        function = {"name": "get_weather", "arguments": '{"city": "Rome"}'}
        call = {"id": "1", "type": "function", "function": function}
        message = Message.assistant(tool_calls=[call])
        assert difference("gpt-4o", message) == -6 - 1  # 5 for 11, and no space in the arguments
        assert difference("gpt-5", message) == difference("gpt-4", message) == 0
        item = {"type": "function_call", "call_id": "1", **function}
        assert difference("gpt-4o", Message("assistant", kind="tool_call", payload=item)) == -7
        spoken = Message.assistant("Let me look.", tool_calls=[call])
        assert difference("gpt-4o", spoken) == 0
        assert difference("gpt-5", spoken) == 6

    def test_neighbouring_texts_are_one(self) -> None:
        parts = [{"type": "text", "text": "Some context. "}, {"type": "text", "text": "Summarize."}]
        joined = O200K.count(Message.user("Some context. Summarize."))
        message = Message.user(parts)
        assert O200K.count(message) + difference("gpt-4o", message) == joined

    @pytest.mark.parametrize(
        ("model", "high", "low"),
        [  # OpenAI's guide, for an image of 1,024 by 1,024
            ("gpt-4o", 85 + 4 * 170, 85),
            ("gpt-4.1", 85 + 4 * 170, 85),
            ("gpt-4o-mini", 2_833 + 4 * 5_667, 2_833),
            ("gpt-5", 70 + 4 * 140, 70),
            ("gpt-5-chat-latest", 70 + 4 * 140, 70),
            ("o3", 75 + 4 * 150, 75),
            ("o1", 75 + 4 * 150, 75),
            ("gpt-4.1-mini", 1_659, None),  # 1,024 patches by 1.62
            ("gpt-4.1-nano", 2_520, None),
            ("o4-mini", 1_762, None),
        ],
    )
    def test_images_cost_by_the_family_s_formula(
        self, model: str, high: int, low: int | None, png: Callable[[int, int], str]
    ) -> None:
        def cost(detail: str) -> int:
            image = {"url": png(1024, 1024), "detail": detail}
            message = Message.user([{"type": "image_url", "image_url": image}])
            return O200K.count(message) + difference(model, message) - 4

        assert cost("high") == high
        if low is not None:
            assert cost("low") == low

    def test_an_image_of_unknown_size_costs_the_most(self) -> None:
        assert Tiles(70, 140).tokens(None, is_low=False) == 70 + 8 * 140
        assert Patches(1.62).tokens(None, is_low=True) == 2_489
        assert Patches(1.62).tokens((10**6, 10**6), is_low=False) == 2_489
        assert Patches(1.62).tokens((128, 64), is_low=True) == 13

    @settings(max_examples=100, deadline=None)
    @given(payload=_JSON, role=st.sampled_from(["user", "assistant", "tool"]))
    def test_no_payload_raises(self, payload: Any, role: str) -> None:
        odd: Any = payload if isinstance(payload, dict) else {"content": payload, "tool_calls": payload}
        for model in MODELS:
            message = Message(role, None, payload=odd)
            assert O200K.count(message) + difference(model, message) > 0

    @pytest.fixture
    def png(self) -> Callable[[int, int], str]:
        import base64

        def make(width: int, height: int) -> str:
            header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
            return f"data:image/png;base64,{base64.b64encode(header).decode()}"

        return make


@pytest.fixture(scope="module")
def bills() -> list[dict[str, Any]]:
    """OpenAI's models' recorded calls that say what was billed."""
    if not RECORDINGS.exists():
        pytest.skip("the recordings of providers' calls are not beside this repository")
    rows = map(json.loads, RECORDINGS.read_text().splitlines())
    known = (row for row in rows if row["usage"] and family_of(row["model"]).name != "unknown")
    return [row for row in known if not _is_search(row)]


def _is_text(row: dict[str, Any]) -> bool:
    """Of text, tool calls and their results alone."""
    return all(
        isinstance(content, str | None) or all(part.get("type") == "text" for part in content)
        for content in (message.get("content") for message in row["messages"][:-1])
    )


def _is_search(row: dict[str, Any]) -> bool:
    """The bill has what the provider's own search found, which the recording leaves out."""
    return "search-preview" in row["model"] or "web_search" in json.dumps(row["tools"])


def _error(row: dict[str, Any]) -> int:
    counted = prompt_tokens(row["model"], row["messages"][:-1], row["tools"])
    return counted - int(row["usage"]["prompt_tokens"])


class TestAgainstTheBill:
    def test_prompts_of_text_are_exact(self, bills: list[dict[str, Any]]) -> None:
        rows = [row for row in bills if not row["tools"] and _is_text(row)]
        assert len(rows) >= 20
        assert {row["id"]: _error(row) for row in rows if _error(row)} == {}

    @pytest.mark.parametrize("family", ["gpt-4o", "gpt-5"])
    def test_prompts_with_tools_are_near_and_rather_above(
        self, family: str, bills: list[dict[str, Any]]
    ) -> None:
        # One prompt has a schema for its answer besides (`response_format`), which the recording leaves out.
        rows = [
            row for row in bills
            if row["tools"] and _is_text(row) and "native_output" not in row["id"]
            and family_of(row["model"]).name == family
        ]  # fmt: skip
        assert len(rows) >= 10
        errors = [_error(row) / row["usage"]["prompt_tokens"] for row in rows]
        assert min(errors) >= -0.05
        assert sum(map(abs, errors)) / len(errors) <= 0.03

    def test_no_prompt_with_files_is_counted_below(self, bills: list[dict[str, Any]]) -> None:
        rows = [row for row in bills if not _is_text(row)]
        assert len(rows) >= 5
        assert [row["id"] for row in rows if _error(row) < 0] == []
