"""OpenAI's Responses API, used without its server-side state: the conversation is in the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tokenmem.callables import is_wrapped, keyword_parameters
from tokenmem.chat.apis.event_text import is_text, parsed_text
from tokenmem.chat.apis.interface import Client, Endpoint, ModelAPI, Response, StreamReader, read_events
from tokenmem.chat.apis.output_items import answer_of_body
from tokenmem.chat.apis.replies import Answer, is_stream, plain, request_id_of
from tokenmem.chat.apis.response_reader import ResponseReader
from tokenmem.chat.prompt import NoResult, sendable
from tokenmem.counting.model_rules import family_of
from tokenmem.messages.conversions import has_item_form, response_items, response_tool
from tokenmem.messages.endpoint_rules import LONGEST_ITEM_ID, EndpointRules
from tokenmem.messages.fitting import fitted
from tokenmem.messages.items import without_repeated_items
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject

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

    def fit(self, messages: Sequence[Message], rules: EndpointRules) -> list[Message]:
        """Prepared messages as the endpoint takes them; its ids may be longer."""
        longest = max(rules.longest_call_id, LONGEST_ITEM_ID)
        rules = replace(rules, longest_call_id=longest)
        return [fitted(message, rules) for message in messages]

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
        body = parsed_text(response) if is_text(response) else plain(response)
        request_id = request_id_of(response)
        if isinstance(body, tuple):
            return read_events(ResponseReader(request_id), body)
        return answer_of_body(body, request_id)

    def reader(self, response: Response) -> StreamReader | None:
        """What puts a stream together."""
        return ResponseReader(request_id_of(response)) if is_stream(response) else None
