"""OpenAI's Chat Completions API, and every server that speaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenmem.chat.apis.replies import (
    Answer,
    merge,
    plain,
    request_id_of,
    scrubbed,
    text_in,
    usage_of,
    with_call_ids,
)
from tokenmem.chat.prompt import NoResult, sendable
from tokenmem.errors import ModelError
from tokenmem.messages.conversions import chat_messages, chat_tool, has_chat_form
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import parse_message, parse_partial
from tokenmem.messages.values import JSONObject


class ChatCompletions:
    """How a prompt is sent by Chat Completions, and its reply read."""

    optional: Mapping[str, str] = {"prompt_cache_key": "prompt_cache_key", "stream_options": "stream_options"}
    """Parameters that some servers refuse, with what their refusal says; they are asked again without it."""

    takes_plain = True
    """Whether messages that are a role and a text alone can be sent as they are."""

    streams = True
    """Whether a reply can come in pieces."""

    reserved = frozenset({"messages", "model", "stream", "tools", "functions", "instructions", "n"})
    """Parameters that the caller may not set."""

    def endpoint(self, client: Any) -> Any:
        """The method of the client that sends a request."""
        return client.chat.completions.create

    def prepare(self, messages: Sequence[Message], no_result: NoResult) -> list[Message]:
        """A window's messages as they can be sent."""
        return sendable(list(filter(has_chat_form, messages)), no_result)

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> list[JSONObject]:
        """The tools as this API describes them."""
        return [chat_tool(tool) for tool in tools]

    def instructions(self, text: str) -> JSONObject:
        """The parameters that carry the instructions."""
        return {"messages": [{"role": "system", "content": text}]}

    def render(self, messages: Sequence[Message]) -> list[JSONObject]:
        """Prepared messages as this API takes them."""
        return chat_messages(messages)

    def request(self, head: JSONObject, sent: Sequence[JSONObject], stream: bool) -> JSONObject:
        """The parameters of a request.

        Args:
            head: those that are the same in every request of the chat.
            sent: what follows the instructions.
            stream: whether the reply is to come in pieces.
        """
        request = {**head, "messages": [*head.get("messages", []), *sent]}
        if stream:
            told = {"include_usage": True, **(head.get("stream_options") or {})}
            request |= {"stream": True, "stream_options": told}
        else:
            request.pop("stream_options", None)  # the provider refuses it there
        return request

    def read(self, response: Any) -> Answer:
        """The reply.

        Raises:
            ModelError: there is none in it.
        """
        body = plain(response)
        choices = body.get("choices") if isinstance(body, Mapping) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise ModelError("the model's answer has no message; ask for one choice, and not for a stream")
        return _answer(message, choice.get("finish_reason"), body.get("usage"), request_id_of(response))

    def reader(self) -> CompletionReader:
        """What puts a stream together."""
        return CompletionReader()


def _answer(message: JSONObject, finish_reason: Any, usage: Any, request_id: str | None) -> Answer:
    given = with_call_ids(scrubbed({"role": "assistant", **message}))
    given["role"] = given["role"] or "assistant"
    parsed = parse_message(given)
    return Answer(
        [parsed],
        parsed.content or "",
        scrubbed(str(finish_reason)) if finish_reason is not None else None,
        usage_of(usage, "prompt", "completion"),
        request_id,
    )


class CompletionReader:
    """The reply of a stream, from its chunks."""

    def __init__(self) -> None:
        self.request_id: str | None = None
        self._message: JSONObject = {}
        self._finish_reason: str | None = None
        self._usage: Any = None

    def feed(self, chunk: Any) -> str:
        """Take a chunk in and return the text in it."""
        body = plain(chunk)
        if not isinstance(body, Mapping):
            return ""
        self._usage = body.get("usage") or self._usage
        for choice in body.get("choices") or []:
            if not choice.get("index"):  # n is ours: there is one choice, which some servers do not number
                self._finish_reason = choice.get("finish_reason") or self._finish_reason
                delta = choice.get("delta") or {}
                merge(self._message, delta)
                return text_in(delta.get("content"))
        return ""

    @property
    def complete(self) -> bool:
        """Whether the model has said that it has come to its end."""
        return self._finish_reason is not None

    def answer(self) -> Answer:
        """The whole reply."""
        message = dict(self._message)
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [_without_index(call) for call in calls]
        message.setdefault("content", None)
        return _answer(message, self._finish_reason, self._usage, self.request_id)

    def part(self) -> Answer:
        """What has arrived of a reply that was cut off."""
        usage = usage_of(self._usage, "prompt", "completion")
        message = scrubbed(self._message)
        text = text_in(message.get("content"))
        rest = {key: value for key, value in message.items() if value and key not in ("role", "content")}
        if isinstance(message.get("content"), list):
            rest["content"] = message["content"]
        if not text and not rest:
            return Answer(usage=usage, request_id=self.request_id)
        stored = parse_partial({"role": "assistant", "content": text}, rest)
        return Answer([stored], text, None, usage, self.request_id)


def _without_index(call: JSONObject) -> JSONObject:
    return {key: value for key, value in call.items() if key != "index"}
