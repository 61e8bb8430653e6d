"""A conversation with a model, as LangChain's ConversationChain holds it, on a memory of the store's."""

from __future__ import annotations

import string
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from tokenmem.arguments import LONGEST_ID
from tokenmem.async_store import AsyncStore
from tokenmem.chat.apis.interface import Endpoint, ModelAPI
from tokenmem.chat.apis.replies import Answer, storable
from tokenmem.chat.effects import TurnProcedure, TurnWork
from tokenmem.chat.opening import Opening
from tokenmem.chat.prompt import NoResult
from tokenmem.chat.requests import TurnRequest
from tokenmem.chat.runners import AsyncModelRunner, ModelRunner
from tokenmem.chat.settings import Settings
from tokenmem.chat.turn import Turns
from tokenmem.counting.counters import TokenCounter
from tokenmem.errors import InvalidArgument, WindowTooSmall
from tokenmem.execution.runners import Execution, run, run_async
from tokenmem.langchain.llms import LLM, ask, ask_async, callable_at_once, check_llm
from tokenmem.langchain.memory import STOP, ConversationTokenBufferMemory, Values, checked_text, names
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import parse_messages
from tokenmem.messages.values import JSONObject
from tokenmem.models import Reply
from tokenmem.operations.rows import StoredRows
from tokenmem.operations.snapshot import Snapshot
from tokenmem.operations.window import EMPTY
from tokenmem.procedures import Procedures
from tokenmem.store import Store

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
    """A conversation with a model: store what the user says, load what was said before, ask, store the rest.

    The turn is Chat's: no connection is held while the model thinks, and each call leaves its record in
    `llm_calls`. When the model raises, the user's message stays, the record tells, and the error reaches the
    caller unchanged.

    Args:
        llm: a function that takes a string and returns one, plain or `async`; or an object with `invoke` or
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
        """The model's answer to `input=…`, on either store; an llm that is not async runs in a thread."""
        text: str = (await self.ainvoke(inputs))[self.output_key]
        return text

    def invoke(self, input: str | Mapping[str, object]) -> Values:
        """The inputs, the history that was loaded, and the model's answer, by name.

        Args:
            input: what the user says, or a dict that has it under the input key.

        Raises:
            What `predict` raises.
        """
        turn = _ChainTurn(self, self._inputs(input))
        callable_at_once(self.llm)
        store = self.memory.sync_store()
        with closing(ModelRunner(store._runner, turn.endpoint(self.llm))) as runner:
            execution: Execution[TurnWork, Reply] = Execution(turn.on(store))
            return turn.end(run(execution, runner))

    async def ainvoke(self, input: str | Mapping[str, object]) -> Values:
        """What `invoke` returns, on either store; an llm that is not async runs in a thread."""
        turn = _ChainTurn(self, self._inputs(input))
        store, runs = await self.memory._async_runner()
        async with AsyncModelRunner(runs, turn.endpoint_async(self.llm), blocking=False) as runner:
            execution: Execution[TurnWork, Reply] = Execution(turn.on(store))
            reply = await run_async(execution, runner)
        return turn.end(reply)

    def _inputs(self, given: object) -> Values:
        """The inputs by name, checked before the model is asked: an answer that cannot be stored is lost."""
        inputs = dict(given) if isinstance(given, Mapping) else {self.input_key: given}
        inputs.pop(self.memory.memory_key, None)  # the memory's to tell
        if self.input_key not in inputs:
            raise InvalidArgument(f"no input {self.input_key!r} among {names(inputs)}; the prompt needs it")
        checked_text(inputs[self.input_key], f"the input {self.input_key!r}")
        self.memory.exchange(inputs, {self.output_key: ""})
        return inputs

    def begin(self, inputs: Mapping[str, object], messages: list[Message]) -> str:
        """The prompt, printed where the chain is verbose."""
        history = self.memory.render(messages)
        values = {self.memory.memory_key: history, self.input_key: inputs[self.input_key]}
        prompt = self.prompt.format(**values)
        if self.verbose:
            print("\n\n" + _styled(f"> Entering new {type(self).__name__} chain...", _BOLD))
            print("Prompt after formatting:\n" + _styled(prompt, _GREEN))
        return prompt

    def end(self, inputs: Values, messages: list[Message], text: str) -> Values:
        """What `invoke` returns; the end is printed where the chain is verbose."""
        if self.verbose:
            print("\n" + _styled("> Finished chain.", _BOLD))
        history = messages if self.memory.return_messages else self.memory.render(messages)
        return {**inputs, self.memory.memory_key: history, self.output_key: text}


