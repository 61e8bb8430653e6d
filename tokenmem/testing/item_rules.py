"""The rules for the input items of a response."""

from __future__ import annotations

from collections.abc import Collection

from tokenmem.testing.checks import Problems, filled, keys, name, parts, text
from tokenmem.testing.replies import JSONObject

# OpenAI, API reference, "Create a model response", input: the keys of each item besides its type, as the
# openai package 3.54 types them. A question mark stands behind those that may be left out.
_KEYS: dict[str, str] = {
    "message": "role content id? status? phase?",
    "function_call": "arguments call_id name async? caller? id? namespace? status?",
    "function_call_output": "call_id output caller? id? name? namespace? status?",
    "custom_tool_call": "call_id input name async? caller? id? namespace?",
    "custom_tool_call_output": "call_id output caller? id?",
    "reasoning": "id summary content? encrypted_content? status?",
    "item_reference": "id",
    "web_search_call": "id action status",
    "file_search_call": "id queries status results?",
    "computer_call": "id call_id pending_safety_checks status action? actions?",
    "computer_call_output": "call_id output acknowledged_safety_checks? id? status?",
    "image_generation_call": (
        "id result status action? background? error? output_format? quality? revised_prompt? size? svg_usage?"
    ),
    "code_interpreter_call": "id code container_id outputs status",
    "local_shell_call": "id action call_id status",
    "local_shell_call_output": "id output status?",
    "shell_call": "action call_id caller? environment? id? status?",
    "shell_call_output": "call_id output caller? id? max_output_length? status?",
    "apply_patch_call": "call_id operation status caller? id?",
    "apply_patch_call_output": "call_id status caller? id? output?",
    "mcp_list_tools": "id server_label tools error?",
    "mcp_approval_request": "arguments id name server_label",
    "mcp_approval_response": "approval_request_id approve id? reason?",
    "mcp_call": "arguments id name server_label approval_request_id? error? output? status?",
    "tool_search_call": "arguments call_id? execution? id? status?",
    "tool_search_output": "tools call_id? execution? id? status?",
    "additional_tools": "role tools id?",
    "configuration_update": "id? reasoning? text?",
    "compaction": "encrypted_content id?",
    "compaction_trigger": "id?",
    "program": "call_id code fingerprint id",
    "program_output": "call_id id result status",
}
ITEMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    kind: (
        tuple(key for key in line.split() if key[-1] != "?"),
        tuple(key[:-1] for key in line.split() if key[-1] == "?"),
    )
    for kind, line in _KEYS.items()
}

_ROLES = ("user", "assistant", "system", "developer")
_INPUT_PARTS: dict[str, tuple[str, ...]] = {
    "input_text": ("text",),
    "input_image": ("detail?", "file_id?", "image_url?"),
    "input_file": ("detail?", "file_data?", "file_id?", "file_url?", "filename?"),
    "input_audio": ("input_audio",),
}
_OUTPUT_PARTS: dict[str, tuple[str, ...]] = {
    "output_text": ("text", "annotations?", "logprobs?"),
    "refusal": ("refusal",),
}
# What answers a call, by the calls' types.
_ANSWERS = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
}
_CALLS = {answer: call for call, answer in _ANSWERS.items()}
# What a model never writes, so that it cannot follow a reasoning item.
_NOT_OUTPUT = {
    *_ANSWERS.values(),
    "local_shell_call_output",
    "mcp_approval_response",
    "additional_tools",
    "configuration_update",
    "compaction_trigger",
} - {"shell_call_output"}  # a hosted shell's output is the model's side
# The lengths and the prefixes are those that the provider's error messages name.
_LONGEST_ID = 64
_ID_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}


def kind_of(item: JSONObject) -> object:
    """An item's type; the easy form of a message needs none, nor does a reference."""
    return item.get("type") or (
        "message" if "role" in item else "item_reference" if set(item) <= {"id", "type"} else None
    )


def input_problems(body: JSONObject, allow_keys: Collection[str], allow_items: Collection[str]) -> Problems:
    """What is wrong with the input of a response."""
    given = body.get("input")
    if isinstance(given, str) or (given is None and _continues(body)):
        return
    yield from filled(given, "input")
    if not isinstance(given, list) or not given:
        return
    items, sound = given, True
    for index, item in enumerate(items):
        found = list(_item(item, f"input[{index}]", allow_keys, allow_items))
        sound = sound and not found
        yield from found
    # Who answers whom can only be said of items that are well formed.
    if sound:
        yield from _pairs(items, knows_all=not _continues(body))
        yield from _reasoning(items, stored=body.get("store") is not False)
        yield from _repeated(items)


