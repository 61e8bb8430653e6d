"""What a message costs by the provider's bill, in tokens: tables of its keys and parts.

Each price says where it comes from. What the provider does not document is estimated so that the sum is
rather above the bill than below it. "Recordings" are 79 calls to OpenAI's chat completions with the
`usage` that it billed. A price holds for every model; `model_rules` corrects it for one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping

from tokenmem.counting.media import CountText, _audio_part, _file_part, _image_part
from tokenmem.messages.endpoint_rules import is_sent_of_reply
from tokenmem.messages.items import is_item_without_role
from tokenmem.messages.media_text import holds_media, without_media
from tokenmem.messages.message import Message, is_opaque, is_role_and_content, provider_fields

# OpenAI, "How to count tokens with tiktoken", cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken,
# num_tokens_from_messages: tokens_per_message and tokens_per_name of every model since gpt-3.5-turbo-0613.
_PER_MESSAGE = 3
_PER_NAME = 1

# Fitted to the recordings. The name is billed with the call and again with its result. Above that a call
# and its result cost 5 with gpt-4o and 11 with gpt-5, and several calls in one message with gpt-4o, which
# wraps them in one of its own, 27 for two: 11 each and 5 once.
PER_CALL = 11
PER_SEVERAL_CALLS = 5

# OpenAI, "Reasoning models", platform.openai.com/docs/guides/reasoning#encrypted-reasoning-items: what is
# sent again as ciphertext is billed as the tokens of the reasoning, which only the provider can count.
# Base64 takes 4 characters for 3 bytes, and a token of prose is about 3 bytes or more in any script, so a
# token for 4 characters is above. Recordings: 128 tokens in 1,892 characters.
_CIPHERTEXT_CHARACTERS = 4

# Keys that the provider does not bill: they refer, or describe. The role is counted with the message.
_FREE = frozenset(
    {
        *("role", "type", "id", "index", "status", "object", "created", "phase"),
        *("tool_call_id", "call_id", "annotations", "logprobs"),
        *("cache_control", "prompt_cache_breakpoint"),
        # Of a reply's, what servers want back beside its texts: signatures, and what only they can read.
        *("signature", "thought_signature", "extra_content", "provider_specific_fields"),
    }
)


def message_tokens(message: Message, count_text: CountText) -> int:
    """What the provider bills for this message, in tokens; odd values cost what their JSON text costs."""
    if is_opaque(message) and not message.content:
        return 0  # it is not sent
    total = _PER_MESSAGE + count_text(_as_text(message.role))
    if is_role_and_content(message):
        return total + _key("content", message.content, count_text)
    sent = provider_fields(message)
    if is_item_without_role(sent):
        return total + _item(sent, count_text)
    return total + sum(
        _key(key, value, count_text)
        for key, value in sent.items()
        if message.role != "assistant" or is_sent_of_reply(key, sent)
    )


def _item(item: Mapping[str, object], count_text: CountText) -> int:
    """What an item without a role costs above its frame: a call, its output, reasoning, or any other."""
    kind = item["type"]
    if kind in ("function_call", "custom_tool_call"):
        return _call(item, count_text)
    ciphertext = item.get("encrypted_content")
    if kind == "reasoning" and isinstance(ciphertext, str):
        return _ciphertext(ciphertext, count_text)
    return sum(_key(key, value, count_text) for key, value in item.items())


def _key(key: str, value: object, count_text: CountText) -> int:
    if key in _FREE or value is None or value == [] or value == {}:
        return 0
    return _PRICES.get(key, _text)(value, count_text)


def _text(value: object, count_text: CountText) -> int:
    return count_text(_as_text(value))


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return without_media(value) if holds_media(value) else value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):  # not JSON, or a value that contains itself
        return repr(value)


def _name(value: object, count_text: CountText) -> int:
    return _PER_NAME + _text(value, count_text)


def _content(value: object, count_text: CountText) -> int:
    if not isinstance(value, list):
        return _text(value, count_text)
    return sum(_part(part, count_text) for part in value)


def _part(part: object, count_text: CountText) -> int:
    cost = None
    if isinstance(part, Mapping) and isinstance(kind := part.get("type"), str) and kind in _PARTS:
        cost = _PARTS[kind](part, count_text)
    return _text(part, count_text) if cost is None else cost


def _calls(value: object, count_text: CountText) -> int:
    if not isinstance(value, list):
        return _text(value, count_text)
    several = PER_SEVERAL_CALLS if len(value) > 1 else 0
    return several + sum(_call(call, count_text) for call in value)


def _call(call: object, count_text: CountText) -> int:
    if not isinstance(call, Mapping):
        return PER_CALL + _text(call, count_text)
    function = call.get("function") or call.get("custom") or call
    if not isinstance(function, Mapping) or "name" not in function:
        return PER_CALL + _text(call, count_text)
    arguments = function.get("arguments", function.get("input"))
    argument_tokens = 0 if arguments is None else _text(arguments, count_text)
    return PER_CALL + 2 * _text(function["name"], count_text) + argument_tokens


def _text_part(part: Mapping[str, object], count_text: CountText) -> int | None:
    text = part.get("text", part.get("refusal"))
    return _text(text, count_text) if isinstance(text, str) else None


def _reasoning_details(value: object, count_text: CountText) -> int:
    """Reasoning as OpenRouter or LiteLLM has it: what can be read as text, the rest as ciphertext."""
    if not isinstance(value, list):
        return _text(value, count_text)
    return sum(_reasoning_detail(part, count_text) for part in value)


def _reasoning_detail(part: object, count_text: CountText) -> int:
    if not isinstance(part, Mapping):
        return _text(part, count_text)
    told = [part[key] for key in ("text", "summary", "thinking") if isinstance(part.get(key), str)]
    return sum(count_text(text) for text in told) + _ciphertext(part.get("data"), count_text)


def _ciphertext(value: object, count_text: CountText) -> int:
    if not isinstance(value, str):
        return 0 if value is None else _text(value, count_text)
    return math.ceil(len(value) / _CIPHERTEXT_CHARACTERS)


_PRICES: Mapping[str, Callable[[object, CountText], int]] = {
    "name": _name,
    "content": _content,
    "output": _content,
    "summary": _content,
    "tool_calls": _calls,
    "function_call": _call,
    "reasoning_details": _reasoning_details,
    "thinking_blocks": _reasoning_details,
    "reasoning_opaque": _ciphertext,
}

# A part's price is None where the part is not what its type says.
_PARTS: Mapping[str, Callable[[Mapping[str, object], CountText], int | None]] = {
    "text": _text_part,
    "input_text": _text_part,
    "output_text": _text_part,
    "summary_text": _text_part,
    "reasoning_text": _text_part,
    "refusal": _text_part,
    "image_url": _image_part,
    "input_image": _image_part,
    "input_audio": _audio_part,
    "file": _file_part,
    "input_file": _file_part,
}
