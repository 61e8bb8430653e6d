"""Two of OpenAI's models as a chain calls them: a prompt in, a text out, whole or in pieces."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from tokenmem.chat.apis.interface import Response
from tokenmem.chat.blocking_stream import StreamInThreads
from tokenmem.errors import InvalidArgument, InvalidMessage, ModelError
from tokenmem.messages.values import JSONObject

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

Choice = Any
"""One choice of a response: each of OpenAI's APIs has a type of its own for it."""

TextPrompt = str | Sequence[JSONObject]
"""A text, or, for the chat API, messages as it takes them."""


class _OpenAIModel:
    """What both models have in common: their clients, and one request for one answer."""

    def __init__(
        self,
        model: str,
        client: OpenAI | None,
        async_client: AsyncOpenAI | None,
        options: JSONObject,
    ) -> None:
        if options.get("stream"):
            raise InvalidArgument("stream is True; leave it out, and call stream or astream for pieces")
        _check_clients(client, async_client)
        self.model = model
        self.options = options
        self._client = client
        self._given_async_client = async_client
        self._has_only_sync_client = client is not None and async_client is None
        # An AsyncOpenAI keeps connections of the event loop that opened them, and every asyncio.run has
        # a loop of its own.
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncOpenAI] = WeakKeyDictionary()

    @property
    def client(self) -> OpenAI:
        """The given client, else one made at first use from OpenAI's environment variables.

        Raises:
            InvalidArgument: only an async client was given.
        """
        if self._client is None:
            if self._given_async_client is not None:
                raise InvalidArgument(
                    "only async_client was given; pass client=OpenAI(…) too, or await ainvoke"
                )
            from openai import OpenAI

            self._client = OpenAI()
        return self._client

    @property
    def async_client(self) -> AsyncOpenAI:
        """The given async client, else one of the running event loop, made at first use."""
        if self._given_async_client is not None:
            return self._given_async_client
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            from openai import AsyncOpenAI

            self._async_clients[loop] = AsyncOpenAI()
        return self._async_clients[loop]

    def invoke(self, prompt: TextPrompt, **options: Any) -> str:
        """The model's answer to the prompt, not stripped.

        Args:
            prompt: the whole text that the model reads; OpenAIChat also takes a list of messages.
            **options: further parameters of OpenAI's request, for this call only.

        Raises:
            InvalidMessage: the model returned no text.
            InvalidArgument: only an async client was given.
            openai.OpenAIError: the request failed, or no API key is set.
        """
        return self._text(self._endpoint(self.client)(**self._request(prompt, options)))

    async def ainvoke(self, prompt: TextPrompt, **options: Any) -> str:
        """The model's answer, awaited; where only a sync client was given, it is used in a thread."""
        if self._has_only_sync_client:
            return await asyncio.to_thread(self.invoke, prompt, **options)
        return self._text(await self._endpoint(self.async_client)(**self._request(prompt, options)))

    def stream(self, prompt: TextPrompt, **options: Any) -> Iterator[str]:
        """The model's answer in pieces, as they come. Takes and raises what `invoke` does.

        Raises:
            ModelError: the stream ended before the answer was complete.
        """
        is_complete = False
        with self._endpoint(self.client)(**self._request(prompt, options), stream=True) as events:
            for event in events:
                for choice in event.choices[:1]:
                    is_complete = is_complete or choice.finish_reason is not None
                    if piece := self._piece(choice):
                        yield piece
        self._check_complete(is_complete)

    async def astream(self, prompt: TextPrompt, **options: Any) -> AsyncIterator[str]:
        """The model's answer in pieces, awaited; a sync client alone is used in threads."""
        if self._has_only_sync_client:
            async for piece in StreamInThreads(self.stream(prompt, **options)):
                yield str(piece)
            return
        is_complete = False
        async with await self._endpoint(self.async_client)(
            **self._request(prompt, options), stream=True
        ) as events:
            async for event in events:
                for choice in event.choices[:1]:
                    is_complete = is_complete or choice.finish_reason is not None
                    if piece := self._piece(choice):
                        yield piece
        self._check_complete(is_complete)

    def _check_complete(self, is_complete: bool) -> None:
        if not is_complete:
            raise ModelError(f"the stream of {self.model} ended before the answer was complete; ask again")

    def __call__(self, prompt: TextPrompt, **options: Any) -> str:
        """The model's answer: the object itself is a function of a prompt."""
        return self.invoke(prompt, **options)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        if self._client is not None or self._given_async_client is not None:
            raise InvalidArgument(
                f"{type(self).__name__} with a client cannot be pickled; make it without one, and it makes "
                f"its own from OPENAI_API_KEY and OPENAI_BASE_URL where it is used"
            )
        return _model_of, (type(self), self.model, self.options)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        other = copy.copy(self)  # with the same clients
        other.options = copy.deepcopy(self.options, memo)
        return other

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model}>"

    def _endpoint(self, client: OpenAI | AsyncOpenAI) -> Callable[..., Response]:
        raise NotImplementedError

    def _request(self, prompt: TextPrompt, options: JSONObject) -> JSONObject:
        raise NotImplementedError

    def _said(self, choice: Choice) -> str | None:
        raise NotImplementedError

    def _piece(self, choice: Choice) -> str | None:
        raise NotImplementedError

    def _text(self, response: Response) -> str:
        choices = response.choices
        text = self._said(choices[0]) if choices else None
        if text is not None:
            return text
        reason = f"finish_reason {choices[0].finish_reason!r}" if choices else "no choices"
        raise InvalidMessage(f"{self.model} returned no text ({reason}); ask it for text only")