def _continues(body: JSONObject) -> bool:
    """Whether there is context that the request does not show."""
    return any(body.get(key) for key in ("previous_response_id", "conversation", "prompt"))


def _item(item: object, place: str, allow_keys: Collection[str], allow_items: Collection[str]) -> Problems:
    kind = kind_of(item) if isinstance(item, dict) else None
    if isinstance(kind, str) and kind in allow_items:
        return
    if not isinstance(item, dict) or not isinstance(kind, str) or kind not in ITEMS:
        yield f"Invalid value for '{place}.type': {kind!r}. Supported values are: {', '.join(ITEMS)}."
        return
    required, optional = ITEMS[kind]
    yield from keys(item, required, {"type", *optional, *allow_keys}, place)
    if item.get("id") is not None:
        yield from _id(item["id"], _ID_PREFIXES.get(kind, ""), f"{place}.id")
    if "call_id" in required and "call_id" in item:
        yield from text(item["call_id"], f"{place}.call_id", longest=_LONGEST_ID, empty=False)
    if kind == "message":
        yield from _message(item, place)
    elif kind in ("function_call", "custom_tool_call"):
        written = "arguments" if kind == "function_call" else "input"
        yield from name(item.get("name"), f"{place}.name")
        yield from text(item.get(written), f"{place}.{written}")
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield from _text_or_parts(item.get("output"), _INPUT_PARTS, f"{place}.output")
    elif kind == "reasoning":
        yield from _summary(item.get("summary"), f"{place}.summary")


def _id(value: object, prefix: str, place: str) -> Problems:
    yield from text(value, place, longest=_LONGEST_ID, empty=False)
    if isinstance(value, str) and not value.startswith(prefix):
        yield f"Invalid '{place}': {value!r}. Expected an ID that begins with {prefix!r}."


def _message(item: JSONObject, place: str) -> Problems:
    role = item.get("role")
    if role not in _ROLES:
        yield f"Invalid value for '{place}.role': {role!r}. Supported values are: {', '.join(_ROLES)}."
    documented = _OUTPUT_PARTS if role == "assistant" else _INPUT_PARTS
    yield from _text_or_parts(item.get("content"), documented, f"{place}.content")


def _text_or_parts(value: object, documented: dict[str, tuple[str, ...]], place: str) -> Problems:
    if isinstance(value, list):
        yield from filled(value, place)
        yield from parts(value, documented, place)
    else:
        yield from text(value, place)


def _summary(value: object, place: str) -> Problems:
    if isinstance(value, list):
        yield from parts(value, {"summary_text": ("text",)}, place)
    else:
        yield f"Invalid type for '{place}': expected an array."


def _pairs(items: list[JSONObject], *, knows_all: bool) -> Problems:
    """Calls without exactly one output behind them, and outputs without their call."""
    # A reference may stand for a call that the request does not show.
    knows_all = knows_all and all(kind_of(item) != "item_reference" for item in items)
    waiting: dict[tuple[object, str], bool] = {}
    for index, item in enumerate(items):
        kind = kind_of(item)
        if kind in _ANSWERS:
            if (kind, item["call_id"]) in waiting:
                yield f"Duplicate value for 'input[{index}].call_id': {item['call_id']!r}."
            waiting[kind, item["call_id"]] = True
        elif isinstance(kind, str) and kind in _CALLS:
            call = _CALLS[kind], item["call_id"]
            if waiting.get(call) is False:
                yield f"Duplicate output for call_id {item['call_id']!r} (input[{index}])."
            elif call not in waiting and knows_all:
                words = kind.replace("_", " ")
                yield f"No tool call found for {words} with call_id {item['call_id']} (input[{index}])."
            waiting[call] = False
    for (kind, call_id), unanswered in waiting.items():
        if unanswered:
            yield f"No tool output found for {str(kind).replace('_', ' ')} {call_id}."


def _reasoning(items: list[JSONObject], *, stored: bool) -> Problems:
    """Reasoning items without what the model wrote after them, or without what they stand for."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        if kind_of(item) != "reasoning":
            continue
        if following is None or not _is_output(following):
            yield (
                f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
            )
        encrypted = item.get("encrypted_content")
        if not stored and not (isinstance(encrypted, str) and encrypted):
            yield (
                f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to "
                f"false; send its encrypted_content."
            )


def _is_output(item: JSONObject) -> bool:
    kind = kind_of(item)
    return item["role"] == "assistant" if kind == "message" else kind not in _NOT_OUTPUT


def _repeated(items: list[JSONObject]) -> Problems:
    seen: set[str] = set()
    for item in items:
        item_id = item.get("id")
        if isinstance(item_id, str):
            if item_id in seen:
                yield f"Duplicate item found with id {item_id}. Remove duplicate items from your input."
            seen.add(item_id)
