"""A chain as one of LangChain's runnables. Imported only where langchain-core is there."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.utils.pydantic import create_model


class _RunnableMethods(Runnable[Any, Any]):
    """What LangChain asks of a runnable besides what a chain has."""

    input_keys: list[str]
    output_keys: list[str]

    @property
    def InputType(self) -> Any:  # noqa: N802 - LangChain's name
        return dict[str, Any]

    @property
    def OutputType(self) -> Any:  # noqa: N802 - LangChain's name
        return dict[str, Any]

    def pick(self, keys: str | list[str]) -> Any:
        """What `invoke` returns under this key, or under these as a dict."""

        def picked(outputs: Any) -> Any:
            return outputs[keys] if isinstance(keys, str) else {key: outputs[key] for key in keys}

        return self | RunnableLambda(picked, name="pick")

    def get_input_schema(self, config: Any = None) -> Any:  # noqa: ARG002 - LangChain's signature
        fields: Any = dict.fromkeys(self.input_keys, (Any, None))
        return create_model("ChainInput", **fields)

    def get_output_schema(self, config: Any = None) -> Any:  # noqa: ARG002 - LangChain's signature
        fields: Any = dict.fromkeys(self.output_keys, (Any, None))
        return create_model("ChainOutput", **fields)


@lru_cache
def runnable_class(kind: type[Any]) -> type[Any]:
    """A chain's class that is also a Runnable; it has the name of the chain's own, `plain_class`.

    Args:
        kind: ConversationChain, or a class derived from it.
    """
    if issubclass(kind, Runnable):
        return kind
    pipes = {name: getattr(Runnable, name) for name in ("__or__", "__ror__")}
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__, "plain_class": kind, **pipes}
    metaclass: Any = type(Runnable)
    made: type[Any] = metaclass(kind.__name__, (kind, _RunnableMethods), names)
    return made