class _ChainTurn(ModelAPI):
    """One turn of a chain as Chat runs it: the model takes a text, made of what was said before."""

    takes_plain = False

    def __init__(self, chain: ConversationChain, inputs: Values) -> None:
        self.chain = chain
        self.inputs = inputs
        self.history: list[Message] = []

    def on(self, store: Store | AsyncStore) -> TurnProcedure[Reply]:
        """The turn's procedure on the memory's store."""
        memory = self.chain.memory
        message, _ = memory.exchange(self.inputs, {self.chain.output_key: ""})
        request = TurnRequest(memory.conversation_id, parse_messages([message]))
        return _ChainTurns(store._procedures, self._settings(), self).turn(request)

    def _settings(self) -> Settings:
        memory = self.chain.memory
        return Settings(
            api=self,
            model=_model_name(self.chain.llm),
            head=_options(self.inputs),
            window_limit=memory.max_token_limit,
            extra=0,
            token_limit=memory.max_token_limit,
            api_name=type(self.chain).__name__,
            stride=None,
            start_on="message",
            counter=memory.counter,
            new_beside_limit=True,
            by_bill=False,
        )

    def endpoint(self, client: LLM) -> Endpoint:
        """What asks the llm."""
        return partial(ask, client)

    def endpoint_async(self, client: LLM) -> Endpoint:
        """What asks the llm, to be awaited."""
        return partial(ask_async, client)

    def prepare(self, messages: Sequence[Message], no_result: NoResult) -> list[Message]:  # noqa: ARG002
        """All of a window: a transcript may begin and end anywhere."""
        return list(messages)

    def render(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The messages themselves, of which the chain makes a text."""
        return messages

    def request(self, head: JSONObject, sent: Sequence[Message], stream: bool) -> JSONObject:  # noqa: ARG002
        """The llm's prompt: what was said before, and what the user says now."""
        self.history = list(sent[:-1])
        return {**head, "prompt": self.chain.begin(self.inputs, self.history)}

    def read(self, response: str) -> Answer:
        """What the llm says.

        Raises:
            InvalidMessage: it cannot be stored.
        """
        return Answer(
            parse_messages([Message.assistant(checked_text(response, "the llm's answer"))]), response
        )

    def end(self, reply: Reply) -> Values:
        """What the chain returns."""
        return self.chain.end(self.inputs, self.history, reply.text)


class _ChainTurns(Turns):
    def __init__(self, procedures: Procedures, settings: Settings, turn: _ChainTurn) -> None:
        super().__init__(procedures, settings)
        self._turn = turn

    @property
    def counter(self) -> TokenCounter:
        """The memory's."""
        return self.settings.counter

    def open(
        self,
        request: TurnRequest,
        found: Snapshot | None,
        new: Sequence[Message],
        counter: TokenCounter,
    ) -> TurnProcedure[Opening]:
        """Make the prompt; the history is empty where not even the pinned messages fit, as the memory is."""
        try:
            return (yield from super().open(request, found, new, counter))
        except WindowTooSmall:
            if found is None:
                raise
            # What the user says, which where it is stored already is the last row.
            rows = [] if new else found.loaded.rows.rows[-1:]
            cost, count = sum(row[5] for row in rows), found.loaded.message_count
            said = replace(EMPTY, rows=StoredRows(rows), cost=cost, total_tokens=cost, message_count=count)
            return (yield from super().open(request, replace(found, loaded=said), new, counter))


def _model_name(llm: LLM) -> str:
    """By what name a call is recorded: the model's own, else the function's or the class's."""
    for attribute in ("model", "model_name", "__name__"):
        name = getattr(llm, attribute, None)
        if isinstance(name, str) and 0 < len(name) <= LONGEST_ID and storable(name):
            return name
    return type(llm).__name__


def _options(inputs: Mapping[str, object]) -> Values:
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
            f"prompt is a {type(prompt).__name__}; "
            f"pass a string, or an object with format and input_variables"
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
