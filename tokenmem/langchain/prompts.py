"""What a chain's prompt is made with: a text with names in braces, or an object like LangChain's."""

from __future__ import annotations

import string
from collections.abc import Collection, Sequence
from typing import Any, Protocol

from tokenmem.errors import InvalidArgument
from tokenmem.langchain.recalled import recalled
from tokenmem.messages.message import Message


class TextTemplate:
    """A text with names in braces, as LangChain's templates have one: `template` may be set.

    Args:
        template: the text.
    """

    def __init__(self, template: str) -> None:
        self.template = template

    @property
    def input_variables(self) -> list[str]:
        """The names, in order of their letters. Raises ValueError where the text is no template."""
        return sorted(_braces(self.template))

    def format(self, **values: Any) -> str:
        """The text with the values in their places."""
        return self.template.format(**values)

    def __repr__(self) -> str:
        return f"TextTemplate({self.template!r})"


DEFAULT_PROMPT = (
    "The following is a friendly conversation between a human and an AI. The AI is talkative and provides "
    "lots of specific details from its context. If the AI does not know the answer to a question, it "
    "truthfully says it does not know.\n\nCurrent conversation:\n{history}\nHuman: {input}\nAI:"
)
"""LangChain's documented prompt of a conversation."""


class Template(Protocol):
    """A prompt as LangChain's templates are; `input_variables` names the values that `format` takes.

    Where it has `format_prompt`, that is called: its answer gives the prompt as text (`to_string`) and as
    messages (`to_messages`), whichever the model takes.
    """

    def format(self, **values: Any) -> str:
        """The prompt with the values in their places."""

    @property
    def input_variables(self) -> list[str]:
        """The names of the values, in any order."""


Prompt = str | Template
PromptValue = Any
"""A text, or an object with `to_string` and `to_messages`, as LangChain's templates make them."""


def takes_messages(prompt: Prompt, key: str) -> bool:
    """Whether the prompt takes the value of this name as a list of messages, as a placeholder does."""
    parts = getattr(prompt, "messages", None)
    if not isinstance(parts, (list, tuple)):
        return False
    return any(getattr(part, "variable_name", None) == key for part in parts)


def prompt_value(prompt: Prompt, values: dict[str, Any]) -> PromptValue:
    """The prompt with the values in their places."""
    make = getattr(prompt, "format_prompt", None)
    return make(**values) if callable(make) else prompt.format(**values)


def prompt_text(value: PromptValue) -> str:
    """The prompt as text."""
    return value if isinstance(value, str) else str(value.to_string())


def check_prompt(
    prompt: Prompt, memory_keys: Sequence[str], input_key: str, *, returns_messages: bool | None
) -> None:
    """Check that a prompt can be made of what the memory loads and what the user says, by making one.

    Args:
        prompt: the prompt.
        memory_keys: the names of what the memory loads.
        input_key: the name of what the user says.
        returns_messages: whether the memory loads messages; None where it does not say.

    Raises:
        InvalidArgument: it cannot, with the reason.
    """
    if input_key in memory_keys:
        raise InvalidArgument(
            f"Value error, The input key {input_key} was also found in the memory keys "
            f"({list(memory_keys)}): rename input_key, or the memory's memory_key"
        )
    expected = {*memory_keys, input_key}
    found = variables_of(prompt)
    if not (found <= expected <= found | set(getattr(prompt, "optional_variables", ()))):
        raise InvalidArgument(
            f"Value error, Got unexpected prompt input variables. The prompt's variables are {names(found)}; "
            f"they must be {names(memory_keys)}, the memory's, and {input_key!r}, the input key, no others"
        )
    _try(prompt, memory_keys, input_key, returns_messages=returns_messages)


def _try(
    prompt: Prompt, memory_keys: Sequence[str], input_key: str, *, returns_messages: bool | None
) -> None:
    if returns_messages is None:
        return  # of a memory of somebody else's nobody knows what it loads
    values: dict[str, Any] = {input_key: "Hello"}
    for key in memory_keys:
        if takes_messages(prompt, key):
            if not returns_messages:
                raise InvalidArgument(
                    f"the prompt has a placeholder for messages, {key!r}, and the memory loads text; "
                    f"give the memory return_messages=True"
                )
            values[key] = recalled([Message.user("Hi"), Message.assistant("Hello")])
        else:
            values[key] = "Human: Hi\nAI: Hello"
    try:
        prompt_value(prompt, values)
    except Exception as error:
        raise InvalidArgument(
            f"the prompt cannot be made of {names(values)}: {type(error).__name__}: {error}"
        ) from error


def variables_of(prompt: Prompt) -> set[str]:
    """The names of the values that a prompt takes, those that may be missing left out.

    Raises:
        InvalidArgument: it is no prompt.
    """
    try:
        return _braces(prompt) if isinstance(prompt, str) else set(prompt.input_variables)
    except ValueError as error:
        raise InvalidArgument(f"the prompt is no template: {error}; write {{{{ for a literal {{") from None
    except AttributeError:
        raise InvalidArgument(
            f"prompt is a {type(prompt).__name__}; "
            f"pass a string, or an object with format and input_variables"
        ) from None


def _braces(template: str) -> set[str]:
    """The names in braces; one may stand in another's format, as in `{text:{width}}`."""
    found = set()
    for _, name, layout, _ in string.Formatter().parse(template):
        if name is not None:
            found |= {name} | _braces(layout or "")
    return found


def names(keys: Collection[object]) -> str:
    """Keys for an error's text, in a fixed order."""
    return ", ".join(sorted(map(repr, keys))) or "none"