class OpenAICompletion(_OpenAIModel):
    """A model of OpenAI's completions API, or of a server that speaks it: a text in, a text out.

    Args:
        model: the model's name.
        temperature: how freely it writes, 0 to 2.
        max_tokens: how long an answer may be, in tokens.
        client: an `openai.OpenAI` of your own; without one, it is made at first use and reads
            OPENAI_API_KEY and OPENAI_BASE_URL.
        async_client: the same for `ainvoke`, an `openai.AsyncOpenAI`.
        **options: further parameters of every request, such as `stop` or `top_p`.

    Raises:
        InvalidArgument: an async client stands for a sync one, or the reverse, or `stream` is asked for.
    """

    def __init__(
        self,
        model: str = "gpt-3.5-turbo-instruct",
        temperature: float = 0.7,
        max_tokens: int = 256,
        client: OpenAI | None = None,
        async_client: AsyncOpenAI | None = None,
        **options: Any,
    ) -> None:
        options = {"temperature": temperature, "max_tokens": max_tokens, **options}
        super().__init__(model, client, async_client, options)

    def _endpoint(self, client: OpenAI | AsyncOpenAI) -> Callable[..., Response]:
        return client.completions.create

    def _request(self, prompt: TextPrompt, options: JSONObject) -> JSONObject:
        return {"model": self.model, "prompt": prompt, **self.options, **options}

    def _said(self, choice: Choice) -> str | None:
        text: str | None = choice.text
        return text

    def _piece(self, choice: Choice) -> str | None:
        return self._said(choice)


class OpenAIChat(_OpenAIModel):
    """A model of OpenAI's chat API, or of a server that speaks it.

    The prompt is one user's message, or, with a chain's template of messages, these messages.

    Args:
        model: the model's name.
        client: as for OpenAICompletion.
        async_client: as for OpenAICompletion.
        **options: further parameters of every request, such as `temperature` or `max_completion_tokens`.

    Raises:
        InvalidArgument: as for OpenAICompletion.
    """

    takes_messages = True

    def __init__(
        self,
        model: str = "gpt-4o-mini",
        client: OpenAI | None = None,
        async_client: AsyncOpenAI | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, client, async_client, options)

    def _endpoint(self, client: OpenAI | AsyncOpenAI) -> Callable[..., Response]:
        return client.chat.completions.create

    def _request(self, prompt: TextPrompt, options: JSONObject) -> JSONObject:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return {"model": self.model, "messages": messages, **self.options, **options}

    def _said(self, choice: Choice) -> str | None:
        text: str | None = choice.message.content
        return text

    def _piece(self, choice: Choice) -> str | None:
        text: str | None = choice.delta.content
        return text


def _model_of(kind: type[Any], model: str, options: JSONObject) -> object:
    return kind(model, **options)


def _check_clients(client: object, async_client: object) -> None:
    if client is None and async_client is None:
        return  # and openai, which takes half a second to import, is not needed yet
    from openai import AsyncOpenAI, OpenAI

    if isinstance(client, AsyncOpenAI):
        raise InvalidArgument("client is an AsyncOpenAI; pass it as async_client")
    if isinstance(async_client, OpenAI):
        raise InvalidArgument("async_client is an OpenAI; pass it as client")
