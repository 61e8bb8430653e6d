"""Where a window may start: pure functions over the rows that were loaded.

A window is the pinned messages, then the newest of the others. Its start may lie

- anywhere (`start_on="message"`),
- never inside a step (`"step"`, the default): not on a tool result, nor anywhere between a tool call and
  its results or between reasoning and the message that follows it,
- only at a user's message (`"turn"`), or as `"step"` where not even the newest turn fits.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tokenmem.messages.calls import answered_ids, call_ids
from tokenmem.messages.items import is_call_item
from tokenmem.messages.message import Message

StartOn = Literal["message", "step", "turn"]
_KIND = operator.attrgetter("kind")
_TOKENS = operator.attrgetter("token_count")


@dataclass(frozen=True, slots=True)
class Before:
    """What is known of the messages before those that were loaded.

    Attributes:
        kind: the kind of the last of them, None where there is none.
        calls: ids of tool calls among them.
    """

    kind: str | None = None
    calls: frozenset[str] = frozenset()


NOTHING = Before()


def stepped_budget(total_tokens: int, token_limit: int, stride: int | None) -> int:
    """How many of the newest tokens a window may hold when its start moves in steps.

    With `over = total_tokens - token_limit`, the start is the first message that has at least
    `ceil(over / stride) * stride` tokens before it: a function of the total alone, so that every process
    finds the same start, and it stays put while the conversation grows by less than a stride.

    Args:
        total_tokens: the conversation's running total, in tokens.
        token_limit: in tokens.
        stride: in tokens; None moves the start with every message.
    """
    over = max(total_tokens - token_limit, 0)
    step = stride or 1
    return total_tokens - -(-over // step) * step


def choose_start(
    newest: Sequence[Message],
    budgets: Sequence[int],
    start_on: str,
    *,
    fall_back: bool = True,
    before: Before = NOTHING,
) -> int | None:
    """The index in `newest` at which the longest window allowed by `start_on` begins.

    Args:
        newest: the conversation's newest messages without the pinned ones, in order, up to its last.
        budgets: what the window may cost in tokens, the preferred budget first. A later one is used where
            nothing fits an earlier one: a window that starts off its stride is better than none.
        start_on: "message", "step" or "turn".
        fall_back: whether "turn" may become "step" where no turn fits.
        before: what is known of the messages before `newest`.

    Returns:
        The index, or None where nothing fits.
    """
    allowed = _allowed(newest, start_on, before)
    for boundary in ("turn", "step") if start_on == "turn" and fall_back else (start_on,):
        for budget in budgets:
            for start, cost in _starts(newest, allowed):
                if cost <= budget and (boundary != "turn" or _begins_turn(newest[start])):
                    return start
    return None


def newest_start(
    newest: Sequence[Message], start_on: str, before: Before, *, fall_back: bool = True
) -> tuple[int, int] | None:
    """The last index at which a window may start at all, and what it costs from there on, in tokens."""
    starts = _starts(newest, _allowed(newest, start_on, before))
    if start_on == "turn" and not fall_back:
        starts = (start for start in starts if _begins_turn(newest[start[0]]))
    return max(starts, default=None)


def _allowed(newest: Sequence[Message], start_on: str, before: Before) -> list[bool]:
    return [True] * len(newest) if start_on == "message" else step_starts(newest, before)


def _starts(newest: Sequence[Message], allowed: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Each index at which a window may start, the oldest first, and what it costs from there on."""
    cost = sum(map(_TOKENS, newest))
    for index, message in enumerate(newest):
        if allowed[index]:
            yield index, cost
        cost -= message.token_count


def _begins_turn(message: Message) -> bool:
    return message.role == "user" and message.kind == "message"


def step_starts(messages: Sequence[Message], before: Before = NOTHING) -> list[bool]:
    """For each message, whether a window may start there without cutting a step in two."""
    if before.kind != "reasoning" and set(map(_KIND, messages)) <= {"message"}:
        return [True] * len(messages)  # most conversations: no tools
    tied_to = _tied_to(messages, before)
    allowed = [True] * len(messages)
    oldest = len(messages)
    for index in range(len(messages) - 1, -1, -1):
        oldest = min(oldest, tied_to[index])
        allowed[index] = oldest >= index
    return allowed


def calls_to_look_for(messages: Sequence[Message]) -> set[str]:
    """The ids that results among `messages` answer and that no call before them there has.

    Results with which `messages` begin are left out: nothing there can be their call.
    """
    if set(map(_KIND, messages)) <= {"message"}:
        return set()
    called: set[str] = set()
    missing: set[str] = set()
    headed = False
    for message in messages:
        if message.kind != "tool_result":
            headed = True
            called.update(call_ids(message))
        elif headed:
            missing.update(answered_ids(message) - called)
    return missing


def _tied_to(messages: Sequence[Message], before: Before) -> list[int]:
    """For each message, the index of the oldest one that it cannot be sent without; -1 is one not here."""
    tied_to = list(range(len(messages)))
    calls = dict.fromkeys(before.calls, -1)
    before_results = -1
    for index, message in enumerate(messages):
        if message.kind == "tool_result":
            # An id is not unique in a conversation: the newest call before the result is meant. A result
            # without an id, or whose id no call has, belongs to the message that its run of results follows.
            known = [calls[answered] for answered in answered_ids(message) if answered in calls]
            tied_to[index] = min(known, default=before_results)
            continue
        kind_before = messages[index - 1].kind if index else before.kind
        if kind_before == "reasoning" or (kind_before == "tool_call" and is_call_item(message)):
            tied_to[index] = index - 1
        before_results = index
        calls.update(dict.fromkeys(call_ids(message), index))
    return tied_to
