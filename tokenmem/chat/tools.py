"""Tools: results checked, cut to size and sent, and functions run until the model has no more calls."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from tokenmem.arguments import checked_choice, checked_number
from tokenmem.chat.effects import Invocation, Invoke, TurnProcedure
from tokenmem.chat.prompt import calls_beside, unanswered
from tokenmem.chat.requests import Check, TurnRequest
from tokenmem.chat.turn import Turns
from tokenmem.counting.counters import TokenCounter
from tokenmem.errors import (
    IdempotencyConflict,
    InvalidArgument,
    InvalidMessage,
    TooManyModelCalls,
    WindowTooSmall,
)
from tokenmem.execution.effects import count
from tokenmem.messages.calls import ToolCall, answered_ids
from tokenmem.messages.message import Message, with_text
from tokenmem.messages.parsing import MessageLike, Unstorable, parse_messages
from tokenmem.messages.unstorable import scrubbed
from tokenmem.models import Reply
from tokenmem.operations import calls

Results = Mapping[str, object] | Iterable[MessageLike]
"""Tool results: by the call's id, or as messages of the role tool."""

Functions = Mapping[str, Callable[..., object]]
OnError = Literal["tell", "raise"]

_SMALLEST_CUT = 32
"""Tokens of a result below which cutting it would leave nothing to read."""

_CUTS = 3
"""How often results are cut: the first cut leaves out the mark's own cost, and rounds."""


def result_messages(results: Results, unstorable: Unstorable = "refuse") -> list[Message]:
    """Tool results as messages.

    Args:
        results: the results.
        unstorable: what the store does about characters that databases cannot hold.

    Raises:
        InvalidMessage: one of them is no tool result, or cannot be stored.
        InvalidArgument: two answer the same call.
    """
    if isinstance(results, Mapping) and "role" not in results and "type" not in results:
        results = [Message.tool(text_of(value), tool_call_id=str(key)) for key, value in results.items()]
    listed: Iterable[MessageLike] = results  # type: ignore[assignment]  # a single one is refused there
    parsed = parse_messages(listed, unstorable)
    ids: set[str] = set()
    for index, message in enumerate(parsed):
        if message.kind != "tool_result" or not answered_ids(message):
            raise InvalidMessage(
                f"messages[{index}] is no tool result; pass Message.tool(…), or a dict by call id"
            )
        for call_id in answered_ids(message):
            if call_id in ids:
                raise InvalidArgument(f"two results answer the call {call_id!r}; pass one for each call")
            ids.add(call_id)
    return parsed


