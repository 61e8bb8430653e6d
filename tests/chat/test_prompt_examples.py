"""Prompts by example, and what survives the way from one API's form to the other's and back."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.prompt_histories import (
    APIS,
    CHAT,
    RESPONSES,
    Dicts,
    call,
    calls,
    ccall,
    custom,
    cut_off,
    cut_off_item,
    fcall,
    old_call,
    old_result,
    output,
    prepared,
    problems,
    reply_item,
    result,
    said,
    sent,
    stored,
    thought,
    url,
    user,
    valid_histories,
)
from tokenmem.chat.prompt import NO_RESULT, calls_beside, unanswered

# ---- from one API to the other --------------------------------------------------------------------------


def events_in(messages: Dicts) -> list[tuple[Any, ...]]:
    """Who says what, which calls are made and what they come to, whichever API's form they have."""
    found: list[tuple[Any, ...]] = []
    for each in messages:
        kind = each.get("type", "")
        if kind == "reasoning":
            continue
        if kind.endswith("_output") or each.get("role") == "tool":
            found.append(
                (
                    "result",
                    each.get("call_id") or each.get("tool_call_id"),
                    each.get("output", each.get("content")),
                )
            )
        elif kind in ("function_call", "custom_tool_call"):
            found.append(("call", each["call_id"], each["name"], each.get("arguments") or each.get("input")))
        else:
            content = each["content"]
            text = content if isinstance(content, str) or content is None else content[0]["text"]
            if text:
                found.append((each["role"], text))
        for made in each.get("tool_calls", ()):
            inner = made.get("function") or made["custom"]
            found.append(("call", made["id"], inner["name"], inner.get("arguments") or inner["input"]))
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_chat_survives_the_way_to_items_and_back(data: st.DataObject) -> None:
    history = [
        m for m in data.draw(valid_histories(CHAT)) if m["role"] != "function" and "function_call" not in m
    ]
    items = sent(RESPONSES, history)
    assert events_in(items) == events_in(history)
    assert not items or problems(RESPONSES, items) == []
    again = sent(CHAT, items)
    assert events_in(again) == events_in(history)
    assert not again or problems(CHAT, again) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_items_survive_as_chat_messages(data: st.DataObject) -> None:
    """Searches have no place there, and what is said between the calls of a reply stands before them."""
    items = [item for item in data.draw(valid_histories(RESPONSES)) if item.get("type") != "web_search_call"]
    messages = sent(CHAT, items)
    as_lines = ["\n".join(map(str, event)) for event in events_in(messages)]
    for event in events_in(items):
        assert any(all(str(each) in line for each in event) for line in as_lines)
    calls_of = [event for event in events_in(items) if event[0] in ("call", "result")]
    assert [event for event in events_in(messages) if event[0] in ("call", "result")] == calls_of


