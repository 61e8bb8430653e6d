"""One call of a chain as a turn of Chat's: the model takes a prompt made of what was said before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tokenmem.arguments import LONGEST_ID
from tokenmem.async_store import AsyncStore
from tokenmem.chat.apis.function import TextReader
from tokenmem.chat.apis.interface import Endpoint, ModelAPI, StreamReader
from tokenmem.chat.apis.replies import Answer, is_stream, storable
from tokenmem.chat.effects import END, Ask, Close, Invocation, Invoke, Next, TurnProcedure
from tokenmem.chat.opening import Opening
from tokenmem.chat.prompt import NoResult
from tokenmem.chat.requests import TurnRequest
from tokenmem.chat.settings import Settings
from tokenmem.chat.start import StartedTurn
from tokenmem.chat.turn import Turns
from tokenmem.counting.counters import TokenCounter
from tokenmem.errors import WindowTooSmall
from tokenmem.execution.effects import Deliver
from tokenmem.langchain.callbacks import Told
from tokenmem.langchain.history import History, history_of
from tokenmem.langchain.keys import checked_text
from tokenmem.langchain.llms import LLM, ask, ask_async, finish_reason_of, text_of, usage_of
from tokenmem.langchain.memory import STOP
from tokenmem.langchain.prompts import PromptValue, prompt_text, prompt_value
from tokenmem.langchain.styles import told_prompt
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import parse_messages
from tokenmem.messages.values import JSONObject
from tokenmem.models import Reply
from tokenmem.operations.calls import FinishedCall
from tokenmem.operations.rows import StoredRows
from tokenmem.operations.snapshot import Snapshot
from tokenmem.operations.window import EMPTY
from tokenmem.store import Store

if TYPE_CHECKING:
    from tokenmem.langchain.base import BaseChain

Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a model is sent: the prompt, and the values that it was made of."""

    values: Values
    prompt: PromptValue


