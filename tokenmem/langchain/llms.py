"""How a chain calls a model: LangChain's, OpenAI's, an object with `invoke`, or a function."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from tokenmem.callables import is_async, is_left_unawaited
from tokenmem.chat.apis.usage import Usage
from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.langchain.prompts import PromptValue, prompt_text


class Invocable(Protocol):
    """A model as LangChain's are: `invoke` answers with a text, or with an object that has `content`."""

    def invoke(self, prompt: Any, /, **options: Any) -> object:
        """The answer to the prompt."""


class AsyncInvocable(Protocol):
    """A model as LangChain's are, awaited: `ainvoke` answers as `invoke` does."""

    async def ainvoke(self, prompt: Any, /, **options: Any) -> object:
        """The answer to the prompt."""


LLM = Invocable | AsyncInvocable | Callable[..., object]
"""What a chain calls: a function of a text, plain or `async`, or an object with `invoke` or `ainvoke`.

A function may also yield its text in pieces, and an object have `stream` or `astream`, which does.
"""


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


def ask(llm: LLM, prompt: PromptValue, *, stream: bool = False, config: Any = None, **options: Any) -> object:
    """The model's answer as it came, or an iterator of its pieces. `invoke` goes before calling the object.

    Args:
        llm: the model.
        prompt: a text, or what LangChain's templates make, which is given in the form that the model takes.
        stream: ask for pieces, where the model has `stream`.
        config: what LangChain's models are given as their config.
        **options: further arguments of the model.

    Raises:
        InvalidArgument: the model can only be awaited.
        Whatever the model raises, unchanged.
    """
    call = callable_at_once(llm)
    if stream:
        call = _method(llm, "stream") or call
    answer = call(_form(llm, prompt), **_with_config(llm, options, config))
    if is_left_unawaited(answer):
        raise _only_async(llm)
    return answer


async def ask_async(
    llm: LLM, prompt: PromptValue, *, stream: bool = False, config: Any = None, **options: Any
) -> object:
    """What `ask` returns, awaited: `ainvoke` goes first, and what is not async runs in a thread.

    An iterator of pieces may have to be awaited, too.
    """
    given = _with_config(llm, options, config)
    call = _method(llm, "ainvoke") or _method(llm, "invoke") or llm
    if stream:
        call = _method(llm, "astream") or _method(llm, "stream") or call
    if not callable(call):
        raise InvalidArgument(f"llm is a {type(llm).__name__}, which cannot be called")
    form = _form(llm, prompt)
    answer = call(form, **given) if is_async(call) else await asyncio.to_thread(call, form, **given)
    return await answer if inspect.isawaitable(answer) else answer


def text_of(answer: object) -> str:
    """The text of a model's answer: itself, its `content`, or the text parts of its `content` in a row.

    What is no text and has none, such as a number or a dict, is taken as `str()` gives it.

    Raises:
        InvalidMessage: it is None, bytes, an iterator, an object that `str()` says nothing of, or a message
            without any text.
    """
    content = answer if isinstance(answer, str) else getattr(answer, "content", answer)
    if isinstance(content, str):
        return str(content)
    if content is answer and _says_something(answer):
        return str(answer)
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        texts = [part if isinstance(part, str) else _text_of_part(part) for part in content]
        if not texts or any(text is not None for text in texts):
            return "".join(text for text in texts if text is not None)
    raise InvalidMessage(
        f"the llm answered with a {type(answer).__name__} that has no text; "
        f"it must return a string, or an object whose content is a string or has text parts"
    )


def _says_something(answer: object) -> bool:
    """Whether `str()` tells what an answer is, and not only of which class and where in memory."""
    kind = type(answer)
    is_opaque = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    return not (
        is_opaque or answer is None or isinstance(answer, (bytes, bytearray, Iterator, AsyncIterator))
    )


def _text_of_part(part: object) -> str | None:
    # Reasoning and tool calls are parts too; their texts are not what the model says.
    if not isinstance(part, dict) or part.get("type") not in ("text", "output_text"):
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def usage_of(answer: object) -> Usage:
    """What LangChain's messages tell of the bill (`usage_metadata`); nothing where there is nothing."""
    told = getattr(answer, "usage_metadata", None)
    if not isinstance(told, Mapping):
        return Usage()
    read, written = _details(told, "input_token_details"), _details(told, "output_token_details")
    counts = {
        "input_tokens": told.get("input_tokens"),
        "output_tokens": told.get("output_tokens"),
        "cached_tokens": read.get("cache_read"),
        "cache_write_tokens": read.get("cache_creation"),
        "reasoning_tokens": written.get("reasoning"),
    }
    known: Any = {name: count for name, count in counts.items() if isinstance(count, int)}
    usage: Usage = known
    return usage


def finish_reason_of(answer: object) -> str | None:
    """Why the model stopped, where LangChain's message tells (`response_metadata`)."""
    told = getattr(answer, "response_metadata", None)
    reason = told.get("finish_reason") if isinstance(told, Mapping) else None
    return reason if isinstance(reason, str) and reason else None


def _details(told: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = told.get(name)
    return found if isinstance(found, Mapping) else {}


def is_runnable(candidate: object) -> bool:
    """Whether an object is one of LangChain's runnables, as its models are."""
    runnables = sys.modules.get("langchain_core.runnables")
    return runnables is not None and isinstance(candidate, runnables.Runnable)


def _form(llm: LLM, prompt: PromptValue) -> Any:
    """The prompt in the form that the model takes."""
    if isinstance(prompt, str) or is_runnable(llm):
        return prompt
    if getattr(llm, "takes_messages", False) is True:
        from langchain_core.messages import convert_to_openai_messages

        return convert_to_openai_messages(prompt.to_messages())
    return prompt_text(prompt)


def _with_config(llm: LLM, options: dict[str, Any], config: Any) -> dict[str, Any]:
    return {**options, "config": config} if config and is_runnable(llm) else options


def _method(llm: object, name: str) -> Callable[..., object] | None:
    method = getattr(llm, name, None)
    return method if callable(method) else None


def _only_async(llm: object) -> InvalidArgument:
    return InvalidArgument(
        f"llm is a {type(llm).__name__} that must be awaited; use apredict or ainvoke, or a plain function"
    )
