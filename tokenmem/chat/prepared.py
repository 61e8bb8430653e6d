"""What is sent of a window, and what it costs by the model's bill."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenmem.bills import correction, saved_by_instructions
from tokenmem.chat.prompt import no_result_for
from tokenmem.chat.settings import Settings
from tokenmem.errors import InvalidArgument
from tokenmem.formats import load_json
from tokenmem.models import Message, Window

_A_REPLY = Message("assistant", "")


def _stored(message: Message) -> int:
    return message.token_count


class Prepared:
    """What is sent of a window, and what it costs; made once for each window."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._no_result = no_result_for(settings.no_result_tokens)
        self._sent: Sequence[Any] = ()

    def measure(self, window: Window, counter: str) -> int:
        """What it costs by the model's bill, in tokens.

        Raises:
            InvalidArgument: nothing in it can be sent.
        """
        cost = self._cost(window, counter)
        if not self._sent:  # no provider takes an empty prompt
            raise InvalidArgument("the conversation holds nothing that can be sent; pass a message")
        if self._settings.instructions is None and self._settings.tools_json is not None:
            cost -= _saved(self._settings, self._sent[0])
        return cost

    def _cost(self, window: Window, counter: str) -> int:
        api, model = self._settings.api, self._settings.model
        # Counts of another encoding, or of the caller's own counter, are not what this model bills.
        own = counter == self._settings.counter.name or not self._settings.by_bill
        plain = window.plain() if own and api.takes_plain else None
        if plain:  # most conversations: no Message need be made
            self._sent = plain
            replies = sum(1 for message in plain if message["role"] == "assistant")
            return window.token_count + replies * correction(model, _A_REPLY)
        messages = api.prepare(window.messages, self._no_result)
        self._sent = api.render(messages)
        count = _stored if own else self._settings.counter.count
        return sum(count(message) + correction(model, message) for message in messages)

    def sent(self) -> Sequence[Any]:
        """What is sent of the window that was measured last."""
        return self._sent


def _saved(settings: Settings, first: Any) -> int:
    """What tools cost less because the window itself begins with instructions, in tokens."""
    if not isinstance(first, dict) or not isinstance(first.get("content"), str):
        return 0
    if first.get("role") not in ("system", "developer"):
        return 0
    return _saved_by(settings.model, str(settings.tools_json), first["role"], first["content"])


@lru_cache(maxsize=256)
def _saved_by(model: str, tools_json: str, role: str, content: str) -> int:
    return saved_by_instructions(model, load_json(tools_json), Message(role, content))
