"""A conversation's newest messages for a prompt: LangChain's token buffer memory, on the store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from tokenmem.arguments import checked_name, checked_number
from tokenmem.async_store import AsyncStore
from tokenmem.counting.counters import TiktokenCounter, TokenCounter, TranscriptCounter
from tokenmem.errors import InvalidArgument, InvalidMessage, UnknownTokenCounter
from tokenmem.langchain.chat_memory import ChatMemory
from tokenmem.langchain.keys import MissingKey, checked_text
from tokenmem.langchain.llms import LLM, text_of
from tokenmem.langchain.prompts import names
from tokenmem.langchain.recalled import recalled
from tokenmem.langchain.shared_stores import shared_store
from tokenmem.langchain.stored_conversation import StoredConversation, checked_store
from tokenmem.messages.message import Message
from tokenmem.procedures import resolve_counter
from tokenmem.store import Store

DEFAULT_ENCODING = "cl100k_base"
"""What a memory counts with where no counter is given and tiktoken does not know the model."""

STOP = "stop"
"""The input that tells a model where to stop writing: never part of the conversation."""

Values = dict[str, Any]
"""Inputs and outputs by name, as LangChain hands them on: only the caller knows of what types they are."""


class ConversationTokenBufferMemory(StoredConversation):
    """The newest messages of one conversation that fit a token limit, as text or as messages.

    Nothing is ever removed from the database but by `clear`: the limit shapes what is loaded. Messages are
    counted as they are rendered, line by line (`Human: hi`), the newlines between them not; exactly at the
    limit is kept; they leave one at a time. Where nothing fits, the history is empty. A conversation that
    exists already keeps the counter that it began with, and its own counts decide.

    A question whose call has failed, and that no later call has answered, stays a row and is not loaded; nor
    is what had arrived of a reply whose call failed with an error.

    On an AsyncStore only the async methods work. On a Store all do, the async ones in a thread.

    Args:
        llm: tells which encoding to count with, by its `model` or `model_name`; it is not called here.
        max_token_limit: what the history may cost, in tokens.
        return_messages: load a list of messages instead of text: LangChain's where langchain-core has been
            imported, else tokenmem's; each is also the dict that OpenAI's API takes, for reading.
        memory_key: the key under which the history is loaded.
        human_prefix: what a user's line begins with, before the colon.
        ai_prefix: what an assistant's line begins with, before the colon.
        input_key: which of the inputs is the user's message; the only one, where there is one.
        output_key: which of the outputs is the assistant's; the only one, else "output".
        store: where the conversation is. Without one, a Store on TOKENMEM_URL, else on `sqlite:///tokenmem.db`,
            which is migrated at first use; the memories of a process that name none share it, and the last
            closes it.
        conversation_id: 1 to 255 characters; a new random one where it is None. The conversation is created
            by the first save.
        counter: instead of the llm's encoding: an encoding's or a model's name, or a TokenCounter, used as
            it is. Without one, a model that tiktoken does not know counts with cl100k_base.

    Raises:
        InvalidArgument: an argument is wrong, or a TranscriptCounter has other prefixes than the memory.
        UnknownTokenCounter: no counter has this name.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        max_token_limit: int = 2000,
        return_messages: bool = False,
        memory_key: str = "history",
        human_prefix: str = "Human",
        ai_prefix: str = "AI",
        input_key: str | None = None,
        output_key: str | None = None,
        store: Store | AsyncStore | None = None,
        conversation_id: str | None = None,
        counter: str | TokenCounter | None = None,
    ) -> None:
        self._transcript = TranscriptCounter(_encoding_of(llm), human_prefix, ai_prefix)
        self.counter = _counter(counter, self._transcript)
        self.llm = llm
        self.max_token_limit = checked_number(max_token_limit, "max_token_limit")
        self.return_messages = return_messages
        self.memory_key = memory_key
        self.input_key = input_key
        self.output_key = output_key
        self.conversation_id = (
            uuid4().hex if conversation_id is None else checked_name(conversation_id, "conversation_id")
        )
        self.store = shared_store() if store is None else checked_store(store)

    @property
    def human_prefix(self) -> str:
        """What a user's line begins with; fixed, since the counts depend on it."""
        return self._transcript.human_prefix

    @property
    def ai_prefix(self) -> str:
        """What an assistant's line begins with; fixed, since the counts depend on it."""
        return self._transcript.ai_prefix

    @property
    def memory_variables(self) -> list[str]:
        """The keys that `load_memory_variables` returns: the memory key alone."""
        return [self.memory_key]

    @property
    def chat_memory(self) -> ChatMemory:
        """The conversation's messages, as LangChain's memories have them."""
        return ChatMemory(self)

    @property
    def buffer(self) -> str | list[Any]:
        """What would be loaded now, as text or as messages. Raises as `load_memory_variables`."""
        return self.form(self.newest())

    @property
    def buffer_as_str(self) -> str:
        """What would be loaded now, as text. Raises as `load_memory_variables`."""
        return self.render(self.newest())

    @property
    def buffer_as_messages(self) -> list[Any]:
        """What would be loaded now, as messages. Raises as `load_memory_variables`."""
        return recalled(self.newest())

    def load_memory_variables(
        self,
        inputs: Mapping[str, object] | None = None,  # noqa: ARG002 - LangChain's signature
    ) -> Values:
        """The history under the memory key: the newest messages that fit, empty where there are none.

        Args:
            inputs: nothing depends on them.

        Raises:
            InvalidArgument: the memory is on an AsyncStore.
            TokenmemError: the database could not be used, as for Store.
        """
        return {self.memory_key: self.form(self.newest())}

    async def aload_memory_variables(
        self,
        inputs: Mapping[str, object] | None = None,  # noqa: ARG002 - LangChain's signature
    ) -> Values:
        """The history under the memory key, on either store."""
        return {self.memory_key: self.form(await self.anewest())}

    def save_context(self, inputs: Mapping[str, object], outputs: Mapping[str, object]) -> None:
        """Append one exchange, both messages or none.

        Args:
            inputs: the user's message under `input_key`, else under the one key that is neither the memory
                key nor "stop".
            outputs: the assistant's message under `output_key`, else under its only key, else "output". What
                is no text is stored as `str()` gives it.

        Raises:
            InvalidArgument: the keys do not tell which message is meant (also a KeyError, where the key that
                was chosen is missing), or the memory is on an AsyncStore.
            InvalidMessage: the user's message is no text, or one cannot be stored; nothing was written.
            TokenmemError: the database could not be used, as for Store.
        """
        self.append(self.exchange(inputs, outputs))

    async def asave_context(self, inputs: Mapping[str, object], outputs: Mapping[str, object]) -> None:
        """Append one exchange, both messages or none, on either store."""
        await self.aappend(self.exchange(inputs, outputs))

    def render(self, messages: Iterable[Message]) -> str:
        """Messages as the lines that were counted, joined by newlines."""
        return "\n".join(map(self._transcript.line, messages))

    def exchange(self, inputs: Mapping[str, object], outputs: Mapping[str, object]) -> list[Message]:
        """The two messages that `save_context` would append. Raises as it does; touches no database."""
        for given, what in ((inputs, "inputs"), (outputs, "outputs")):
            if not isinstance(given, Mapping):
                raise InvalidArgument(f"{what} is a {type(given).__name__}; pass a dict")
        input_key = _input_key(self.input_key, inputs, self.memory_variables)
        output_key = _output_key(self.output_key, outputs)
        where, answer = f"outputs[{output_key!r}]", outputs[output_key]
        if answer is None:
            raise InvalidMessage(f"{where} is None; pass what the model said")
        return [
            Message.user(checked_text(inputs[input_key], f"inputs[{input_key!r}]")),
            Message.assistant(checked_text(text_of(answer), where)),
        ]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.conversation_id!r} in {self.store!r}>"

    def form(self, messages: list[Message]) -> str | list[Any]:
        """Messages as they are loaded: as text or, with return_messages, as messages."""
        return recalled(messages) if self.return_messages else self.render(messages)


