"""OpenAI chat messages as the turns of user and assistant that Anthropic's Messages API takes."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

JSONObject = dict[str, Any]

CACHED = {"cache_control": {"type": "ephemeral"}}
"""Behind a block: the prompt up to here may be kept. A request has four at most, ours have three."""

BEGINNING = {"type": "text", "text": "[earlier messages are left out]"}
"""Stands before a window that begins with a reply: the first message must be the user's."""

GO_ON = {"type": "text", "text": "[go on]"}
"""Stands behind a window that ends with a reply: the last message must be the user's."""


def turns_of(sent: Sequence[JSONObject]) -> tuple[list[JSONObject], list[JSONObject]]:
    """OpenAI chat messages as blocks of the system prompt, and as turns of user and assistant in turn."""
    system: list[JSONObject] = []
    turns: list[JSONObject] = []
    ids = _CallIds()
    for message in sent:
        role = message["role"]
        if role in ("system", "developer") and not turns:
            system += _blocks(message.get("content"))
            continue
        blocks = _reply_blocks(message, ids) if role == "assistant" else _user_blocks(message, ids)
        speaker = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == speaker:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": speaker, "content": blocks})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [BEGINNING]})
    if turns[-1]["role"] == "assistant":
        turns.append({"role": "user", "content": [GO_ON]})
    return system, turns


class _CallIds:
    """The ids of calls as they are sent: each once in a prompt, and of the characters that may be in them."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._sent: dict[str, str] = {}

    def of_call(self, call_id: str) -> str:
        known = re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)
        chosen, times = known, 1
        while chosen in self._used:
            times += 1
            chosen = f"{known}_{times}"
        self._used.add(chosen)
        self._sent[call_id] = chosen
        return chosen

    def of_result(self, call_id: str) -> str:
        return self._sent[call_id]


def _reply_blocks(message: JSONObject, ids: _CallIds) -> list[JSONObject]:
    blocks = _blocks(message.get("content") or message.get("refusal"))
    for call in message.get("tool_calls") or []:
        called = call.get("function") or call.get("custom") or {}
        made = {"id": ids.of_call(call["id"]), "name": called.get("name"), "input": _input(called)}
        blocks.append({"type": "tool_use", **made})
    return blocks


def _input(called: JSONObject) -> JSONObject:
    """A call's arguments, which must be an object: what the model wrote may be none."""
    if "input" in called:  # a custom tool's, which is any text
        return {"input": called["input"]}
    try:
        arguments = json.loads(called.get("arguments") or "{}")
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _user_blocks(message: JSONObject, ids: _CallIds) -> list[JSONObject]:
    if message["role"] != "tool":
        return _blocks(message.get("content"))
    result = {"type": "tool_result", "tool_use_id": ids.of_result(message["tool_call_id"])}
    content = _blocks(message.get("content"))
    return [{**result, "content": content} if content else result]


def _blocks(content: Any) -> list[JSONObject]:
    """A message's content as blocks; text that says nothing is refused."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    return [block for part in parts if (block := _block(part)) is not None]


def _block(part: JSONObject) -> JSONObject | None:
    if part.get("type") == "image_url":
        url = part["image_url"]["url"]
        if found := re.fullmatch(r"data:(?P<media_type>[\w/+.-]+);base64,(?P<data>.*)", url, re.DOTALL):
            return {"type": "image", "source": {"type": "base64", **found.groupdict()}}
        return {"type": "image", "source": {"type": "url", "url": url}}
    text = part.get("text", f"[{part.get('type')}: left out, as it cannot be sent here]")
    return {"type": "text", "text": text} if text.strip() else None


def marked(turns: Sequence[JSONObject]) -> list[JSONObject]:
    """The turns with marks behind what the last request ended with, and behind what this one ends with.

    The first is read from the cache, the second is kept for the next request: a window's beginning stays
    where it is for many turns (Chat's `stride`), and all that was sent is sent again.
    """
    found = list(turns)
    for index in [place for place, turn in enumerate(turns) if turn["role"] == "user"][-2:]:
        *blocks, last = turns[index]["content"]
        found[index] = {"role": "user", "content": [*blocks, {**last, **CACHED}]}
    return found
