"""The pieces in which a chain's answer comes."""

from __future__ import annotations

from typing import Any


class TextPiece(str):
    """A piece of an answer's text: a string, and for its chain's output key the same one.

    Args:
        text: the piece.
        key: the chain's output key.
    """

    __slots__ = ("key",)
    key: str

    def __new__(cls, text: str, key: str) -> TextPiece:  # noqa: D102
        made = super().__new__(cls, text)
        made.key = key
        return made

    def __getitem__(self, key: Any) -> str:
        if not isinstance(key, str):
            return str.__getitem__(self, key)
        if key != self.key:
            raise KeyError(key)
        return str(self)

    def get(self, key: str, default: Any = None) -> Any:
        """The piece under the output key, else the default."""
        return str(self) if key == self.key else default

    def __add__(self, other: str) -> TextPiece:
        return TextPiece(str.__add__(self, other), self.key)

    def __reduce__(self) -> tuple[type[TextPiece], tuple[str, str]]:
        return TextPiece, (str(self), self.key)
