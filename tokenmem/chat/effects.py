"""What a turn waits for besides the database: the model, its stream, functions, and time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tokenmem.chat.apis.interface import Response
from tokenmem.execution.effects import Deliver, Effect, EffectAnswer, Work, Write
from tokenmem.messages.values import JSONObject
from tokenmem.models import LLMCall

END = object()
"""What a stream answers at its end."""


class StreamLeft(BaseException):
    """Nobody reads the stream any more: what a turn is told in place of GeneratorExit.

    That would close the turn's inner generators, which then could not record the call.
    """


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request to the model; the answer is its response, or a stream of events."""

    request: JSONObject


@dataclass(frozen=True, slots=True)
class Opened(Deliver):
    """The model has begun to answer; delivered once, before any text, where that is asked for.

    Attributes:
        call: the call's record, as it is by now.
    """

    call: LLMCall


def text_of(delivery: Deliver) -> str:
    """What who reads a stream gets of a delivery."""
    return delivery.text


def whole(delivery: Deliver) -> Deliver:
    """What a turn that is opened gets of a delivery."""
    return delivery


@dataclass(frozen=True, slots=True)
class Next:
    """The next event of a stream; END behind the last."""

    stream: Response


@dataclass(frozen=True, slots=True)
class Close:
    """Close a stream: nobody reads it to its end."""

    stream: Response


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait, in seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Run a write every few seconds from now on, until the turn ends or `write` is None."""

    write: Write[None] | None


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of a function: `arguments` by name, or one text."""

    function: Callable[..., object]
    arguments: Mapping[str, object] | str

    def call(self) -> object:
        """Call it."""
        if isinstance(self.arguments, str):
            return self.function(self.arguments)
        return self.function(**self.arguments)


@dataclass(frozen=True, slots=True)
class Invoke:
    """Call functions; the answer is for each what it returned, or the Exception that it raised."""

    invocations: Sequence[Invocation]


ModelEffect = Ask | Next | Close | Pause | KeepAlive | Invoke
TurnWork = Work | ModelEffect
"""What a chat's runner does."""

T = TypeVar("T")
TurnProcedure = Generator[Effect | ModelEffect, EffectAnswer, T]
"""A procedure that waits for a model, too."""
