"""Token counters: what a message costs, before it is stored, and by which name that count is known."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import quote, unquote

from tokenmem.counting.encodings import count_tokens, encoding_name, load_encoding
from tokenmem.counting.message_costs import message_tokens
from tokenmem.errors import InvalidArgument, UnknownTokenCounter
from tokenmem.messages.message import Message

# What OpenAI's models since gpt-4o use (tiktoken/model.py).
DEFAULT_COUNTER = "o200k_base"

_TRANSCRIPT = "transcript"
_NAME_LIMIT = 255  # characters: what every database stores of a name in an indexable column
# LangChain, langchain_core/messages/utils.py, get_buffer_string: the prefixes that it does not let one set.
_FIXED_PREFIXES: Mapping[str, str] = {
    "system": "System",
    "developer": "System",
    "function": "Function",
    "tool": "Tool",
}


@runtime_checkable
class TokenCounter(Protocol):
    """Counts messages in tokens. Anything with these two members is one."""

    @property
    def name(self) -> str:
        """What the counter is called: 1 to 255 characters, stored with every conversation that it counted.

        Two counters with the same name must count alike.
        """

    def count(self, message: Message) -> int:
        """What this message costs, in tokens, 0 or more; it must not depend on other messages."""


@dataclass(frozen=True, slots=True)
class TiktokenCounter:
    """Counts messages as OpenAI bills them in a chat, with the encoding of a model or of this name.

    The encoding's data is loaded at the first count. All of OpenAI's encodings, the old ones too, travel with
    the package; for one of a plugin's of tiktoken that plugin's code is run.

    Args:
        name: an encoding (`o200k_base`) or a model (`gpt-4o`), by tiktoken's own tables.

    Attributes:
        name: the encoding's name.

    Raises:
        UnknownTokenCounter: tiktoken knows neither an encoding nor a model of this name.
    """

    name: str = DEFAULT_COUNTER

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", encoding_name(_checked(self.name)))

    def count(self, message: Message) -> int:
        """What the provider bills for this message within a prompt, in tokens.

        The 3 tokens with which every prompt ends (they open the reply) belong to the request, not to a
        message: add them once. Sources of every number: `tokenmem/counting/message_costs.py`.

        Raises UnknownTokenCounter where the encoding's data is damaged or a plugin cannot load it.
        """
        return message_tokens(message, self.count_text)

    def count_text(self, text: str) -> int:
        """How many tokens the text is; text that looks like a special token counts as plain text.

        Exact; only in a run of more than 24,576 characters without a word's end in it may the count be
        above, never below. Takes time linear in the text. Raises UnknownTokenCounter as `count` does.
        """
        return count_tokens(load_encoding(self.name), text)


@dataclass(frozen=True, slots=True)
class TranscriptCounter:
    r"""Counts messages as lines of a transcript, `Human: hi`, as LangChain's memories do.

    Only the line counts: no newline, no overhead of the provider's, no tool calls.

    Args:
        encoding: an encoding (`cl100k_base`) or a model (`gpt-4`), by tiktoken's own tables.
        human_prefix: what a user's line begins with, before the colon.
        ai_prefix: what an assistant's line begins with, before the colon.

    Raises:
        UnknownTokenCounter: tiktoken knows neither an encoding nor a model of this name.
        InvalidArgument: a prefix is not text or holds NUL or a lone surrogate, or `name` would be longer
            than 255 characters.
    """

    encoding: str
    human_prefix: str = "Human"
    ai_prefix: str = "AI"

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", encoding_name(_checked(self.encoding)))
        for prefix in (self.human_prefix, self.ai_prefix):
            if (
                not isinstance(prefix, str)
                or "\0" in prefix
                or any("\ud800" <= c <= "\udfff" for c in prefix)
            ):
                raise InvalidArgument(
                    f"a prefix must be text without NUL and lone surrogates, not {prefix!r}"
                )
        if len(self.name) > _NAME_LIMIT:
            raise InvalidArgument(
                f"the prefixes are too long: the counter's name would have {len(self.name)} characters, "
                f"and {_NAME_LIMIT} can be stored"
            )

    @property
    def name(self) -> str:
        """The counter's name, from which `counter_named` makes it again: `transcript:cl100k_base:Human:AI`.

        The prefixes are percent-encoded.
        """
        prefixes = quote(self.human_prefix, safe=""), quote(self.ai_prefix, safe="")
        return ":".join((_TRANSCRIPT, self.encoding, *prefixes))

    def line(self, message: Message) -> str:
        """The message as LangChain's get_buffer_string renders it, without a newline behind it."""
        prefixes = {"user": self.human_prefix, "assistant": self.ai_prefix, **_FIXED_PREFIXES}
        content = "" if message.content is None else message.content
        return f"{prefixes.get(message.role, message.role)}: {content}"

    def count(self, message: Message) -> int:
        """How many tokens the message's line is; exactness and errors as for `TiktokenCounter.count_text`."""
        return count_tokens(load_encoding(self.encoding), self.line(message))


def counter_named(name: str) -> TokenCounter:
    """The shipped counter of this name, or for the model of this name; the same object every time.

    Raises UnknownTokenCounter where there is none, as for a counter of the application's own: pass that
    object itself.
    """
    return _counter_named(_checked(name))


@functools.lru_cache(maxsize=256)
def _counter_named(name: str) -> TokenCounter:
    if not name.startswith(f"{_TRANSCRIPT}:"):
        return TiktokenCounter(name)
    try:
        _, encoding, human_prefix, ai_prefix = name.split(":")
        counter = TranscriptCounter(
            encoding, unquote(human_prefix, errors="strict"), unquote(ai_prefix, errors="strict")
        )
    except ValueError as error:  # too few or too many fields, no UTF-8, or what the counter refuses
        raise _malformed(name) from error
    # A name that another counter writes differently would let one counter go by two names.
    if counter.name.split(":")[2:] != [human_prefix, ai_prefix]:
        raise _malformed(name)
    return counter


def _malformed(name: str) -> UnknownTokenCounter:
    return UnknownTokenCounter(
        f"{name!r} is no transcript counter's name; write transcript:<encoding>:<prefix>:<prefix>, with the "
        f"human's and the AI's prefix percent-encoded, as in transcript:cl100k_base:Human:AI"
    )


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise UnknownTokenCounter(f"a counter's name is text, not {name!r}; name one such as o200k_base")
    return name
