"""A conversation as either of OpenAI's two APIs takes it, whichever of them its messages came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tokenmem.messages.calls import output_item, standard_call
from tokenmem.messages.endpoint_rules import LONGEST_CHAT_ID, LONGEST_ITEM_ID
from tokenmem.messages.items import LOCAL_SHELL, NEED_NO_ID, is_item, item_type
from tokenmem.messages.message import Message, text_of_parts
from tokenmem.messages.text import says_in_parts
from tokenmem.messages.values import JSONMapping, JSONObject, dump_json

# What OpenAI's replies hold and its requests do not take (API reference, "Create chat completion").
ONLY_IN_REPLIES = frozenset({"annotations"})

MEDIA = ("image_url", "input_audio", "file")


def has_chat_form(message: Message) -> bool:
    """Whether Chat Completions can be sent the message at all."""
    type_ = item_type(message)
    if type_ is None or type_ == "message":
        return True
    return message.kind in ("tool_call", "tool_result") and type_ != LOCAL_SHELL


def has_item_form(message: Message) -> bool:
    """Whether the Responses API can; reasoning only encrypted, as the provider has kept none of it."""
    if message.kind == "reasoning":
        return bool((message.payload or {}).get("encrypted_content"))
    if message.content or message.role != "assistant" or is_item(message):
        return True
    return any(_message_items(message.to_openai()))


def chat_messages(messages: Iterable[Message]) -> list[JSONObject]:
    """The messages for Chat Completions; reasoning and the provider's own tools have no place there."""
    sent: list[JSONObject] = []
    for message in messages:
        if message.payload is None and message.kind == "message":
            sent.append({"role": message.role, "content": message.content or ""})
            continue
        given = message.to_openai()
        if not is_item(message):
            sent.append(_as_chat_input(given))
        elif message.kind == "tool_call":
            _add_call(sent, given)
        elif message.kind == "tool_result":
            sent.append({"role": "tool", "tool_call_id": given["call_id"], "content": _chat_output(given)})
        elif given["type"] == "message":
            _add_message(sent, given)
    return _with_distinct_calls(sent)


def _with_distinct_calls(sent: list[JSONObject]) -> list[JSONObject]:
    """An id names one call of a message."""
    ids = _CallIds()
    for message in sent:
        if message["role"] == "assistant":
            ids = _CallIds()
            if calls := message.get("tool_calls"):
                message["tool_calls"] = [{**call, "id": ids.of_call(call.get("id"))} for call in calls]
        elif message["role"] == "tool":
            message["tool_call_id"] = ids.of_result(message.get("tool_call_id"))
    return sent


class _CallIds:
    """Ids as they are sent: some servers give none, or the same to several calls.

    Args:
        longest: characters of an id that is made here.
    """

    def __init__(self, longest: int = LONGEST_CHAT_ID) -> None:
        self._longest = longest
        self._used: set[str] = set()
        self._times: Counter[str] = Counter()
        self._waiting: dict[str, list[str]] = {}

    def of_call(self, given: object) -> str:
        """The id of a call."""
        known = given if isinstance(given, str) else ""
        chosen = known
        while not chosen or chosen in self._used:
            self._times[known] += 1
            number = f"_{self._times[known] + 1}" if known else f"_{self._times[known]}"
            chosen = (known or "call")[: self._longest - len(number)] + number
        self._used.add(chosen)
        self._waiting.setdefault(known, []).append(chosen)
        return chosen

    def of_result(self, given: object) -> object:
        """The id that a result names: its call has come before it."""
        waiting = self._waiting.get(given if isinstance(given, str) else "")
        return waiting.pop(0) if waiting else given


def _as_chat_input(message: JSONObject) -> JSONObject:
    """A message that was made for Chat Completions, or has no type, as that takes it."""
    role, content = message["role"], message.get("content")
    if isinstance(content, list):
        content = [_chat_part(part, only_text=role != "user") for part in content]
        if role == "assistant":
            content = [_reply_part(part) for part in content]
    kept = {**message, "content": content} if "content" in message else dict(message)
    kept.pop("type", None)
    if role == "assistant":
        return _as_reply(kept)
    if not content and role != "function":
        kept["content"] = ""
    return kept


def _as_reply(reply: JSONObject) -> JSONObject:
    """A reply without what is empty, or only replies have."""
    kept = {
        key: value
        for key, value in reply.items()
        if key == "content" or (value not in (None, [], {}) and key not in ONLY_IN_REPLIES)
    }
    if kept.get("content") == []:
        kept["content"] = None
    if isinstance(kept.get("audio"), dict) and "id" in kept["audio"]:
        kept["audio"] = {"id": kept["audio"]["id"]}
    if isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = [_chat_call(call) for call in kept["tool_calls"]]
    return kept


