"""What a chain has, and how it makes a prompt of what it is given and what was said before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokenmem.errors import InvalidArgument
from tokenmem.langchain.keys import MissingKey
from tokenmem.langchain.llms import LLM
from tokenmem.langchain.memory import STOP, ConversationTokenBufferMemory, Values
from tokenmem.langchain.prompts import (
    Prompt,
    PromptValue,
    Template,
    TextTemplate,
    names,
    prompt_value,
    takes_messages,
    variables_of,
)
from tokenmem.langchain.styles import BOLD, GREEN, styled
from tokenmem.messages.message import Message


class BaseChain:
    """A chain's parts; see ConversationChain, whose constructor sets them."""

    llm: LLM
    memory: Any
    verbose: bool
    input_key: str
    output_key: str
    callbacks: Any
    tags: Sequence[str] | None
    metadata: Mapping[str, Any] | None
    output_parser: Any
    llm_kwargs: Values

    _prompt: Template

    @property
    def prompt(self) -> Any:
        """What the model's prompt is made with; a text is a template of that text (`prompt.template`)."""
        return self._prompt

    @prompt.setter
    def prompt(self, prompt: Prompt) -> None:
        self._prompt = TextTemplate(prompt) if isinstance(prompt, str) else prompt

    @property
    def input_keys(self) -> list[str]:
        """The names of what the caller gives: the input key."""
        return [self.input_key]

    @property
    def output_keys(self) -> list[str]:
        """The names of what the chain returns besides its inputs: the output key."""
        return [self.output_key]

    @property
    def own_memory(self) -> ConversationTokenBufferMemory:
        """The memory, where it is tokenmem's.

        Raises:
            InvalidArgument: it is not.
        """
        own = own_memory_of(self.memory)
        if own is None:
            raise InvalidArgument(f"memory is a {type(self.memory).__name__}, which is on no store")
        return own

    def values(self, inputs: Values, before: list[Message]) -> Values:
        """The inputs, and the history as the memory loads it."""
        memory = self.own_memory
        return {**inputs, memory.memory_key: memory.form(before)}

    def prompt_of(self, values: Values, before: list[Message]) -> PromptValue:
        """The prompt: messages where it has a place for them, text in any other.

        Args:
            values: the inputs, and the history as the memory loads it.
            before: the history's messages.
        """
        memory, key = self.own_memory, self.own_memory.memory_key
        history = values[key]
        if takes_messages(self.prompt, key) != memory.return_messages:
            if not memory.return_messages:
                raise InvalidArgument(
                    f"the prompt takes {key!r} as messages; set the memory's return_messages"
                )
            history = memory.render(before)
        return prompt_value(self.prompt, {key: history, self.input_key: values[self.input_key]})

    def selected(self, values: Values) -> Values:
        """Of all values those that the prompt takes.

        Raises:
            InvalidArgument: one is missing; also a KeyError.
        """
        needed = variables_of(self.prompt)
        for name in needed:
            if name not in values:
                raise MissingKey(f"the prompt needs {name!r}, and the inputs are {names(values)}")
        optional = set(getattr(self.prompt, "optional_variables", ())) & values.keys()
        return {name: values[name] for name in needed | optional}

    def options(self, inputs: Values) -> Values:
        """What the llm is called with besides the prompt."""
        return {**self.llm_kwargs, **({STOP: inputs[STOP]} if STOP in inputs else {})}

    def parsed(self, text: str) -> Any:
        """What the chain returns for an answer of this text."""
        parser = self.output_parser
        if parser is None:
            return text
        parse: Callable[[str], Any] = getattr(parser, "parse", parser)
        return parse(text)

    def show_prompt(self, prompt: str) -> None:
        """Print a prompt."""
        print("\n\n" + styled(f"> Entering new {type(self).__name__} chain...", BOLD))
        print("Prompt after formatting:\n" + styled(prompt, GREEN))

    def show_end(self) -> None:
        """Print that the chain has come to its end."""
        print("\n" + styled("> Finished chain.", BOLD))


def own_memory_of(memory: object) -> ConversationTokenBufferMemory | None:
    """The memory, where it is tokenmem's, or stands for one of tokenmem's."""
    if isinstance(memory, ConversationTokenBufferMemory):
        return memory
    inner = getattr(memory, "tokenmem_memory", None)
    return inner if isinstance(inner, ConversationTokenBufferMemory) else None
