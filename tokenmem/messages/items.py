"""Items of OpenAI's Responses API that are no messages: calls, their outputs, reasoning, and others."""

from __future__ import annotations

from tokenmem.errors import InvalidMessage
from tokenmem.messages.message import text_of_parts
from tokenmem.messages.values import JSONObject

# What stands inside a message, and would be taken for an item if somebody passed it alone.
_PART_TYPES = frozenset(
    {
        *("text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text", "tool_use"),
        *("image_url", "input_image", "input_audio", "file", "input_file", "tool_call", "tool_result"),
    }
)


def split_item(item: JSONObject, where: str) -> tuple[str, str, str | None, JSONObject]:
    """An item's role and kind, its text for people, and its payload; `Message.to_openai` is the way back.

    Raises:
        InvalidMessage: it is no item, or a call without what ties it to its output.
    """
    kind = _kind(item, where)
    text, payload = _split(item)
    return ("tool" if kind == "tool_result" else "assistant"), kind, text, payload


def _kind(item: JSONObject, where: str) -> str:
    type_, call_id = item["type"], item.get("call_id")
    if not isinstance(type_, str) or not type_ or type_ == "message" or type_ in _PART_TYPES:
        raise InvalidMessage(
            f"{where}: the role is missing, and the type {type_!r:.40} is no item's of the Responses API; "
            f"pass a message with its role"
        )
    if type_.startswith(("function_call", "custom_tool_call")) and not (isinstance(call_id, str) and call_id):
        raise InvalidMessage(f"{where}: a {type_} needs a call_id, the text that ties calls to their outputs")
    if type_ == "function_call" and not isinstance(item.get("name"), str):
        raise InvalidMessage(f"{where}: a function_call needs the function's name")
    if type_ == "reasoning":
        return "reasoning"
    if not isinstance(call_id, str):  # calls that the provider answers itself
        return "other"
    return "tool_result" if type_.endswith("_output") else "tool_call"


def _split(item: JSONObject) -> tuple[str | None, JSONObject]:
    output, summary = item.get("output"), item.get("summary")
    if isinstance(output, str) and "call_id" in item and item["type"].endswith("_output"):
        return output, {key: value for key, value in item.items() if key != "output"}
    for parts in (output, summary):
        if isinstance(parts, list) and all(isinstance(part, (dict, str)) for part in parts):
            return text_of_parts(parts), item
    return None, item
