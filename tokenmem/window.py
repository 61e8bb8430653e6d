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

from tokenmem.models import Message

_KIND = operator.attrgetter("kind")
_TOKENS = operator.attrgetter("token_count")


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
    kind_before: str | None = None,
) -> int | None:
    """The index in `newest` at which the longest window allowed by `start_on` begins.

    Args:
        newest: the conversation's newest messages without the pinned ones, in order, up to its last.
        budgets: what the window may cost in tokens, the preferred budget first. A later one is used where
            nothing fits an earlier one: a window that starts off its stride is better than none.
        start_on: "message", "step" or "turn".
        fall_back: whether "turn" may become "step" where no turn fits.
        kind_before: the kind of the message before `newest`, None where there is none.

    Returns:
        The index, or None where nothing fits.
    """
    allowed = _allowed(newest, start_on, kind_before)
    for boundary in ("turn", "step") if start_on == "turn" and fall_back else (start_on,):
        for budget in budgets:
            for start, cost in _starts(newest, allowed):
                if cost <= budget and (boundary != "turn" or _begins_turn(newest[start])):
                    return start
    return None


def newest_start(newest: Sequence[Message], start_on: str, kind_before: str | None) -> tuple[int, int] | None:
    """The last index at which a window may start at all, and what it costs from there on, in tokens."""
    return max(_starts(newest, _allowed(newest, start_on, kind_before)), default=None)


def _allowed(newest: Sequence[Message], start_on: str, kind_before: str | None) -> list[bool]:
    return [True] * len(newest) if start_on == "message" else step_starts(newest, kind_before)


def _starts(newest: Sequence[Message], allowed: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Each index at which a window may start, the oldest first, and what it costs from there on."""
    cost = sum(map(_TOKENS, newest))
    for index, message in enumerate(newest):
        if allowed[index]:
            yield index, cost
        cost -= message.token_count


def _begins_turn(message: Message) -> bool:
    return message.role == "user" and message.kind == "message"


def step_starts(messages: Sequence[Message], kind_before: str | None = None) -> list[bool]:
    """For each message, whether a window may start there without cutting a step in two.

    `messages` is the newest part of a conversation: calls may lie before it, unseen. Of the message before
    it only the kind is known.
    """
    if kind_before != "reasoning" and set(map(_KIND, messages)) <= {"message"}:
        return [True] * len(messages)  # most conversations: no tools
    tied_to = _tied_to(messages, kind_before)
    allowed = [True] * len(messages)
    oldest = len(messages)
    for index in range(len(messages) - 1, -1, -1):
        oldest = min(oldest, tied_to[index])
        allowed[index] = oldest >= index
    return allowed


def _tied_to(messages: Sequence[Message], kind_before: str | None) -> list[int]:
    """For each message, the index of the oldest one that it cannot be sent without; -1 is one not here."""
    tied_to = list(range(len(messages)))
    calls: dict[str, int] = {}
    before_results = -1
    for index, message in enumerate(messages):
        if message.kind == "tool_result":
            tied_to[index] = _call_of(message, calls, messages, before_results)
            continue
        if (messages[index - 1].kind if index else kind_before) == "reasoning":
            tied_to[index] = index - 1
        before_results = index
        calls.update(dict.fromkeys(_call_ids(message), index))
    return tied_to


def _call_of(result: Message, calls: dict[str, int], messages: Sequence[Message], before_results: int) -> int:
    """The index of the message that made the call, -1 where it is not among `messages`.

    An id is not unique in a conversation: the newest call before the result is meant. A result without
    an id, or whose id no call here has, belongs to the message that its run of results follows; but where
    that one cannot have made the call, the call lies before `messages`.
    """
    answered = _answered_id(result)
    if answered in calls:
        return calls[answered]
    if answered and before_results >= 0 and messages[before_results].kind != "tool_call":
        return -1
    return before_results


def _call_ids(message: Message) -> list[str]:
    calls = (message.payload or {}).get("tool_calls") or []
    return [call["id"] for call in calls if isinstance(call.get("id"), str)]


def _answered_id(message: Message) -> str:
    answered = (message.payload or {}).get("tool_call_id")
    return answered if isinstance(answered, str) else ""
