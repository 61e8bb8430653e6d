"""A conversation with a model, as LangChain's ConversationChain holds it, on a memory of the store's."""

from __future__ import annotations

import string
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from tokenmem.errors import InvalidArgument
from tokenmem.llms import LLM, ask, ask_async, check_llm
from tokenmem.memory import STOP, ConversationTokenBufferMemory, names, said
from tokenmem.models import Message

DEFAULT_PROMPT = (
    "The following is a friendly conversation between a human and an AI. The AI is talkative and provides "
    "lots of specific details from its context. If the AI does not know the answer to a question, it "
    "truthfully says it does not know.\n\nCurrent conversation:\n{history}\nHuman: {input}\nAI:"
)
"""LangChain's documented prompt of a conversation."""

# What LangChain's StdOutCallbackHandler writes around a heading and a prompt.
_BOLD = "\033[1m"
_GREEN = "\033[32;1m\033[1;3m"


class Prompt(Protocol):
    """A prompt as LangChain's templates are; `input_variables` names the values that `format` takes."""

    def format(self, **values: Any) -> str:
        """The prompt with the values in their places."""

    @property
    def input_variables(self) -> list[str]:
        """The names of the values, in any order."""


class ConversationChain:
    """A conversation with a model: load the history, ask, store the exchange.

    No connection is held while the model thinks. When the model raises, nothing is stored and the error
    reaches the caller unchanged.

    Args:
        llm: a function of a text that returns a text, plain or `async`; or an object with `invoke` or
            `ainvoke`, as LangChain's models are and OpenAICompletion and OpenAIChat.
        memory: where the conversation is; without one, a new ConversationTokenBufferMemory of this llm.
        prompt: a text with the memory key and the input key in braces, or an object with `format` and
            `input_variables`. It gets the history as text, also where the memory returns messages.
        verbose: print each prompt to stdout, in colour on a terminal.
        input_key: the name of what the user says.
        output_key: the name of what the model says.

    Raises:
        InvalidArgument: the prompt's variables are not the memory key and the input key, these two are the
            same, the llm cannot be called, or the memory is of another kind.
    """

    def __init__(
        self,
        llm: LLM,
        memory: ConversationTokenBufferMemory | None = None,
        prompt: str | Prompt = DEFAULT_PROMPT,
        verbose: bool = False,
        input_key: str = "input",
        output_key: str = "response",
    ) -> None:
        check_llm(llm)
        self.llm = llm
        self.memory = ConversationTokenBufferMemory(llm=llm) if memory is None else memory
        if not isinstance(self.memory, ConversationTokenBufferMemory):
            raise InvalidArgument(
                f"memory is a {type(memory).__name__}; pass a ConversationTokenBufferMemory"
            )
        self.prompt = prompt
        self.verbose = verbose
        self.input_key = input_key
        self.output_key = output_key
        _check_prompt(prompt, self.memory.memory_key, input_key)

    def predict(self, **inputs: Any) -> str:
        """The model's answer to `input=…` (or the chain's own input key), not stripped.

        `stop=…` is passed on to the model and not stored.

        Raises:
            InvalidArgument: the inputs are not those that the chain and its memory need, the memory is on an
                AsyncStore, or the llm can only be awaited.
            InvalidMessage: what the user or the model said is no text or cannot be stored.
            TokenmemError: the database could not be used, as for Store.
            Whatever the model raises, unchanged.
        """
        text: str = self.invoke(inputs)[self.output_key]
        return text

    async def apredict(self, **inputs: Any) -> str:
        """As `predict`, on either store; an llm that is not async runs in a thread."""
        text: str = (await self.ainvoke(inputs))[self.output_key]
        return text

    def invoke(self, input: str | Mapping[str, Any]) -> dict[str, Any]:
        """As `predict`, with the inputs, the history that was loaded, and the answer.

        Args:
            input: what the user says, or a dict that has it under the input key.
        """
        inputs = self._inputs(input)
        messages = self.memory.newest()
        text = ask(self.llm, self._begin(inputs, messages), **_options(inputs))
        self.memory.save_context(inputs, {self.output_key: text})
        return self._end(inputs, messages, text)

    async def ainvoke(self, input: str | Mapping[str, Any]) -> dict[str, Any]:
        """As `invoke`, on either store; an llm that is not async runs in a thread."""
        inputs = self._inputs(input)
        messages = await self.memory.anewest()
        text = await ask_async(self.llm, self._begin(inputs, messages), **_options(inputs))
        await self.memory.asave_context(inputs, {self.output_key: text})
        return self._end(inputs, messages, text)

    def _inputs(self, given: object) -> dict[str, Any]:
        """The inputs by name, checked before the model is asked: an answer that cannot be stored is lost."""
        inputs = dict(given) if isinstance(given, Mapping) else {self.input_key: given}
        inputs.pop(self.memory.memory_key, None)  # the memory's to tell
        if self.input_key not in inputs:
            raise InvalidArgument(f"no input {self.input_key!r} among {names(inputs)}; the prompt needs it")
        said(inputs[self.input_key], f"the input {self.input_key!r}")
        self.memory.exchange(inputs, {self.output_key: ""})
        return inputs

    def _begin(self, inputs: Mapping[str, Any], messages: list[Message]) -> str:
        """The prompt, printed where the chain is verbose."""
        history = self.memory.render(messages)
        values = {self.memory.memory_key: history, self.input_key: inputs[self.input_key]}
        prompt = self.prompt.format(**values)
        if self.verbose:
            print("\n\n" + _styled(f"> Entering new {type(self).__name__} chain...", _BOLD))
            print("Prompt after formatting:\n" + _styled(prompt, _GREEN))
        return prompt

    def _end(self, inputs: dict[str, Any], messages: list[Message], text: str) -> dict[str, Any]:
        if self.verbose:
            print("\n" + _styled("> Finished chain.", _BOLD))
        history = messages if self.memory.return_messages else self.memory.render(messages)
        return {**inputs, self.memory.memory_key: history, self.output_key: text}


def _options(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {STOP: inputs[STOP]} if STOP in inputs else {}


def _check_prompt(prompt: str | Prompt, memory_key: str, input_key: str) -> None:
    if input_key == memory_key:
        raise InvalidArgument(f"input_key and the memory's memory_key are both {input_key!r}; rename one")
    try:
        found = _variables(prompt) if isinstance(prompt, str) else set(prompt.input_variables)
    except ValueError as error:
        raise InvalidArgument(f"the prompt is no template: {error}; write {{{{ for a literal {{") from None
    except AttributeError:
        raise InvalidArgument(
            f"prompt is a {type(prompt).__name__}; pass a text, or an object with format and input_variables"
        ) from None
    if found != {memory_key, input_key}:
        raise InvalidArgument(
            f"the prompt's variables are {names(found)}; they must be {memory_key!r}, the memory's key, and "
            f"{input_key!r}, the input key, and no others"
        )


def _variables(template: str) -> set[str]:
    """The names in braces; one may stand in another's format, as in `{text:{width}}`."""
    found = set()
    for _, name, layout, _ in string.Formatter().parse(template):
        if name is not None:
            found |= {name} | _variables(layout or "")
    return found


def _styled(text: str, style: str) -> str:
    """The text in LangChain's style on a terminal, as it is elsewhere: a log has no use for the codes."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return f"{style}{text}\033[0m" if terminal else text