def _chat_call(call: JSONObject) -> JSONObject:
    """A call without its number, and with what some servers leave out."""
    kept = {key: value for key, value in (standard_call(call) or call).items() if key != "index"}
    if not isinstance(kept.get("type"), str):
        kept["type"] = "custom" if isinstance(kept.get("custom"), dict) else "function"
    function = kept.get("function")
    if isinstance(function, dict) and not isinstance(function.get("arguments"), str):
        kept["function"] = {**function, "arguments": _json_text(function.get("arguments"))}
    return kept


def _json_text(value: object) -> str:
    """Arguments as JSON text; some servers send the object itself."""
    return value if isinstance(value, str) else dump_json({} if value is None else value)


def _add_call(sent: list[JSONObject], item: JSONObject) -> None:
    """Add a function's call to the assistant's message before it, or as one of its own."""
    name = item.get("name", item["type"])
    if item["type"] == "custom_tool_call":
        body: JSONObject = {"type": "custom", "custom": {"name": name, "input": item.get("input") or ""}}
    else:
        arguments = _json_text(item.get("arguments", item.get("action", item.get("operation"))))
        body = {"type": "function", "function": {"name": name, "arguments": arguments}}
    call = {"id": item["call_id"], **body}
    if sent and sent[-1]["role"] == "assistant" and not sent[-1].get("function_call"):
        sent[-1] = {**sent[-1], "tool_calls": [*sent[-1].get("tool_calls", []), call]}
        sent[-1].setdefault("content", None)
    else:
        sent.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _add_message(sent: list[JSONObject], item: JSONObject) -> None:
    """Add a message; what the model says between calls, to the message that has them."""
    role, content = item["role"], item.get("content")
    if role != "assistant":
        parts = content if isinstance(content, list) else []
        chat_parts = [_chat_part(part, only_text=role != "user") for part in parts]
        sent.append({"role": role, "content": chat_parts or (content if isinstance(content, str) else "")})
        return
    said = _said(content) if isinstance(content, list) else content
    if sent and sent[-1]["role"] == "assistant" and sent[-1].get("tool_calls"):
        before = sent[-1].get("content")
        sent[-1] = {**sent[-1], "content": f"{before}\n{said}" if before else said}
    else:
        sent.append({"role": role, "content": said})


def _said(parts: Sequence[object]) -> str | None:
    refusals = [part.get("refusal") for part in parts if isinstance(part, dict)]
    return text_of_parts(parts) or "\n".join(text for text in refusals if isinstance(text, str)) or None


def _chat_output(item: JSONObject) -> object:
    """What a tool's result says, which is text there."""
    output = item.get("output")
    if output is None:  # some tools' results are not called output
        rest = {key: value for key, value in item.items() if key not in ("type", "id", "call_id", "output")}
        return dump_json(rest) if rest else ""
    if isinstance(output, list) and all(isinstance(part, dict) and "type" in part for part in output):
        return [_chat_part(part, only_text=True) for part in output] or ""
    return output if isinstance(output, str) else dump_json(output)