PARTS = [
    {"type": "text", "text": "see"},
    {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    {"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}},
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
]


def test_parts_survive_the_way_to_items_and_back() -> None:
    (item,) = sent(RESPONSES, [user(PARTS)])
    assert [part["type"] for part in item["content"]] == [
        "input_text",
        "input_image",
        "input_file",
        "input_audio",
    ]
    assert problems(RESPONSES, [item]) == []
    assert sent(CHAT, [item]) == sent(CHAT, [{"type": "message", **item}]) == [user(PARTS)]


# ---- examples -------------------------------------------------------------------------------------------


def stand_in(call_id: str = "a") -> dict[str, Any]:
    return result(call_id, NO_RESULT)


EXAMPLES: dict[str, tuple[Any, list[Any], Dicts]] = {
    "text and calls of a chat message are items": (
        RESPONSES,
        [calls(call("a"), custom("b"), content="let me see"), result("b"), result("a")],
        [said("let me see"), fcall("a"), ccall("b"), output("b", kind="custom_tool_call"), output("a")],
    ),
    "items of one reply are one chat message": (
        CHAT,
        [thought(), reply_item(), fcall("a"), thought(2), ccall("b"), output("a"), output("b", "4")],
        [calls(call("a"), custom("b"), content="said 1"), result("a"), result("b", "4")],
    ),
    "what is said between the calls of a reply": (
        CHAT,
        [fcall("a"), reply_item(1), fcall("b"), output("a"), output("b")],
        [calls(call("a"), call("b"), content="said 1"), result("a"), result("b")],
    ),
    "reasoning between the calls of a reply stays there": (
        RESPONSES,
        given_items := [thought(1), fcall("a"), thought(2), fcall("b"), output("b"), output("a")],
        given_items,
    ),
    "reasoning whose own content is null": (
        RESPONSES,
        with_null := [{**thought(), "content": None}, fcall("a"), output("a")],
        with_null,
    ),
    "reasoning before a reply that says nothing": (
        RESPONSES,
        [thought(), {**reply_item(), "content": []}, user()],
        [user()],
    ),
    "reasoning before what the application says": (
        RESPONSES,
        [thought(), {"type": "mcp_approval_response", "approval_request_id": "m", "approve": True}],
        [{"type": "mcp_approval_response", "approval_request_id": "m", "approve": True}],
    ),
    "two user messages in a row": (CHAT, [user("a"), user("b")], [user("a"), user("b")]),
    "a developer's message": (RESPONSES, dev := [{"role": "developer", "content": "be kind"}, user()], dev),
    "a name is not for the Responses API": (RESPONSES, [{**user(), "name": "Ann"}], [user()]),
    "a user's empty words": (RESPONSES, [user([]), user(None), user("")], [user("")] * 3),
    "a call id used in two replies": (
        CHAT,
        twice := [calls(call("a")), result("a", "1"), calls(call("a")), result("a", "2")],
        twice,
    ),
    "a call id used in two replies, where ids are unique": (
        RESPONSES,
        twice,
        [fcall("a"), output("a", "1"), fcall("a_2"), output("a_2", "2")],
    ),
    "a call id used again before its result": (
        CHAT,
        [calls(call("a")), calls(call("a")), result("a", "2")],
        [calls(call("a")), stand_in(), calls(call("a")), result("a", "2")],
    ),
    "a call id used twice in one message": (
        CHAT,
        [calls(call("a"), call("a")), result("a", "1"), result("a", "2")],
        [calls(call("a"), call("a_2")), result("a", "1"), result("a_2", "2")],
    ),
    "calls without ids": (
        CHAT,
        [calls(call(""), call(None)), result("", "1"), {"role": "tool", "content": "2"}],
        [calls(call("call_1"), call("call_2")), result("call_1", "1"), result("call_2", "2")],
    ),
    "a function called the old way": (CHAT, old := [old_call(), old_result(), user()], old),
    "a function called the old way, twice, and not answered": (
        RESPONSES,
        [old_call(), old_result(), old_call(), user()],
        [fcall("add"), output("add"), fcall("add_2"), output("add_2", NO_RESULT), user()],
    ),
    "a result of which the call is out of the window": (CHAT, [result(), user()], [user()]),
    "a call that was not answered, and its late result": (
        CHAT,
        [calls(call("a")), user(), result("a"), said()],
        [calls(call("a")), result("a"), user(), said()],
    ),
    "a refusal alone": (
        CHAT,
        [{**said(None), "refusal": "no", "annotations": []}],
        [{**said(None), "refusal": "no"}],
    ),
    "a refusal alone, as an item": (
        CHAT,
        [reply_item(1, {"type": "refusal", "refusal": "no"})],
        [said("no")],
    ),
    "a spoken reply": (
        CHAT,
        spoken := [
            {**said(None), "audio": {"id": "audio_1", "data": "AA", "transcript": "hi", "expires_at": 1}}
        ],
        [{**said(None), "audio": {"id": "audio_1"}}],
    ),
    "a spoken reply, as an item": (RESPONSES, spoken, [said("hi")]),
    "an image in a tool's result": (
        CHAT,
        [
            fcall("a"),
            output("a", [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": url}]),
        ],
        [
            calls(call("a")),
            result(
                "a",
                [
                    {"type": "text", "text": "see"},
                    {"type": "text", "text": "[input_image: left out, as it cannot be sent here]"},
                ],
            ),
        ],
    ),
    "parts of a tool's result": (
        RESPONSES,
        [calls(call("a")), result("a", [{"type": "text", "text": "see"}])],
        [fcall("a"), output("a", [{"type": "input_text", "text": "see"}])],
    ),
    "a reply that was cut off after its calls began": (
        CHAT,
        [user("a"), cut_off("", tool_calls=[call()]), user("b")],
        [user("a"), user("b")],
    ),
    "a reply that was cut off, while nothing was said since": (CHAT, [user(), cut_off("par")], [user()]),
    "a reply that was cut off, before more was said": (
        CHAT,
        [user("a"), cut_off("par"), user("b")],
        [user("a"), said("par"), user("b")],
    ),
    "a call that had come whole when its reply was cut off": (
        RESPONSES,
        [user("a"), fcall("a"), cut_off_item("", fcall("b")), user("b")],
        [user("a"), fcall("a"), output("a", NO_RESULT), user("b")],
    ),
    "a reply is the last": (CHAT, last := [user(), said()], last),
    "an item stored twice": (
        RESPONSES,
        [thought(), reply_item(), thought(), reply_item(), user()],
        [thought(), reply_item(), user()],
    ),
    "a shell's call that was not answered": (
        RESPONSES,
        [shell := {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}}, user()],
        [
            shell,
            {
                "type": "shell_call_output",
                "call_id": "s",
                "output": [
                    {"stdout": NO_RESULT, "stderr": "", "outcome": {"type": "exit", "exit_code": 1}},
                ],
            },
            user(),
        ],
    ),
    "a screenshot that was asked for and not taken": (
        RESPONSES,
        [thought(), {"type": "computer_call", "id": "cu_1", "call_id": "k", "status": "completed"}, user()],
        [user()],
    ),
    "another framework's type of a message": (CHAT, [{"type": "human", **user()}], [user()]),
    "a call as servers send it": (
        CHAT,
        [calls({"index": 0, "id": "a", "function": {"name": "add", "arguments": {"x": 1}}}), result()],
        [calls(call("a", arguments='{"x":1}')), result()],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    api, history, expected = EXAMPLES[name]
    assert sent(api, history) == expected
    unmended = ("mcp_approval_response", "computer_call")
    assert any(kind in str(expected) for kind in unmended) or problems(api, expected) == []


def test_calls_beside_others_are_those_of_a_whole_reply() -> None:
    """All of them must be answered together, also where reasoning stands between them."""
    items = [fcall("x"), output("x"), thought(1), fcall("a"), thought(2), reply_item(), ccall("b")]
    assert calls_beside(stored(items), ["b"]) == unanswered(stored(items)) == ["a", "b"]
    assert calls_beside(stored([calls(call("a")), fcall("b")]), ["b"]) == ["b"]
    assert calls_beside(stored([calls(call("a")), user(), calls(call("b"))]), ["a"]) == ["a"]
    assert calls_beside(stored([user()]), ["a"]) == []


def test_a_result_that_is_made_up_costs_what_it_was_said_to() -> None:
    made = [prepared(api, stored([calls(call("a")), fcall("b"), user()])) for api in APIS]
    costs = [(message.kind, message.token_count) for message in made[0] if not message.position]
    assert costs == [("tool_result", 13), ("tool_result", 13)]
    assert [message.content for message in made[1] if not message.position] == [NO_RESULT, NO_RESULT]
