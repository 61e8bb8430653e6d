"""OpenAI's Chat Completions API, and every server that speaks it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tokenmem.callables import is_wrapped, keyword_parameters
from tokenmem.chat.apis.interface import Client, Endpoint, Event, ModelAPI, Response, StreamReader
from tokenmem.chat.apis.replies import (
    Answer,
    is_stream,
    merge,
    plain,
    request_id_of,
    text_in,
    usage_of,
)
from tokenmem.errors import ModelError
from tokenmem.messages.unstorable import scrubbed
from tokenmem.messages.values import JSONObject


class ChatCompletions(ModelAPI):
    """How a prompt is sent by Chat Completions, and its reply read."""

    optional: Mapping[str, str] = {"prompt_cache_key": "prompt_cache_key", "stream_options": "stream_options"}
    reserved = frozenset({"messages", "model", "stream", "tools", "functions", "instructions", "n"})
    takes_cache_key = True

    def endpoint(self, client: Client) -> Endpoint:
        """The method of the client that sends a request."""
        create: Endpoint = client.chat.completions.create
        return create

    def accepted_options(self, client: Client) -> Collection[str] | None:
        """What that method takes, or any where the openai package's own is wrapped by somebody else."""
        create = self.endpoint(client)
        return None if is_wrapped(create, package="openai") else keyword_parameters(create)

    def request(self, head: JSONObject, sent: Sequence[JSONObject], stream: bool) -> JSONObject:
        """The parameters of a request; a stream tells what it cost in its last chunk."""
        request = super().request(head, sent, stream)
        if stream:
            request["stream_options"] = {"include_usage": True, **(head.get("stream_options") or {})}
        else:
            request.pop("stream_options", None)  # the provider refuses it there
        return request

    def read(self, response: Response) -> Answer:
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

    def reader(self, response: Response) -> StreamReader | None:
        """What puts a stream together."""
        return CompletionReader(request_id_of(response)) if is_stream(response) else None


def _answer(message: JSONObject, finish_reason: object, usage: object, request_id: str | None) -> Answer:
    return Answer.of_message(
        message,
        finish_reason=scrubbed(str(finish_reason)) if finish_reason is not None else None,
        usage=usage_of(usage, "prompt", "completion"),
        request_id=request_id,
    )


class CompletionReader:
    """The reply of a stream, from its chunks."""

    def __init__(self, request_id: str | None = None) -> None:
        self.request_id = request_id
        self._message: JSONObject = {}
        self._finish_reason: str | None = None
        self._usage: object = None

    def feed(self, chunk: Event) -> str:
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
        text = text_in(self._message.get("content"))
        rest = {
            key: value for key, value in self._message.items() if value and key not in ("role", "content")
        }
        if isinstance(self._message.get("content"), list):
            rest["content"] = self._message["content"]
        usage = usage_of(self._usage, "prompt", "completion")
        return Answer.part_of_message(text, rest, usage=usage, request_id=self.request_id)


def _without_index(call: JSONObject) -> JSONObject:
    return {key: value for key, value in call.items() if key != "index"}
