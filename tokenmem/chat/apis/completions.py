"""OpenAI's Chat Completions API, and every server that speaks it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tokenmem.callables import is_wrapped, keyword_parameters
from tokenmem.chat.apis.choices import Choice, choices_of, joined, message_in, reason_in
from tokenmem.chat.apis.completion_reader import CompletionReader, part_of, whole_answer
from tokenmem.chat.apis.event_text import is_text, parsed_text
from tokenmem.chat.apis.failures import code_of, ends_in_error, failure_in, with_failure
from tokenmem.chat.apis.interface import Client, Endpoint, ModelAPI, Response, StreamReader, read_events
from tokenmem.chat.apis.replies import Answer, is_stream, plain, request_id_of
from tokenmem.chat.apis.usage import usage_of, usages_in
from tokenmem.errors import ModelError
from tokenmem.messages import sequences
from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.messages.fitting import fitted
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, JSONValue


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

    def fit(self, messages: Sequence[Message], rules: EndpointRules) -> list[Message]:
        """Prepared messages as the endpoint takes them."""
        return chat_fit(messages, rules)

    def order(self, sent: Sequence[JSONObject], rules: EndpointRules) -> Sequence[JSONObject]:
        """Neighbours of one role as one, where roles alternate."""
        return sequences.joined(sent) if rules.alternates else sent

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
            ModelError: there is none in it, or it says that it has failed.
        """
        body = parsed_text(response) if is_text(response) else plain(response)
        request_id = request_id_of(response)
        if isinstance(body, tuple):
            return read_events(CompletionReader(request_id), body)
        return _answer(body, request_id)

    def reader(self, response: Response) -> StreamReader | None:
        """What puts a stream together."""
        return CompletionReader(request_id_of(response)) if is_stream(response) else None


def chat_fit(messages: Sequence[Message], rules: EndpointRules) -> list[Message]:
    """Prepared messages as an endpoint of Chat Completions takes them."""
    return sequences.in_order([fitted(message, rules) for message in messages], rules)


def _answer(body: JSONValue, request_id: str | None) -> Answer:
    given = body if isinstance(body, Mapping) else {}
    listed = sorted(choices_of(given), key=lambda each: each[0])
    choices = [
        Choice(message, reason_in(choice))
        for _, choice in listed
        if (message := message_in(choice)) is not None
    ]
    usage = usage_of(*usages_in(given), *(choice.get("usage") for _, choice in listed))
    reply = joined(choices) if choices else None
    if (failure := failure_in(body)) is not None:
        part = part_of(reply.message, usage, request_id) if reply is not None else Answer(usage=usage)
        if ends_in_error(body):
            return with_failure(part, failure)
        failure.arrived = part
        raise failure
    if reply is None:
        failure = ModelError("the model's answer has no message; ask again", code=code_of(body))
        failure.arrived = Answer(usage=usage, request_id=request_id)
        raise failure
    return whole_answer(reply, usage, request_id)
