"""From a window to a prompt that every provider accepts: pure functions over its messages.

What is stored may be interrupted anywhere: a process dies between a tool call and its result, two requests
overlap, a reply is cut off. Providers refuse such a history for good. So, in what is sent and only there,

- a call's results follow it at once, wherever they are stored behind it;
- a call without a result gets one that says so (`NO_RESULT`), or is left out where no text can be its result;
- a result without a call, reasoning without what it led to, and a reply that says nothing are left out, as is
  the part of a reply that was cut off while nothing has been said since.

What has been sent once is sent again in the same words: messages that are added change nothing before the
first call that was open. (Only Chat Completions, given items of the Responses API, adds to the last message.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from tokenmem.messages.calls import answered_ids, call_ids
from tokenmem.messages.conversions import LOCAL_SHELL, is_item, output_item, says_in_parts
from tokenmem.messages.message import Message

NO_RESULT = "[no result: this tool call was not answered]"
"""What the model reads as the result of a call that was never answered."""


NoResult = Callable[[Message, str], Message]
"""Makes the result of a message's call, by its id, that has none."""

# Calls whose results are no text: screenshots, tools, a program's state. They are not sent unanswered.
_WITHOUT_STAND_IN = ("computer_call", "tool_search_call", "program")
# Items that are no call, result or message, and that the application writes: no reasoning leads to them.
_NOT_THE_MODELS = (
    *("mcp_approval_response", "local_shell_call_output", "configuration_update", "compaction_trigger"),
    "additional_tools",
)
# What stands before the name of a function that is called without an id; no stored text has a NUL.
_BY_NAME = "\0"


def sendable(messages: Sequence[Message], no_result: NoResult) -> list[Message]:
    """The messages as they can be sent, in order.

    Args:
        messages: a window's.
        no_result: makes the result of a message's call, by its id, that has none.
    """
    kept = [message for message in messages if says_something(message)]
    if any(message.kind != "message" for message in kept):
        kept = _with_results(kept, no_result)
    return _without_dangling(kept)


