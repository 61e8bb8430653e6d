"""How a chain is called, at once and awaited, whole and in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from tokenmem.chat.effects import StreamLeft, TurnProcedure, TurnWork
from tokenmem.chat.runners import AsyncModelRunner, ModelRunner
from tokenmem.errors import InvalidArgument, TokenmemError
from tokenmem.execution.runners import Execution, advance, advance_async, run, run_async
from tokenmem.langchain.base import BaseChain, own_memory_of
from tokenmem.langchain.callbacks import RUN_INFO, Told, run_info, told_of
from tokenmem.langchain.keys import checked_text
from tokenmem.langchain.llms import callable_at_once
from tokenmem.langchain.memory import Values
from tokenmem.langchain.pieces import TextPiece
from tokenmem.langchain.prompts import names
from tokenmem.langchain.turns import ChainTurn, ForeignMemoryTurn
from tokenmem.messages.message import Message

Config = Mapping[str, Any]
"""LangChain's RunnableConfig: callbacks, tags, metadata, run_name and run_id, where there are any."""


@dataclass(frozen=True, slots=True)
class _CallOptions:
    """What a call is given besides its inputs; see `invoke`."""

    return_only_outputs: bool = False
    include_run_info: bool = False
    idempotency_key: str | None = None
    stop: Any = None


class InvokingMethods(BaseChain):
    """`invoke`, `ainvoke`, `stream` and `astream` of a chain."""

    def invoke(
        self, input: str | Mapping[str, object], config: Config | None = None, **options: Any
    ) -> Values:
        """The inputs, the history that was loaded, and the model's answer, by name.

        Args:
            input: what the user says, or a dict that has it under the input key.
            config: LangChain's: callbacks, tags, metadata, run_name and run_id.
            **options: `return_only_outputs=True`: the answer alone. `include_run_info=True`: the run's id
                under "__run". `idempotency_key="…"`: a repeated call with the same key neither stores nor
                asks twice, as for `Chat.send`. `stop=[…]`: is passed on to the model.

        Raises:
            What `predict` raises.
        """
        chosen = _call_options(options)
        turn = self._checked_turn(input, config, chosen, stream=False)
        try:
            outputs = self._run(turn)
        except BaseException as error:
            _tell_failure(turn, error)
            raise
        _tell_end(turn, outputs)
        return self._result(turn, outputs, chosen)

    async def ainvoke(
        self, input: str | Mapping[str, object], config: Config | None = None, **options: Any
    ) -> Values:
        """What `invoke` returns, on either store; an llm that is not async runs in a thread."""
        chosen = _call_options(options)
        turn = await self._achecked_turn(input, config, chosen, stream=False)
        try:
            outputs = await self._arun(turn)
        except BaseException as error:
            await _atell_failure(turn, error)
            raise
        await _atell_end(turn, outputs)
        return self._result(turn, outputs, chosen)

    def stream(
        self, input: str | Mapping[str, object], config: Config | None = None, **options: Any
    ) -> Generator[str, None, None]:
        """The model's answer as it comes, in pieces of text; it is stored at its end.

        Who stops reading cancels the call: the part that had come is stored. Each piece is a string, and
        `piece["response"]` (the output key) the same one. Takes and raises what `invoke` does.
        """
        turn = self._checked_turn(input, config, _call_options(options), stream=True)
        try:
            outputs = yield from self._pieces(turn)
        except BaseException as error:
            _tell_failure(turn, error)
            raise
        _tell_end(turn, outputs)
        self._show_end()

    async def astream(
        self, input: str | Mapping[str, object], config: Config | None = None, **options: Any
    ) -> AsyncGenerator[str, None]:
        """What `stream` yields, on either store; `contextlib.aclosing` closes it at once."""
        turn = await self._achecked_turn(input, config, _call_options(options), stream=True)
        procedure, runner = await self._aprocedure(turn)
        execution: Execution[TurnWork, Values] = Execution(procedure)
        is_empty = True
        try:
            async with runner:
                while (delivery := await advance_async(execution, runner)) is not None:
                    is_empty = False
                    try:
                        yield TextPiece(delivery.text, self.output_key)
                    except GeneratorExit:
                        execution.fail(StreamLeft())
                    except BaseException as error:
                        execution.fail(error)
            if is_empty:
                yield TextPiece("", self.output_key)
        except StreamLeft as left:
            await _atell_failure(turn, left)
            return
        except BaseException as error:
            await _atell_failure(turn, error)
            raise
        await _atell_end(turn, execution.result)
        self._show_end()

    def _checked_turn(
        self, given: object, config: Config | None, chosen: _CallOptions, *, stream: bool
    ) -> ChainTurn:
        """One call, of which it is told where it is refused."""
        told = told_of(self, config, awaited=False)
        try:
            turn = self._turn(given, told, chosen, stream=stream)
            callable_at_once(self.llm)
        except InvalidArgument as error:
            self._refused(given, told, error)
            raise
        return turn

    async def _achecked_turn(
        self, given: object, config: Config | None, chosen: _CallOptions, *, stream: bool
    ) -> ChainTurn:
        told = told_of(self, config, awaited=True)
        try:
            return self._turn(given, told, chosen, stream=stream)
        except InvalidArgument as error:
            await self._arefused(given, told, error)
            raise

    def _turn(self, given: object, told: Told, chosen: _CallOptions, *, stream: bool) -> ChainTurn:
        """One call, checked before the model is asked: an answer that cannot be stored is lost."""
        inputs = dict(given) if isinstance(given, Mapping) else {self.input_key: given}
        for key in self.memory.memory_variables:
            inputs.pop(key, None)  # the memory's to tell
        if self.input_key not in inputs:
            raise InvalidArgument(
                f"Missing some input keys: no input {self.input_key!r} among {names(inputs)}; "
                f"the prompt needs it"
            )
        own = own_memory_of(self.memory)
        if own is None:
            if chosen.idempotency_key is not None:
                raise InvalidArgument(
                    f"idempotency_key needs a store; memory is a {type(self.memory).__name__}"
                )
            return ForeignMemoryTurn(self, inputs, Message.user(""), told, stop=chosen.stop, stream=stream)
        checked_text(inputs[self.input_key], f"the input {self.input_key!r}")
        said, _ = own.exchange(inputs, {self.output_key: ""})
        return ChainTurn(
            self, inputs, said, told, key=chosen.idempotency_key, stop=chosen.stop, stream=stream
        )

    def _run(self, turn: ChainTurn) -> Values:
        procedure, runner = self._procedure(turn)
        with closing(runner):
            execution: Execution[TurnWork, Values] = Execution(procedure)
            return run(execution, runner)

    async def _arun(self, turn: ChainTurn) -> Values:
        procedure, runner = await self._aprocedure(turn)
        async with runner:
            execution: Execution[TurnWork, Values] = Execution(procedure)
            return await run_async(execution, runner)

    def _pieces(self, turn: ChainTurn) -> Generator[TextPiece, None, Values]:
        procedure, runner = self._procedure(turn)
        execution: Execution[TurnWork, Values] = Execution(procedure)
        is_empty = True
        with closing(runner):
            while (delivery := advance(execution, runner)) is not None:
                is_empty = False
                try:
                    yield TextPiece(delivery.text, self.output_key)
                except GeneratorExit:
                    with suppress(StreamLeft):
                        execution.fail(StreamLeft())
                        run(execution, runner)
                    raise
                except BaseException as error:
                    execution.fail(error)
        if is_empty:
            yield TextPiece("", self.output_key)
        return execution.result

    def _procedure(self, turn: ChainTurn) -> tuple[TurnProcedure[Values], ModelRunner]:
        """What a turn does, and what runs it."""
        endpoint = turn.endpoint(self.llm)
        if isinstance(turn, ForeignMemoryTurn):
            return turn.call(), ModelRunner(_NoStore(), endpoint)
        store = self.own_memory.sync_store()
        return turn.on(store), ModelRunner(store._runner, endpoint)

    async def _aprocedure(self, turn: ChainTurn) -> tuple[TurnProcedure[Values], AsyncModelRunner]:
        endpoint = turn.endpoint_async(self.llm)
        if isinstance(turn, ForeignMemoryTurn):
            turn.awaited = True
            return turn.call(), AsyncModelRunner(_NoAsyncStore(), endpoint, blocking=False)
        store, runs = await self.own_memory._async_runner()
        return turn.on(store), AsyncModelRunner(runs, endpoint, blocking=False)

    def _refused(self, given: object, told: Told, error: InvalidArgument) -> None:
        """Tell of a call that is refused, as LangChain's chain tells of it: begun, and failed."""
        loaded: Values = {}
        with suppress(TokenmemError):
            loaded = self.memory.load_memory_variables({})
        told.start({**self._as_dict(given), **loaded})
        told.error(error)

    async def _arefused(self, given: object, told: Told, error: InvalidArgument) -> None:
        loaded: Values = {}
        with suppress(TokenmemError):
            loaded = await self.memory.aload_memory_variables({})
        await told.astart({**self._as_dict(given), **loaded})
        await told.aerror(error)

    def _as_dict(self, given: object) -> Values:
        return dict(given) if isinstance(given, Mapping) else {self.input_key: given}

    def _show_end(self) -> None:
        if self.verbose:
            self.show_end()

    def _result(self, turn: ChainTurn, outputs: Values, chosen: _CallOptions) -> Values:
        self._show_end()
        result = dict(outputs) if chosen.return_only_outputs else {**(turn.values or {}), **outputs}
        return {**result, RUN_INFO: run_info(turn.told)} if chosen.include_run_info else result


