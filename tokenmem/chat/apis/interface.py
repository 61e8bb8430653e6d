"""What a chat asks of a provider's API: how a prompt is sent to a model, and its reply read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from tokenmem.callables import keyword_parameters
from tokenmem.chat.apis.replies import Answer
from tokenmem.chat.prompt import NoResult, sendable
from tokenmem.errors import InvalidArgument, ModelError
from tokenmem.messages.conversions import chat_messages, chat_tool, has_chat_form
from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject

Client = Any
"""A chat's client: whatever the API of the caller's own takes as one."""

Endpoint = Callable[..., object]
"""What sends a request; it is called with the request's parameters by name."""

Response = Any
"""What a client answered: an object of the provider's package, a dict, or a stream of events."""

Event = Any
"""What a stream yielded."""

Sent = Any
"""A message in the form in which an API takes it: only its `render` and `request` know it."""


class StreamReader(Protocol):
    """Puts the reply of one stream together, event by event."""

    def feed(self, event: Event) -> str:
        """Take the next event in.

        Args:
            event: what the stream yielded.

        Returns:
            The text in it, which is delivered to the user at once; "" where it has none.

        Raises:
            ModelError: the event says that the reply has failed.
        """

    @property
    def complete(self) -> bool:
        """Whether the model has said that the reply is at its end, when the stream has ended.

        A reader may have `whole` besides: whether what has arrived is a reply all the same, for servers that
        do not say so.
        """

    def answer(self) -> Answer:
        """The whole reply; called once the stream has ended and is complete.

        What its text has behind what `feed` has returned is delivered then.
        """

    def part(self) -> Answer:
        """What has arrived of a reply that was cut off, marked as a part (`Answer.part_of_message`).

        Called at any moment, also between two events and where nothing has arrived; it must not raise.
        """


def answer_of(reader: StreamReader) -> Answer:
    """The reply of a stream that has ended.

    Raises:
        ModelError: it ended before the model did.
    """
    if not (reader.complete or getattr(reader, "whole", False)):
        raise ModelError(
            "the stream ended before the reply was complete; what had arrived is stored: ask again"
        )
    return reader.answer()


def read_events(reader: StreamReader, events: Iterable[Event]) -> Answer:
    """The reply in events that have all come.

    Raises:
        ModelError: it is not complete, or says that it has failed; what had arrived is in `arrived`.
    """
    try:
        for event in events:
            reader.feed(event)
        return answer_of(reader)
    except ModelError as error:
        error.arrived = reader.part()
        raise


@runtime_checkable
class ModelAPI(Protocol):
    """How a provider's API is spoken: a prompt made into a request, a response into a reply.

    Derive from it and give what differs: `read` always, `endpoint` unless the client is a function that takes
    the request's parameters by name, `request` unless the API takes OpenAI chat messages, `reader` for
    replies in pieces. One object serves all threads and event loops of a process, and keeps nothing of a
    turn.

    Attributes:
        optional: parameters that some servers do not know, and for each a word, in lower case, of their
            refusal (status 400 or 422). Such a server is asked again without the parameter, and so from then
            on.
        reserved: parameters that a caller may not set as options, because the chat does.
        takes_cache_key: whether requests carry `prompt_cache_key`, the same for all of a conversation.
        takes_plain: whether `render` and `prepare` leave a message alone that is a role and a text, so that
            conversations of nothing else are sent as they are stored.
    """

    optional: Mapping[str, str] = MappingProxyType({})
    reserved: Collection[str] = frozenset({"messages", "model", "stream", "tools", "instructions"})
    takes_cache_key: bool = False
    takes_plain: bool = True

    def endpoint(self, client: Client) -> Endpoint:
        """What sends a request; it is called with the request's parameters by name.

        Its answer is a response, or an iterator of events. In an AsyncChat both may also be awaited and
        asynchronous; what is neither is called, and asked for each event, in a thread.

        Args:
            client: what the chat was given as `client`, None where nothing was.

        Raises:
            InvalidArgument: the client is of no use here.
        """
        if not callable(client):
            raise InvalidArgument(
                f"client is a {type(client).__name__}; {type(self).__name__} takes a function"
            )
        function: Endpoint = client
        return function

    def accepted_options(self, client: Client) -> Collection[str] | None:
        """The names of the options that a request can have, as in `Chat(…, temperature=0)`; None for any.

        By default what the endpoint takes. Others are refused before anything is stored.

        Args:
            client: as for `endpoint`.
        """
        return keyword_parameters(self.endpoint(client))

    def tools(self, tools: Sequence[Mapping[str, object]]) -> list[JSONObject]:
        """The request's parameter `tools`.

        Args:
            tools: as the caller described them, in the form of either of OpenAI's APIs.
        """
        return [chat_tool(tool) for tool in tools]

    def instructions(self, text: str) -> JSONObject:
        """The parameters that carry the instructions; `request` gets them among the others."""
        return {"messages": [{"role": "system", "content": text}]}

    def prepare(self, messages: Sequence[Message], no_result: NoResult) -> list[Message]:
        """A window's messages as a provider accepts them: what can be sent, and every call with its result.

        Args:
            messages: the window's.
            no_result: makes the result of a message's call, by its id, that has none.
        """
        return sendable(list(filter(has_chat_form, messages)), no_result)

    def fit(self, messages: Sequence[Message], rules: EndpointRules) -> list[Message]:  # noqa: ARG002
        """Prepared messages as the endpoint takes them; by default as they are.

        Args:
            messages: as `prepare` made them; those that need no change stay the same objects.
            rules: what is known of the endpoint, by its host and by what it has refused.
        """
        return list(messages)

    def render(self, messages: Sequence[Message]) -> Sequence[Sent]:
        """Prepared messages in the form in which `request` gets them: by default OpenAI chat messages."""
        return chat_messages(messages)

    def order(self, sent: Sequence[Sent], rules: EndpointRules) -> Sequence[Sent]:  # noqa: ARG002
        """What `render` made in an order that the endpoint takes; by default as it is.

        Args:
            sent: as `render` made it.
            rules: as for `fit`.
        """
        return sent

    def request(self, head: JSONObject, sent: Sequence[Sent], stream: bool) -> JSONObject:
        """The parameters of a request.

        Args:
            head: `model`, the options, `tools` where there are some, and what `instructions` gave. It belongs
                to the chat and must not be changed.
            sent: what follows the instructions: what `render` made, or, where `takes_plain`, dicts of role
                and content. Nor may these be changed.
            stream: whether the caller wants the text as it comes; the API may answer otherwise.
        """
        request = {**head, "messages": [*head.get("messages", []), *sent]}
        return {**request, "stream": True} if stream else request

    @abstractmethod
    def read(self, response: Response) -> Answer:
        """The reply in a response that came whole.

        Args:
            response: what the endpoint answered.

        Raises:
            ModelError: there is none in it.
        """

    def reader(self, response: Response) -> StreamReader | None:  # noqa: ARG002
        """What puts a response together that comes in pieces; None for one that came whole.

        Args:
            response: what the endpoint answered; where this is not None, it is iterated.
        """
        return None
