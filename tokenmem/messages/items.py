"""Items of OpenAI's Responses API: what is one, and the kinds of them that are treated apart.

An item is a message, a call, its output, reasoning, or another thing that the model or the application says.
A new type of item needs an entry here only where it differs from these.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from tokenmem.errors import InvalidMessage
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject

# Items that have a role, as messages have. Other frameworks give messages types of their own.
_WITH_A_ROLE = ("message", "additional_tools")
# What stands inside a message, and would be taken for an item if somebody passed it alone.
_PART_TYPES = frozenset(
    {
        *("text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text", "tool_use"),
        *("image_url", "input_image", "input_audio", "file", "input_file", "tool_call", "tool_result"),
    }
)
# As all of its types are written, those to come too; other frameworks name their messages otherwise.
_ITEM_TYPE = re.compile(r"[a-z][a-z0-9_]*")
# Its output names it by `id`, as other items name themselves, so that nobody can tell who answers whom.
LOCAL_SHELL = "local_shell_call"
# Items that the provider knows by a call_id or as a whole, so that they may do without their own id.
NEED_NO_ID = (
    *("message", "function_call", "custom_tool_call"),
    *("function_call_output", "custom_tool_call_output"),
)
# Calls whose results are no text: screenshots, tools, a program's state.
_WITHOUT_TEXT_RESULT = ("computer_call", "tool_search_call", "program")
# Items that are no call, result or message, and that the application writes: no reasoning leads to them.
_OF_THE_APPLICATION = (
    *("mcp_approval_response", "local_shell_call_output", "configuration_update", "compaction_trigger"),
    "additional_tools",
)


def is_item_without_role(given: Mapping[str, object]) -> bool:
    """Whether a provider's message, or its payload, is an item that has no role: any but a message."""
    return "type" in given and "role" not in given


def is_item(message: Message) -> bool:
    """Whether it is an item of the Responses API."""
    return item_type(message) is not None


def item_type(message: Message) -> str | None:
    """The type of an item; None where it is none."""
    payload = message.payload
    if payload is None:
        return None
    type_ = payload.get("type")
    if is_item_without_role(payload) or (message.kind == "message" and type_ in _WITH_A_ROLE):
        return str(type_)
    return None


def is_call_item(message: Message) -> bool:
    """Whether it is a call as the Responses API has it: each of a reply's calls is an item of its own."""
    return message.kind == "tool_call" and is_item_without_role(message.payload or {})


def is_by_the_model(message: Message) -> bool:
    """Whether the model has written it, in the form of either API, rather than the application."""
    return (
        message.role == "assistant"
        and message.kind != "tool_result"
        and item_type(message) not in _OF_THE_APPLICATION
    )


def takes_text_result(message: Message) -> bool:
    """Whether a text can be the result of the calls that it makes."""
    return item_type(message) not in _WITHOUT_TEXT_RESULT


def without_repeated_items(messages: Iterable[Message]) -> list[Message]:
    """The messages without items of a reply that are there already: an id must not come twice in a prompt."""
    seen: dict[str, list[Message]] = defaultdict(list)
    kept = []
    for message in messages:
        item_id = (message.payload or {}).get("id")
        if message.role == "assistant" and isinstance(item_id, str) and is_item(message):
            if any(_repeats(message, known) for known in seen[item_id]):
                continue
            seen[item_id].append(message)
        kept.append(message)
    return kept


def _repeats(message: Message, known: Message) -> bool:
    """Whether it is the same item, and not only one of the same id, which it may have to do without."""
    if item_type(message) not in NEED_NO_ID:
        return True
    return (message.content, message.payload) == (known.content, known.payload)


def item_role_and_kind(item: JSONObject, where: str) -> tuple[str, str]:
    """The role and the kind of an item that has no role.

    Raises:
        InvalidMessage: it is no item, or a call without what ties it to its output.
    """
    type_, call_id = item["type"], item.get("call_id")
    is_type = isinstance(type_, str) and _ITEM_TYPE.fullmatch(type_) is not None
    if not is_type or type_ == "message" or type_ in _PART_TYPES:
        raise InvalidMessage(
            f"{where}: the role is missing, and the type {type_!r:.40} is no item's of the Responses API; "
            f"pass a message with its role"
        )
    if type_.startswith(("function_call", "custom_tool_call")) and not (isinstance(call_id, str) and call_id):
        raise InvalidMessage(f"{where}: a {type_} needs a call_id, the text that ties calls to their outputs")
    if type_ == "function_call" and not isinstance(item.get("name"), str):
        raise InvalidMessage(f"{where}: a function_call needs the function's name")
    if type_ == "reasoning":
        return "assistant", "reasoning"
    if not isinstance(call_id, str):  # calls that the provider answers itself
        return "assistant", "other"
    return ("tool", "tool_result") if type_.endswith("_output") else ("assistant", "tool_call")