def _chat_part(part: str | JSONObject, *, only_text: bool) -> JSONObject:
    """A content part; one that Chat Completions does not take there is named in its place."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type")
    if kind in ("input_text", "output_text") or (kind is None and isinstance(part.get("text"), str)):
        return {"type": "text", "text": part.get("text") or ""}
    if kind == "input_image":
        url = part.get("image_url")
        image = dict(url) if isinstance(url, dict) else {"url": url, **_only(part, "detail")}
        chat_part, can_be_sent = {"type": "image_url", "image_url": image}, bool(image.get("url"))
    elif kind == "input_file":
        file = _only(part, "file_data", "file_id", "filename")
        chat_part, can_be_sent = {"type": "file", "file": file}, "file_data" in file or "file_id" in file
    else:
        return part
    if can_be_sent and not only_text:
        return chat_part
    return {"type": "text", "text": f"[{kind}: left out, as it cannot be sent here]"}


def _reply_part(part: JSONObject) -> JSONObject:
    """A part of a reply: a model may answer with media, which no API takes back."""
    if part.get("type") in MEDIA:
        return {"type": "text", "text": f"[{part['type']}: left out, as it cannot be sent here]"}
    return part


def response_items(messages: Iterable[Message]) -> list[JSONObject]:
    """The messages as input items of the Responses API."""
    items: list[JSONObject] = []
    ids = _CallIds(LONGEST_ITEM_ID)
    called: dict[object, str] = {}
    seen: set[str] = set()
    for message in messages:
        if message.payload is None and message.kind == "message":
            items.append({"role": message.role, "content": message.content or ""})
            continue
        given = message.to_openai()
        if message.kind == "tool_result" and message.role != "user":
            added = [_output_of(given, ids, called, is_message=not is_item(message))]
        else:
            added = [_as_input(given)] if is_item(message) else list(_message_items(given))
        for item in added:
            if message.kind == "tool_call" and "call_id" in item:
                item["call_id"] = ids.of_call(item["call_id"])
                called[item["call_id"]] = item["type"]
            if isinstance(item.get("id"), str):
                if item["id"] in seen and item.get("type") in NEED_NO_ID:
                    del item["id"]
                else:
                    seen.add(item["id"])
        items += added
    return items


def _output_of(
    given: JSONObject, ids: _CallIds, called: Mapping[object, str], *, is_message: bool
) -> JSONObject:
    """A result as the output of the kind of call that it answers."""
    if is_message:
        by_name = given.get("name") if given["role"] == "function" else None
        call_id = ids.of_result(given.get("tool_call_id") or by_name)
        kind = called.get(call_id, "function_call") if isinstance(call_id, str) else "function_call"
        return output_item(kind, call_id, _input_content(given.get("content")))
    given["call_id"] = ids.of_result(given["call_id"])
    if given["type"] in ("function_call_output", "custom_tool_call_output"):
        kind = called.get(given["call_id"], "")
        if kind in ("function_call", "custom_tool_call"):
            given["type"] = f"{kind}_output"
        output = given.get("output")
        is_content = output is None or isinstance(output, (str, list))
        given["output"] = _input_content(output) if is_content else dump_json(output)
    return given


def _as_input(item: JSONObject) -> JSONObject:
    """An item with what the API asks for, where it was stored without."""
    if item["type"] == "message":
        content = item.get("content")
        if item["role"] == "assistant" and isinstance(content, list):
            item["content"] = [_output_part(part) for part in content]
        else:
            item["content"] = _input_content(content)
    elif item["type"] == "function_call":
        item["arguments"] = _json_text(item.get("arguments"))
    return item


def _message_items(message: JSONObject) -> Iterator[JSONObject]:
    """A message and the calls in it, each an item."""
    role, content = message["role"], message.get("content")
    content = _reply_content(message) if role == "assistant" else _input_content(content)
    if role != "assistant" or says_in_parts(content) or (content and isinstance(content, str)):
        yield {"role": role, "content": content, **_only(message, "phase")}
    for given in message.get("tool_calls") or []:
        call = standard_call(given) or given
        if isinstance(custom := call.get("custom"), dict):
            made = {"input": "", **_only(custom, "name", "input")}
            yield {"type": "custom_tool_call", "call_id": call.get("id"), **made}
        else:
            yield _call_item(call.get("id"), call.get("function"))
    if isinstance(called := message.get("function_call"), dict):
        yield _call_item(called.get("name"), called)


def _reply_content(message: JSONObject) -> object:
    """What a reply says: its parts where they are this API's own, else its text, or that of its speech."""
    content, audio = message.get("content"), message.get("audio")
    if isinstance(content, list):
        if all(isinstance(part, dict) and part.get("type") in ("output_text", "refusal") for part in content):
            return content
        content = _said(content)
    spoken = audio.get("transcript") if isinstance(audio, dict) else None
    return content or message.get("refusal") or spoken


def _call_item(call_id: object, function: object) -> JSONObject:
    function = function if isinstance(function, dict) else {}
    arguments = _json_text(function.get("arguments"))
    return {"type": "function_call", "call_id": call_id, **_only(function, "name"), "arguments": arguments}


def _input_content(content: object) -> object:
    if not isinstance(content, list):
        return content or ""
    return [_input_part(part) for part in content] or ""


def _output_part(part: str | JSONObject) -> object:
    """A part of what the model has said."""
    text = part if isinstance(part, str) else part.get("text") if part.get("type") in (None, "text") else None
    return {"type": "output_text", "text": text} if isinstance(text, str) else part


def _input_part(part: object) -> object:
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == "text":
        return {"type": "input_text", "text": part.get("text")}
    if kind == "image_url":
        image = part.get("image_url")
        image = image if isinstance(image, dict) else {"url": image}
        return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail", "auto")}
    if kind == "file":
        file = part.get("file")
        kept = _only(file, "file_data", "file_id", "filename") if isinstance(file, dict) else {}
        return {"type": "input_file", **kept}
    return part


def chat_tool(tool: Mapping[str, object]) -> JSONObject:
    """A tool as Chat Completions describes it."""
    kind = tool.get("type")
    if kind in ("function", "custom") and kind not in tool:
        return {"type": kind, kind: {key: value for key, value in tool.items() if key != "type"}}
    return dict(tool)


def response_tool(tool: JSONMapping) -> JSONObject:
    """A tool as the Responses API describes it."""
    kind = tool.get("type")
    if kind in ("function", "custom") and isinstance(tool.get(kind), Mapping):
        return {"type": kind, **tool[kind]}
    return dict(tool)


def _only(mapping: Mapping[str, object], *keys: str) -> JSONObject:
    return {key: mapping[key] for key in keys if mapping.get(key) is not None}
