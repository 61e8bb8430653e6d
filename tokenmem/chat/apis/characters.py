"""Text that comes in pieces, as it can be delivered: in whole characters that UTF-8 can carry."""

from __future__ import annotations

from tokenmem.messages.unstorable import scrubbed, without_half


class WholeCharacters:
    """Holds half of a character back until its other half has come: servers cut between the two.

    What is delivered, joined, is `scrubbed` of what has come.
    """

    def __init__(self) -> None:
        self._half = ""

    @property
    def is_waiting(self) -> bool:
        """Whether the last character has come only half."""
        return bool(self._half)

    def take(self, piece: str) -> str:
        """Take a piece in and return what can be delivered by now."""
        text = self._half + piece
        whole = without_half(text)
        self._half = text[len(whole) :]
        told: str = scrubbed(whole)
        return told


class GrowingText(WholeCharacters):
    """The pieces of a text of which each time all that there is so far is known."""

    def __init__(self) -> None:
        super().__init__()
        self._known = ""

    def grow_to(self, text: str) -> str:
        """Take the text in and return what can be delivered of what is new."""
        if not text.startswith(self._known):  # a server that takes back what it has said
            return ""
        piece = text[len(self._known) :]
        self._known = text
        return self.take(piece)
