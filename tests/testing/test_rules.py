"""The provider's rules for prompts: for each a prompt that breaks it, and the same one mended."""

import math
from typing import Any, Required, get_args, get_origin, get_type_hints

import pytest
from openai.types.responses import ResponseInputItemParam

from tokenmem.testing import problems_in
from tokenmem.testing.item_rules import ITEMS

Items = list[Any]
USER = {"role": "user", "content": "hi"}
SAID = {"role": "assistant", "content": "hello"}
FUNCTION = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
TOOL = {"type": "function", "name": "add", "parameters": None, "strict": True}
OUTPUT = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hello", "annotations": []}],
}


def call(call_id: Any = "c1", name: Any = "add", arguments: Any = "{}") -> Any:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made: Any, content: Any = None) -> Any:
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def result(call_id: Any = "c1", content: Any = "3") -> Any:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def part(kind: str, **keys: Any) -> Any:
    return {"role": "user", "content": [{"type": kind, **keys}]}


def fcall(call_id: Any = "c1", **keys: Any) -> Any:
    return {"type": "function_call", "call_id": call_id, "name": "add", "arguments": "{}", **keys}


def foutput(call_id: Any = "c1", output: Any = "3", **keys: Any) -> Any:
    return {"type": "function_call_output", "call_id": call_id, "output": output, **keys}


def thought(item_id: str = "rs_1", **keys: Any) -> Any:
    return {"type": "reasoning", "id": item_id, "summary": [], **keys}


