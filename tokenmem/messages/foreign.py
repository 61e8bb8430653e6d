"""Messages of other frameworks: translated where one is one message of OpenAI's, else refused by name.

Without this a dict with a `type` and no role would be taken for an item of the Responses API, and one whose
text stands in another place for a message that says nothing.

- LangChain (`{"type": "human", "data": {…}}`, `{"type": "human", "content": …}`, `{"lc": 1, …}`, its
  objects): translated.
- Vercel's AI SDK (`{"role": "user", "parts": [{"type": "text", …}]}`), Google's Gemini (`{"role": "model",
  "parts": [{"text": …}]}`), LlamaIndex (`{"role": "user", "blocks": [{"block_type": "text", …}]}`):
  translated where they are text alone, else refused.
- pydantic-ai, Google's ADK, AutoGen, Semantic Kernel, and content blocks of Anthropic's, a tool's call or its
  schema, each alone: refused.

What a translated message holds besides is kept in its metadata, under the framework's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenmem.errors import InvalidMessage
from tokenmem.messages.values import JSONObject, JSONValue, dump_json

_LANGCHAIN_ROLES = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "function": "function",
}
_LANGCHAIN_CLASSES = {
    f"{name}Message{chunk}": type_
    for name, type_ in (
        *(("Human", "human"), ("AI", "ai"), ("System", "system"), ("Tool", "tool"), ("Chat", "chat")),
        *(("Function", "function"), ("Remove", "remove")),
    )
    for chunk in ("", "Chunk")
}
_LANGCHAIN_TYPES = {*_LANGCHAIN_ROLES, "chat", "remove", *_LANGCHAIN_CLASSES}
# Parts that repeat the calls which stand in tool_calls too.
_LANGCHAIN_CALL_PARTS = ("tool_use", "tool_call", "function_call", "tool_call_chunk")
_OPENAI_PARTS = ("text", "image_url", "input_audio", "file", "refusal")
_ANTHROPIC_BLOCKS = (
    *("thinking", "redacted_thinking", "server_tool_use", "web_search_tool_result", "image", "document"),
)


@dataclass(frozen=True, slots=True)
class Translated:
    """A message of another framework's.

    Attributes:
        message: what it is as a chat message of OpenAI's.
        metadata: what it holds besides.
    """

    message: JSONObject
    metadata: JSONObject = field(default_factory=dict)


def fields_of_object(message: object) -> JSONObject:
    """A pydantic model's fields: of a message of the openai package, or of LangChain's."""
    dump = message.model_dump  # type: ignore[attr-defined]
    type_ = getattr(message, "type", None)
    if isinstance(type_, str) and type_ in _LANGCHAIN_TYPES and not hasattr(message, "role"):
        return {**dump(mode="json"), "type": type_}
    fields: JSONObject = dump(mode="json", exclude_unset=True)
    return fields


def translated(given: JSONObject, where: str) -> Translated | None:
    """A message of another framework's as one of OpenAI's; None where it is OpenAI's, or nothing known.

    Args:
        given: JSON, checked.
        where: what errors call it.

    Raises:
        InvalidMessage: it is another framework's, and no one message of OpenAI's says the same.
    """
    if "role" in given:
        return None if "content" in given else _by_its_parts(given, where)
    type_ = given.get("type")
    if given.get("lc") == 1 and "id" in given:
        return _langchain_constructor(given, where)
    if isinstance(type_, str) and type_ in _LANGCHAIN_TYPES and isinstance(given.get("data"), dict):
        return _langchain({**given["data"], "type": type_}, where)
    if isinstance(type_, str) and type_ in _LANGCHAIN_TYPES and "content" in given:
        return _langchain(given, where)
    if type_ == "function" and isinstance(given.get("function"), dict):
        raise _refused(where, "a tool's call or schema", "pass the message whose tool_calls hold it")
    if isinstance(type_, str) and type_ in _LANGCHAIN_TYPES:
        raise _refused(where, f"a LangChain message of the type {type_!r}", "give it data or content")
    if isinstance(type_, str) and type_ in _ANTHROPIC_BLOCKS and "call_id" not in given and "id" not in given:
        raise _refused(where, f"a content block of Anthropic's ({type_})", "pass the message that holds it")
    _refuse_others(given, where)
    return None


def _refuse_others(given: JSONObject, where: str) -> None:
    """Refuse by name what has no role and is no item."""
    if given.get("kind") in ("request", "response") and isinstance(given.get("parts"), list):
        raise _refused(
            where,
            f"a {given['kind']} of pydantic-ai's, which may be several messages",
            "convert its parts, each to a message with its role",
        )
    if isinstance(given.get("content"), dict) and isinstance(given["content"].get("parts"), list):
        raise _refused(
            where,
            "an event of Google's ADK",
            "convert its content's parts to messages, or keep it whole with Message.opaque(event, text)",
        )
    if isinstance(given.get("parts"), list):
        raise _refused(
            where, "a content of Google's Gemini without its role", "give it the role user or model"
        )
    if isinstance(given.get("source"), str) and "type" in given and "content" in given:
        raise _refused(
            where, f"a message of AutoGen's ({given['type']!r:.40})", "pass its content with a role"
        )


def _by_its_parts(given: JSONObject, where: str) -> Translated | None:
    """A message with a role whose text stands in parts or blocks."""
    parts, blocks, items = (_objects(given.get(key)) for key in ("parts", "blocks", "items"))
    if parts and all("type" in part for part in parts):
        return _of_texts(
            given,
            [part for part in parts if part["type"] != "step-start"],
            ("parts", "vercel_ai", "a UI message of Vercel's AI SDK"),
            where,
            "convert it with convertToModelMessages",
        )
    if parts:
        return _of_texts(
            given,
            parts,
            ("parts", "gemini", "a content of Google's Gemini"),
            where,
            "convert its calls to tool_calls, and its results to messages of the role tool",
        )
    if blocks and all("block_type" in block for block in blocks):
        return _of_texts(
            given, blocks, ("blocks", "llama_index", "a message of LlamaIndex"), where, "convert its blocks"
        )
    if items and all("content_type" in item for item in items):
        raise _refused(where, "a message of Semantic Kernel's", "pass its text as content")
    return None


def _objects(value: JSONValue) -> list[JSONObject]:
    """A list of objects; empty where it is something else."""
    return value if isinstance(value, list) and all(isinstance(each, dict) for each in value) else []


def _of_texts(
    given: JSONObject, parts: Sequence[JSONObject], names: tuple[str, str, str], where: str, remedy: str
) -> Translated:
    """A message that is made of texts alone."""
    key, framework, called = names
    if not parts:
        raise _refused(where, f"{called} without text", remedy)
    kinds = [part.get("type", part.get("block_type", "text")) for part in parts]
    texts = [part.get("text") for part in parts]
    role = "assistant" if given["role"] == "model" else given["role"]
    for kind, text in zip(kinds, texts, strict=True):
        if kind != "text" or not isinstance(text, str):
            raise _refused(where, f"{called} with a part that is no text ({kind!r:.40})", remedy)
    is_one = len(texts) == 1
    content = texts[0] if is_one else [{"type": "text", "text": text} for text in texts]
    rest = {
        name: value for name, value in given.items() if name not in (key, "role") and value not in ({}, None)
    }
    return Translated({"role": role, "content": content}, {framework: rest} if rest else {})


def _langchain_constructor(given: JSONObject, where: str) -> Translated:
    """What `dumpd` of langchain_core makes of a message."""
    path, kwargs = given["id"], given.get("kwargs")
    name = path[-1] if isinstance(path, list) and path else None
    type_ = _LANGCHAIN_CLASSES.get(name) if isinstance(name, str) else None
    if given.get("type") != "constructor" or type_ is None or not isinstance(kwargs, dict):
        raise _refused(
            where, f"an object of LangChain's that is no message ({name!r:.40})", "pass its messages"
        )
    return _langchain({**kwargs, "type": type_}, where)


# What stands in the message, and need not be kept beside it.
_LANGCHAIN_TAKEN = (
    *("type", "content", "name", "tool_calls", "tool_call_id", "role", "example", "invalid_tool_calls"),
)


def _langchain(given: JSONObject, where: str) -> Translated:
    """A message of LangChain's by its fields."""
    type_ = _LANGCHAIN_CLASSES.get(given["type"], given["type"])
    type_ = str(type_)
    role = given.get("role") if type_ == "chat" else _LANGCHAIN_ROLES.get(type_)
    role = {"human": "user", "ai": "assistant"}.get(str(role), role)
    if not isinstance(role, str):
        raise _refused(where, f"a LangChain message of the type {type_!r}", "leave it out")
    also = given.get("additional_kwargs")
    also = also if isinstance(also, dict) else {}
    rest = {
        key: value
        for key, value in given.items()
        if key not in _LANGCHAIN_TAKEN and value not in (None, {}, [], "")
    }
    message: JSONObject = {"role": role, "content": given.get("content")}
    if isinstance(given.get("name"), str):
        message["name"] = given["name"]
    if role == "tool":
        if not isinstance(given.get("tool_call_id"), str):
            raise _refused(where, "a LangChain ToolMessage without its tool_call_id", "give it that")
        message["tool_call_id"] = given["tool_call_id"]
    if role == "assistant":
        _add_calls(message, given, also, where)
        if isinstance(also.get("refusal"), str):
            message["refusal"] = also["refusal"]
    content = message["content"]
    if isinstance(content, list):
        message["content"] = _parts_of(content, has_calls="tool_calls" in message)
        if len(message["content"]) != len(content):
            rest["content"] = content
        if not message["content"]:
            message["content"] = None if role == "assistant" else ""
    return Translated(message, {"langchain": rest} if rest else {})


