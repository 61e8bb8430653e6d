"""Options of a request that nobody takes are refused before anything is counted or stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from functools import cached_property

from tokenmem.chat.apis.interface import ModelAPI
from tokenmem.chat.structured import NAME, NAME_OF_RESPONSES
from tokenmem.errors import InvalidArgument

OF_CHAT = (
    *("model", "token_limit", "instructions", "tools", "api", "reserve", "stride", "start_on"),
    *("oversized_results", "prompt_cache_key"),
)
"""The arguments of Chat itself that may be meant by an option's name."""

OF_A_TURN = ("idempotency_key", "expected_position", "call_metadata", "functions", "max_calls", "on_error")
"""The arguments of `send` and `run` that may be meant."""

_SHOWN = 12
"""How many names an error lists at most."""


class OptionCheck:
    """Checks the options of a chat, and of its turns, against what its API takes.

    Args:
        api: the chat's API.
        client: the chat's client.
    """

    def __init__(self, api: ModelAPI, client: object) -> None:
        self._api = api
        self._client = client

    @cached_property
    def _accepted(self) -> Collection[str] | None:
        """Looked for when the first option is given: it costs what a turn on SQLite does."""
        return self._api.accepted_options(self._client)

    def __call__(self, options: Mapping[str, object]) -> None:
        """Check the options of a chat or of one turn.

        Raises:
            InvalidArgument: one of them is the chat's to set, or nobody takes it.
        """
        for name in options:
            if name in self._api.reserved:
                raise InvalidArgument(f"{name!r} is no option of a request here; the chat sets it")
            if self._accepted is not None and name not in self._accepted:
                raise InvalidArgument(f"{name!r} is no option of a request here; {self._remedy(name)}")

    def _remedy(self, name: str) -> str:
        if name in OF_CHAT:
            return f"pass {name} to Chat(…)"
        if name in OF_A_TURN:
            return f"pass {name} to the method that starts a turn"
        if name in (NAME, NAME_OF_RESPONSES) and "text" in (self._accepted or ()):
            return 'pass a class, or text={"format": {…}} as the API takes it'
        accepted = {each for each in self._accepted or () if each not in self._api.reserved}
        meant = get_close_matches(name, [*accepted, *OF_CHAT, *OF_A_TURN], n=1)
        if meant:
            return f"did you mean {meant[0]!r}?"
        if "extra_body" in accepted:
            return "what only this server takes goes into extra_body={…}"
        shown = sorted(accepted)
        listed = ", ".join(shown[:_SHOWN]) + (", …" if len(shown) > _SHOWN else "")
        return f"use one of {listed}" if shown else "it takes none"
