"""A turn with a model, written once for sync, async and streams.

What is there is read and the prompt made of it, with nothing locked; one statement stores the user's message
and the call, if the conversation is still as it was read; the model is asked with no connection held; one
statement stores its reply and ends the call. However the call ends, it is recorded.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from tokenmem.chat.apis.failures import is_code
from tokenmem.chat.apis.interface import ModelAPI, StreamReader, answer_of
from tokenmem.chat.apis.replies import Answer, main_message, request_id_of, tool_calls_of
from tokenmem.chat.asking import Asked, ModelAsker
from tokenmem.chat.effects import (
    END,
    Close,
    KeepAlive,
    Next,
    Opened,
    Pause,
    StreamLeft,
    TurnProcedure,
)
from tokenmem.chat.ending import outcome_of, told_of, with_large_reply
from tokenmem.chat.recording import running_call
from tokenmem.chat.requests import TurnRequest
from tokenmem.chat.start import StartedTurn, with_opening
from tokenmem.chat.structured import with_parsed
from tokenmem.errors import ConversationNotFound, DatabaseUnavailable, ModelError
from tokenmem.execution.effects import Deliver, Write
from tokenmem.messages.message import Message, as_sent
from tokenmem.models import Reply
from tokenmem.operations import calls, end_call
from tokenmem.operations.append import CounterMismatch, PendingAppend
from tokenmem.operations.calls import FinishedCall
from tokenmem.operations.end_call import EndedCall, Outcome

_RETRIES = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Seconds between tries to store a reply while the database cannot be reached: a failover takes as long."""


@dataclass(slots=True)
class _Clock:
    """Milliseconds since the request, and until the first of the text."""

    started: float = field(default_factory=perf_counter)
    first_token_ms: int | None = None

    def now(self) -> int:
        return int((perf_counter() - self.started) * 1000)


