"""Histories broken in every way, valid ones, and the prompts that the two APIs make of them."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from tokenmem.chat.apis.completions import ChatCompletions
from tokenmem.chat.apis.responses import Responses
from tokenmem.chat.prompt import no_result_for
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import parse_messages, parse_partial
from tokenmem.testing import problems_in

Dicts = list[dict[str, Any]]
CHAT, RESPONSES = ChatCompletions(), Responses()
APIS = (CHAT, RESPONSES)
UNKNOWN_ITEM = "moonbeam_call"
NO_RESULT_MESSAGE = no_result_for(13)


def stored(messages: Sequence[Any]) -> list[Message]:
    """Messages as a store gives them back: parsed, with positions; a Message keeps its mark of a part."""
    parsed = [
        message if isinstance(message, Message) and message.partial else parse_messages([message])[0]
        for message in messages
    ]
    return [replace(message, position=number, token_count=7) for number, message in enumerate(parsed, 1)]


def prepared(api: Any, messages: Sequence[Message]) -> list[Message]:
    made: list[Message] = api.prepare(messages, NO_RESULT_MESSAGE)
    return made


def sent(api: Any, messages: Sequence[Any]) -> Dicts:
    made: Dicts = api.render(prepared(api, stored(messages)))
    return made


def problems(api: Any, prompt: Dicts) -> list[str]:
    path = "/v1/chat/completions" if api is CHAT else "/v1/responses"
    return problems_in(path, api.request({"model": "gpt-4o"}, prompt, False), allow_items=[UNKNOWN_ITEM])


# ---- what is stored -------------------------------------------------------------------------------------


def call(call_id: Any = "a", name: str = "add", arguments: Any = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def custom(call_id: Any = "a") -> dict[str, Any]:
    return {"id": call_id, "type": "custom", "custom": {"name": "shell", "input": "ls"}}


def calls(*made: Any, content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def result(call_id: Any = "a", content: Any = "3") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def fcall(call_id: str = "a", **keys: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "add", "arguments": "{}", **keys}


def ccall(call_id: str = "a", **keys: Any) -> dict[str, Any]:
    return {"type": "custom_tool_call", "call_id": call_id, "name": "shell", "input": "ls", **keys}


def output(call_id: str = "a", value: Any = "3", kind: str = "function_call") -> dict[str, Any]:
    return {"type": f"{kind}_output", "call_id": call_id, "output": value}


def thought(number: int = 1, encrypted: Any = "gAAA") -> dict[str, Any]:
    return {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": encrypted}


def reply_item(number: int = 1, *parts: dict[str, Any]) -> dict[str, Any]:
    content = list(parts) or [{"type": "output_text", "text": f"said {number}", "annotations": []}]
    named = {"type": "message", "id": f"msg_{number}", "status": "completed"}
    return {**named, "role": "assistant", "content": content}


def search(number: int = 1) -> dict[str, Any]:
    action = {"type": "search", "query": "q"}
    return {"type": "web_search_call", "id": f"ws_{number}", "status": "completed", "action": action}


def user(content: Any = "hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: Any = "hello") -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def old_call(name: str = "add") -> dict[str, Any]:
    return {"role": "assistant", "content": None, "function_call": {"name": name, "arguments": "{}"}}


def old_result(name: str = "add") -> dict[str, Any]:
    return {"role": "function", "name": name, "content": "3"}


def cut_off(text: str = "par", **rest: Any) -> Message:
    return parse_partial({"role": "assistant", "content": text}, rest)


def cut_off_item(text: str = "par", *begun: dict[str, Any]) -> Message:
    parts = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    item = {"type": "message", "role": "assistant", "status": "incomplete", "content": parts}
    return parse_partial(item, {"items": list(begun)} if begun else {})


texts = st.sampled_from(["", "hi", "two\nlines", "né <|endoftext|>"])
call_ids_given = st.sampled_from(["a", "b", "c"])
numbers = st.integers(1, 3)
url = "data:image/png;base64,AA=="
chat_parts = st.sampled_from(
    [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
        {"type": "file", "file": {"file_data": "AA==", "filename": "a.pdf"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        "bare text",
    ]
)
item_parts = st.sampled_from(
    [
        {"type": "input_text", "text": "hi"},
        {"type": "input_image", "detail": "auto", "image_url": url},
        {"type": "input_image", "detail": "auto", "file_id": "file_1"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_file", "file_url": "https://example.org/a.pdf"},
    ]
)
user_contents = st.one_of(
    texts, st.none(), st.lists(chat_parts, max_size=3), st.lists(item_parts, max_size=3)
)
reply_contents = st.one_of(
    texts,
    st.none(),
    st.lists(
        st.sampled_from([{"type": "text", "text": "x"}, {"type": "refusal", "refusal": "no"}]), max_size=2
    ),
    st.lists(st.sampled_from([{"type": "output_text", "text": "x"}, {"type": "output_text", "text": ""}])),
)
result_contents = st.one_of(
    texts, st.none(), st.lists(st.sampled_from([{"type": "text", "text": "3"}, "3"]), max_size=2)
)
outputs = st.one_of(texts, st.none(), st.lists(item_parts, max_size=2), st.just({"any": "thing"}))
made_calls = st.one_of(st.builds(call, call_ids_given), st.builds(custom, call_ids_given))
loose_calls = st.one_of(
    made_calls,
    st.builds(call, st.sampled_from(["", None, 5]), arguments=st.sampled_from([None, {"x": 1}, ""])),
    st.just({"id": "a", "index": 0, "function": {"name": "add"}}),
)
speakers = st.sampled_from(["user", "system", "developer"])
said_to_it = st.one_of(
    st.builds(lambda role: {"role": role, "content": "hi"}, speakers),
    st.builds(user, user_contents),
    st.builds(lambda content: {"type": "message", **user(content)}, user_contents),
    st.builds(lambda text: {"role": "system", "content": [{"type": "input_text", "text": text}]}, texts),
    st.just({"role": "user", "content": "hi", "name": "Ann"}),
    st.just({"role": "user", "type": "human", "content": "hi"}),
    st.just({"role": "user"}),
)
chat_replies = st.one_of(
    st.builds(said, reply_contents),
    st.builds(lambda text: {"role": "assistant", "content": None, "refusal": text}, texts),
    st.just(
        {"role": "assistant", "content": None, "audio": {"id": "audio_1", "data": "", "transcript": "hi"}}
    ),
    st.just({"role": "assistant", "content": None, "audio": {"id": "audio_1"}}),
    st.builds(
        lambda made, text: calls(*made, content=text), st.lists(loose_calls, min_size=1), reply_contents
    ),
    st.builds(lambda made: {**calls(*made), "type": "ai"}, st.lists(made_calls, min_size=1, max_size=2)),
    st.builds(old_call, st.sampled_from(["add", "sub"])),
)
item_replies = st.one_of(
    st.builds(thought, numbers),
    st.builds(thought, numbers, st.just(None)),
    st.builds(lambda number: {**thought(number), "content": None}, numbers),
    st.builds(reply_item, numbers),
    st.just(reply_item(1, {"type": "refusal", "refusal": "no"})),
    st.just(reply_item(2, {"type": "output_text", "text": "", "annotations": []})),
    st.just({**reply_item(3), "content": []}),
    st.builds(fcall, call_ids_given),
    st.builds(lambda call_id: {**fcall(call_id), "id": f"fc_{call_id}"}, call_ids_given),
    st.builds(ccall, call_ids_given),
    st.builds(search, numbers),
    st.sampled_from(
        [
            {"type": UNKNOWN_ITEM, "light": 1},
            {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True},
            {"type": "apply_patch_call", "call_id": "p", "operation": {}, "status": "completed"},
            {"type": "shell_call", "call_id": "s", "action": {"commands": ["ls"]}},
            {
                "type": "computer_call",
                "id": "cu_1",
                "call_id": "k",
                "pending_safety_checks": [],
                "status": "x",
            },
            {"type": "local_shell_call", "id": "lsh_1", "action": {}, "call_id": "l", "status": "completed"},
        ]
    ),
)
results = st.one_of(
    st.builds(result, call_ids_given, result_contents),
    st.builds(result, st.sampled_from(["", None, 5])),
    st.just({"role": "tool", "content": "3"}),
    st.just({"role": "tool", "type": "tool", "tool_call_id": "a", "content": "3"}),
    st.builds(old_result, st.sampled_from(["add", "sub"])),
    st.builds(output, call_ids_given, outputs),
    st.builds(output, call_ids_given, texts, st.just("custom_tool_call")),
    st.just({"type": "shell_call_output", "call_id": "s", "output": [{"stdout": "x"}]}),
    st.just({"type": "computer_call_output", "call_id": "k", "output": {"type": "computer_screenshot"}}),
    st.just({"type": "apply_patch_call_output", "call_id": "p", "status": "completed"}),
)
parts_of_replies = st.one_of(
    st.builds(cut_off, texts),
    st.builds(lambda text: cut_off(text, tool_calls=[{"index": 0, **call()}]), texts),
    st.builds(cut_off_item, texts),
    st.builds(lambda text: cut_off_item(text, fcall()), texts),
)
anything_stored = st.one_of(said_to_it, chat_replies, item_replies, results, parts_of_replies)
histories = st.lists(anything_stored, max_size=12)


@st.composite
def valid_histories(draw: st.DrawFn, api: Any) -> Dicts:
    """What an application that is never interrupted has stored, by one API."""
    fresh = itertools.count(1)
    made: Dicts = []
    for _ in range(draw(st.integers(1, 6))):
        turn = draw(st.sampled_from(["say", "reply", "calls", "old"]))
        if turn == "say":
            made.append({"role": draw(speakers), "content": draw(texts)})
        elif turn == "reply":
            made.append(said(f"reply {next(fresh)}") if api is CHAT else reply_item(next(fresh)))
        elif turn == "old" and api is CHAT:
            made += [old_call(), old_result()]
        elif api is CHAT:
            ids = [f"call_{next(fresh)}" for _ in range(draw(numbers))]
            content = draw(st.sampled_from([None, "let me see", ""]))
            made.append(
                calls(*(draw(st.sampled_from([call, custom]))(each) for each in ids), content=content)
            )
            made += [result(each) for each in draw(st.permutations(ids))]
        else:
            made += draw(_items_with_outputs(fresh))
    return made


@st.composite
def _items_with_outputs(draw: st.DrawFn, fresh: Any) -> Dicts:
    """A reply of the Responses API with calls, reasoning, words and searches between them, and outputs."""
    made: Dicts = []
    kinds: dict[str, Any] = {}
    for _ in range(draw(numbers)):
        for between in draw(
            st.lists(st.sampled_from([thought, reply_item, search]), max_size=2, unique=True)
        ):
            made.append(between(next(fresh)))
        call_id = f"call_{next(fresh)}"
        kinds[call_id] = draw(st.sampled_from([fcall, ccall]))
        made.append(kinds[call_id](call_id))
    for call_id in draw(st.permutations(sorted(kinds))):
        made.append(output(call_id, kind=kinds[call_id](call_id)["type"]))
    return made
