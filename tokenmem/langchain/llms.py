"""Models that answer a text with a text: two of OpenAI's, and the way to call whatever else one has."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from tokenmem.errors import InvalidArgument, InvalidMessage

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
from tokenmem.callables import is_async, is_left_unawaited
from tokenmem.chat.apis.interface import Response
from tokenmem.messages.values import JSONObject

Choice = Any
"""One choice of a response: each of OpenAI's APIs has a type of its own for it."""


class Invocable(Protocol):
    """A model as LangChain's are: `invoke` answers with a text, or with an object that has `content`."""

    def invoke(self, prompt: Any, /, **options: Any) -> object:
        """The answer to the prompt."""


class AsyncInvocable(Protocol):
    """A model as LangChain's are, awaited: `ainvoke` answers as `invoke` does."""

    async def ainvoke(self, prompt: Any, /, **options: Any) -> object:
        """The answer to the prompt."""


LLM = Invocable | AsyncInvocable | Callable[..., object]
"""What a chain calls: a function of a text, plain or `async`, or an object with `invoke` or `ainvoke`."""


def check_llm(llm: object) -> None:
    """Check that a model can be called at all.

    Raises:
        InvalidArgument: it is no function and has neither `invoke` nor `ainvoke`.
    """
    if not (callable(llm) or _method(llm, "invoke") or _method(llm, "ainvoke")):
        raise InvalidArgument(
            f"llm is a {type(llm).__name__}; pass a function that takes a string and returns one, "
            f"or an object with invoke or ainvoke"
        )


def callable_at_once(llm: LLM) -> Callable[..., object]:
    """What answers a prompt without being awaited: `invoke`, else the object itself.

    Raises:
        InvalidArgument: the model can only be awaited.
    """
    call = _method(llm, "invoke") or (llm if callable(llm) else None)
    if call is None or is_async(call):
        raise _only_async(llm)
    return call


def ask(llm: LLM, prompt: str, **options: Any) -> str:
    """The model's answer as it came, not stripped. `invoke` goes before calling the object itself.

    Raises:
        InvalidArgument: the model can only be awaited.
        InvalidMessage: the answer is no text.
        Whatever the model raises, unchanged.
    """
    call = callable_at_once(llm)
    answer = call(prompt, **options)
    if is_left_unawaited(answer):
        raise _only_async(llm)
    return text_of(answer)


async def ask_async(llm: LLM, prompt: str, **options: Any) -> str:
    """The model's answer, awaited: `ainvoke` goes first, and what is not async runs in a thread.

    Raises:
        InvalidMessage: the answer is no text.
        Whatever the model raises, unchanged.
    """
    call = _method(llm, "ainvoke") or _method(llm, "invoke") or llm
    if not callable(call):
        raise InvalidArgument(f"llm is a {type(llm).__name__}, which cannot be called")
    answer = call(prompt, **options) if is_async(call) else await asyncio.to_thread(call, prompt, **options)
    return text_of(await answer if inspect.isawaitable(answer) else answer)


def text_of(answer: object) -> str:
    """The text of a model's answer: itself, its `content`, or the text parts of its `content` in a row.

    Raises:
        InvalidMessage: there is no text in it.
    """
    content = answer if isinstance(answer, str) else getattr(answer, "content", None)
    if isinstance(content, str):
        return str(content)
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        texts = [part if isinstance(part, str) else _text_of_part(part) for part in content]
        if not texts or any(text is not None for text in texts):
            return "".join(text for text in texts if text is not None)
    raise InvalidMessage(
        f"the llm answered with a {type(answer).__name__} that has no text; "
        f"it must return a string, or an object whose content is a string or has text parts"
    )


def _text_of_part(part: object) -> str | None:
    # Reasoning and tool calls are parts too; their texts are not what the model says.
    if not isinstance(part, dict) or part.get("type") not in ("text", "output_text"):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _method(llm: object, name: str) -> Callable[..., object] | None:
    method = getattr(llm, name, None)
    return method if callable(method) else None


def _only_async(llm: object) -> InvalidArgument:
    return InvalidArgument(
        f"llm is a {type(llm).__name__} that must be awaited; use apredict or ainvoke, or a plain function"
    )


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
            raise InvalidArgument("stream is True; this model returns whole answers, leave stream out")
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

    def invoke(self, prompt: str, **options: Any) -> str:
        """The model's answer to the prompt, not stripped.

        Args:
            prompt: the whole text that the model reads.
            **options: further parameters of OpenAI's request, for this call only.

        Raises:
            InvalidMessage: the model returned no text.
            InvalidArgument: only an async client was given.
            openai.OpenAIError: the request failed, or no API key is set.
        """
        return self._text(self._endpoint(self.client)(**self._request(prompt, options)))

    async def ainvoke(self, prompt: str, **options: Any) -> str:
        """The model's answer, awaited; where only a sync client was given, it is used in a thread."""
        if self._has_only_sync_client:
            return await asyncio.to_thread(self.invoke, prompt, **options)
        return self._text(await self._endpoint(self.async_client)(**self._request(prompt, options)))

    def __call__(self, prompt: str, **options: Any) -> str:
        """The model's answer: the object itself is a function of a prompt."""
        return self.invoke(prompt, **options)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model}>"

    def _endpoint(self, client: OpenAI | AsyncOpenAI) -> Callable[..., Response]:
        raise NotImplementedError

    def _request(self, prompt: str, options: JSONObject) -> JSONObject:
        raise NotImplementedError

    def _said(self, choice: Choice) -> str | None:
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

    def _request(self, prompt: str, options: JSONObject) -> JSONObject:
        return {"model": self.model, "prompt": prompt, **self.options, **options}

    def _said(self, choice: Choice) -> str | None:
        text: str | None = choice.text
        return text


class OpenAIChat(_OpenAIModel):
    """A model of OpenAI's chat API, or of a server that speaks it; the prompt is one user's message.

    Args:
        model: the model's name.
        client: as for OpenAICompletion.
        async_client: as for OpenAICompletion.
        **options: further parameters of every request, such as `temperature` or `max_completion_tokens`.

    Raises:
        InvalidArgument: as for OpenAICompletion.
    """

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

    def _request(self, prompt: str, options: JSONObject) -> JSONObject:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, **self.options, **options}

    def _said(self, choice: Choice) -> str | None:
        text: str | None = choice.message.content
        return text


def _check_clients(client: object, async_client: object) -> None:
    if client is None and async_client is None:
        return  # and openai, which takes half a second to import, is not needed yet
    from openai import AsyncOpenAI, OpenAI

    if isinstance(client, AsyncOpenAI):
        raise InvalidArgument("client is an AsyncOpenAI; pass it as async_client")
    if isinstance(async_client, OpenAI):
        raise InvalidArgument("async_client is an OpenAI; pass it as client")