def _encoding_of(llm: object) -> str:
    """The encoding of the llm's model; LangChain too counts with cl100k_base where tiktoken knows none."""
    for attribute in ("model", "model_name"):
        model = getattr(llm, attribute, None)
        if isinstance(model, str):
            with suppress(UnknownTokenCounter):
                return TiktokenCounter(model).name
    return DEFAULT_ENCODING


def _counter(given: str | TokenCounter | None, transcript: TranscriptCounter) -> TokenCounter:
    if given is None:
        return transcript
    counter = resolve_counter(given)
    if isinstance(given, str) and isinstance(counter, TiktokenCounter):
        return TranscriptCounter(counter.name, transcript.human_prefix, transcript.ai_prefix)
    if isinstance(counter, TranscriptCounter):
        theirs = counter.human_prefix, counter.ai_prefix
        ours = transcript.human_prefix, transcript.ai_prefix
        if theirs != ours:
            raise InvalidArgument(
                f"the counter counts lines of {theirs}, but the memory writes lines of {ours}; "
                f"give both the same prefixes"
            )
    return counter


def _input_key(chosen: str | None, inputs: Mapping[str, object], memory_variables: list[str]) -> str:
    if chosen is not None:
        if chosen in inputs:
            return chosen
        raise MissingKey(f"the inputs have the keys {names(inputs)}, and not {chosen!r}, the input_key")
    keys = [key for key in inputs if key not in (*memory_variables, STOP)]
    if len(keys) == 1:
        return keys[0]
    raise InvalidArgument(
        f"One input key expected got {sorted(map(str, keys))}: exactly one is needed beside "
        f"{names([*memory_variables, STOP])}; name the user's message with input_key"
    )


def _output_key(chosen: str | None, outputs: Mapping[str, object]) -> str:
    if chosen is not None:
        if chosen in outputs:
            return chosen
        raise MissingKey(f"the outputs have the keys {names(outputs)}, and not {chosen!r}, the output_key")
    if len(outputs) == 1:
        return next(iter(outputs))
    if "output" in outputs:
        return "output"
    raise InvalidArgument(
        f"Got multiple output keys: {names(outputs)}, cannot determine which to store; "
        f"name the assistant's message with output_key"
    )
