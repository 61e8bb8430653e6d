"""What a scripted server answers, and what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

JSONObject = dict[str, Any]
"""A JSON object, as a client sends it or a provider would: what is in it only they say."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose body was a JSON object.

    Attributes:
        path: what was asked for, such as "/v1/chat/completions".
        body: the body as it came.
        headers: the headers, with their names in lower case.
        number: its place in the order of arrival, from 0.
    """

    path: str
    body: JSONObject
    headers: Mapping[str, str]
    number: int


@dataclass(frozen=True, slots=True)
class ToolCallSpec:
    """A tool that the model calls.

    Attributes:
        name: the function's name.
        arguments: its arguments, or the text to send for them, which need not be JSON.
        id: the call's id; None for one that the server makes up.
    """

    name: str
    arguments: Mapping[str, object] | str = field(default_factory=dict)
    id: str | None = None

    @property
    def arguments_text(self) -> str:
        """The arguments as the model writes them."""
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


ToolCallLike = (
    ToolCallSpec | tuple[str, Mapping[str, object] | str] | tuple[str, Mapping[str, object] | str, str | None]
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says.

    Attributes:
        text: the text, or None for an answer without any.
        tool_calls: the tools that it calls: ToolCallSpec, or (name, arguments) and (name, arguments, id).
        reasoning: the summary of a reasoning item, with encrypted content, before what follows (Responses);
            nothing of it is seen in Chat Completions.
        refusal: why the model refuses, instead of a text.
        finish_reason: stop, length, tool_calls or content_filter; None for what the content calls for.
        usage: keys of the usage object to replace, by the names of the API that is asked.
        extra: more keys of the message.
        items: the output items to send as they are, instead of those made of the rest (Responses).
        chunks: in how many pieces the text is streamed; None for pieces of 3 to 8 characters.
        delay: seconds before the first byte.
        chunk_delay: seconds between two events of a stream.
    """

    text: str | None = None
    tool_calls: Sequence[ToolCallLike] = ()
    reasoning: str | None = None
    refusal: str | None = None
    finish_reason: FinishReason | None = None
    usage: Mapping[str, object] | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    items: Sequence[Mapping[str, object]] | None = None
    chunks: int | None = None
    delay: float = 0.0
    chunk_delay: float = 0.0

    @property
    def calls(self) -> list[ToolCallSpec]:
        """The tool calls, each as a ToolCallSpec."""
        return [call if isinstance(call, ToolCallSpec) else ToolCallSpec(*call) for call in self.tool_calls]


@dataclass(frozen=True, slots=True)
class Failure:
    """An error instead of an answer, as the provider's JSON.

    Attributes:
        status: the HTTP status, such as 429.
        code: the error's code; None where the provider gives none.
        message: what went wrong.
        headers: more headers, such as {"retry-after": "1"}.
    """

    status: int
    code: str | None = None
    message: str = "The scripted server fails as it was told."
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stall:
    """An answer that stops coming, and goes on later.

    Attributes:
        after: how many events of a stream are sent before; an answer that is not streamed waits before
            its first byte.
        seconds: how long nothing comes. It ends at once where the client leaves or the server closes.
        answer: what is said.
    """

    after: int = 0
    seconds: float = 60.0
    answer: Answer = field(default_factory=lambda: Answer("Here I am again."))


@dataclass(frozen=True, slots=True)
class Cut:
    """An answer whose connection is closed before its end.

    Attributes:
        after: how many events of a stream are sent before, behind the status and the headers. An answer
            that is not streamed is cut before its first byte with 0, else in the middle of its body.
        answer: what would have been said.
    """

    after: int = 0
    answer: Answer = field(default_factory=lambda: Answer("You never read the end of this."))


@dataclass(frozen=True, slots=True)
class StreamError:
    """A stream that ends with an error event; an answer that is not streamed is a status 500.

    Attributes:
        after: how many events are sent before.
        code: the error's code.
        message: what went wrong.
        answer: what would have been said.
        event: which event of the Responses API says so.
    """

    after: int = 0
    code: str = "server_error"
    message: str = "The server had an error while processing your request."
    answer: Answer = field(default_factory=lambda: Answer("You never read the end of this."))
    event: Literal["error", "response.failed"] = "error"


@dataclass(frozen=True, slots=True)
class RawReply:
    """Any JSON object at all, as other servers may send it.

    Attributes:
        body: the body.
        status: the HTTP status.
    """

    body: Mapping[str, object]
    status: int = 200


Reply = Answer | Failure | Stall | Cut | StreamError | RawReply
Script = Reply | Iterable[Reply] | Callable[[Request], Reply]
"""One reply for all, replies in order of arrival, or a function that is called in the server's threads."""