@dataclass
class ChainTurn(ModelAPI):
    """One call of a chain.

    Attributes:
        chain: the chain.
        inputs: the caller's, checked.
        said: what the user says.
        told: who is told of the call.
        key: the idempotency key, or None.
        stop: where the model is to stop writing, where that is not among the inputs.
        stream: whether the text is delivered as it comes.
        values: the inputs and what the memory has loaded, once the prompt has been made.
        output: what the model's text is to the chain's parser.
        left_out: positions of a window's messages that are not part of the history.
    """

    takes_plain = False

    chain: BaseChain
    inputs: Values
    said: Message
    told: Told
    key: str | None = None
    stop: Any = None
    stream: bool = False
    values: Values | None = None
    output: Any = None
    left_out: frozenset[int] = field(default=frozenset())

    def on(self, store: Store | AsyncStore) -> TurnProcedure[Values]:
        """The turn's procedure on the memory's store; its result is what the chain returns."""
        request = TurnRequest(
            self.chain.own_memory.conversation_id,
            parse_messages([self.said]),
            key=self.key,
            stream=self.stream,
        )
        reply = yield from _ChainTurns(store, self).turn(request)
        return self._outputs(reply)

    def settings(self) -> Settings:
        """The settings of the turn."""
        memory, chain = self.chain.own_memory, self.chain
        return Settings(
            api=self,
            model=_model_name(chain.llm),
            head={},
            window_limit=memory.max_token_limit,
            extra=0,
            token_limit=memory.max_token_limit,
            api_name=type(chain).__name__,
            stride=None,
            start_on=memory.start_on,
            counter=memory.counter,
            new_beside_limit=True,
            by_bill=False,
            as_counted=True,
            asks_again=False,
        )

    def endpoint(self, client: LLM) -> Endpoint:
        """What asks the llm, and tells of it."""

        def call(sent: _Sent, stream: bool) -> object:
            self.told.start(sent.values)
            self._show(sent)
            self.told.text(told_prompt(prompt_text(sent.prompt)))
            config = self.told.config()
            return ask(client, sent.prompt, stream=stream, config=config, **self._options())

        return call

    def endpoint_async(self, client: LLM) -> Endpoint:
        """What asks the llm and tells of it, to be awaited."""

        async def call(sent: _Sent, stream: bool) -> object:
            await self.told.astart(sent.values)
            self._show(sent)
            await self.told.atext(told_prompt(prompt_text(sent.prompt)))
            config = self.told.config()
            return await ask_async(client, sent.prompt, stream=stream, config=config, **self._options())

        return call

    def _options(self) -> Values:
        stop = {} if self.stop is None else {STOP: self.stop}
        return {**stop, **self.chain.options(self.inputs)}

    def _show(self, sent: _Sent) -> None:
        if self.chain.verbose:
            self.chain.show_prompt(prompt_text(sent.prompt))

    def prepare(self, messages: Sequence[Message], no_result: NoResult) -> list[Message]:  # noqa: ARG002
        """All of a window but what has failed: a transcript may begin and end anywhere."""
        return [message for message in messages if message.position not in self.left_out]

    def render(self, messages: Sequence[Message]) -> Sequence[_Sent]:
        """The prompt, made before anything is stored."""
        before = list(messages[:-1])
        values = self.chain.values(self.inputs, before)
        return [_Sent(values, self.chain.prompt_of(values, before))]

    def request(self, head: JSONObject, sent: Sequence[_Sent], stream: bool) -> JSONObject:  # noqa: ARG002
        """What the llm is asked with."""
        (prompt,) = sent
        self.values = prompt.values
        return {"sent": prompt, "stream": stream}

    def read(self, response: object) -> Answer:
        """What the llm says.

        Raises:
            InvalidMessage: it cannot be stored.
            Whatever the chain's parser raises.
        """
        return self.answer(text_of(response), response)

    def answer(self, text: str, response: object) -> Answer:
        """An answer of this text, as the chain's parser reads it."""
        self.output = self.chain.parsed(text)
        stored = checked_text(text_of(self.output), "the llm's answer")
        return Answer(
            parse_messages([Message.assistant(stored)]),
            text,
            finish_reason_of(response),
            usage_of(response),
        )

    def reader(self, response: object) -> StreamReader | None:
        """What joins the pieces of an answer that comes in pieces."""
        return _PiecesReader(self) if is_stream(response) else None

    def _outputs(self, reply: Reply) -> Values:
        """What the chain returns besides its inputs."""
        if self.values is None:  # the request has been answered before
            before = [each for each in reply.window.messages if each.position < reply.window.last_position]
            self.values = self.chain.values(self.inputs, before)
            self.output = self.chain.parsed(reply.text)
        return {self.chain.output_key: self.output}


@dataclass
class ForeignMemoryTurn(ChainTurn):
    """One call of a chain whose memory is another's, as LangChain's are: nothing of it is in a store.

    Attributes:
        awaited: whether the memory's async methods are used.
    """

    awaited: bool = False

    def call(self) -> TurnProcedure[Values]:
        """Load, ask, save; where something fails, nothing is saved."""
        loaded = yield from self._memory("load_memory_variables", self.inputs)
        self.values = {**self.inputs, **loaded}
        prompt = prompt_value(self.chain.prompt, self.chain.selected(self.values))
        response = yield Ask({"sent": _Sent(self.values, prompt), "stream": self.stream})
        reader = self.reader(response)
        if reader is None:
            answer = self.read(response)
            if self.stream and answer.text:
                yield Deliver(answer.text)
        else:
            yield from self._read(response, reader)
            reader.answer()
        outputs = {self.chain.output_key: self.output}
        yield from self._memory("save_context", self.values, outputs)
        return outputs

    def _read(self, response: object, reader: StreamReader) -> TurnProcedure[None]:
        try:
            while (event := (yield Next(response))) is not END:
                if piece := reader.feed(event):
                    yield Deliver(piece)
        except BaseException:
            yield Close(response)
            raise

    def _memory(self, name: str, *arguments: Values) -> TurnProcedure[Any]:
        memory: Any = self.chain.memory
        method = getattr(memory, f"a{name}", None) if self.awaited else None
        function = partial(method or getattr(memory, name), *arguments)
        (answer,) = yield Invoke([Invocation(function, {})])
        if isinstance(answer, Exception):
            raise answer
        return answer


