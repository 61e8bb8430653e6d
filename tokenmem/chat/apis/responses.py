"""OpenAI's Responses API, used without its server-side state: the conversation is in the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tokenmem.callables import is_wrapped, keyword_parameters
from tokenmem.chat.apis.interface import Client, Endpoint, Event, ModelAPI, Response, StreamReader
from tokenmem.chat.apis.replies import Answer, is_stream, plain, request_id_of, usage_of
from tokenmem.chat.prompt import NoResult, sendable
from tokenmem.counting.model_rules import family_of
from tokenmem.errors import InvalidMessage, ModelError
from tokenmem.messages.conversions import has_item_form, response_items, response_tool
from tokenmem.messages.items import without_repeated_items
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import Unstorable, parse_message, parse_messages, parse_partial
from tokenmem.messages.unstorable import holds_unstorable, scrubbed
from tokenmem.messages.values import JSONObject, JSONValue

_ENCRYPTED_REASONING = "reasoning.encrypted_content"


class Responses(ModelAPI):
    """How a prompt is sent by the Responses API, and its reply read."""

    optional: Mapping[str, str] = {"prompt_cache_key": "prompt_cache_key", "include": "encrypted"}
    # Among them the state that is not in the database.
    reserved = frozenset(
        {"input", "instructions", "prompt", "model", "stream", "background", "tools"}
        | {"previous_response_id", "conversation"}
    )
    takes_cache_key = True

    def endpoint(self, client: Client) -> Endpoint:
        """The method of the client that sends a request."""
        create: Endpoint = client.responses.create
        return create

    def accepted_options(self, client: Client) -> Collection[str] | None:
        """What that method takes, or any where the openai package's own is wrapped by somebody else."""
        create = self.endpoint(client)
        return None if is_wrapped(create, package="openai") else keyword_parameters(create)

    def prepare(self, messages: Sequence[Message], no_result: NoResult) -> list[Message]:
        """A window's messages as they can be sent."""
        return sendable(without_repeated_items(filter(has_item_form, messages)), no_result)

    def tools(self, tools: Sequence[Mapping[str, object]]) -> list[JSONObject]:
        """The tools as this API describes them."""
        return [response_tool(tool) for tool in tools]

    def instructions(self, text: str) -> JSONObject:
        """The parameters that carry the instructions."""
        return {"instructions": text}

    def render(self, messages: Sequence[Message]) -> list[JSONObject]:
        """Prepared messages as this API takes them."""
        return response_items(messages)

    def request(self, head: JSONObject, sent: Sequence[JSONObject], stream: bool) -> JSONObject:
        """The parameters of a request; nothing of it is kept by the provider."""
        request = {"store": False, **head, "input": list(sent)}
        if family_of(str(head.get("model"))).reasoning and not request["store"]:
            request.setdefault("include", [_ENCRYPTED_REASONING])
        if stream:
            request["stream"] = True
        return request

    def read(self, response: Response) -> Answer:
        """The reply.

        Raises:
            ModelError: the provider says that it failed, or there is none in it.
        """
        return _answer(plain(response), request_id_of(response))

    def reader(self, response: Response) -> StreamReader | None:
        """What puts a stream together."""
        return ResponseReader(request_id_of(response)) if is_stream(response) else None


def _answer(body: JSONValue, request_id: str | None) -> Answer:
    items = body.get("output") if isinstance(body, Mapping) else None
    error = body.get("error") if isinstance(body, Mapping) else None
    if error or not isinstance(items, list) or not items:
        raise ModelError(f"the model's answer has failed ({_code(error) or 'no output'}); ask again")
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, Mapping) else None
    exact = parse_messages(map(_with_call_id, items), "escape") if holds_unstorable(items) else []
    items = scrubbed(items)
    return Answer(
        parse_messages(items),
        "".join(_text_of(item) for item in items),
        scrubbed(str(reason or body.get("status") or "completed")),
        usage_of(body.get("usage"), "input", "output"),
        request_id,
        exact,
    )


def _code(error: object) -> str | None:
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, str) else None


def _text_of(item: object) -> str:
    if not isinstance(item, Mapping) or item.get("type") != "message":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content
    parts = [
        part for part in content or [] if isinstance(part, Mapping) and part.get("type") == "output_text"
    ]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


