"""From a window to a prompt that every provider accepts: pure functions over its messages.

What is stored may be interrupted anywhere: a process dies between a tool call and its result, two requests
overlap, a reply is cut off. Providers refuse such a history for good. So, in what is sent and only there,

- a call's results follow it at once, wherever they are stored behind it;
- a call without a result gets one that says so (`NO_RESULT`), or is left out where no text can be its result;
- a result without a call, reasoning without what it led to, and a reply that says nothing are left out, as is
  the part of a reply that was cut off while nothing has been said since;
- characters that a store keeps escaped are sent as U+FFFD, and opaque items as their text, or not at all.

What has been sent once is sent again in the same words: messages that are added change nothing before the
first call that was open. (Only Chat Completions, given items of the Responses API, adds to the last message.)
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from tokenmem.messages.calls import (
    answer_keys,
    call_keys,
    is_call_id,
    is_called_in_content,
    result_of,
    results_of_calls,
)
from tokenmem.messages.items import is_by_the_model, is_item, takes_text_result
from tokenmem.messages.message import Message, as_sent
from tokenmem.messages.text import says_something
from tokenmem.messages.values import JSONObject

NO_RESULT = "[no result: this tool call was not answered]"
"""What the model reads as the result of a call that was never answered."""


NoResult = Callable[[Message, str], Message]
"""Makes the result of a message's call, by its key, that has none."""


def sendable(messages: Sequence[Message], no_result: NoResult) -> list[Message]:
    """The messages as they can be sent, in order.

    Args:
        messages: a window's.
        no_result: makes the result of a message's call, by its id, that has none.
    """
    kept = [as_sent(message) for message in messages if says_something(message)]
    if any(message.kind != "message" for message in kept):
        kept = _with_results(kept, no_result)
    return _without_dangling(kept)


def with_answers(messages: Sequence[Message], positions: Collection[int]) -> frozenset[int]:
    """The positions of these messages, and of what the model said to those of the user's among them.

    Args:
        messages: a window's.
        positions: where the messages are stored that are meant; others are not among the result.
    """
    found: set[int] = set()
    answers = False
    for message in messages:
        if message.role == "user" and message.kind != "tool_result":
            answers = message.position in positions and not message.pinned
        if answers or message.position in positions:
            found.add(message.position)
    return frozenset(found)


def unanswered(messages: Sequence[Message]) -> list[str]:
    """The ids of the calls that have no result behind them, in order."""
    results = results_of_calls(messages)
    return [
        key
        for index, message in enumerate(messages)
        for key, result in zip(call_keys(message), results.get(index, ()), strict=True)
        if result is None and is_call_id(key)
    ]


def calls_beside(messages: Sequence[Message], call_ids: Iterable[str], newest_reply: int = 0) -> list[str]:
    """The ids of all calls of the replies that make these calls: the newest reply that makes each of them.

    Args:
        messages: a window's.
        call_ids: the calls.
        newest_reply: where the newest reply begins; calls right before it look like its own.
    """
    left, found = set(call_ids), []
    for reply in reversed(_calling_replies(messages)):
        callers = [messages[index] for index in reply]
        for own in (True, False):
            part = [each for each in callers if (each.position >= newest_reply) is own]
            keys = [key for each in part for key in call_keys(each) if is_call_id(key)]
            if not left.isdisjoint(keys):
                found += keys
                left -= set(keys)
    return found


def _calling_replies(messages: Sequence[Message]) -> list[list[int]]:
    """The indexes of messages with calls, one reply's together: with the Responses API each is an item."""
    replies: list[list[int]] = []
    known: set[str] = set()
    goes_on = False
    for index, message in enumerate(messages):
        if keys := call_keys(message):
            if goes_on and is_item(message) and known.isdisjoint(keys):
                replies[-1].append(index)
                known.update(keys)
            else:
                replies.append([index])
                known = set(keys)
            goes_on = is_item(message)
        elif not (is_item(message) and is_by_the_model(message)):
            goes_on = False
    return replies


def _with_results(messages: Sequence[Message], no_result: NoResult) -> list[Message]:
    """The calls of every reply with their results behind them at once, and no other results."""
    results = results_of_calls(messages)
    replies = {reply[-1]: reply for reply in _calling_replies(messages)}
    sent: list[Message] = []
    for index, message in enumerate(messages):
        is_sendable = None not in results.get(index, ()) or takes_text_result(message)
        if message.kind != "tool_result" and is_sendable:
            sent.append(message)
        if index in replies:
            sent += _results_of(messages, replies[index], results, no_result)
    return sent


def _results_of(
    messages: Sequence[Message],
    callers: Sequence[int],
    results: dict[int, list[int | None]],
    no_result: NoResult,
) -> Iterator[Message]:
    """The results of these messages' calls in the order in which they are stored, then stand-ins."""
    stored = {result for caller in callers for result in results[caller] if result is not None}
    yield from (messages[result] for result in sorted(stored))
    for caller in callers:
        message = messages[caller]
        if not takes_text_result(message):
            continue
        for key, result in zip(call_keys(message), results[caller], strict=True):
            if result is None and not is_called_in_content(message, key):
                yield no_result(message, key)


def _without_dangling(messages: Sequence[Message]) -> list[Message]:
    """Without reasoning that led to nothing of the model's, and the part of a reply at the very end."""
    kept: list[Message] = []
    for message in reversed(messages):
        dangles = message.kind == "reasoning" and not (kept and is_by_the_model(kept[-1]))
        # A reply that comes after its part says it all, and so does one that is asked for now.
        superseded = message.partial and not (kept and kept[-1].role != "assistant")
        if not dangles and not superseded:
            kept.append(message)
    kept.reverse()
    return kept


def no_result_for(token_count: int) -> NoResult:
    """What makes the result of an unanswered call, in the form of the API that made the call.

    Args:
        token_count: what such a result costs, in tokens.
    """

    def make(message: Message, key: str) -> Message:
        return replace(result_of(message, key, NO_RESULT, failed=True), token_count=token_count)

    return make


def changes_of(window: Sequence[Message], sent: Sequence[Message]) -> list[JSONObject]:
    """What was done to a window's messages in what is sent, each with its position.

    "left_out", "moved" before others, "answered" by a result that is not stored, or "changed" otherwise.
    """
    if len(window) == len(sent) and all(map(operator.is_, window, sent)):
        return []
    places = {message.position: place for place, message in enumerate(window)}
    done = dict.fromkeys(places, "left_out")
    for position in _answered(sent):
        done[position] = "answered"
    earliest = len(window)
    for message in reversed(sent):
        place = places.get(message.position)
        if place is None:
            continue
        if message is not window[place]:
            done[message.position] = "changed"
        elif place > earliest:
            done[message.position] = "moved"
        elif done[message.position] == "left_out":
            del done[message.position]
        earliest = min(earliest, place)
    return [{"position": position, "change": done[position]} for position in sorted(done)]


def _answered(sent: Sequence[Message]) -> Iterator[int]:
    """Where the calls are stored that are sent with a result which is not."""
    callers: dict[str, int] = {}
    for message in sent:
        callers |= dict.fromkeys(call_keys(message), message.position)
        if message.kind == "tool_result" and not message.position:
            yield from (callers[key] for key in answer_keys(message) if callers.get(key))