class Turns(ModelAsker):
    """The turns of one chat on one store."""

    def turn(self, request: TurnRequest) -> TurnProcedure[Reply]:
        """Store what was said, ask the model, store its reply."""
        begun = yield from self.start(request)
        if isinstance(begun, StartedTurn):
            reply = yield from self._call_model(request, begun)
        else:
            reply = yield from self._replay(request, begun)
        return with_parsed(reply, request.response_format)

    def _replay(self, request: TurnRequest, finished: FinishedCall) -> TurnProcedure[Reply]:
        """The stored reply, delivered whole."""
        reply = _reply(finished.messages, _text_of(finished.messages), finished, replayed=True)
        yield from _deliver_whole(request, reply)
        return reply

    def _call_model(self, request: TurnRequest, started: StartedTurn) -> TurnProcedure[Reply]:
        """Ask the model and record how that ends."""
        yield KeepAlive(self.procedures.write_of(calls.beat, request.conversation_id, started.call))
        clock = _Clock()
        asked: Asked | None = None
        try:
            asked = yield from self.ask(request, started)
            started = with_opening(started, asked.opening)
            if asked.reader is None:
                answer = asked.answer
            else:
                opened = self._opened(request, started) if request.opens else None
                answer = yield from _read_stream(asked, asked.reader, clock, opened)
            _check_answer(answer, self.settings.api)
            answer = answer.stored_by(self.procedures.unstorable)
        except BaseException as error:
            reader = asked.reader if asked is not None else None
            part = _part_of(reader, error).stored_by(self.procedures.unstorable)
            if asked is not None and reader is not None:
                yield Close(asked.response)
            yield from self._record_failure(request, started, part, clock, error)
            raise
        told = _outcome("ok", answer, clock)
        if answer.failure is not None:
            told = replace(told, status="error", error=described(answer.failure))
        outcome = outcome_of(self.settings, started, told)
        try:
            reply = yield from self._end(request, started, answer, outcome)
        except (DatabaseUnavailable, ConversationNotFound):
            raise
        except Exception as error:  # a counter of the caller's, text that the database does not take
            yield from self._record_failure(request, started, replace(answer, messages=()), clock, error)
            raise
        if asked.reader is None:
            yield from _deliver_whole(request, reply)  # stored before: who leaves now has had all of it
        return reply

    @staticmethod
    def _opened(request: TurnRequest, started: StartedTurn) -> Opened:
        return Opened("", running_call(request.conversation_id, started.call, started.record))

    def _record_failure(
        self,
        request: TurnRequest,
        started: StartedTurn,
        part: Answer,
        clock: _Clock,
        error: BaseException,
    ) -> TurnProcedure[None]:
        """Store what had arrived, and that the call failed or was cancelled; the error itself goes on."""
        status = "error" if isinstance(error, Exception) else "cancelled"
        request_id = part.request_id or request_id_of(error)
        refusal = self.refusal(error, self._parameters(request, started.opening.prompt.sent))
        outcome = _outcome(status, replace(part, request_id=request_id), clock, described(error))
        if refusal is not None:
            outcome = replace(outcome, status="refused")
        outcome = outcome_of(self.settings, started, outcome, refusal)
        if refusal is not None and (told := told_of(refusal, outcome.changes)) is not None:
            error.add_note(f"conversation {request.conversation_id!r}: {told}")
        try:
            try:
                yield from self._end(request, started, part, outcome)
            except (DatabaseUnavailable, ConversationNotFound):
                raise
            except Exception:  # a counter of the caller's: the call ends without its part
                if not part.messages:
                    raise
                yield from self._end(request, started, replace(part, messages=()), outcome)
        except Exception as second:
            error.add_note(f"tokenmem could not record the call: {type(second).__name__}: {second}")

    def _end(
        self, request: TurnRequest, started: StartedTurn, answer: Answer, outcome: Outcome
    ) -> TurnProcedure[Reply]:
        """Store the reply, again while the database is away: it is not to be lost.

        Nor is it to an impatient user: a first Ctrl-C waits until it is stored.
        """
        interrupted: BaseException | None = None
        for seconds in (*_RETRIES, None):
            try:
                try:
                    ended, counts = yield from self._store_end(request, started, answer.messages, outcome)
                    break
                except DatabaseUnavailable:
                    if seconds is None or interrupted is not None:
                        raise
                    yield Pause(seconds)
            except (KeyboardInterrupt, CancelledError, StreamLeft) as error:
                if interrupted is not None or seconds is None:
                    raise
                interrupted = error  # one more try, at once
            except end_call.AlreadyEnded:
                return (yield from self._ended_before(request, started))
        yield KeepAlive(None)
        if interrupted is not None:
            raise interrupted
        stored = [
            replace(message, position=position, token_count=tokens, created_at=ended.moment)
            for position, (message, tokens) in enumerate(
                zip(answer.messages, counts, strict=True), ended.first_position
            )
        ]
        return _reply(stored, answer.text, FinishedCall(ended.call, started.window, stored))

    def _store_end(
        self, request: TurnRequest, started: StartedTurn, messages: Sequence[Message], outcome: Outcome
    ) -> TurnProcedure[tuple[EndedCall, Sequence[int]]]:
        """The statement that stores the reply and ends the call, and what each of its messages costs."""
        counted: Sequence[int] = ()
        part_of = request.key if outcome.status != "ok" else None

        def store(counts: list[int], name: str) -> Write[EndedCall | CounterMismatch]:
            nonlocal counted
            counted = counts
            owner = self.procedures.scope.owner
            told = with_large_reply(self.settings, started, outcome, counts)
            pending = PendingAppend(
                request.conversation_id, messages, counts, name, owner=owner, must_exist=True
            )
            return self.procedures.write_of(end_call.end, started.call, pending, told, part_of)

        ended = yield from self.procedures.count_and_write(
            messages, started.counter, store, one_statement=True, is_repeatable=True
        )
        return ended, counted

    def _ended_before(self, request: TurnRequest, started: StartedTurn) -> TurnProcedure[Reply]:
        """The reply that an earlier try has stored, or, had we been taken for dead, the other one's."""
        found = yield from self.procedures.read(calls.finished, request.conversation_id, started.call.number)
        if found is None and request.key is not None:
            yield from self._wait(request)
            found = yield from self.procedures.read(
                calls.finished_of_key, request.conversation_id, request.key
            )
        if found is None:
            raise ModelError("the call was taken for dead, and its reply is not stored; ask again")
        return (yield from self._replay(replace(request, stream=False), found))


