"""For LangChain's classes that take nothing but their own: `pip install "tokenmem[langchain]"`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenmem.errors import MissingExtra
from tokenmem.langchain.memory import ConversationTokenBufferMemory as _Memory

try:
    from langchain_classic.base_memory import BaseMemory
    from pydantic import ConfigDict, PrivateAttr
except ImportError as error:
    raise MissingExtra('langchain-classic is not installed; pip install "tokenmem[langchain]"') from error

__all__ = ["ConversationTokenBufferMemory"]


class ConversationTokenBufferMemory(BaseMemory):
    """A `tokenmem.ConversationTokenBufferMemory` that is also one of LangChain's memories.

    LangChain's own chains, CombinedMemory and ReadOnlySharedMemory refuse any other. It takes the same
    arguments, and has the same attributes and methods, those of the memory that it holds.

    Args:
        **options: as for `tokenmem.ConversationTokenBufferMemory`.

    Raises:
        InvalidArgument: as there.
    """

    model_config = ConfigDict(extra="forbid")

    _memory: _Memory = PrivateAttr()

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._memory = _Memory(**options)

    @property
    def tokenmem_memory(self) -> _Memory:
        """The memory itself."""
        return self._memory

    @property
    def memory_variables(self) -> list[str]:
        """The keys that `load_memory_variables` returns: the memory key alone."""
        return self._memory.memory_variables

    def load_memory_variables(self, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The history under the memory key."""
        return self._memory.load_memory_variables(inputs)

    async def aload_memory_variables(self, inputs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The history under the memory key, on either store."""
        return await self._memory.aload_memory_variables(inputs)

    def save_context(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Append one exchange, both messages or none."""
        self._memory.save_context(inputs, outputs)

    async def asave_context(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Append one exchange, both messages or none, on either store."""
        await self._memory.asave_context(inputs, outputs)

    def clear(self) -> None:
        """Remove the conversation from the database, if it is there."""
        self._memory.clear()

    async def aclear(self) -> None:
        """Remove the conversation from the database, if it is there, on either store."""
        await self._memory.aclear()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            return super().__getattr__(name)  # type: ignore[misc]  # pydantic's, which it shows no type checker
        return getattr(self._memory, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._memory, name, value)

    def __repr__(self) -> str:
        return repr(self._memory)

    __str__ = __repr__
