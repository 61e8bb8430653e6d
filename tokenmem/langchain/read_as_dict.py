"""A message that is also the dict that OpenAI's API takes."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from tokenmem.messages.values import JSONObject


class ReadAsDict(Mapping[str, Any]):
    """A message that is also the dict that OpenAI's API takes, for reading."""

    __slots__ = ()

    def to_openai(self) -> JSONObject:
        """The message as OpenAI's API takes it."""
        raise NotImplementedError

    def __getitem__(self, key: str) -> Any:
        return self.to_openai()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_openai())

    def __contains__(self, key: object) -> bool:
        return key in self.to_openai()

    def keys(self) -> KeysView[str]:
        """The dict's keys. A message of LangChain's is iterated as it is there, and so are not its views."""
        return self.to_openai().keys()

    def items(self) -> ItemsView[str, Any]:
        """The dict's items."""
        return self.to_openai().items()

    def values(self) -> ValuesView[Any]:
        """The dict's values."""
        return self.to_openai().values()

    def __len__(self) -> int:
        return len(self.to_openai())
