"""A conversation with a model, as LangChain's ConversationChain holds it, on a memory of the store's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from tokenmem.errors import InvalidArgument
from tokenmem.langchain.base import own_memory_of
from tokenmem.langchain.calling import CallingMethods
from tokenmem.langchain.generating import GeneratingMethods
from tokenmem.langchain.llms import LLM, check_llm
from tokenmem.langchain.memory import ConversationTokenBufferMemory, Values
from tokenmem.langchain.prompts import DEFAULT_PROMPT, Prompt, check_prompt


class ConversationChain(CallingMethods, GeneratingMethods):
    """A conversation with a model: store what the user says, load what was said before, ask, store the rest.

    The turn is Chat's: no connection is held while the model thinks, and each call leaves its record in
    `llm_calls`. When the model raises, the user's message stays as a row, the record tells, and the error
    reaches the caller unchanged. The same input next is the same question, stored once; before another
    input it is not loaded any more.

    Where langchain-core has been imported, a chain is one of its runnables: `chain | parser`, `with_config`,
    `with_retry` and all else that these have.

    Args:
        llm: a function that takes a string and returns one, plain or `async`; or an object with `invoke` or
            `ainvoke`, as LangChain's models are and OpenAICompletion and OpenAIChat.
        memory: where the conversation is; without one, a new ConversationTokenBufferMemory of this llm. It
            may also be one of LangChain's own memories, which is used as LangChain's chain uses it: nothing
            is in the store then.
        prompt: a text with the memory key and the input key in braces, or an object with `format` and
            `input_variables`, as LangChain's templates are. A placeholder for messages gets messages, and
            needs a memory with return_messages; any other place gets the history as text.
        verbose: print each prompt to stdout, in colour on a terminal.
        input_key: the name of what the user says.
        output_key: the name of what the model says.
        callbacks: LangChain's callback handlers or their manager; or, where langchain-core is not there,
            objects with any of the methods `on_chain_start`, `on_text`, `on_chain_end`, `on_chain_error`.
        tags: which the callbacks are told.
        metadata: which the callbacks are told.
        output_parser: an object with `parse`, or a function: what it makes of the answer's text is what the
            chain returns, and what is stored, as `str()` gives it.
        llm_kwargs: further arguments of every call of the llm.

    Raises:
        InvalidArgument: the prompt cannot be made of the memory key and the input key, these two are the
            same, the llm cannot be called, or the memory is none.
    """

    def __new__(cls, *_: object, **__: object) -> Self:  # noqa: D102
        if "langchain_core.runnables" in sys.modules:
            from tokenmem.langchain.runnables import runnable_class

            kind: Any = cls
            made: Self = object.__new__(runnable_class(kind))
            return made
        return object.__new__(cls)

    def __init__(
        self,
        llm: LLM,
        memory: Any = None,
        prompt: Prompt = DEFAULT_PROMPT,
        verbose: bool = False,
        input_key: str = "input",
        output_key: str = "response",
        *,
        callbacks: Any = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        output_parser: Any = None,
        llm_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        check_llm(llm)
        self.llm = llm
        self.memory = ConversationTokenBufferMemory(llm=llm) if memory is None else memory
        _check_memory(self.memory)
        self.prompt = prompt
        self.verbose = verbose
        self.input_key = input_key
        self.output_key = output_key
        self.callbacks = callbacks
        self.tags = tags
        self.metadata = metadata
        self.output_parser = output_parser
        self.llm_kwargs = dict(llm_kwargs or {})
        own = own_memory_of(self.memory)
        returns = None if own is None else own.return_messages
        check_prompt(self.prompt, self.memory.memory_variables, input_key, returns_messages=returns)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        plain = getattr(type(self), "plain_class", type(self))
        return _restored, (plain, dict(self.__dict__))


def _restored(kind: type[ConversationChain], state: Values) -> ConversationChain:
    chain = kind.__new__(kind)
    chain.__dict__.update(state)
    return chain


def _check_memory(memory: object) -> None:
    if isinstance(memory, ConversationTokenBufferMemory):
        return
    needed = ("load_memory_variables", "save_context", "memory_variables")
    if not all(hasattr(memory, name) for name in needed):
        raise InvalidArgument(
            f"memory is a {type(memory).__name__}; pass a ConversationTokenBufferMemory, "
            f"or a memory of LangChain's"
        )