# What a call's pieces are pieces of.
_GROWING = {
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
    "response.refusal.delta": "refusal",
}


class ResponseReader:
    """The reply of a stream, from its events."""

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = request_id
        self._done: list[JSONObject] = []
        self._open: dict[object, JSONObject] = {}
        self._texts: dict[object, str] = {}
        self._response: JSONObject | None = None

    def feed(self, event: Event) -> str:
        """Take an event in and return the text in it.

        Raises:
            ModelError: the provider says that the reply has failed.
        """
        body = plain(event)
        if not isinstance(body, Mapping):
            return ""
        kind, place = body.get("type"), body.get("output_index")
        delta, item, response = body.get("delta"), body.get("item"), body.get("response")
        if kind == "response.output_text.delta" and isinstance(delta, str):
            self._texts[place] = self._texts.get(place, "") + delta
            return delta
        if kind in _GROWING and isinstance(delta, str):
            known = self._open.setdefault(place, {})
            known[_GROWING[kind]] = (known.get(_GROWING[kind]) or "") + delta
        elif kind == "response.output_item.added" and isinstance(item, Mapping):
            self._open[place] = dict(item)
        elif kind == "response.output_item.done" and isinstance(item, Mapping):
            self._open.pop(place, None)
            self._texts.pop(place, None)
            self._done.append(dict(item))
        elif kind in ("response.completed", "response.incomplete") and isinstance(response, Mapping):
            self._response = dict(response)
        elif kind in ("error", "response.failed"):
            error = (response or {}).get("error") or body
            raise ModelError(f"the model's answer has failed ({_code(error) or 'no code'}); ask again")
        return ""

    @property
    def complete(self) -> bool:
        """Whether the model has said that it has come to its end."""
        return self._response is not None

    def answer(self) -> Answer:
        """The whole reply."""
        body: JSONObject = dict(self._response or {})
        body["output"] = body.get("output") or self._done
        return _answer(body, self.request_id)

    def part(self) -> Answer:
        """What has arrived of a reply that was cut off: whole items, and the text of the one under way."""
        text = scrubbed("".join(_text_of(item) for item in self._done) + "".join(self._texts.values()))
        arrived = [self._done, list(self._open.values()), list(self._texts.values())]
        exact = self._part("escape") if holds_unstorable(arrived) else []
        return Answer(self._part("refuse"), text, None, {}, self.request_id, exact)

    def _part(self, unstorable: Unstorable) -> list[Message]:
        clean = scrubbed if unstorable == "refuse" else _as_it_is
        stored: list[Message] = []
        begun: list[JSONObject] = []
        for item in clean(self._done):
            try:
                stored.append(parse_message(_with_call_id(item), unstorable))
            except (
                InvalidMessage
            ):  # in the mark, like what has only begun: nothing may hide why it was cut off
                begun.append(item)
        text = clean("".join(self._texts.values()))
        begun += [item for item in clean(list(self._open.values())) if _has_begun(item)]
        if text or begun or stored:  # behind whole items too: the reply is not whole without the mark
            under_way = clean(self._under_way(text))
            stored.append(parse_partial(under_way, {"items": begun} if begun else {}, unstorable))
        return stored

    def _under_way(self, text: str) -> JSONObject:
        """The message whose text was coming."""
        known = next((item for item in self._open.values() if item.get("type") == "message"), {})
        named = {"id": known["id"]} if isinstance(known.get("id"), str) else {}
        content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
        return {
            "type": "message",
            **named,
            "role": "assistant",
            "status": "incomplete",
            "content": content,
        }


def _with_call_id(item: JSONValue) -> JSONValue:
    """An item whose call's id databases hold: whoever answers it names it."""
    call_id = item.get("call_id") if isinstance(item, Mapping) else None
    return {**item, "call_id": scrubbed(call_id)} if isinstance(call_id, str) else item


def _as_it_is(value: JSONValue) -> JSONValue:
    return value


def _has_begun(item: Mapping[str, object]) -> bool:
    """Whether there is more to an item under way than the text of a message."""
    return item.get("type") != "message" or bool(item.get("refusal"))