def _tell_end(turn: ChainTurn, outputs: Values) -> None:
    """Tell of a call that has come to its end, also where an earlier one had answered it."""
    if not turn.told.is_started:
        turn.told.start(turn.values or {})
    turn.told.end(outputs)


async def _atell_end(turn: ChainTurn, outputs: Values) -> None:
    if not turn.told.is_started:
        await turn.told.astart(turn.values or {})
    await turn.told.aend(outputs)


def _tell_failure(turn: ChainTurn, error: BaseException) -> None:
    """Tell of a call that failed, also where no prompt could be made, but not where nothing was read."""
    told = turn.told
    if not told.is_started and not isinstance(error, TokenmemError):
        told.start(turn.values or turn.inputs)
    told.error(error)


async def _atell_failure(turn: ChainTurn, error: BaseException) -> None:
    told = turn.told
    if not told.is_started and not isinstance(error, TokenmemError):
        await told.astart(turn.values or turn.inputs)
    await told.aerror(error)


class _NoStore:
    """What runs the effects of a store where there is none."""

    def run(self, effect: object) -> object:
        """Nothing yields one."""
        raise NotImplementedError(type(effect).__name__)


class _NoAsyncStore:
    async def run(self, effect: object) -> object:
        """Nothing yields one."""
        raise NotImplementedError(type(effect).__name__)


def _call_options(given: Mapping[str, Any]) -> _CallOptions:
    known = _CallOptions.__slots__
    for name in given:
        if name not in known:
            raise InvalidArgument(f"a call takes no {name!r}; it takes {', '.join(known)}")
    return _CallOptions(**given)