def unanswered(messages: Sequence[Message]) -> list[str]:
    """The ids of the calls that have no result behind them, in order."""
    results = _results(messages)
    return [
        key
        for index, message in enumerate(messages)
        for key, result in zip(_call_keys(message), results.get(index, ()), strict=True)
        if result is None and _is_id(key)
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
            keys = [key for each in part for key in _call_keys(each) if _is_id(key)]
            if not left.isdisjoint(keys):
                found += keys
                left -= set(keys)
    return found


def says_something(message: Message) -> bool:
    """Whether there is anything in a reply; what others say is sent as it is."""
    if message.role != "assistant" or message.content:
        return True
    payload = message.payload or {}
    if is_item(message):
        return payload["type"] != "message" or says_in_parts(payload.get("content"))
    return says_in_parts(payload.get("content")) or any(
        payload.get(key) for key in ("tool_calls", "function_call", "refusal", "audio")
    )


def _is_id(key: str) -> bool:
    return bool(key) and not key.startswith(_BY_NAME)


def _call_keys(message: Message) -> list[str]:
    """What the results of a message's calls name: ids, "" for a call without one, or a function's name."""
    if message.kind != "tool_call":
        return []
    payload = message.payload or {}
    if is_item(message):
        return [payload["call_id"]] if payload["type"] != LOCAL_SHELL else []
    given = [call.get("id") for call in payload.get("tool_calls") or []]
    keys = [call_id if isinstance(call_id, str) else "" for call_id in given]
    called = payload.get("function_call")
    by_name = [f"{_BY_NAME}{called.get('name')}"] if isinstance(called, dict) else []
    return keys + [call_id for call_id in call_ids(message) if call_id not in keys] + by_name


def _answer_keys(message: Message) -> list[str]:
    """Which of the calls a result answers, as `_call_keys` names them."""
    if ids := answered_ids(message):
        return sorted(ids)
    return [f"{_BY_NAME}{(message.payload or {}).get('name')}" if message.role == "function" else ""]


def _results(messages: Sequence[Message]) -> dict[int, list[int | None]]:
    """For each message with calls, where their results are.

    The result of a call is the first one behind it, before its id is called again: some servers count their
    ids from one in every reply. Where one message has an id twice, its results come in order.
    """
    found: dict[int, list[int | None]] = {}
    waiting: dict[str, list[tuple[int, int]]] = {}
    for index, message in enumerate(messages):
        if message.kind == "tool_result":
            for key in _answer_keys(message):
                if places := waiting.get(key):
                    caller, number = places.pop(0)
                    found[caller][number] = index
        elif keys := _call_keys(message):
            found[index] = [None] * len(keys)
            waiting |= {key: [] for key in keys}
            for number, key in enumerate(keys):
                waiting[key].append((index, number))
    return found


def _calling_replies(messages: Sequence[Message]) -> list[list[int]]:
    """The indexes of messages with calls, one reply's together: with the Responses API each is an item."""
    replies: list[list[int]] = []
    known: set[str] = set()
    goes_on = False
    for index, message in enumerate(messages):
        if keys := _call_keys(message):
            if goes_on and is_item(message) and known.isdisjoint(keys):
                replies[-1].append(index)
                known.update(keys)
            else:
                replies.append([index])
                known = set(keys)
            goes_on = is_item(message)
        elif message.kind == "tool_result" or message.role != "assistant" or not _is_models_item(message):
            goes_on = False
    return replies


def _is_models_item(message: Message) -> bool:
    """Whether it is an item of the Responses API that the model has written."""
    return is_item(message) and (message.payload or {})["type"] not in _NOT_THE_MODELS


def _with_results(messages: Sequence[Message], no_result: NoResult) -> list[Message]:
    """The calls of every reply with their results behind them at once, and no other results."""
    results = _results(messages)
    replies = {reply[-1]: reply for reply in _calling_replies(messages)}
    sent: list[Message] = []
    for index, message in enumerate(messages):
        if message.kind != "tool_result" and not _cannot_be_answered(message, results.get(index, ())):
            sent.append(message)
        if index in replies:
            sent += _results_of(messages, replies[index], results, no_result)
    return sent


def _cannot_be_answered(message: Message, results: Sequence[int | None]) -> bool:
    return None in results and is_item(message) and (message.payload or {})["type"] in _WITHOUT_STAND_IN


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
        if _cannot_be_answered(message, results[caller]):
            continue
        for key, result in zip(_call_keys(message), results[caller], strict=True):
            if result is None and not _in_parts(message, key):
                yield no_result(message, key)


def _in_parts(message: Message, key: str) -> bool:
    """Whether the call stands in a part of the content, as no API of OpenAI's has it."""
    if is_item(message) or not _is_id(key):
        return False
    return all(call.get("id") != key for call in (message.payload or {}).get("tool_calls") or [])


def _without_dangling(messages: Sequence[Message]) -> list[Message]:
    """Without reasoning that led to nothing of the model's, and the part of a reply at the very end."""
    kept: list[Message] = []
    for message in reversed(messages):
        dangles = message.kind == "reasoning" and not (kept and _is_models(kept[-1]))
        # A reply that comes after its part says it all, and so does one that is asked for now.
        superseded = message.partial and not (kept and kept[-1].role != "assistant")
        if not dangles and not superseded:
            kept.append(message)
    kept.reverse()
    return kept


def _is_models(message: Message) -> bool:
    if message.role != "assistant" or message.kind == "tool_result":
        return False
    return not is_item(message) or _is_models_item(message)


def no_result_for(token_count: int) -> NoResult:
    """What makes the result of an unanswered call, in the form of the API that made the call.

    Args:
        token_count: what such a result costs, in tokens.
    """
    stored = Message.tool(NO_RESULT, tool_call_id="")

    def make(message: Message, call_id: str) -> Message:
        if is_item(message):
            payload = output_item((message.payload or {})["type"], call_id, NO_RESULT, failed=True)
            if payload["output"] == NO_RESULT:  # the text is in the content, as where it is stored
                del payload["output"]
            return replace(stored, payload=payload, token_count=token_count)
        if call_id.startswith(_BY_NAME):
            payload = {"role": "function", "name": call_id.removeprefix(_BY_NAME)}
            return replace(stored, role="function", payload=payload, token_count=token_count)
        return replace(stored, payload={"role": "tool", "tool_call_id": call_id}, token_count=token_count)

    return make
