"""What servers refuse besides what OpenAI refuses, in the words in which they do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tokenmem.testing.replies import JSONObject

FORBIDDEN = "FORBIDDEN"
"""The word for which servers refuse a message that refuse some."""

LONGEST = 6_000
"""Characters of a prompt, as JSON, that the server with the short context takes."""

_KEYS = {"role", "content", "name", "tool_calls", "tool_call_id"}
_PARAMETERS = ("prompt_cache_key", "stream_options", "include")
_SYSTEM = ("system", "developer")
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


def _calls(messages: Sequence[JSONObject]) -> Iterator[tuple[int, JSONObject]]:
    for index, message in enumerate(messages):
        if message.get("type") == "function_call":
            yield index, {"id": message.get("call_id"), "function": message}
        for call in message.get("tool_calls") or ():
            yield index, call


def extra_keys(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """Groq's words."""
    for index, message in enumerate(messages):
        for key in message.keys() - _KEYS:
            return (
                f"'messages.{index}' : for 'role:{message.get('role')}' the following must be satisfied"
                f"[('messages.{index}' : property '{key}' is unsupported)]"
            )
    return None


def unknown_parameters(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """Pydantic's words, as FastAPI servers have them; one parameter at a time."""
    for name in _PARAMETERS:
        if name in body:
            told = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
            hint = " (encrypted content is not supported)" if name == "include" else ""
            return json.dumps([told]) + hint
    return None


def arguments_no_object(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """A template's words."""
    for _, call in _calls(messages):
        try:
            arguments = json.loads(call["function"]["arguments"])
        except ValueError as error:
            return f"Expecting value: {error}"
        if not isinstance(arguments, dict):
            return "Can only get item pairs from a mapping."
    return None


def same_role_twice(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """The words of Gemma's template."""
    roles = [message["role"] for message in messages]
    if roles and roles[0] in _SYSTEM:
        del roles[0]
    for before, role in pairwise(["", *roles]):
        if role in _SYSTEM or (before == role and role != "tool"):
            return "Conversation roles must alternate user/assistant/user/assistant/..."
    return None


def model_speaks_first(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """A gateway's words."""
    first = next((message["role"] for message in messages if message["role"] not in _SYSTEM), "user")
    return None if first == "user" else "The first message must be of the role 'user'."


def system_behind_others(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """The words of Qwen's template."""
    for before, message in pairwise(messages):
        if message["role"] in _SYSTEM and before["role"] not in _SYSTEM:
            return "System message must be at the beginning."
    return None


def developer(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """Serde's words."""
    if any(message["role"] == "developer" for message in messages):
        return "unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`"
    return None


def text_in_parts(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """DeepSeek's words."""
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and all(part.get("type") == "text" for part in content):
            return "Failed to deserialize the JSON body: invalid type: sequence, expected a string"
    return None


def null_content(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """A template's words."""
    if any(message.get("content", "") is None for message in messages):
        return "content must not be null"
    return None


def ids_not_of_nine(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """Mistral's words."""
    for _, call in _calls(messages):
        if not _NINE.fullmatch(call["id"]):
            return f"Tool call id was {call['id']} but must be a-z, A-Z, 0-9, with a length of 9."
    for before, message in pairwise(messages):
        if before["role"] == "tool" and message["role"] == "user":
            return "Unexpected role 'user' after role 'tool'"
    return None


def reasoning_missing(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """DeepSeek's words."""
    for index, message in enumerate(messages):
        if message.get("tool_calls") and "reasoning_content" not in message:
            return f"Missing `reasoning_content` field in the assistant message at message index {index}"
    return None


def signature_missing(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """Gemini's words: the first call of each message carries it."""
    for message in messages:
        calls = message.get("tool_calls") or ()
        if calls and not calls[0].get("extra_content", {}).get("google", {}).get("thought_signature"):
            return "Function call is missing a thought_signature in functionCall parts."
    return None


def details_missing(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """A gateway's words: what it has sent beside a call, it gets back."""
    for message in messages:
        details = message.get("reasoning_details")
        if message.get("tool_calls") and details is not None and len(details) != 2:
            return "The reasoning blocks do not match those of the reply."
    return None


def _forbidden(messages: Sequence[JSONObject]) -> list[int]:
    return [index for index, message in enumerate(messages) if FORBIDDEN in json.dumps(message)]


def forbidden_by_index(messages: Sequence[JSONObject], body: JSONObject) -> str | None:
    """OpenAI's words."""
    found = _forbidden(messages)
    name = "messages" if "messages" in body else "input"
    return f"Invalid '{name}[{found[0]}].content': it does not represent a valid image." if found else None


def forbidden_by_filter(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """Azure's words."""
    if _forbidden(messages):
        return "The response was filtered due to the prompt triggering the content management policy."
    return None


def forbidden_somewhere(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """No words at all."""
    return "Bad Request" if _forbidden(messages) else None


def too_long(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    """OpenAI's words."""
    length = len(json.dumps(messages))
    if length <= LONGEST:
        return None
    return (
        f"This model's maximum context length is {LONGEST // 4} tokens. However, your messages resulted in "
        f"{length // 4} tokens. Please reduce the length of the messages."
    )