def _deliver_whole(request: TurnRequest, reply: Reply) -> TurnProcedure[None]:
    """Deliver a reply that is stored, to who reads a stream."""
    if request.stream:
        if request.opens:
            yield Opened("", reply.call)
        if reply.text:
            yield Deliver(reply.text)


def _read_stream(
    asked: Asked, reader: StreamReader, clock: _Clock, opened: Opened | None
) -> TurnProcedure[Answer]:
    """Deliver a stream's text as it comes, and put its pieces together.

    Args:
        asked: the stream, of which the first event has been read.
        reader: reads its events.
        clock: since the request.
        opened: what is delivered when the first event has come, or None.

    Raises:
        ModelError: it ended before the model did.
    """
    delivered: list[str] = []
    if asked.error is not None:
        raise asked.error
    text = asked.text
    while text is not None:
        if opened is not None:
            yield opened
            opened = None
        if text:
            clock.first_token_ms = clock.now() if clock.first_token_ms is None else clock.first_token_ms
            delivered.append(text)
            yield Deliver(text)
        event = yield Next(asked.response)
        text = reader.feed(event) if event is not END else None
    answer = answer_of(reader)
    rest = _behind("".join(delivered), answer)
    if rest:  # what could not be told before the end: half of a character, a text that came otherwise
        clock.first_token_ms = clock.now() if clock.first_token_ms is None else clock.first_token_ms
        yield Deliver(rest)
    return answer


def _behind(delivered: str, answer: object) -> str:
    """The text of a reply behind what has been delivered of it."""
    text = answer.text if isinstance(answer, Answer) else ""
    return text[len(delivered) :] if text.startswith(delivered) else ""


def _part_of(reader: StreamReader | None, error: BaseException) -> Answer:
    """What has arrived; nothing where a reader of the caller's own fails: the error itself goes on."""
    if reader is None:
        return _arrived_whole(error)
    try:
        return reader.part()
    except Exception as second:
        error.add_note(f"tokenmem could not store what had arrived: {type(second).__name__}: {second}")
        return Answer()


def _arrived_whole(error: BaseException) -> Answer:
    """What had arrived of a whole answer that says that it has failed; the error goes on without it."""
    if not isinstance(error, ModelError):
        return Answer()
    arrived, error.arrived = error.arrived, None
    return arrived if isinstance(arrived, Answer) else Answer()


def _check_answer(answer: object, api: ModelAPI) -> None:
    """Check what an API of the caller's has made of a response.

    Raises:
        ModelError: it is no Answer.
    """
    if not isinstance(answer, Answer):
        raise ModelError(
            f"{type(api).__name__} read a reply as a {type(answer).__name__}; its read, and the answer of "
            f"its reader, return a tokenmem.chat.Answer"
        )


def _outcome(status: str, answer: Answer, clock: _Clock, error: str | None = None) -> Outcome:
    return Outcome(
        status,
        error,
        answer.finish_reason,
        answer.request_id,
        clock.now(),
        clock.first_token_ms,
        **answer.usage,
    )


def _reply(
    messages: Sequence[Message], text: str, answered: FinishedCall, *, replayed: bool = False
) -> Reply:
    message = main_message(messages) if messages else Message.assistant("")
    calls_asked = tool_calls_of(messages)
    return Reply(text, message, answered.window, answered.call, tuple(messages), calls_asked, replayed)


def _text_of(messages: Sequence[Message]) -> str:
    told = (as_sent(message) for message in messages if message.kind in ("message", "tool_call"))
    return "".join(message.content or "" for message in told)


def described(error: BaseException) -> str:
    """An error in a few words: its name, and the provider's status and code, but never its text.

    A provider's text may repeat what the prompt said.
    """
    told = [type(error).__name__]
    for name in ("status_code", "code"):
        value = getattr(error, name, None)
        if is_code(value):
            told.append(str(value))
    return " ".join(told)
