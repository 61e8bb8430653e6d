"""Histories as they are found in the wild, which no provider takes as they are."""

from collections.abc import Callable
from random import Random
from typing import Any

from tests.support.chat_plans import some_text

JSONObject = dict[str, Any]
_IDS = [f"call_{number}" for number in range(6)]


def some_history(random: Random) -> list[JSONObject]:
    """A few pieces of a conversation, interrupted anywhere, in the forms of both APIs."""
    pieces = [piece for _ in range(random.randint(1, 4)) for piece in random.choice(_PIECES)(random)]
    return [piece for piece in pieces if random.random() > 0.12]  # results get lost, and calls do


def _talk(random: Random) -> list[JSONObject]:
    return [
        {"role": "user", "content": some_text(random)},
        {"role": "assistant", "content": some_text(random)},
    ]


def _parts(random: Random) -> list[JSONObject]:
    return [{"role": "user", "content": [{"type": "text", "text": some_text(random)}]}]


def _chat_call(random: Random, ids: list[str]) -> JSONObject:
    calls = [
        {"id": each, "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
        for each in ids
    ]
    return {"role": "assistant", "content": random.choice([None, "", some_text(random)]), "tool_calls": calls}


def _chat_result(random: Random, call_id: str) -> JSONObject:
    return {"role": "tool", "tool_call_id": call_id, "content": some_text(random)}


def _chat_calls(random: Random) -> list[JSONObject]:
    """Parallel calls and their results, in any order, with something in between at times."""
    ids = random.sample(_IDS, random.randint(1, 3))
    results = [_chat_result(random, each) for each in random.sample(ids, len(ids))]
    late = _talk(random) if random.random() < 0.3 else []
    return [_chat_call(random, ids), *late, *results]


def _item_calls(random: Random) -> list[JSONObject]:
    ids = random.sample(_IDS, random.randint(1, 3))
    calls = [
        {"type": "function_call", "call_id": each, "name": "weather", "arguments": "{}", "id": f"fc_{each}"}
        for each in ids
    ]
    results = [{"type": "function_call_output", "call_id": each, "output": some_text(random)} for each in ids]
    late = _talk(random) if random.random() < 0.3 else []
    return [*_reasoning(random), *calls, *late, *results]


def _custom_call(random: Random) -> list[JSONObject]:
    call_id = random.choice(_IDS)
    call = {"type": "custom_tool_call", "call_id": call_id, "name": "shell", "input": some_text(random)}
    return [call, {"type": "custom_tool_call_output", "call_id": call_id, "output": some_text(random)}]


def _reasoning(random: Random) -> list[JSONObject]:
    """Reasoning with nothing behind it, unless the next piece is the model's."""
    item = {"type": "reasoning", "id": f"rs_{random.randrange(6)}", "summary": []}
    return [item | ({"encrypted_content": "abc"} if random.random() < 0.7 else {})]


def _orphan(random: Random) -> list[JSONObject]:
    if random.random() < 0.5:
        return [_chat_result(random, random.choice(_IDS))]
    return [{"type": "function_call_output", "call_id": random.choice(_IDS), "output": some_text(random)}]


def _open_call(random: Random) -> list[JSONObject]:
    return [_chat_call(random, random.sample(_IDS, 2)), {"role": "user", "content": some_text(random)}]


def _partial(random: Random) -> list[JSONObject]:
    """Parts of replies as a cut stream leaves them."""
    begun = {"tool_calls": [{"index": 0, "id": "call_x", "function": {"name": "weather", "arguments": "{"}}]}
    item = {"type": "message", "role": "assistant", "status": "incomplete", "content": []}
    said = [{"type": "output_text", "text": some_text(random), "annotations": []}]
    return [
        random.choice(
            [
                {"role": "assistant", "content": some_text(random), "tokenmem_partial": True},
                {"role": "assistant", "content": "", "tokenmem_partial": begun},
                {**item, "tokenmem_partial": {"items": [{"type": "function_call", "arguments": "{"}]}},
                {**item, "content": said, "tokenmem_partial": True},
            ]
        )
    ]


def _silent(random: Random) -> list[JSONObject]:
    return [{"role": "assistant", "content": random.choice([None, ""])}]


def _items(random: Random) -> list[JSONObject]:
    """A reply as the Responses API gives it."""
    said = {"type": "output_text", "text": some_text(random), "annotations": []}
    message = {"type": "message", "role": "assistant", "status": "completed", "content": [said]}
    return [*_reasoning(random), message | ({"id": "msg_same"} if random.random() < 0.3 else {})]


_PIECES: list[Callable[[Random], list[JSONObject]]] = [
    _talk,
    _talk,
    _parts,
    _chat_calls,
    _chat_calls,
    _item_calls,
    _item_calls,
    _custom_call,
    _reasoning,
    _orphan,
    _open_call,
    _partial,
    _silent,
    _items,
]