def chat(*messages: Any, **keys: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": list(messages), **keys}


def ask(*items: Any, **keys: Any) -> dict[str, Any]:
    return {"model": "gpt-5", "input": list(items), **keys}


def problems(body: dict[str, Any], **allowed: Any) -> list[str]:
    path = "chat/completions" if "messages" in body else "responses" if "input" in body else "completions"
    return problems_in(f"/v1/{path}", body, **allowed)


MESSAGES: list[tuple[str, Items, Items]] = [
    ("empty array", [], [USER]),
    (".role': 'robot'", [{"role": "robot", "content": "x"}], [{"role": "developer", "content": "x"}]),
    (".role': None", ["text"], [USER]),
    ("Unknown parameter: 'messages[0].id'", [USER | {"id": "1"}], [USER | {"name": "ann"}]),
    ("Unknown parameter", [SAID | {"parsed": None}], [SAID | {"annotations": [], "refusal": None}]),
    (
        "Missing required parameter: 'messages[0].content'",
        [{"role": "system"}],
        [{"role": "system", "content": ""}],
    ),
    ("pattern", [USER | {"name": "Ann <3"}], [USER | {"name": "Änn-3"}]),
    ("expected a string, but got null", [{"role": "user", "content": None}], [USER]),
    ("empty array", [{"role": "user", "content": []}], [part("text", text="hi")]),
    (
        "expected a string, but got a dict",
        [{"role": "system", "content": {}}],
        [{"role": "system", "content": "x"}],
    ),
    (
        "content[0].type': 'image_url'",
        [part("image_url", image_url={"url": "u"}) | {"role": "system"}],
        [part("image_url", image_url={"url": "u"})],
    ),
    ("'video'", [part("video", video="u")], [part("file", file={"file_id": "f"})]),
    ("content[0].text", [part("text")], [part("text", text="")]),
    (
        "content[0].text",
        [part("text", text=3)],
        [part("input_audio", input_audio={"data": "", "format": "wav"})],
    ),
    (
        "content[0].more",
        [part("text", text="a", more=1)],
        [part("text", text="a", prompt_cache_breakpoint={})],
    ),
    ("got null", [USER, {"role": "assistant"}], [USER, {"role": "assistant", "refusal": "no"}]),
    ("got null", [SAID | {"content": None}], [{"role": "assistant", "audio": {"id": "a"}}]),
    (
        "text, refusal",
        [SAID | {"content": [{"type": "output_text", "text": "x"}]}],
        [SAID | {"content": [{"type": "refusal", "refusal": "x"}]}],
    ),
    ("tool_calls': empty array", [calls(content="x")], [SAID]),
    ("tool_calls': expected an array", [SAID | {"tool_calls": None}], [SAID | {"function_call": None}]),
    ("id': empty string", [calls(call("")), result("")], [calls(call()), result()]),
    (
        "maximum length 40",
        [calls(call("c" * 41)), result("c" * 41)],
        [calls(call("c" * 40)), result("c" * 40)],
    ),
    (
        "Duplicate value",
        [calls(call(), call()), result()],
        [calls(call(), call("c2")), result("c2"), result()],
    ),
    (
        "function.name': string does not",
        [calls(call(name="a b")), result()],
        [calls(call(name="a-B_9")), result()],
    ),
    (
        "function.name': string does not",
        [calls(call(name="a" * 65)), result()],
        [calls(call(name="a" * 64)), result()],
    ),
    (
        "arguments': expected",
        [calls(call(arguments={})), result()],
        [calls(call(arguments="{nonsense")), result()],
    ),
    (
        ".type': 'magic'",
        [calls({"id": "c1", "type": "magic"}), result()],
        [calls({"id": "c1", "type": "custom", "custom": {"name": "f", "input": "x"}}), result()],
    ),
    (
        "expected an object",
        [calls({"id": "c1", "type": "function", "function": None}), result()],
        [calls(call()), result()],
    ),
    ("did not have response messages: c1", [USER, calls(call())], [USER, calls(call()), result()]),
    (
        "did not have response messages: c2",
        [calls(call(), call("c2")), result(), USER],
        [calls(call(), call("c2")), result(), result("c2"), USER],
    ),
    ("did not have response messages: c1", [calls(call()), USER, result()], [calls(call()), result(), USER]),
    ("must be a response to a preceeding", [USER, result()], [calls(call()), result()]),
    (
        "must be a response to a preceeding",
        [calls(call()), result(), result("c9")],
        [calls(call()), result(), calls(call("c9")), result("c9")],
    ),
    ("again", [calls(call()), result(), result()], [calls(call()), result(), calls(call()), result()]),
    (
        "tool_call_id",
        [calls(call()), {"role": "tool", "content": "3"}],
        [calls(call()), result(content=[{"type": "text", "text": "3"}])],
    ),
    (
        "'messages[0].name'",
        [{"role": "function", "content": "3"}],
        [{"role": "function", "name": "f", "content": None}],
    ),
]

CHATS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("'model'", chat(USER, model=None), chat(USER, model="anything")),
    ("'model'", chat(USER, model=""), chat(USER)),
    ("array", {"model": "m", "messages": "hi"}, chat(USER)),
    ("NaN", chat(USER, temperature=math.nan), chat(USER, temperature=0.5)),
    ("NaN", chat(USER, temperature=math.inf), chat(USER)),
    ("maximum length 64", chat(USER, prompt_cache_key="k" * 65), chat(USER, prompt_cache_key="k" * 64)),
    ("'stream_options'", chat(USER, stream_options={}), chat(USER, stream_options={}, stream=True)),
    (
        "'tool_choice' is only",
        chat(USER, tool_choice="auto"),
        chat(USER, tool_choice="auto", tools=[FUNCTION]),
    ),
    (
        "'parallel_tool_calls' is",
        chat(USER, parallel_tool_calls=True),
        chat(USER, parallel_tool_calls=True, tools=[FUNCTION]),
    ),
    ("1 to 128", chat(USER, tools=[]), chat(USER, tools=None)),
    (
        "unique: 'add'",
        chat(USER, tools=[FUNCTION, FUNCTION]),
        chat(USER, tools=[FUNCTION, {"type": "custom", "custom": {"name": "x"}}]),
    ),
    ("object of that name", chat(USER, tools=[TOOL]), chat(USER, tools=[FUNCTION])),
    (
        "Unknown parameter: 'tools[0].strict'",
        chat(USER, tools=[FUNCTION | {"strict": True}]),
        chat(USER, tools=[FUNCTION]),
    ),
    (
        "tools[0].function.name",
        chat(USER, tools=[{"type": "function", "function": {"name": "a b"}}]),
        chat(USER, tools=[FUNCTION]),
    ),
    (
        "parameters",
        chat(USER, tools=[{"type": "function", "function": {"name": "a", "parameters": 3}}]),
        chat(USER, tools=[FUNCTION]),
    ),
    (
        "'sub' not found",
        chat(USER, tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "sub"}}),
        chat(USER, tools=[FUNCTION], tool_choice={"type": "function", "function": {"name": "add"}}),
    ),
    (
        "'perhaps'",
        chat(USER, tools=[FUNCTION], tool_choice="perhaps"),
        chat(USER, tools=[FUNCTION], tool_choice="required"),
    ),
    ("'prompt'", {"model": "m"}, {"model": "m", "prompt": "hi"}),
]

