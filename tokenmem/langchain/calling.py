"""The further ways in which LangChain's chains are called: each is an `invoke` or an `ainvoke`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenmem.errors import InvalidArgument, MissingExtra
from tokenmem.langchain.invoking import InvokingMethods

Values = dict[str, Any]
Input = str | Mapping[str, object]
Configs = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class CallingMethods(InvokingMethods):
    """What a chain is called by besides `invoke`, `ainvoke`, `stream` and `astream`."""

    def predict(self, callbacks: Any = None, idempotency_key: str | None = None, **inputs: Any) -> str:
        """The model's answer to `input=…` (or the chain's own input key), not stripped.

        Args:
            callbacks: for this call, besides the chain's.
            idempotency_key: a repeated call with the same key neither stores nor asks twice, as for
                `Chat.send`.
            **inputs: by name. `stop=…` is passed on to the model and not stored.

        Raises:
            InvalidArgument: the inputs are not those that the chain and its memory need, the memory is on an
                AsyncStore, or the llm can only be awaited.
            InvalidMessage: what the user or the model said is no text or cannot be stored.
            IdempotencyConflict: the key has stored another message.
            PositionConflict: what the key has stored has no reply, and something else stands behind it.
            TokenmemError: the database could not be used, as for Store.
            Whatever the model raises, unchanged.
        """
        config, options = _told(callbacks), _keyed(idempotency_key)
        answer: str = self.invoke(inputs, config, **options)[self.output_key]
        return answer

    async def apredict(self, callbacks: Any = None, idempotency_key: str | None = None, **inputs: Any) -> str:
        """The model's answer to `input=…`, on either store; an llm that is not async runs in a thread."""
        config, options = _told(callbacks), _keyed(idempotency_key)
        answer: str = (await self.ainvoke(inputs, config, **options))[self.output_key]
        return answer

    def run(
        self, *arguments: Any, callbacks: Any = None, tags: Any = None, metadata: Any = None, **inputs: Any
    ) -> Any:
        """The model's answer to the one argument, or to the inputs by name. Raises what `predict` does."""
        given = _one_input(arguments, inputs)
        return self.invoke(given, _told(callbacks, tags, metadata))[self.output_key]

    async def arun(
        self, *arguments: Any, callbacks: Any = None, tags: Any = None, metadata: Any = None, **inputs: Any
    ) -> Any:
        """What `run` returns, on either store."""
        given = _one_input(arguments, inputs)
        return (await self.ainvoke(given, _told(callbacks, tags, metadata)))[self.output_key]

    def __call__(
        self,
        inputs: Input,
        return_only_outputs: bool = False,
        callbacks: Any = None,
        *,
        tags: Any = None,
        metadata: Any = None,
        run_name: str | None = None,
        include_run_info: bool = False,
    ) -> Values:
        """What `invoke` returns, whose config is given here by name."""
        return self.invoke(
            inputs,
            _told(callbacks, tags, metadata, run_name),
            return_only_outputs=return_only_outputs,
            include_run_info=include_run_info,
        )

    async def acall(
        self,
        inputs: Input,
        return_only_outputs: bool = False,
        callbacks: Any = None,
        *,
        tags: Any = None,
        metadata: Any = None,
        run_name: str | None = None,
        include_run_info: bool = False,
    ) -> Values:
        """What `ainvoke` returns, whose config is given here by name."""
        return await self.ainvoke(
            inputs,
            _told(callbacks, tags, metadata, run_name),
            return_only_outputs=return_only_outputs,
            include_run_info=include_run_info,
        )

    def batch(
        self,
        inputs: Sequence[Input],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **options: Any,
    ) -> list[Any]:
        """What `invoke` returns for each input, one after the other: they are one conversation.

        Args:
            inputs: the inputs.
            config: for all of them, or a list with one for each.
            return_exceptions: go on after an error, which takes the place of what would be returned.
            **options: as for `invoke`.
        """
        results: list[Any] = []
        for given, told in _with_configs(inputs, config):
            try:
                results.append(self.invoke(given, told, **options))
            except Exception as error:
                if not return_exceptions:
                    raise
                results.append(error)
        return results

    async def abatch(
        self,
        inputs: Sequence[Input],
        config: Configs = None,
        *,
        return_exceptions: bool = False,
        **options: Any,
    ) -> list[Any]:
        """What `batch` returns, on either store."""
        results: list[Any] = []
        for given, told in _with_configs(inputs, config):
            try:
                results.append(await self.ainvoke(given, told, **options))
            except Exception as error:
                if not return_exceptions:
                    raise
                results.append(error)
        return results

    def __or__(self, other: Any) -> Any:
        """LangChain's pipe: what follows gets what `invoke` returns."""
        return self._runnable() | other

    def __ror__(self, other: Any) -> Any:
        """LangChain's pipe, in which the chain gets what comes before."""
        return other | self._runnable()

    def _runnable(self) -> Any:
        """The chain as one of LangChain's runnables, where langchain-core was imported after it was made.

        Raises:
            MissingExtra: langchain-core is not installed.
        """
        try:
            from langchain_core.runnables import RunnableLambda
        except ImportError:
            raise MissingExtra(
                'a pipe needs langchain-core; pip install "tokenmem[langchain]", or call invoke'
            ) from None
        return RunnableLambda(self.invoke, afunc=self.ainvoke, name=type(self).__name__)


def _told(callbacks: Any, tags: Any = None, metadata: Any = None, run_name: str | None = None) -> Values:
    config = {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name}
    return {name: value for name, value in config.items() if value is not None}


def _keyed(idempotency_key: str | None) -> Values:
    return {} if idempotency_key is None else {"idempotency_key": idempotency_key}


def _one_input(arguments: tuple[Any, ...], inputs: Values) -> Any:
    if len(arguments) == 1 and not inputs:
        return arguments[0]
    if inputs and not arguments:
        return inputs
    raise InvalidArgument(
        f"run takes one argument, or the inputs by name; it got {len(arguments)} arguments "
        f"and {len(inputs)} inputs by name"
    )


def _with_configs(
    inputs: Sequence[Input], config: Configs
) -> Iterable[tuple[Input, Mapping[str, Any] | None]]:
    if config is None or isinstance(config, Mapping):
        return [(given, config) for given in inputs]
    if len(config) != len(inputs):
        raise InvalidArgument(f"config is a list of {len(config)} for {len(inputs)} inputs; give one each")
    return list(zip(inputs, config, strict=True))
