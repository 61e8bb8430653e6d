"""The scripted server: its address, its script, and its life."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Self

from tokenmem.testing.handler import Handler
from tokenmem.testing.listener import Listener
from tokenmem.testing.model import ScriptedModel
from tokenmem.testing.profiles import Profile, profile_named
from tokenmem.testing.replies import Request, Script
from tokenmem.testing.usage import Meter


class ModelServer:
    """A server on loopback that speaks OpenAI's protocol and answers from a script.

    Each server has a free port of its own, and its threads are daemons. It serves clients of any process.

    Args:
        script: one reply for all requests; replies that are used in order of arrival; or a function that
            takes the Request and returns the reply, and is called in the server's threads.
        strict: whether a prompt that breaks the provider's rules is answered with status 400, as the
            provider does. It uses up no reply, and is among the requests and the problems either way.
        cache: whether `usage` tells how many tokens a prompt cache would have had.
        count: counts a prompt in tokens, in the server's threads; None for tokenmem's own counts.
        allow_keys: as for `problems_in`.
        allow_items: as for `problems_in`.
        profile: what kind of server it is: one of PROFILES, or its name; None for OpenAI's. What only such a
            server refuses is not among the problems.

    Attributes:
        problems: every breach of the provider's rules that was received, every request for which the
            script had no reply, and every error of the script's function.
    """

    def __init__(
        self,
        script: Script,
        *,
        strict: bool = True,
        cache: bool = False,
        count: Callable[[Request], int] | None = None,
        allow_keys: Collection[str] = (),
        allow_items: Collection[str] = (),
        profile: Profile | str | None = None,
    ) -> None:
        meter = Meter(count, cache=cache)
        self._model = ScriptedModel(
            script,
            strict=strict,
            meter=meter,
            allow_keys=allow_keys,
            allow_items=allow_items,
            profile=profile_named(profile),
        )
        self.problems = self._model.problems
        self._listener: Listener | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """Where clients find it; still known when it is closed. Raises RuntimeError before it is started."""
        if not self._port:
            raise RuntimeError("the server has no address yet: use it in a with statement, or call start()")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[Request]:
        """What was asked so far with a body that is a JSON object, in order of arrival."""
        return self._model.requests

    @property
    def open_streams(self) -> int:
        """How many responses are being written now."""
        return self._model.open_streams

    def reply_with(self, script: Script) -> None:
        """Answer from this script from now on."""
        self._model.reply_with(script)

    def start(self) -> Self:
        """Listen on a free port. Raises RuntimeError where it does already."""
        if self._listener is not None:
            raise RuntimeError("the server is running already")
        self._listener = Listener(self._model, Handler)
        self._port = self._listener.server_port
        self._listener.run()
        return self

    def close(self) -> None:
        """Stop, at once: whatever is being answered is cut. Closing twice is fine."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()
