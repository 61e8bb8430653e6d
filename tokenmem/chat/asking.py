"""How a turn asks the model: its request, and others in its place while the endpoint refuses it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenmem.chat.apis.interface import Response, Sent, StreamReader
from tokenmem.chat.apis.replies import Answer
from tokenmem.chat.effects import END, Ask, Close, Next, TurnProcedure
from tokenmem.chat.opening import Opening
from tokenmem.chat.recovery import Recovery
from tokenmem.chat.refusals import Refusal, refusal_of, told_by
from tokenmem.chat.requests import TurnRequest
from tokenmem.chat.start import StartedTurn, TurnStarter
from tokenmem.messages.values import JSONObject

# Of a reasoning item's own ciphertext, not of the parameter that asks for it.
_OF_AN_ITEM = re.compile(r"could not be (?:verified|decrypted|parsed)|invalid_encrypted_content")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the model has begun to answer.

    Attributes:
        opening: what was sent.
        response: what the client answered.
        reader: what puts it together where it comes in pieces; None where it came whole.
        answer: the reply that came whole.
        text: the text in the first event of a stream; None where the stream is empty.
        error: why that event could not be read.
    """

    opening: Opening
    response: Response
    reader: StreamReader | None
    answer: Answer = field(default_factory=Answer)
    text: str | None = None
    error: Exception | None = None


class ModelAsker(TurnStarter):
    """Asks the model in the turns of one chat on one store."""

    def ask(self, request: TurnRequest, started: StartedTurn) -> TurnProcedure[Asked]:
        """Ask until the endpoint takes the request, or nothing is left to try.

        Raises:
            What the client raised at the first request, where the endpoint refuses the others as well.
        """
        opening, refused = started.opening, None
        recovery = Recovery(self.settings, opening, started.counter.name)
        while True:
            parameters = self._parameters(request, opening.prompt.sent)
            try:
                asked = yield from self._send(parameters, opening)
            except Exception as error:
                refusal = self.refusal(error, parameters)
                if refusal is None or not self.settings.asks_again:
                    raise
                refused = refused or error
                another = _another(recovery, refusal, error)
                if another is None:
                    break
                opening = another
            else:
                if opening is not started.opening:
                    self.settings.endpoint.took(opening.form.rules, is_strict=recovery.is_strict)
                return asked
        raise refused

    def refusal(self, error: BaseException, parameters: JSONObject) -> Refusal | None:
        """How the endpoint has refused a request; None where it did not, or its error cannot be read."""
        try:
            return refusal_of(error, parameters)
        except Exception as second:
            error.add_note(f"tokenmem could not read the error: {type(second).__name__}")
            return None

    def _parameters(self, request: TurnRequest, sent: Sequence[Sent]) -> JSONObject:
        """The parameters of the request to the model."""
        chosen = self.settings
        head = {**chosen.head, **request.options}
        if chosen.cache_key:
            owner = self.procedures.scope.owner or ""
            told = hashlib.sha256(f"{owner}\0{request.conversation_id}".encode()).hexdigest()
            head.setdefault("prompt_cache_key", told[:32])
        parameters = chosen.api.request(head, sent, request.stream)
        return {name: value for name, value in parameters.items() if name not in chosen.endpoint.refused}

    def _send(self, parameters: JSONObject, opening: Opening) -> TurnProcedure[Asked]:
        """Send a request and take its answer, or the first event of it, in which it may be refused, too."""
        response = yield from self._request(parameters)
        reader = self.settings.api.reader(response)
        if reader is None:
            return Asked(opening, response, None, self.settings.api.read(response))
        try:
            first = yield Next(response)
        except BaseException:
            yield Close(response)
            raise
        if first is END:
            return Asked(opening, response, reader)
        try:
            text = reader.feed(first)
        except Exception as error:
            if self.refusal(error, parameters) is None:
                return Asked(opening, response, reader, error=error)
            yield Close(response)
            raise
        return Asked(opening, response, reader, text=text)

    def _request(self, parameters: JSONObject) -> TurnProcedure[Response]:
        """The model's response; without a parameter that the server does not know, where it says so."""
        while True:
            try:
                return (yield Ask(parameters))
            except Exception as error:
                name = _refused_parameter(error, parameters, self.settings.api.optional)
                if name is None:
                    raise
                self.settings.endpoint.refused.add(name)
                parameters = {key: value for key, value in parameters.items() if key != name}


def _another(recovery: Recovery, refusal: Refusal, error: Exception) -> Opening | None:
    """What to send now; an API of the caller's that cannot make it does not hide the refusal."""
    try:
        return recovery.next(refusal)
    except Exception as second:
        error.add_note(f"tokenmem could not ask again: {type(second).__name__}: {second}")
        return None


def _refused_parameter(
    error: Exception, request: Mapping[str, object], optional: Mapping[str, str]
) -> str | None:
    """The parameter that the server refuses, of those that it need not know."""
    if getattr(error, "status_code", None) not in (400, 422):
        return None
    told = told_by(error)
    if _OF_AN_ITEM.search(told):
        return None
    return next((name for name, word in optional.items() if name in request and word in told), None)
