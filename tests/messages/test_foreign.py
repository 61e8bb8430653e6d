"""Messages of other frameworks: understood, or refused by name, and never taken for something else."""

from typing import Any

import pytest

from tokenmem import Message, errors
from tokenmem.messages.parsing import parse_message

ARGS = {"city": "Köln", "n": 1}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city":"Köln","n":1}'}}
AI = {
    "content": "wait",
    "additional_kwargs": {"refusal": None},
    "response_metadata": {"model_name": "m"},
    "type": "ai",
    "name": None,
    "id": "run-1",
    "example": False,
    "tool_calls": [{"name": "f", "args": ARGS, "id": "c1", "type": "tool_call"}],
    "invalid_tool_calls": [],
    "usage_metadata": None,
}
AI_OURS = {"role": "assistant", "content": "wait", "tool_calls": [CALL]}
EXTRAS = {
    "langchain": {
        "response_metadata": {"model_name": "m"},
        "id": "run-1",
        "additional_kwargs": {"refusal": None},
    }
}
TOOL = {"content": "7", "tool_call_id": "c1", "status": "success", "artifact": None}
LC = ["langchain", "schema", "messages"]

# (what comes, what it is as OpenAI's, what is kept beside it)
TRANSLATED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = [
    ({"type": "human", "data": {"content": "hi"}}, {"role": "user", "content": "hi"}, None),
    ({"type": "human", "content": "hi"}, {"role": "user", "content": "hi"}, None),
    ({"type": "system", "data": {"content": "s"}}, {"role": "system", "content": "s"}, None),
    ({"type": "ai", "data": AI}, AI_OURS, EXTRAS),
    (AI, AI_OURS, EXTRAS),
    ({"lc": 1, "type": "constructor", "id": [*LC, "AIMessage"], "kwargs": AI}, AI_OURS, EXTRAS),
    (
        {
            "lc": 1,
            "type": "constructor",
            "id": [*LC, "HumanMessage"],
            "kwargs": {"content": "hi", "type": "human"},
        },
        {"role": "user", "content": "hi"},
        None,
    ),
    (
        {"type": "tool", "data": TOOL},
        {"role": "tool", "content": "7", "tool_call_id": "c1"},
        {"langchain": {"status": "success"}},
    ),
    (
        {"type": "function", "data": {"name": "f", "content": "7"}},
        {"role": "function", "content": "7", "name": "f"},
        None,
    ),
    ({"type": "chat", "data": {"role": "human", "content": "x"}}, {"role": "user", "content": "x"}, None),
    ({"type": "AIMessageChunk", "content": "x"}, {"role": "assistant", "content": "x"}, None),
    (
        {
            "type": "ai",
            "content": "",
            "invalid_tool_calls": [{"name": "f", "args": "{", "id": "c1", "error": "e"}],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{"}}],
        },
        None,
    ),
    (
        {
            "type": "ai",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": ARGS},
            ],
            "tool_calls": AI["tool_calls"],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "x"}], "tool_calls": [CALL]},
        {
            "langchain": {
                "content": [
                    {"type": "text", "text": "x"},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": ARGS},
                ]
            }
        },
    ),
    (
        {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "hi"}]},
        {"role": "user", "content": "hi"},
        {"vercel_ai": {"id": "m1"}},
    ),
    (
        {
            "role": "assistant",
            "parts": [{"type": "step-start"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        None,
    ),
    ({"role": "model", "parts": [{"text": "hi"}]}, {"role": "assistant", "content": "hi"}, None),
    ({"role": "user", "parts": [{"text": "hi"}]}, {"role": "user", "content": "hi"}, None),
    (
        {"role": "user", "additional_kwargs": {}, "blocks": [{"block_type": "text", "text": "hi"}]},
        {"role": "user", "content": "hi"},
        None,
    ),
]


@pytest.mark.parametrize(("given", "expected", "kept"), TRANSLATED, ids=str)
def test_what_one_message_can_say_is_translated(
    given: dict[str, Any], expected: dict[str, Any], kept: dict[str, Any] | None
) -> None:
    parsed = parse_message(given)
    assert parsed.to_openai() == expected
    assert parsed.metadata == kept
    assert parsed == parse_message(
        Message(**{f: getattr(parsed, f) for f in ("role", "content", "kind", "payload", "metadata")})
    )
    assert parsed.kind == parse_message(expected).kind


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "human"}, "LangChain"),
    ({"type": "ai", "data": "x"}, "LangChain"),
    ({"type": "remove", "id": "x"}, "LangChain"),
    ({"type": "chat", "data": {"role": "judge", "content": "x"}}, "a string of 5 characters that is none"),
    ({"type": "tool", "data": {"content": "x"}}, "tool_call_id"),
    ({"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {}, "id": None}]}, "no id"),
    ({"lc": 1, "type": "not_implemented", "id": ["a", "B"], "repr": "x"}, "no message"),
    ({"lc": 1, "type": "constructor", "id": [*LC, "PromptTemplate"], "kwargs": {}}, "PromptTemplate"),
    (
        {"role": "assistant", "parts": [{"type": "tool-f", "toolCallId": "c", "state": "output-available"}]},
        "Vercel",
    ),
    ({"role": "user", "parts": [{"type": "file", "url": "x"}]}, "convertToModelMessages"),
    ({"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}, "Gemini"),
    ({"role": "user", "parts": [{"inlineData": {}}]}, "Gemini"),
    ({"parts": [{"text": "x"}]}, "Gemini"),
    ({"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "x"}]}, "pydantic-ai"),
    ({"kind": "response", "parts": []}, "pydantic-ai"),
    ({"author": "a", "content": {"role": "user", "parts": [{"text": "x"}]}, "invocation_id": "i"}, "ADK"),
    ({"type": "TextMessage", "source": "user", "content": "x"}, "AutoGen"),
    ({"type": "TextMessage", "text": "x"}, "TextMessage"),
    ({"type": "function", "function": {"name": "f", "parameters": {}}}, "schema"),
    ({"type": "thinking", "thinking": "x", "signature": "s"}, "Anthropic"),
    ({"type": "tool_use", "id": "t", "name": "f", "input": {}}, "tool_use"),
    ({"role": "user", "blocks": [{"block_type": "image", "url": "x"}]}, "LlamaIndex"),
    ({"role": "user", "items": [{"content_type": "text", "text": "x"}]}, "Semantic Kernel"),
    ({"text": "x"}, "role is missing"),
]


@pytest.mark.parametrize(("given", "words"), REFUSED, ids=str)
def test_others_are_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidMessage, match=words) as told:
        parse_message(given)
    assert "'x'" not in str(told.value)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "ws", "status": "completed"},
        {"type": "something_new_2027", "id": "x", "data": {"content": "x"}},
        {"type": "image_generation_call", "id": "i", "result": "AAAA"},
        {"type": "item_reference", "id": "i"},
        {"role": "user", "content": "x", "parts": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": None, "kind": "request"},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "7"}]},
    ],
    ids=str,
)
def test_what_is_openais_stays_as_it_came(item: dict[str, Any]) -> None:
    parsed = parse_message(item)
    assert parsed.to_openai() == item
    assert parsed.metadata is None


class HumanMessage:
    """As langchain_core has it: a pydantic model whose type is set by default."""

    type = "human"

    def model_dump(self, *, mode: str, exclude_unset: bool = False) -> dict[str, Any]:
        assert mode == "json"
        set_ = {"content": "hi"}
        return set_ if exclude_unset else {**set_, "type": "human", "additional_kwargs": {}, "id": None}


def test_langchains_own_objects_are_understood() -> None:
    assert parse_message(HumanMessage()).to_openai() == {"role": "user", "content": "hi"}