def text_of(value: object) -> str:
    """What a function returned as the text that the model reads: a text itself, all else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    except RecursionError:
        return f"[a {type(value).__name__} that nests too deep to be written down]"


class ResultTurns(Turns):
    """The turns of a chat that uses tools."""

    def answer_calls(self, request: TurnRequest) -> TurnProcedure[Reply]:
        """Store the results of the newest tool calls, ask the model, store its reply."""
        check = _check_of(request.conversation_id, request.messages)
        request = replace(request, check=check, given=request.messages)
        for _ in range(_CUTS):
            try:
                return (yield from self.turn(request))
            except WindowTooSmall as error:
                if self.settings.oversized_results == "refuse":
                    raise
                excess = error.token_count - error.token_limit
                messages = yield from self._cut(request.messages, excess)
                if messages is None:
                    raise
                check = _check_of(request.conversation_id, messages)
                request = replace(request, messages=messages, check=check)
        return (yield from self.turn(request))

    def _cut(self, messages: Sequence[Message], excess: int) -> TurnProcedure[list[Message] | None]:
        """Results that cost so many tokens less, the longest cut; None where that would leave too little."""
        counter = self.counter
        costs = yield from count(counter, messages)
        level = _level(costs, excess)
        if level < _SMALLEST_CUT:
            return None
        cut = []
        for message, cost in zip(messages, costs, strict=True):
            if cost > level:
                message = yield from _cut_to(message, cost, level, counter)
            cut.append(message)
        return cut

    def run(
        self,
        request: TurnRequest,
        functions: Functions,
        max_calls: int,
        on_error: OnError,
    ) -> TurnProcedure[Reply]:
        """Ask, call the functions that the model asks for, and ask again until it calls none."""
        checked_number(max_calls, "max_calls", least=1)
        checked_choice(on_error, "on_error", ("tell", "raise"))
        _check_functions(functions)
        reply = yield from self.turn(request)
        for number in range(1, max_calls):
            if not reply.tool_calls:
                return reply
            reply = yield from self._round(request, reply, functions, on_error, number)
        if reply.tool_calls:
            raise TooManyModelCalls(
                f"conversation {request.conversation_id!r}: after {max_calls} calls the model still calls "
                f"tools; raise max_calls, or answer reply.tool_calls with send_tool_results"
            )
        return reply

    def _round(
        self, request: TurnRequest, reply: Reply, functions: Functions, on_error: OnError, number: int
    ) -> TurnProcedure[Reply]:
        """Call the functions of one reply and send their results; what a repeated run has stored stays."""
        request = replace(
            request, messages=(), key=_key_of_round(request.key, number), expected_position=None
        )
        if request.key is not None and reply.replayed:
            known = yield from self.procedures.read(calls.knows, request.conversation_id, request.key)
            if known:  # the results are stored, and the model may have answered
                return (yield from self.turn(replace(request, resumes=True)))
        texts = yield from _result_texts(reply.tool_calls, functions, on_error)
        results = [
            Message.tool(scrubbed(text), tool_call_id=call.id)
            for call, text in zip(reply.tool_calls, texts, strict=True)
        ]
        try:
            return (yield from self.answer_calls(replace(request, messages=parse_messages(results))))
        except IdempotencyConflict:  # the same run elsewhere has stored what its functions returned
            return (yield from self.turn(replace(request, resumes=True)))


def _check_of(conversation_id: str, messages: Sequence[Message]) -> Check:
    ids = [call_id for message in messages for call_id in answered_ids(message)]

    def check(before: Sequence[Message], newest_reply: int) -> None:
        """The results answer calls that are open, and with them every call of the reply that made them."""
        waiting = unanswered(before)
        for call_id in ids:
            if call_id not in waiting:
                shown = ", ".join(map(repr, waiting[:5])) or "none"
                raise InvalidArgument(
                    f"conversation {conversation_id!r} has no open tool call {call_id!r}; open are: {shown}"
                )
        if missing := [
            each for each in calls_beside(before, ids, newest_reply) if each in waiting and each not in ids
        ]:
            raise InvalidArgument(
                f"conversation {conversation_id!r}: no result for the tool call {missing[0]!r}; the model "
                f"must get the results of all its calls, so pass them together"
            )

    return check


def _level(costs: Sequence[int], excess: int) -> int:
    """The cost to which the longest are cut, so that together they cost so much less."""
    level = max(costs, default=0)
    low = 0
    while low < level:
        middle = (low + level + 1) // 2
        if sum(max(cost - middle, 0) for cost in costs) >= excess:
            low = middle
        else:
            level = middle - 1
    return low


def _cut_to(message: Message, cost: int, level: int, counter: TokenCounter) -> TurnProcedure[Message]:
    """The beginning of a result, and a mark that says how much is missing."""
    text = message.content or ""
    kept = len(text)
    shorter = message
    while cost > level and kept:
        kept = min(kept - 1, int(kept * level / cost * 0.95))
        mark = f"\n[cut: {len(text) - kept:,} of {len(text):,} characters left out]"
        shorter = with_text(message, text[:kept] + mark)
        (cost,) = yield from count(counter, [shorter])
    return shorter


def _key_of_round(key: str | None, number: int) -> str | None:
    """The idempotency key of a later call of the same run."""
    return None if key is None else f"{hashlib.sha256(key.encode()).hexdigest()}:{number}"


def _check_functions(functions: object) -> None:
    if not isinstance(functions, Mapping):
        raise InvalidArgument(f"functions is a {type(functions).__name__}; pass a dict of functions by name")
    for name, function in functions.items():
        if not callable(function):
            raise InvalidArgument(f"functions[{name!r}] is a {type(function).__name__}; pass a function")


def _result_texts(
    tool_calls: Sequence[ToolCall], functions: Functions, on_error: OnError
) -> TurnProcedure[list[str]]:
    """What each call came to, as the model reads it; what it did wrong it is told."""
    told: dict[int, str] = {}
    invocations: dict[int, Invocation] = {}
    for index, call in enumerate(tool_calls):
        arguments = _arguments(call)
        if call.name not in functions:
            told[index] = f"error: there is no function {call.name!r}; use one of {', '.join(functions)}"
        elif arguments is None:
            told[index] = "error: the arguments are not a JSON object"
        else:
            invocations[index] = Invocation(functions[call.name], arguments)
    returned = yield Invoke(list(invocations.values()))
    for index, value in zip(invocations, returned, strict=True):
        if isinstance(value, Exception) and on_error == "raise":
            raise value
        told[index] = (
            f"error: {type(value).__name__}: {value}" if isinstance(value, Exception) else text_of(value)
        )
    return [told[index] for index in range(len(tool_calls))]


def _arguments(call: ToolCall) -> Mapping[str, object] | str | None:
    """By name, a custom tool's one text, or None where they are no JSON object."""
    if call.custom:
        return call.arguments
    try:
        parsed = json.loads(call.arguments.strip() or "{}")
    except (ValueError, RecursionError):
        return None
    if parsed is None:  # what some servers send for a tool without parameters
        return {}
    return parsed if isinstance(parsed, dict) else None
