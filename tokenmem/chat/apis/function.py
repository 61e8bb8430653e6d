"""A model that is a function: messages in, one message or its text out, whole or in pieces."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tokenmem.callables import keyword_parameters
from tokenmem.chat.apis.characters import WholeCharacters
from tokenmem.chat.apis.completions import chat_fit
from tokenmem.chat.apis.failures import code_of
from tokenmem.chat.apis.interface import Client, Endpoint, ModelAPI, Response, StreamReader
from tokenmem.chat.apis.replies import Answer, is_stream, plain
from tokenmem.errors import ModelError
from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.messages.message import Message
from tokenmem.messages.sequences import joined
from tokenmem.messages.values import JSONObject


class Function(ModelAPI):
    """How a function is called and its answer read: it takes OpenAI chat messages.

    It returns a message, or its text, or yields the text in pieces. It is called with the messages alone, or,
    where the chat has tools or options, with these by name.
    """

    def endpoint(self, client: Client) -> Endpoint:
        """The function, called with what it needs to know."""

        def call(messages: list[JSONObject], **options: object) -> object:
            return client(messages, **options)

        return call

    def accepted_options(self, client: Client) -> Collection[str] | None:
        """The function's parameters behind the first, which is the messages."""
        return keyword_parameters(client, but_first=1)

    def fit(self, messages: Sequence[Message], rules: EndpointRules) -> list[Message]:
        """Prepared messages as whatever the function asks may take them."""
        return chat_fit(messages, rules)

    def order(self, sent: Sequence[JSONObject], rules: EndpointRules) -> Sequence[JSONObject]:
        """Neighbours of one role as one, where roles alternate."""
        return joined(sent) if rules.alternates else sent

    def request(self, head: JSONObject, sent: Sequence[JSONObject], stream: bool) -> JSONObject:  # noqa: ARG002
        """The function's arguments, the same for streams: what it returns tells what it is."""
        request = super().request(head, sent, stream=False)
        return {name: value for name, value in request.items() if name != "model"}

    def read(self, response: Response) -> Answer:
        """The message that it returned.

        Raises:
            ModelError: it returned neither a message nor a text.
        """
        given = {"role": "assistant", "content": response} if isinstance(response, str) else response
        if isinstance(given, Message):
            given = given.to_openai()
        body = plain(given)
        if not isinstance(body, Mapping):
            raise ModelError(f"the model returned a {type(response).__name__}; return a message, or its text")
        if not {"role", "content", "tool_calls"} & body.keys():
            raise ModelError(
                "the model returned a dict that is no message: it has neither role nor content",
                code=code_of(body.get("error")),
            )
        answer = Answer.of_message(body, finish_reason="stop")
        (message,) = answer.messages
        return replace(answer, finish_reason="tool_calls") if message.kind == "tool_call" else answer

    def reader(self, response: Response) -> StreamReader | None:
        """What joins the pieces of a text."""
        return TextReader() if is_stream(response) else None


class TextReader:
    """The text of a stream of strings."""

    complete = True
    """The end of the stream is the end of the text."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._characters = WholeCharacters()

    def feed(self, event: object) -> str:
        """Take a piece of text in and return what can be delivered by now.

        Raises:
            ModelError: it is something else.
        """
        if not isinstance(event, str):
            raise ModelError(f"the model yielded a {type(event).__name__}; yield strings")
        self._pieces.append(event)
        return self._characters.take(event)

    @property
    def text(self) -> str:
        """What has been yielded."""
        return "".join(self._pieces)

    def answer(self) -> Answer:
        """The whole text."""
        return Answer.of_message({"content": self.text}, finish_reason="stop")

    def part(self) -> Answer:
        """What has been yielded, as the part of a reply."""
        return Answer.part_of_message(self.text)