INPUTS: list[tuple[str, Items, Items]] = [
    ("empty array", [], [USER]),
    ("type': 'hologram'", [{"type": "hologram"}], [{"type": "compaction", "encrypted_content": "x"}]),
    ("type': None", ["text"], [{"id": "msg_1"}]),
    ("role': 'tool'", [USER | {"role": "tool"}], [USER | {"role": "developer"}]),
    ("Missing required parameter: 'input[0].content'", [{"role": "user"}], [USER | {"type": "message"}]),
    ("Unknown parameter: 'input[0].name'", [USER | {"name": "ann"}], [SAID | {"phase": "commentary"}]),
    ("'text'", [part("text", text="hi")], [part("input_text", text="hi")]),
    ("'input_text'", [part("input_text", text="hi") | {"role": "assistant"}], [OUTPUT]),
    ("empty array", [USER | {"content": []}], [part("input_image", image_url="u")]),
    ("got null", [SAID | {"content": None}], [SAID | {"content": ""}]),
    ("begins with 'msg'", [OUTPUT | {"id": "m1"}], [OUTPUT]),
    ("begins with 'rs'", [thought("r1"), OUTPUT], [thought(), OUTPUT]),
    ("begins with 'fc'", [fcall(id="call_1"), foutput()], [fcall(id="fc_1"), foutput()]),
    ("maximum length 64", [OUTPUT | {"id": "msg_" + "1" * 61}], [OUTPUT | {"id": "msg_" + "1" * 60}]),
    ("maximum length 64", [fcall("c" * 65), foutput("c" * 65)], [fcall("c" * 64), foutput("c" * 64)]),
    ("Duplicate item found", [OUTPUT, OUTPUT], [OUTPUT, OUTPUT | {"id": "msg_2"}]),
    (
        "Missing required parameter: 'input[0].call_id'",
        [{"type": "function_call", "name": "f", "arguments": ""}],
        [fcall(), foutput()],
    ),
    ("name': string does not", [fcall(name="a b"), foutput()], [fcall(name="a_b"), foutput()]),
    ("arguments': expected", [fcall(arguments={}), foutput()], [fcall(arguments=""), foutput()]),
    (
        "Unknown parameter: 'input[0].parsed_arguments'",
        [fcall(parsed_arguments=None), foutput()],
        [fcall(status="completed"), foutput()],
    ),
    (
        "output': expected",
        [fcall(), foutput(output={"a": 1})],
        [fcall(), foutput(output=[{"type": "input_text", "text": "3"}])],
    ),
    ("No tool output found for function call c1", [fcall()], [fcall(), USER, foutput()]),
    (
        "No tool call found for function call output",
        [foutput(), fcall("c2"), foutput("c2")],
        [{"type": "item_reference", "id": "fc_9"}, foutput()],
    ),
    ("No tool call found", [foutput(), fcall()], [fcall(), foutput()]),
    ("Duplicate output", [fcall(), foutput(), foutput()], [fcall(), fcall("c2"), foutput("c2"), foutput()]),
    ("Duplicate value", [fcall(), fcall(), foutput()], [fcall(), foutput()]),
    (
        "found for custom tool call c1",
        [{"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "x"}, foutput(), fcall()],
        [
            {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "y"},
        ],
    ),
    (
        "computer call c1",
        [
            {
                "type": "computer_call",
                "id": "cu_1",
                "call_id": "c1",
                "pending_safety_checks": [],
                "status": "completed",
            }
        ],
        [USER],
    ),
    ("required following item", [thought()], [thought(), OUTPUT]),
    ("required following item", [thought(), USER, OUTPUT], [thought(), thought("rs_2"), fcall(), foutput()]),
    (
        "required following item",
        [fcall(), thought(), foutput()],
        [
            fcall(),
            foutput(),
            thought(),
            {"type": "web_search_call", "id": "ws_1", "action": {}, "status": "completed"},
        ],
    ),
    (
        "summary",
        [{"type": "reasoning", "id": "rs_1", "summary": None}, OUTPUT],
        [thought(summary=[{"type": "summary_text", "text": "x"}]), OUTPUT],
    ),
    (
        "Missing required parameter: 'input[0].action'",
        [{"type": "web_search_call", "id": "ws_1", "status": "completed"}],
        [{"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []}],
    ),
]

ASKED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("'model'", ask(USER, model=3), ask(USER)),
    ("'input'", ask(input=None), ask(input=None, previous_response_id="resp_1")),
    ("'input'", ask(input=7), ask(input="hi")),
    ("instructions", ask(USER, instructions=["x"]), ask(USER, instructions="x")),
    ("No tool call found", ask(foutput()), ask(foutput(), previous_response_id="resp_1")),
    (
        "not persisted",
        ask(thought(), OUTPUT, store=False),
        ask(thought(encrypted_content="x"), OUTPUT, store=False),
    ),
    (
        "'tool_choice' is only",
        ask(USER, tool_choice="required"),
        ask(USER, tool_choice="required", tools=[TOOL]),
    ),
    (
        "'tools[0].type': 'magic'",
        ask(USER, tools=[{"type": "magic"}]),
        ask(USER, tools=[{"type": "web_search"}]),
    ),
    ("tools[0].function", ask(USER, tools=[FUNCTION]), ask(USER, tools=[TOOL])),
    (
        "unique: 'add'",
        ask(USER, tools=[TOOL, TOOL]),
        ask(USER, tools=[TOOL, {"type": "custom", "name": "x"}]),
    ),
    (
        "not found in 'tools'",
        ask(USER, tools=[TOOL], tool_choice={"type": "function", "name": "sub"}),
        ask(USER, tools=[TOOL], tool_choice={"type": "function", "name": "add"}),
    ),
    ("'tools'", ask(USER, tools={}, store=True), ask(USER, tools=[])),
]

RULES = [
    *((said, chat(*bad), chat(*good)) for said, bad, good in MESSAGES),
    *CHATS,
    *((said, ask(*bad), ask(*good)) for said, bad, good in INPUTS),
    *ASKED,
]


@pytest.mark.parametrize(("said", "bad", "good"), RULES)
def test_a_rule(said: str, bad: dict[str, Any], good: dict[str, Any]) -> None:
    assert said in "\n".join(problems(bad))
    assert problems(good) == []


def test_more_can_be_allowed() -> None:
    odd = ask({"type": "hologram", "rays": 3}, OUTPUT | {"mood": "fine"})
    assert len(problems(odd)) == 2
    assert problems(odd, allow_keys={"mood"}, allow_items={"hologram"}) == []
    assert problems(chat(SAID | {"mood": "fine"}), allow_keys=["mood"]) == []
    assert problems_in("/v1/embeddings", {}) == []


def test_the_items_are_those_of_the_installed_client() -> None:
    """As far as it knows them: another version has more of them, or fewer."""
    compared = 0
    for typed in get_args(ResponseInputItemParam):
        hints = get_type_hints(typed, include_extras=True)
        kind = str(hints["type"]).rpartition("Literal['")[2].partition("'")[0]
        if kind in ITEMS and kind not in ("message", "item_reference"):
            required = {key for key, hint in hints.items() if get_origin(hint) is Required} - {"type"}
            assert required <= set(ITEMS[kind][0]), kind
            assert set(hints) - {"type"} <= {*ITEMS[kind][0], *ITEMS[kind][1]}, kind
            compared += 1
    assert compared > 10
