"""The window as DESIGN describes it, in plain Python over the whole conversation: slow, and independent."""

from collections.abc import Sequence
from typing import Any

from tokenmem import Message


def dependencies(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Pairs (earlier, later) that must stay together; -1 for a tool result whose call is nowhere."""
    pairs = []
    for index, message in enumerate(messages):
        payload: dict[str, Any] = message.payload or {}
        if message.kind == "tool_result":
            wanted = payload.get("tool_call_id") or payload.get("call_id")
            callers = [
                earlier
                for earlier in range(index)
                if wanted and isinstance(wanted, str) and wanted in _called(messages[earlier])
            ]
            pairs.append((callers[-1] if callers else _head_of_run(messages, index), index))
        elif index and (
            messages[index - 1].kind == "reasoning"
            or ("call_id" in payload and messages[index - 1].kind == message.kind == "tool_call")
        ):
            pairs.append((index - 1, index))
    return pairs


def _called(message: Message) -> list[Any]:
    payload: dict[str, Any] = message.payload or {}
    if message.kind == "tool_call" and "call_id" in payload:
        return [payload["call_id"]]
    return [call.get("id") for call in payload.get("tool_calls") or []]


def _head_of_run(messages: Sequence[Message], index: int) -> int:
    """What a result without a known call follows: the message before its run of results."""
    head = index - 1
    while head >= 0 and messages[head].kind == "tool_result":
        head -= 1
    return head


def allowed_starts(messages: Sequence[Message], start_on: str) -> list[bool]:
    allowed = [True] * len(messages)
    if start_on == "message":
        return allowed
    for earlier, later in dependencies(messages):
        for index in range(earlier + 1, later + 1):
            allowed[index] = False
    if start_on == "turn":
        return [
            fits and message.role == "user" and message.kind == "message"
            for fits, message in zip(allowed, messages, strict=True)
        ]
    return allowed


class Reference:
    """The windows of one conversation, given all of its messages."""

    def __init__(self, messages: Sequence[Message], purged_tokens: int = 0) -> None:
        self.messages = list(messages)
        self.pinned = [message for message in messages if message.pinned]
        self.reserved = sum(message.token_count for message in self.pinned)
        self.newest = [message for message in messages if not message.pinned]
        self.total = purged_tokens + sum(message.token_count for message in messages)
        # For each of the others: the tokens before it without the pinned ones', and what the suffix costs.
        before, pinned_before, self.before = purged_tokens, 0, list[int]()
        for message in messages:
            if message.pinned:
                pinned_before += message.token_count
            else:
                self.before.append(before - pinned_before)
            before += message.token_count
        self.cost = [sum(m.token_count for m in self.newest[index:]) for index in range(len(self.newest))]
        self.allowed = {on: allowed_starts(self.newest, on) for on in ("message", "step", "turn")}

    def window(self, limit: int, start_on: str, stride: int | None) -> list[Message] | None:
        """What the window must hold; None where it is too small."""
        if self.reserved > limit:
            return None
        if not self.newest:
            return self.pinned
        step = stride or 1
        least_before = -(-max(self.total - limit, 0) // step) * step
        for boundary in ("turn", "step") if start_on == "turn" else (start_on,):
            for stepped in (True, False):
                for index, allowed in enumerate(self.allowed[boundary]):
                    fits = self.cost[index] + self.reserved <= limit
                    if allowed and fits and (not stepped or self.before[index] >= least_before):
                        return self.pinned + self.newest[index:]
        return None


def is_valid(messages: Sequence[Message]) -> bool:
    """Whether a provider takes the prompt: every tool result behind its call, reasoning with its follower."""
    called: set[Any] = set()
    for index, message in enumerate(messages):
        payload: dict[str, Any] = message.payload or {}
        wanted = payload.get("tool_call_id")
        if message.kind == "tool_result" and (index == 0 or (wanted and wanted not in called)):
            return False
        called |= {call.get("id") for call in payload.get("tool_calls") or []}
    return True
