"""From a window to a prompt that every provider accepts: pure functions over its messages.

What is stored may be interrupted anywhere: a process dies between a tool call and its result, two requests
overlap, a reply is cut off. Providers refuse such a history for good. So, in what is sent and only there,

- a call's results follow it at once, wherever they are stored behind it;
- a call without a result gets one that says so (`NO_RESULT`);
- a result without a call, reasoning without what it led to, and a reply that says nothing are left out, as is
  the part of a reply that was cut off while nothing has been said since.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tokenmem.models import Message
from tokenmem.window import answered_ids, call_ids

NO_RESULT = "[no result: this tool call was not answered]"
"""What the model reads as the result of a call that was never answered."""


NoResult = Callable[[Message, str], Message]
"""Makes the result of a message's call, by its id, that has none."""


def sendable(messages: Sequence[Message], no_result: NoResult) -> list[Message]:
    """The messages as they can be sent, in order.

    Args:
        messages: a window's.
        no_result: makes the result of a message's call, by its id, that has none.
    """
    kept = list(messages)
    while kept and kept[-1].partial:
        kept.pop()
    if any(message.kind != "message" for message in kept):
        kept = _without_dangling_reasoning(_with_results(kept, no_result))
    return [message for message in kept if says_something(message)]


def unanswered(messages: Sequence[Message]) -> list[str]:
    """The ids of the calls that have no result behind them, in order."""
    results = _Results(messages)
    return [
        call_id
        for index, message in enumerate(messages)
        for call_id in call_ids(message)
        if results.take(call_id, index) is None
    ]


def newest_calls(messages: Sequence[Message]) -> list[str]:
    """The ids that the newest run of tool calls has."""
    last = max((index for index, each in enumerate(messages) if each.kind == "tool_call"), default=-1)
    first = last
    while first > 0 and messages[first - 1].kind == "tool_call" and _is_item(messages[first]):
        first -= 1
    return [call_id for message in messages[first : last + 1] for call_id in call_ids(message)]


def says_something(message: Message) -> bool:
    """Whether there is anything in a reply; what others say is sent as it is."""
    if message.role != "assistant" or message.content:
        return True
    payload = message.payload or {}
    if _is_item(message):
        return bool(payload.get("content", True))
    said = ("content", "tool_calls", "function_call", "refusal", "audio")
    return any(payload.get(key) for key in said)


def _is_item(message: Message) -> bool:
    """Whether it is an item of the Responses API."""
    return message.payload is not None and "type" in message.payload


class _Results:
    """Where the results of calls are, each to be taken once."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._results: dict[str, list[int]] = defaultdict(list)
        self._calls: dict[str, list[int]] = defaultdict(list)
        for index, message in enumerate(messages):
            if message.kind == "tool_result":
                for call_id in answered_ids(message):
                    self._results[call_id].append(index)
            elif message.kind == "tool_call":
                for call_id in call_ids(message):
                    self._calls[call_id].append(index)

    def take(self, call_id: str, called_at: int) -> int | None:
        """The index of the result of a call: the first one behind it, before the id is called again."""
        again = min((index for index in self._calls[call_id] if index > called_at), default=None)
        for index in self._results[call_id]:
            if index > called_at and (again is None or index < again):
                self._results[call_id].remove(index)
                return index
        return None


def _with_results(messages: Sequence[Message], no_result: NoResult) -> list[Message]:
    """Every call, or run of calls, with its results behind it at once, and no other results."""
    results = _Results(messages)
    sent: list[Message] = []
    open_calls: list[tuple[int, str]] = []
    for index, message in enumerate(messages):
        if message.kind == "tool_result":
            if _answers_the_old_way(messages, index):
                sent.append(message)
            continue
        sent.append(message)
        open_calls += [(index, call_id) for call_id in call_ids(message)]
        if open_calls and not _goes_on(messages, index):
            sent += _results_of(messages, open_calls, results, no_result)
            open_calls = []
    return sent


def _results_of(
    messages: Sequence[Message],
    open_calls: Sequence[tuple[int, str]],
    results: _Results,
    no_result: NoResult,
) -> Iterator[Message]:
    """The results of these calls in the order in which they are stored, then what stands for the others."""
    found = {(index, call_id): results.take(call_id, index) for index, call_id in open_calls}
    stored = sorted({at for at in found.values() if at is not None})
    yield from (messages[at] for at in stored)
    for (index, call_id), at in found.items():
        if at is None and not _in_parts(messages[index], call_id):
            yield no_result(messages[index], call_id)


def _in_parts(message: Message, call_id: str) -> bool:
    """Whether the call stands in a part of the content, as no API of OpenAI's has it."""
    payload = message.payload or {}
    calls = payload.get("tool_calls") or []
    return payload.get("call_id") != call_id and all(call.get("id") != call_id for call in calls)


def _goes_on(messages: Sequence[Message], index: int) -> bool:
    """Whether the calls of one reply go on behind an item: with the Responses API each is one."""
    if not _is_item(messages[index]):
        return False
    for message in messages[index + 1 :]:
        if message.kind == "tool_result":
            return False
        if message.kind == "tool_call":
            return _is_item(message)
        if message.kind not in ("reasoning", "other"):
            return False
    return False


def _answers_the_old_way(messages: Sequence[Message], index: int) -> bool:
    """Whether it is a function's result by name, with its call right before it: such have no ids."""
    if answered_ids(messages[index]):
        return False
    before = messages[index - 1] if index else None
    return before is not None and before.kind == "tool_call" and not call_ids(before)


def _without_dangling_reasoning(messages: Sequence[Message]) -> list[Message]:
    """Reasoning is only accepted before what it led to: a message of the model's, a call, or more of it."""
    kept: list[Message] = []
    for message in reversed(messages):
        follower = kept[-1] if kept else None
        led_to = follower is not None and follower.role == "assistant" and follower.kind != "tool_result"
        if message.kind != "reasoning" or led_to:
            kept.append(message)
    kept.reverse()
    return kept


def no_result_for(token_count: int) -> NoResult:
    """What makes the result of an unanswered call, in the form of the API that made the call.

    Args:
        token_count: what such a result costs, in tokens.
    """
    stored = Message.tool(NO_RESULT, tool_call_id="")

    def make(message: Message, call_id: str) -> Message:
        if _is_item(message):
            kind = f"{(message.payload or {})['type']}_output"
            return replace(stored, payload={"type": kind, "call_id": call_id}, token_count=token_count)
        payload = {"role": "tool", "tool_call_id": call_id}
        return replace(stored, payload=payload, token_count=token_count)

    return make
