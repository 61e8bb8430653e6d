"""Whom a chain tells how a call goes: LangChain's callbacks, or, without langchain-core, objects alike."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4

if TYPE_CHECKING:
    from tokenmem.langchain.base import BaseChain

_log = logging.getLogger(__name__)

RUN_INFO = "__run"
"""Under which key LangChain's chains tell of the run itself."""

Values = dict[str, Any]


class Told(Protocol):
    """What is told of one call of a chain. The methods whose names begin with `a` are for the event loop."""

    run_id: UUID | None

    @property
    def is_started(self) -> bool:
        """Whether `start` or `astart` has been called."""

    def start(self, inputs: Values) -> None:
        """The call begins with these inputs, the history among them."""

    def text(self, text: str) -> None:
        """What a person may want to read meanwhile: the prompt."""

    def end(self, outputs: Values) -> None:
        """The call has ended with these outputs."""

    def error(self, error: BaseException) -> None:
        """The call has failed."""

    async def astart(self, inputs: Values) -> None:
        """See start."""

    async def atext(self, text: str) -> None:
        """See text."""

    async def aend(self, outputs: Values) -> None:
        """See end."""

    async def aerror(self, error: BaseException) -> None:
        """See error."""

    def config(self) -> Values:
        """The config of what the chain itself calls."""


def told_of(
    chain: BaseChain, config: Mapping[str, Any] | None, *, awaited: bool, tagged: bool = True
) -> Told:
    """Who is told of a call of the chain with this config.

    Args:
        chain: its own callbacks are told, too.
        config: as LangChain's RunnableConfig: callbacks, tags, metadata, run_name and run_id.
        awaited: whether the call is awaited.
        tagged: whether they are told of the chain's tags and metadata.
    """
    own = (list(chain.tags or ()), dict(chain.metadata or {})) if tagged else ([], {})
    if "langchain_core.callbacks" in sys.modules:
        return _LangChainCallbacks(chain, config, *own, awaited=awaited)
    return _Callbacks(chain, config or {}, *own)


def run_info(told: Told) -> object:
    """What stands under RUN_INFO: LangChain's RunInfo, or an object with `run_id`."""
    if "langchain_core.outputs" in sys.modules:
        from langchain_core.outputs import RunInfo

        return RunInfo(run_id=told.run_id) if told.run_id is not None else None
    return SimpleNamespace(run_id=told.run_id)


class _LangChainCallbacks:
    """LangChain's own managers."""

    def __init__(
        self,
        chain: BaseChain,
        config: Mapping[str, Any] | None,
        tags: list[str],
        metadata: Values,
        *,
        awaited: bool,
    ) -> None:
        from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
        from langchain_core.runnables import ensure_config

        given: Any = ensure_config(None if config is None else dict(config))  # type: ignore[arg-type]
        self._name = given.get("run_name") or _name(chain)
        self._given_id = given.get("run_id")
        manager: Any = AsyncCallbackManager if awaited else CallbackManager
        self._manager: Any = manager.configure(
            given.get("callbacks"),
            chain.callbacks,
            False,  # what is verbose prints the chain itself
            given.get("tags"),
            tags,
            given.get("metadata"),
            metadata,
        )
        self._run: Any = None
        self.run_id: UUID | None = None

    @property
    def is_started(self) -> bool:
        return self._run is not None

    def start(self, inputs: Values) -> None:
        self._run = self._manager.on_chain_start(None, inputs, self._given_id, name=self._name)
        self.run_id = self._run.run_id

    def text(self, text: str) -> None:
        self._run.on_text(text, end="\n", verbose=False)

    def end(self, outputs: Values) -> None:
        self._run.on_chain_end(outputs)

    def error(self, error: BaseException) -> None:
        if self._run is not None:
            self._run.on_chain_error(error)

    async def astart(self, inputs: Values) -> None:
        self._run = await self._manager.on_chain_start(None, inputs, self._given_id, name=self._name)
        self.run_id = self._run.run_id

    async def atext(self, text: str) -> None:
        await self._run.on_text(text, end="\n", verbose=False)

    async def aend(self, outputs: Values) -> None:
        await self._run.on_chain_end(outputs)

    async def aerror(self, error: BaseException) -> None:
        if self._run is not None:
            await self._run.on_chain_error(error)

    def config(self) -> Values:
        return {"callbacks": self._run.get_child()}


class _Callbacks:
    """Objects with any of LangChain's methods `on_chain_start`, `on_text`, `on_chain_end`, `on_chain_error`.

    An exception that one raises is logged and does not stop the call, unless the object has `raise_error`.
    """

    def __init__(
        self, chain: BaseChain, config: Mapping[str, Any], tags: list[str], metadata: Values
    ) -> None:
        self._handlers = [*_listed(config.get("callbacks")), *_listed(chain.callbacks)]
        self.run_id: UUID | None = config.get("run_id") or uuid4()
        self.is_started = False
        self._told: Values = {
            "run_id": self.run_id,
            "parent_run_id": None,
            "tags": [*_listed(config.get("tags")), *tags],
        }
        self._first = {
            "metadata": {**metadata, **(config.get("metadata") or {})},
            "name": config.get("run_name") or _name(chain),
        }

    def _calls(self, event: str, *arguments: object, **further: object) -> list[tuple[Any, Any]]:
        """What the handlers answer that have such a method."""
        answers = []
        for handler in self._handlers:
            method = getattr(handler, event, None)
            if not callable(method):
                continue
            try:
                answers.append((handler, method(*arguments, **self._told, **further)))
            except Exception as error:
                _failed(handler, event, error)
        return answers

    def _tell(self, event: str, *arguments: object, **further: object) -> None:
        for handler, answer in self._calls(event, *arguments, **further):
            if inspect.iscoroutine(answer):
                answer.close()
                _log.warning("%s of %s can only be awaited", event, type(handler).__name__)

    async def _atell(self, event: str, *arguments: object, **further: object) -> None:
        for handler, answer in self._calls(event, *arguments, **further):
            if inspect.isawaitable(answer):
                try:
                    await answer
                except Exception as error:
                    _failed(handler, event, error)

    def start(self, inputs: Values) -> None:
        self.is_started = True
        self._tell("on_chain_start", None, inputs, **self._first)

    def text(self, text: str) -> None:
        self._tell("on_text", text)

    def end(self, outputs: Values) -> None:
        self._tell("on_chain_end", outputs)

    def error(self, error: BaseException) -> None:
        if self.is_started:
            self._tell("on_chain_error", error)

    async def astart(self, inputs: Values) -> None:
        self.is_started = True
        await self._atell("on_chain_start", None, inputs, **self._first)

    async def atext(self, text: str) -> None:
        await self._atell("on_text", text)

    async def aend(self, outputs: Values) -> None:
        await self._atell("on_chain_end", outputs)

    async def aerror(self, error: BaseException) -> None:
        if self.is_started:
            await self._atell("on_chain_error", error)

    def config(self) -> Values:
        return {}


def _name(chain: BaseChain) -> str:
    return getattr(chain, "name", None) or type(chain).__name__


def _listed(given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    return list(getattr(given, "handlers", given))


def _failed(handler: object, event: str, error: Exception) -> None:
    if getattr(handler, "raise_error", False):
        raise error
    _log.warning("error in %s.%s: %s", type(handler).__name__, event, type(error).__name__)
