"""How replies of the Responses API and whole replies are read: nothing is lost, wherever a stream is cut."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion
from openai.types.responses import Response, ResponseTextDeltaEvent

from tests.chat.test_replies import COUNTS, TWO, USAGE, called
from tokenmem.chat.apis.completions import ChatCompletions
from tokenmem.chat.apis.function import Function
from tokenmem.chat.apis.replies import tool_calls_of
from tokenmem.chat.apis.responses import ResponseReader, Responses
from tokenmem.chat.tools import text_of
from tokenmem.errors import ModelError
from tokenmem.messages.message import PARTIAL
from tokenmem.messages.unstorable import scrubbed

Dicts = list[dict[str, Any]]


# ---- the Responses API -----------------------------------------------------------------------------------


def event(kind: str, **keys: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": 1, **keys}


def item_message(number: int, text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    named = {"type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant"}
    return {**named, "content": content}


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "add", "arguments": '{"x":1}'}
CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "b", "name": "shell", "input": "ls"}
UNKNOWN = {"type": "moonbeam_call", "id": "mb_1", "light": {"deep": [1]}, "status": "completed"}


def events_of(items: Dicts) -> Dicts:
    """The events of a reply, in order."""
    made = [event("created", response={"id": "resp_1", "output": []})]
    for place, item in enumerate(items):
        begun = {key: "" if key in ("arguments", "input") else each for key, each in item.items()}
        if item["type"] == "message":
            begun["content"] = []
        made.append(event("output_item.added", output_index=place, item=begun))
        deltas: dict[str, Any] = {
            "message": ("output_text", lambda item: item["content"][0]["text"]),
            "function_call": ("function_call_arguments", lambda item: item["arguments"]),
            "custom_tool_call": ("custom_tool_call_input", lambda item: item["input"]),
        }
        if item["type"] in deltas:
            name, whole = deltas[item["type"]]
            text = whole(item)
            half = len(text) // 2
            for each in (text[:half], text[half:]):
                made.append(event(f"{name}.delta", output_index=place, item_id=item["id"], delta=each))
        made.append(event("output_item.done", output_index=place, item=item))
    body = {"id": "resp_1", "status": "completed", "output": items, "usage": None}
    return [*made, event("completed", response=body)]


some_items = st.lists(
    st.sampled_from([THOUGHT, CALL, CUSTOM, UNKNOWN, item_message(1, "hello"), item_message(2, "wörld")]),
    min_size=1,
    max_size=5,
    unique_by=lambda item: item.get("call_id") or object(),  # the same call once more would be one
)


@settings(max_examples=40, deadline=None)
@given(items=some_items)
def test_a_stream_of_items_is_the_reply(items: Dicts) -> None:
    events = events_of(items)
    before = copy.deepcopy(events)
    reader = ResponseReader()
    delivered = "".join(reader.feed(each) for each in events)
    assert events == before  # the caller's events are not changed
    assert reader.complete
    answer = reader.answer()
    assert [message.to_openai() for message in answer.messages] == items
    assert delivered == answer.text
    # A server that does not repeat the items at the end has sent them all the same.
    other = ResponseReader()
    for each in [*events[:-1], event("completed", response={"status": "completed", "output": []})]:
        other.feed(each)
    assert other.answer().messages == answer.messages


@settings(max_examples=60, deadline=None)
@given(items=some_items, data=st.data())
def test_items_cut_anywhere_leave_what_was_delivered(items: Dicts, data: st.DataObject) -> None:
    events = events_of(items)[:-1]
    arrived = events[: data.draw(st.integers(0, len(events)))]
    reader = ResponseReader()
    delivered = "".join(reader.feed(each) for each in arrived)
    part = reader.part()
    assert not reader.complete
    assert part.text == delivered
    done = [each["item"] for each in arrived if each["type"] == "response.output_item.done"]
    opened = [each["item"] for each in arrived if each["type"] == "response.output_item.added"]
    stored = [message.to_openai() for message in part.messages if not message.partial]
    assert stored == done
    begun_items = [item for item in opened[len(done) :] if item["type"] != "message"]
    assert bool(part.messages) == bool(delivered or done or begun_items)
    if begun_items:
        (begun,) = (part.messages[-1].payload or {})[PARTIAL]["items"]
        assert begun["type"] == begun_items[0]["type"]
        assert items[len(done)].get("arguments", "").startswith(begun.get("arguments", ""))
        assert items[len(done)].get("input", "").startswith(begun.get("input", ""))
        assert (begun.get("arguments") or begun.get("input") or "") == "".join(
            each["delta"]
            for each in arrived
            if each["type"].endswith(".delta")
            and each["output_index"] == len(done)
            and not each["type"].startswith("response.output_text")
        )


def test_items_that_come_side_by_side() -> None:
    """A call that is done does not end the message that is under way."""
    reader = ResponseReader()
    for each in (
        event("output_item.added", output_index=0, item={**item_message(1, ""), "content": []}),
        event("output_text.delta", output_index=0, delta="he"),
        event("output_item.added", output_index=1, item={**CALL, "arguments": ""}),
        event("output_item.done", output_index=1, item=CALL),
        event("output_text.delta", output_index=0, delta="llo"),
    ):
        reader.feed(each)
    part = reader.part()
    assert part.text == "hello"
    assert [message.content for message in part.messages] == [None, "hello"]


def test_a_refusal_under_way_is_kept() -> None:
    reader = ResponseReader()
    reader.feed(event("output_item.added", output_index=0, item={**item_message(1, ""), "content": []}))
    reader.feed(event("refusal.delta", output_index=0, delta="I "))
    assert reader.feed(event("refusal.delta", output_index=0, delta="won't")) == ""
    (message,) = reader.part().messages
    assert (message.payload or {})[PARTIAL]["items"][0]["refusal"] == "I won't"


def test_an_item_that_cannot_be_stored_does_not_hide_why_the_stream_broke() -> None:
    reader = ResponseReader()
    reader.feed(event("output_item.done", output_index=0, item={"type": "function_call", "name": "add"}))
    (message,) = reader.part().messages
    assert message.partial


@pytest.mark.parametrize(
    "odd",
    [
        event("output_text.delta", output_index=0, delta=None),
        event("output_text.delta"),
        event("output_item.added", output_index=0),
        event("output_item.done", item=None),
        event("completed"),
        {"type": "keepalive"},
        {},
        None,
    ],
    ids=repr,
)
def test_events_that_say_nothing(odd: Any) -> None:
    reader = ResponseReader()
    assert [reader.feed(each) for each in (odd, event("output_text.delta", delta="a"), odd)] == ["", "a", ""]
    assert reader.part().text == "a"


def test_an_event_as_the_openai_package_has_it() -> None:
    typed_event = ResponseTextDeltaEvent.construct(
        type="response.output_text.delta", delta="a\ud83d\0", output_index=0, content_index=0, item_id="msg_1"
    )
    reader = ResponseReader()
    assert reader.feed(typed_event) == "a\ufffd\ufffd"
    assert reader.part().text == "a\ufffd\ufffd"


@pytest.mark.parametrize(
    "body",
    [
        {"type": "error", "code": "server_error", "message": "secret"},
        event("failed", response={"error": {"code": "server_error", "message": "secret"}}),
    ],
)
def test_a_reply_that_fails_says_only_the_code(body: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="server_error") as caught:
        ResponseReader().feed(body)
    assert "secret" not in str(caught.value)


# ---- whole replies ---------------------------------------------------------------------------------------

MESSAGES = [
    {"role": "assistant", "content": "hi", "refusal": None, "annotations": []},
    {"role": "assistant", "content": "", "tool_calls": [{"type": "function", **each} for each in TWO]},
    {"role": "assistant", "tool_calls": [{"type": "function", **TWO[0], "extra_content": {"sig": "x"}}]},
    {"role": "assistant", "content": None, "refusal": "no"},
    {
        "role": "assistant",
        "content": None,
        "audio": {"id": "a", "data": "", "expires_at": 1, "transcript": "t"},
    },
    {"role": "assistant", "content": "hi", "reasoning_content": "hm", "x_unknown": {"y": [None, 1.5]}},
    {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": []}]},
    {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "new", "new": {"input": "x"}}]},
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: "-".join(message))
@pytest.mark.parametrize(
    "form", [lambda **body: ChatCompletion.construct(**body), dict], ids=["openai", "dict"]
)
def test_a_message_is_stored_as_the_server_sent_it(form: Any, message: dict[str, Any]) -> None:
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    body = form(id="chatcmpl-1", object="chat.completion", created=1, model="m", choices=choices, usage=USAGE)
    answer = ChatCompletions().read(body)
    assert [each.to_openai() for each in answer.messages] == [message]
    assert (answer.finish_reason, answer.usage) == ("stop", COUNTS)
    (returned,) = Function().read(message).messages
    assert returned.to_openai() == message


def test_a_response_is_stored_as_the_server_sent_it() -> None:
    items: Dicts = [THOUGHT, UNKNOWN, {**item_message(1, "hi"), "x_new": 1}, CALL, CUSTOM]
    items[2]["content"].append({"type": "refusal", "refusal": "no"})
    body: dict[str, Any] = {
        "id": "resp_1",
        "status": "completed",
        "output": items,
        "error": None,
        "incomplete_details": None,
    }
    usage = {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}}
    for response in (body | {"usage": usage}, Response.construct(**body, usage=usage)):
        answer = Responses().read(response)
        assert [message.to_openai() for message in answer.messages] == items
        assert (answer.text, answer.finish_reason) == ("hi", "completed")
        assert answer.usage == {**COUNTS, "reasoning_tokens": None}


def test_a_response_s_text_is_what_is_stored() -> None:
    answer = Responses().read({"output": [item_message(1, "a\0b")], "status": "completed"})
    assert answer.text == answer.messages[0].content == "a\ufffdb"


@pytest.mark.parametrize(
    "body",
    [None, "text", {}, {"choices": []}, {"choices": [None]}, {"choices": [{"message": None}]}],
    ids=repr,
)
def test_an_answer_without_a_message(body: Any) -> None:
    with pytest.raises(ModelError):
        ChatCompletions().read(body)
    with pytest.raises(ModelError):
        Responses().read(body)


@pytest.mark.parametrize("returned", [None, 5, ["text"], {"choices": []}, {}], ids=repr)
def test_a_function_that_returns_no_message(returned: Any) -> None:
    with pytest.raises(ModelError):
        Function().read(returned)


def test_arguments_that_came_as_an_object() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [called("a", "add", {"x": 1})]}  # type: ignore[arg-type]
    (call,) = tool_calls_of(Function().read(message).messages)
    assert json.loads(call.arguments) == {"x": 1}


def test_a_call_that_the_provider_has_answered_is_not_the_application_s() -> None:
    hosted = {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}}
    result = {"type": "shell_call_output", "call_id": "s", "output": []}
    answer = Responses().read({"output": [hosted, result, CALL], "status": "completed"})
    assert [call.id for call in tool_calls_of(answer.messages)] == ["a"]


def test_scrubbing_leaves_other_values_as_they_are() -> None:
    value = {"a": [1, 1.5, None, True, "é😀"], "b": {"c": "x"}}
    assert scrubbed(value) == value
    assert scrubbed({"\0": ["\ud800"]}) == {"\ufffd": ["\ufffd"]}


def test_what_a_function_returned_as_text() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert text_of("a") == "a"
    assert text_of({"ä": None}) == '{"ä": null}'
    assert text_of(float("nan")) == "nan"
    assert text_of({1, 2}) == "{1, 2}"
    assert "nests too deep" in text_of(deep)
