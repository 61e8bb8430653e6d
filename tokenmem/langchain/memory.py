"""A conversation's newest messages for a prompt: LangChain's token buffer memory, on the store."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from uuid import uuid4

from tokenmem.arguments import checked_name, checked_number
from tokenmem.async_store import AsyncStore
from tokenmem.counting.counters import TiktokenCounter, TokenCounter, TranscriptCounter
from tokenmem.errors import (
    ConversationNotFound,
    InvalidArgument,
    InvalidMessage,
    UnknownTokenCounter,
    WindowTooSmall,
)
from tokenmem.execution.effects import Work
from tokenmem.execution.runners import AsyncRunner, Runner
from tokenmem.langchain.llms import LLM
from tokenmem.messages.message import Message
from tokenmem.messages.values import check_text
from tokenmem.procedures import resolve_counter
from tokenmem.store import Store

DEFAULT_ENCODING = "cl100k_base"
"""What a memory counts with where no counter is given and tiktoken does not know the model."""

STOP = "stop"
"""The input that tells a model where to stop writing: never part of the conversation."""

Values = dict[str, Any]
"""Inputs and outputs by name, as LangChain hands them on: only the caller knows of what types they are."""


class ConversationTokenBufferMemory:
    """The newest messages of one conversation that fit a token limit, as text or as messages.

    Nothing is ever removed from the database but by `clear`: the limit shapes what is loaded. Messages are
    counted as they are rendered, line by line (`Human: hi`), the newlines between them not; exactly at the
    limit is kept; they leave one at a time. Where nothing fits, the history is empty. A conversation that
    exists already keeps the counter that it began with, and its own counts decide.

    On an AsyncStore only the async methods work. On a Store all do, the async ones in a thread.

    Args:
        llm: tells which encoding to count with, by its `model` or `model_name`; it is not called here.
        max_token_limit: what the history may cost, in tokens.
        return_messages: load a list of Messages instead of text.
        memory_key: the key under which the history is loaded.
        human_prefix: what a user's line begins with, before the colon.
        ai_prefix: what an assistant's line begins with, before the colon.
        input_key: which of the inputs is the user's message; the only one, where there is one.
        output_key: which of the outputs is the assistant's; the only one, else "output".
        store: where the conversation is. Without one, a Store of the memory's own on TOKENMEM_URL, else on
            `sqlite:///tokenmem.db`, which is migrated at first use and closed with the memory.
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
        self.store = self._own_store() if store is None else _checked_store(store)
        self._must_upgrade = store is None

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
    def buffer(self) -> str | list[Message]:
        """What would be loaded now, as text or as messages. Raises as `load_memory_variables`."""
        return self._form(self.newest())

    @property
    def buffer_as_str(self) -> str:
        """What would be loaded now, as text. Raises as `load_memory_variables`."""
        return self.render(self.newest())

    @property
    def buffer_as_messages(self) -> list[Message]:
        """What would be loaded now, as messages. Raises as `load_memory_variables`."""
        return self.newest()

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
        return {self.memory_key: self._form(self.newest())}

    async def aload_memory_variables(
        self,
        inputs: Mapping[str, object] | None = None,  # noqa: ARG002 - LangChain's signature
    ) -> Values:
        """The history under the memory key, on either store."""
        return {self.memory_key: self._form(await self.anewest())}

    def save_context(self, inputs: Mapping[str, object], outputs: Mapping[str, object]) -> None:
        """Append one exchange, both messages or none.

        Args:
            inputs: the user's message under `input_key`, else under the one key that is neither the memory
                key nor "stop".
            outputs: the assistant's message under `output_key`, else under its only key, else "output".

        Raises:
            InvalidArgument: the keys do not tell which message is meant, or the memory is on an AsyncStore.
            InvalidMessage: a message is no text, or cannot be stored; nothing was written.
            TokenmemError: the database could not be used, as for Store.
        """
        exchange = self.exchange(inputs, outputs)
        self.sync_store().append(self.conversation_id, exchange, counter=self.counter)

    async def asave_context(self, inputs: Mapping[str, object], outputs: Mapping[str, object]) -> None:
        """Append one exchange, both messages or none, on either store."""
        if isinstance(self.store, AsyncStore):
            exchange = self.exchange(inputs, outputs)
            await self.store.append(self.conversation_id, exchange, counter=self.counter)
        else:
            await asyncio.to_thread(self.save_context, inputs, outputs)

    def clear(self) -> None:
        """Remove the conversation from the database, if it is there; the next save begins it anew.

        Raises:
            InvalidArgument: the memory is on an AsyncStore.
            TokenmemError: the database could not be used, as for Store.
        """
        store = self.sync_store()
        with suppress(ConversationNotFound):
            store.delete(self.conversation_id)

    async def aclear(self) -> None:
        """Remove the conversation from the database, if it is there, on either store."""
        if isinstance(self.store, AsyncStore):
            with suppress(ConversationNotFound):
                await self.store.delete(self.conversation_id)
        else:
            await asyncio.to_thread(self.clear)

    def newest(self) -> list[Message]:
        """The messages that fit the limit, in order. Raises as `load_memory_variables`."""
        store = self.sync_store()
        with suppress(ConversationNotFound, WindowTooSmall):
            window = store.window(self.conversation_id, self.max_token_limit, start_on="message")
            return list(window.messages)
        return []

    async def anewest(self) -> list[Message]:
        """The messages that fit the limit, in order, on either store."""
        if not isinstance(self.store, AsyncStore):
            return await asyncio.to_thread(self.newest)
        with suppress(ConversationNotFound, WindowTooSmall):
            window = await self.store.window(self.conversation_id, self.max_token_limit, start_on="message")
            return list(window.messages)
        return []

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
        return [
            Message.user(checked_text(inputs[input_key], f"inputs[{input_key!r}]")),
            Message.assistant(checked_text(outputs[output_key], f"outputs[{output_key!r}]")),
        ]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.conversation_id!r} in {self.store!r}>"

    def _form(self, messages: list[Message]) -> str | list[Message]:
        return messages if self.return_messages else self.render(messages)

    def _own_store(self) -> Store:
        store = Store()
        weakref.finalize(self, store.close)  # nobody else knows of it
        return store

    async def _async_runner(self) -> tuple[Store | AsyncStore, AsyncRunner]:
        """The store, and what runs its effects without blocking the event loop."""
        if isinstance(self.store, AsyncStore):
            return self.store, self.store._runner
        store = await asyncio.to_thread(self.sync_store)
        return store, _InThreads(store._runner)

    def sync_store(self) -> Store:
        """The store, migrated where it is the memory's own.

        Raises:
            InvalidArgument: it is an AsyncStore.
        """
        if not isinstance(self.store, Store):
            raise InvalidArgument(
                "this memory is on an AsyncStore; await asave_context, aload_memory_variables, aclear and "
                "apredict, or give it a Store"
            )
        if self._must_upgrade:  # two threads may both come here: upgrading twice is safe
            self.store.upgrade()
            self._must_upgrade = False
        return self.store


