"""OpenAI's Responses API, used without its server-side state: the conversation is in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenmem.bills import family_of
from tokenmem.chat.answers import Answer, part_of, plain, request_id_of, scrubbed, usage_of
from tokenmem.chat.conversions import response_items, response_tool
from tokenmem.chat.prompt import NoResult, sendable
from tokenmem.errors import ModelError
from tokenmem.formats import parse_messages
from tokenmem.models import JSONObject, Message

_ENCRYPTED_REASONING = "reasoning.encrypted_content"


class Responses:
    """How a prompt is sent by the Responses API, and its reply read."""

    OPTIONAL: Mapping[str, str] = {"prompt_cache_key": "prompt_cache_key", "include": "encrypted"}
    """Parameters that some servers refuse, with what their refusal says; they are asked again without it."""

    takes_plain = True
    """Whether messages that are a role and a text alone can be sent as they are."""

    streams = True
    """Whether a reply can come in pieces."""

    RESERVED = frozenset({"input", "model", "stream", "tools", "previous_response_id", "conversation"})
    """Parameters that the caller may not set: the state that they name is not in the database."""

    def endpoint(self, client: Any) -> Any:
        """The method of the client that sends a request."""
        return client.responses.create

    def prepare(self, messages: Sequence[Message], no_result: NoResult) -> list[Message]:
        """A window's messages as they can be sent."""
        return sendable(list(filter(_has_item_form, messages)), no_result)

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> list[JSONObject]:
        """The tools as this API describes them."""
        return [response_tool(tool) for tool in tools]

    def instructions(self, text: str) -> JSONObject:
        """The parameters that carry the instructions."""
        return {"instructions": text}

    def render(self, messages: Sequence[Message]) -> list[JSONObject]:
        """Prepared messages as this API takes them."""
        return response_items(messages)

    def request(self, head: JSONObject, sent: Sequence[JSONObject], stream: bool) -> JSONObject:
        """The parameters of a request; see ChatCompletions.request."""
        request = {"store": False, **head, "input": list(sent)}
        if family_of(str(head.get("model"))).reasoning and not request["store"]:
            request.setdefault("include", [_ENCRYPTED_REASONING])
        if stream:
            request["stream"] = True
        return request

    def read(self, response: Any) -> Answer:
        """The reply.

        Raises:
            ModelError: the provider says that it failed, or there is none in it.
        """
        return _answer(plain(response), request_id_of(response))

    def reader(self) -> ResponseReader:
        """What puts a stream together."""
        return ResponseReader()


def _has_item_form(message: Message) -> bool:
    """Reasoning only encrypted: the provider has kept none of it."""
    return message.kind != "reasoning" or bool((message.payload or {}).get("encrypted_content"))


def _answer(body: Any, request_id: str | None) -> Answer:
    items = body.get("output") if isinstance(body, Mapping) else None
    error = body.get("error") if isinstance(body, Mapping) else None
    if error or not isinstance(items, list) or not items:
        raise ModelError(f"the model's answer has failed ({_code(error) or 'no output'}); ask again")
    reason = (body.get("incomplete_details") or {}).get("reason")
    return Answer(
        parse_messages(scrubbed(items)),
        "".join(_text_of(item) for item in items),
        str(reason or body.get("status") or "completed"),
        usage_of(body.get("usage"), "input", "output"),
        request_id,
    )


def _code(error: Any) -> str | None:
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, str) else None


def _text_of(item: Any) -> str:
    if not isinstance(item, Mapping) or item.get("type") != "message":
        return ""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or [] if part.get("type") == "output_text")


class ResponseReader:
    """The reply of a stream, from its events."""

    def __init__(self) -> None:
        self.request_id: str | None = None
        self._done: list[JSONObject] = []
        self._open: dict[Any, JSONObject] = {}
        self._text = ""
        self._response: JSONObject | None = None

    def feed(self, event: Any) -> str:
        """Take an event in and return the text in it.

        Raises:
            ModelError: the provider says that the reply has failed.
        """
        body = plain(event)
        kind = body.get("type")
        if kind == "response.output_text.delta":
            self._text += body["delta"]
            return str(body["delta"])
        if kind == "response.output_item.added":
            self._open[body.get("output_index")] = body["item"]
        elif kind == "response.function_call_arguments.delta":
            item = self._open.setdefault(body.get("output_index"), {})
            item["arguments"] = item.get("arguments", "") + body["delta"]
        elif kind == "response.output_item.done":
            self._open.pop(body.get("output_index"), None)
            self._done.append(body["item"])
            self._text = ""
        elif kind in ("response.completed", "response.incomplete"):
            self._response = body["response"]
        elif kind in ("error", "response.failed"):
            error = (body.get("response") or {}).get("error") or body
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
        stored = parse_messages(scrubbed(self._done)) if self._done else []
        text = scrubbed("".join(_text_of(item) for item in self._done) + self._text)
        begun = [item for item in self._open.values() if item.get("type") != "message"]
        if self._text or begun:
            content = [{"type": "output_text", "text": scrubbed(self._text), "annotations": []}]
            under_way = next((item for item in self._open.values() if item.get("type") == "message"), {})
            named = {"id": under_way["id"]} if isinstance(under_way.get("id"), str) else {}
            item = {"type": "message", **named, "role": "assistant", "status": "incomplete"}
            stored.append(
                part_of(
                    {**item, "content": content if self._text else []},
                    scrubbed({"items": begun} if begun else {}),
                )
            )
        return Answer(stored, text, None, {}, self.request_id)