def _parts_of(content: Sequence[JSONValue], *, has_calls: bool) -> list[JSONValue]:
    """The parts that OpenAI's messages know; calls that stand in parts alone stay there."""
    known = _OPENAI_PARTS if has_calls else (*_OPENAI_PARTS, *_LANGCHAIN_CALL_PARTS)
    return [part for part in content if not isinstance(part, dict) or part.get("type") in known]


def _add_calls(message: JSONObject, given: JSONObject, also: JSONObject, where: str) -> None:
    """The calls of an AIMessage as OpenAI's `tool_calls`; those with arguments that are no JSON too."""
    calls: list[JSONValue] = []
    for name in ("tool_calls", "invalid_tool_calls"):
        listed = given.get(name) or []
        if not isinstance(listed, list):
            raise _refused(where, f"a LangChain message whose {name} is no list", "pass a list of calls")
        calls += listed
    if calls:
        message["tool_calls"] = [_call_of(call, where) for call in calls]
    elif also.get("tool_calls"):
        message["tool_calls"] = also["tool_calls"]
    elif isinstance(also.get("function_call"), dict):
        message["function_call"] = also["function_call"]


def _call_of(call: JSONValue, where: str) -> JSONObject:
    if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
        raise _refused(where, "a LangChain message with a tool call that has no name", "give it its name")
    if not isinstance(call.get("id"), str):
        raise _refused(
            where, "a LangChain message with a tool call that has no id", "give it the id that results name"
        )
    arguments = call.get("args")
    text = arguments if isinstance(arguments, str) else dump_json({} if arguments is None else arguments)
    return {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": text}}


def _refused(where: str, what: str, remedy: str) -> InvalidMessage:
    return InvalidMessage(f"{where} is {what}; {remedy}")