class _PiecesReader(TextReader):
    """The text of a stream of texts, or of messages with a piece of text each."""

    def __init__(self, turn: ChainTurn) -> None:
        super().__init__()
        self._turn = turn
        self._last: object = None

    def feed(self, event: object) -> str:
        """Take a piece of text in."""
        if self._last is None or usage_of(event) or finish_reason_of(event):
            self._last = event
        return super().feed(text_of(event))

    def answer(self) -> Answer:
        """The whole text."""
        return self._turn.answer(self.text, self._last)


class _ChainTurns(Turns):
    """The turn of one call: what has failed is not in its prompt, and asked again is not stored twice."""

    def __init__(self, store: Store | AsyncStore, turn: ChainTurn) -> None:
        super().__init__(store._procedures, turn.settings())
        self._turn = turn
        self._history = History(None)
        self._asked: Sequence[Any] = ()

    @property
    def counter(self) -> TokenCounter:
        """The memory's."""
        return self.settings.counter

    def _look(
        self,
        request: TurnRequest,
        *,
        stored: Any = None,
        new: Sequence[Message] | None = None,
        token_limit: int | None = None,
    ) -> TurnProcedure[Snapshot | None]:
        """The conversation as it is, in which what has failed costs nothing."""
        limit = self.settings.window_limit if token_limit is None else token_limit
        base = super()._look

        def look(enough: int) -> TurnProcedure[Snapshot | None]:
            return base(request, stored=stored, new=new, token_limit=enough)

        history = yield from history_of(self.procedures, request.conversation_id, limit, look)
        found = history.snapshot
        self._history, self._asked = history, ()
        if found is None:
            return None
        known = stored or found.key
        rows = found.loaded.rows.rows
        if known is not None:
            self._asked = [row for row in rows if known.first_position <= row[0] <= known.last_position]
        elif self._repeats(request, history):
            self._asked = [history.question]
        asked = [row[0] for row in self._asked]
        self._turn.left_out = history.left_out.difference(asked)
        return history.without_failed(asked)

    def _repeats(self, request: TurnRequest, history: History) -> bool:
        """Whether the request says once more what has failed before it."""
        row = history.question
        if row is None or not request.messages:
            return False
        (said,) = request.messages
        return row[4] is None and (row[1], row[3]) == (said.role, said.content)

    @property
    def _is_repeated(self) -> bool:
        return bool(self._asked) and self._asked[0] is self._history.question

    def _begin(
        self, request: TurnRequest, found: Snapshot | None, *, anyway: bool
    ) -> TurnProcedure[StartedTurn | None]:
        if self._is_repeated and (found is None or found.key is None):
            request = replace(request, messages=(), given=request.messages, claims=True)
        return (yield from super()._begin(request, found, anyway=anyway))

    def _append_first(
        self, request: TurnRequest, found: Snapshot | None
    ) -> TurnProcedure[StartedTurn | FinishedCall]:
        if self._is_repeated:
            started = yield from self._begin(request, found, anyway=True)
            if started is not None:
                return started
        return (yield from super()._append_first(request, found))

    def _limit(self, options: int, counts: Sequence[int]) -> int:
        """What a window may cost, in tokens: what is asked comes on top, also where it is stored already."""
        asked = 0 if counts else sum(row[5] for row in self._asked)
        return super()._limit(options, counts) + asked

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
            rows = [] if new else list(self._asked)
            cost, count = sum(row[5] for row in rows), found.loaded.message_count
            stored = StoredRows(rows, found.loaded.rows.conversation_id)
            said = replace(EMPTY, rows=stored, cost=cost, total_tokens=cost, message_count=count)
            return (yield from super().open(request, replace(found, loaded=said), new, counter))


def _model_name(llm: LLM) -> str:
    """By what name a call is recorded: the model's own, else the function's or the class's."""
    for attribute in ("model", "model_name", "__name__"):
        name = getattr(llm, attribute, None)
        if isinstance(name, str) and 0 < len(name) <= LONGEST_ID and storable(name):
            return name
    return type(llm).__name__
