"""A model that is a function: messages in, one message out. Any provider's client fits behind one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenmem.chat.apis.completions import ChatCompletions
from tokenmem.chat.apis.replies import Answer, plain, scrubbed, with_call_ids
from tokenmem.errors import ModelError
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import parse_message
from tokenmem.messages.values import JSONObject


class Function(ChatCompletions):
    """How a function is called and its answer read: it takes OpenAI chat messages and returns one, or a text.

    It is called with the messages alone, or, where the chat has tools or options, with these by name.
    """

    optional: Mapping[str, str] = {}
    streams = False

    def endpoint(self, client: Any) -> Any:
        """The function, called with what it needs to know."""

        def call(messages: list[JSONObject], **options: Any) -> Any:
            return client(messages, **options)

        return call

    def request(self, head: JSONObject, sent: Sequence[JSONObject], stream: bool) -> JSONObject:
        """The function's arguments."""
        request = super().request(head, sent, stream)
        return {key: value for key, value in request.items() if key not in ("model", "prompt_cache_key")}

    def read(self, response: Any) -> Answer:
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
            raise ModelError("the model returned a dict that is no message: it has neither role nor content")
        message = parse_message(with_call_ids(scrubbed({"role": "assistant", **body})))
        if message.role != "assistant":
            raise ModelError(
                f"the model returned a message of the role {message.role!r}; return an assistant's"
            )
        return Answer(
            [message], message.content or "", "tool_calls" if message.kind == "tool_call" else "stop"
        )