class _InThreads:
    """Effects of a Store, each in a thread."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def run(self, effect: Work) -> object:
        """Run one effect."""
        return await asyncio.to_thread(self._runner.run, effect)


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


def _checked_store(store: object) -> Store | AsyncStore:
    if isinstance(store, (Store, AsyncStore)):
        return store
    raise InvalidArgument(f"store is a {type(store).__name__}; pass a Store or an AsyncStore")


def _input_key(chosen: str | None, inputs: Mapping[str, object], memory_variables: list[str]) -> str:
    keys = [key for key in inputs if key not in (*memory_variables, STOP)] if chosen is None else [chosen]
    if len(keys) == 1 and keys[0] in inputs:
        return keys[0]
    needed = "exactly one" if chosen is None else repr(chosen)
    raise InvalidArgument(
        f"the inputs have the keys {names(inputs)}, and {needed} is needed beside "
        f"{names([*memory_variables, STOP])}; name the user's message with input_key"
    )


def _output_key(chosen: str | None, outputs: Mapping[str, object]) -> str:
    key = chosen
    if key is None:
        key = next(iter(outputs)) if len(outputs) == 1 else "output"
    if key in outputs:
        return key
    raise InvalidArgument(
        f"the outputs have the keys {names(outputs)}, and {key!r} is needed; "
        f"name the assistant's message with output_key"
    )


def checked_text(value: object, where: str) -> str:
    """What a person or a model said, where it can be stored.

    Raises:
        InvalidMessage: it is no text, or both databases cannot hold it; the message names `where`.
    """
    if not isinstance(value, str):
        raise InvalidMessage(f"{where} is a {type(value).__name__}; pass a string")
    check_text(value, where)
    return value


def names(keys: Iterable[object]) -> str:
    """Keys for an error's text, in a fixed order."""
    return ", ".join(sorted(map(repr, keys))) or "none"
