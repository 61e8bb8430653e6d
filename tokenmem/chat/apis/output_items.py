"""The items of a reply by the Responses API: whatever form one has, it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenmem.chat.apis.failures import code_of, failed, failure_in
from tokenmem.chat.apis.forms import assistant_message, made_call_id, needs_escapes, with_raw
from tokenmem.chat.apis.repeated_calls import arguments_key
from tokenmem.chat.apis.replies import Answer
from tokenmem.chat.apis.usage import Usage, usage_of
from tokenmem.errors import InvalidMessage, ModelError
from tokenmem.messages.message import Message, marked_partial, text_of_parts
from tokenmem.messages.parsing import Unstorable, clean, parse_message
from tokenmem.messages.unstorable import scrubbed, with_whole_characters
from tokenmem.messages.values import JSONObject, JSONValue, as_json, can_be_stored, json_text

_CALLS = {"function_call": "arguments", "custom_tool_call": "input"}


def answer_of_body(body: JSONValue, request_id: str | None, *, ended: bool = True) -> Answer:
    """The reply in a response.

    Args:
        body: the response.
        request_id: the provider's id of the request.
        ended: whether the provider has said that it is at its end.

    Raises:
        ModelError: it says that it has failed, or there is no reply in it.
    """
    given = body if isinstance(body, Mapping) else {}
    items = _with_own_call_ids(output_of(given))
    failure = failure_in_response(body)
    usage = usage_of(given.get("usage"))
    if failure is not None:
        failure.arrived = _failed_part(items, usage, request_id)
        raise failure
    if not items:
        code = code_of(body)
        raise ModelError(f"the model's answer has failed ({code or 'no output'}); ask again", code=code)
    details = given.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    told = scrubbed(str(reason or given.get("status") or "completed")) if ended else None
    stored = stored_items(items, "refuse")
    exact = stored_items(items, "escape") if needs_escapes(items) else []
    return Answer(stored, text_of(stored), told, usage, request_id, exact)


def failure_in_response(body: object) -> ModelError | None:
    """The error in a response, or None."""
    failure = failure_in(body)
    if failure is None and isinstance(body, Mapping) and body.get("status") in ("failed", "cancelled"):
        return failed(None)
    return failure


def _failed_part(items: Sequence[JSONValue], usage: Usage, request_id: str | None) -> Answer:
    """What a response that has failed says all the same, marked as the part of a reply."""
    stored = _marked_last(stored_items(items, "refuse"))
    exact = _marked_last(stored_items(items, "escape")) if needs_escapes(items) else []
    return Answer(stored, text_of(stored), None, usage, request_id, exact)


def _marked_last(messages: list[Message]) -> list[Message]:
    return [*messages[:-1], *map(marked_partial, messages[-1:])]


def output_of(body: Mapping[str, JSONValue]) -> list[JSONValue]:
    """The items of a response, each once; one that came alone, or as its text, too."""
    output = body.get("output") or body.get("output_text")
    listed = output if isinstance(output, (list, tuple)) else [output]
    return _distinct([item for item in listed if item is not None and item != {}])


def _distinct(items: Sequence[JSONValue]) -> list[JSONValue]:
    """The items without calls that stand among them a second time: id, name and arguments tell them."""
    kept, seen = [], set()
    for item in items:
        known = call_key(item)
        if known is None or known not in seen:
            kept.append(item)
        seen.add(known)
    return kept


def _with_own_call_ids(items: Sequence[JSONValue]) -> list[JSONValue]:
    """The items, each call with an id of its own: results would answer the wrong one."""
    seen: set[str] = set()
    named: list[JSONValue] = []
    for item in items:
        if isinstance(item, Mapping) and item.get("type") in (*_CALLS,):
            call_id = item.get("call_id")
            if isinstance(call_id, str) and call_id in seen:
                item = {**item, "call_id": made_call_id()}
            seen |= {call_id} if isinstance(call_id, str) else set()
        named.append(item)
    return named


def call_key(item: JSONValue) -> tuple[str, str, str] | None:
    """What is the same where a call is sent twice; None for what is no call with an id."""
    if not isinstance(item, Mapping) or item.get("type") not in (*_CALLS,):
        return None
    call_id, name = item.get("call_id"), item.get("name")
    if not (isinstance(call_id, str) and call_id and isinstance(name, str)):
        return None
    return call_id, name, arguments_key(item)


def stored_items(items: Sequence[JSONValue], unstorable: Unstorable) -> list[Message]:
    """The items as they are stored."""
    return [stored_item(item, unstorable) for item in items]


def stored_item(item: JSONValue, unstorable: Unstorable) -> Message:
    """One item as it is stored; one that cannot be is what can be used of it, beside it as it came."""
    if isinstance(item, Mapping) and can_be_stored(item) and item.get("role", "assistant") == "assistant":
        try:
            return parsed_item(item, unstorable)
        except InvalidMessage:
            pass
    for usable in _usable_forms(item):
        try:
            parsed_item(usable, unstorable)
        except InvalidMessage:
            continue
        return with_raw(with_call_id(usable), item, unstorable)
    return with_raw({"role": "assistant", "content": None}, item, unstorable)


def parsed_item(item: JSONValue, unstorable: Unstorable) -> Message:
    """An item as it is stored.

    Raises:
        InvalidMessage: it cannot be.
    """
    whole = with_call_id(with_whole_characters(item))
    return parse_message(clean(whole, unstorable), unstorable)


def with_call_id(item: JSONValue) -> JSONValue:
    """An item whose call's id databases hold: whoever answers it names it."""
    call_id = item.get("call_id") if isinstance(item, Mapping) else None
    return {**item, "call_id": scrubbed(call_id)} if isinstance(call_id, str) else item


def _usable_forms(item: JSONValue) -> list[JSONObject]:
    """What may be made of an item that no message can hold, the most of it first."""
    if not isinstance(item, Mapping):
        return [{"role": "assistant", "content": json_text(item)}]
    fields = {key: value for key, value in item.items() if isinstance(key, str) and can_be_stored(value)}
    given = item.get("type")
    if isinstance(given, str) and given in _CALLS:
        return [_usable_call(as_json(item), _CALLS[given])]
    content = item.get("content", item.get("text"))
    parts = as_json(content)
    text = text_of_parts(parts) if isinstance(parts, list) else None if parts is None else json_text(parts)
    said, _ = assistant_message({"content": text})
    if given != "message":
        return [said]
    return [{**fields, "role": "assistant", "type": "message"}, said]


def _usable_call(item: JSONObject, arguments: str) -> JSONObject:
    """A call that can be answered."""
    call_id, name, given = item.get("call_id"), item.get("name"), item.get(arguments)
    return {
        **{key: value for key, value in item.items() if key != "role"},
        "call_id": call_id if isinstance(call_id, str) and call_id else made_call_id(),
        "name": name if isinstance(name, str) else "" if name is None else json_text(name),
        arguments: "" if given is None else json_text(given),
    }


def text_of(messages: Sequence[Message]) -> str:
    """What the messages of a reply say."""
    return "".join(message.content or "" for message in messages if message.kind == "message")


def text_of_item(item: JSONValue) -> str:
    """What one item says, as it is stored."""
    if not isinstance(item, Mapping) or item.get("type") != "message":
        return ""
    content = item.get("content")
    return (text_of_parts(content) or "") if isinstance(content, list) else str(content or "")
