"""A turn with a model, step by step, written once for sync and async and for streams.

The user's message is stored and the window loaded in one transaction; the model is asked with no connection
held; its reply and the record of the call are stored in another. However the call ends, it is recorded.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any

from tokenmem.arguments import checked_name, optional_name
from tokenmem.chat.apis.interface import StreamReader
from tokenmem.chat.apis.replies import Answer, main_message, request_id_of, tool_calls_of
from tokenmem.chat.effects import END, Ask, Close, KeepAlive, Next, Pause
from tokenmem.chat.pricing import prompt_of
from tokenmem.chat.settings import Settings, option_tokens
from tokenmem.counting.counters import DEFAULT_COUNTER, TokenCounter
from tokenmem.errors import ConversationNotFound, DatabaseUnavailable, ModelError, WindowTooSmall
from tokenmem.execution.effects import Deliver, Procedure, Write, with_retries
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import digest
from tokenmem.models import Reply, Window
from tokenmem.operations import begin_call, calls, end_call
from tokenmem.operations.append import PendingAppend
from tokenmem.operations.begin_call import Opening, Running, StartedCall
from tokenmem.operations.calls import FinishedCall
from tokenmem.operations.end_call import Ended, Outcome
from tokenmem.procedures import Procedures

_RETRIES = (0.1, 0.5, 2.0, 5.0, 10.0)
"""Seconds between tries to store a reply while the database cannot be reached: a failover takes as long."""

_A_CODE = re.compile(r"[\w.-]{1,60}", re.ASCII)
"""What a provider's code looks like; a sentence may repeat the prompt."""

Check = Callable[[Window, int], None]


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What is asked for: the caller's arguments of one turn, checked.

    Attributes:
        conversation_id: the conversation.
        messages: what is stored first; None asks with what is there.
        key: the idempotency key, or None.
        stream: whether the text is delivered as it comes.
        options: further parameters of the request.
        check: raises where the window is not what it should be; see Opening.
        given: the messages as the caller gave them, where they are cut: a repeated request has the same.
    """

    conversation_id: str
    messages: Sequence[Message] | None = None
    key: str | None = None
    stream: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    check: Check | None = None
    given: Sequence[Message] | None = None


@dataclass(slots=True)
class _Clock:
    """Milliseconds since the request, and until the first of the text."""

    started: float = field(default_factory=perf_counter)
    first_token_ms: int | None = None

    def now(self) -> int:
        return int((perf_counter() - self.started) * 1000)


class Turns:
    """The turns of one chat on one store.

    Args:
        procedures: the store's.
        settings: the chat's.
    """

    def __init__(self, procedures: Procedures, settings: Settings) -> None:
        self.procedures = procedures
        self.settings = settings

    @property
    def counter(self) -> TokenCounter:
        """What a new conversation is counted by: the model's encoding, unless the store's was chosen."""
        chosen = self.procedures.counter
        return chosen if chosen.name != DEFAULT_COUNTER else self.settings.counter

    def turn(self, asked: TurnRequest) -> Procedure[Reply]:
        """Store what was said, ask the model, store its reply."""
        checked_name(asked.conversation_id, "conversation_id")
        optional_name(asked.key, "idempotency_key")
        self.settings.check_options(asked.options)
        begun = yield from self._begin(asked)
        if isinstance(begun, StartedCall):
            return (yield from self._call(asked, begun))
        return (yield from self._replay(asked, begun))

    def _replay(self, asked: TurnRequest, answered: FinishedCall) -> Procedure[Reply]:
        """The stored reply, delivered whole."""
        reply = _reply(answered.messages, _text_of(answered.messages), answered, replayed=True)
        if asked.stream and reply.text:
            yield Deliver(reply.text)
        return reply

    def _begin(self, asked: TurnRequest) -> Procedure[StartedCall | FinishedCall]:
        """The first transaction; waits where another process is answering the same request."""
        while True:
            try:
                begun = yield from self.open(asked)
            except WindowTooSmall as error:
                raise self._too_small(error) from None
            state: Any = (yield from self._wait(asked)) if isinstance(begun, Running) else begun
            if isinstance(state, (StartedCall, FinishedCall)):
                return state

    def open(self, asked: TurnRequest) -> Procedure[Any]:
        """One try of the first transaction."""
        messages = asked.messages
        if messages is None:
            opening = self._opening(asked, ())
            return (yield from with_retries(self.procedures.write(begin_call.begin, None, opening)))

        def store(counts: list[int], name: str) -> Write:
            told = digest(asked.given or messages) if asked.key else ""
            pending = self._draft(asked, messages, counts, name, key=asked.key, digest=told)
            return self.procedures.write(begin_call.begin, pending, self._opening(asked, counts))

        return (yield from self.procedures.count_and_write(messages, self.counter, store))

    def _draft(
        self, asked: TurnRequest, messages: Sequence[Message], counts: Sequence[int], name: str, **more: Any
    ) -> PendingAppend:
        owner = self.procedures.scope.owner
        return PendingAppend(asked.conversation_id, messages, counts, name, owner=owner, **more)

    def _opening(self, asked: TurnRequest, new: Sequence[int]) -> Opening:
        chosen = self.settings
        options = option_tokens(asked.options, chosen.counter)
        return Opening(
            asked.conversation_id,
            chosen.model,
            max(chosen.window_limit - options, 0) + (sum(new) if chosen.new_beside_limit else 0),
            chosen.start_on,
            chosen.stride,
            prompt_of=partial(prompt_of, chosen),
            extra=chosen.extra + options,
            check=asked.check,
            instructions=chosen.instructions,
            tools=chosen.tools_json,
            digest=chosen.digest,
            key=asked.key,
        )

    def _wait(self, asked: TurnRequest) -> Procedure[Any]:
        """How the same request stands that another process was answering, when it is no longer running."""
        seconds = 0.02
        while True:
            state = yield self.procedures.read(begin_call.of_key, asked.conversation_id, str(asked.key))
            if not isinstance(state, Running):
                return state
            yield Pause(seconds)
            seconds = min(seconds * 1.5, 0.5)

    def _too_small(self, error: WindowTooSmall) -> WindowTooSmall:
        """The same in terms of the chat's own limit; another one would not help where nothing can be sent."""
        if error.token_count <= error.token_limit:
            return error
        taken = self.settings.token_limit - self.settings.window_limit
        return WindowTooSmall(
            error.conversation_id,
            position=error.position,
            token_count=error.token_count + taken,
            token_limit=self.settings.token_limit,
            detail=f"message {error.position}, with all that must go with it, costs {error.token_count} "
            f"tokens; of token_limit={self.settings.token_limit}, {taken} are for instructions, tools and "
            f"the reply; nothing was stored: raise token_limit",
        )

    def _call(self, asked: TurnRequest, begun: StartedCall) -> Procedure[Reply]:
        """Ask the model and record how that ends."""
        yield KeepAlive(self.procedures.write(calls.beat, asked.conversation_id, begun.number))
        clock = _Clock()
        reader: StreamReader | None = None
        response: Any = None
        try:
            response = yield from self._ask(self._request(asked, begun.prompt.sent))
            reader = self.settings.api.reader(response)
            if reader is None:
                answer = self.settings.api.read(response)
            else:
                answer = yield from _read_stream(response, reader, clock)
        except BaseException as error:
            part = reader.part() if reader is not None else Answer()
            if reader is not None:
                yield Close(response)
            yield from self._record_failure(asked, begun, part, clock, error)
            raise
        outcome = _outcome("ok", answer, clock)
        try:
            reply = yield from self._end(asked, begun, answer, outcome)
        except (DatabaseUnavailable, ConversationNotFound):
            raise
        except Exception as error:  # a counter of the caller's, text that the database does not take
            yield from self._record_failure(asked, begun, replace(answer, messages=()), clock, error)
            raise
        if asked.stream and reader is None and reply.text:
            yield Deliver(reply.text)  # stored before: who leaves now has had all of it
        return reply

    def _request(self, asked: TurnRequest, sent: Sequence[Any]) -> dict[str, Any]:
        chosen = self.settings
        head = {**chosen.head, **asked.options}
        if chosen.cache_key:
            owner = self.procedures.scope.owner or ""
            told = hashlib.sha256(f"{owner}\0{asked.conversation_id}".encode()).hexdigest()
            head.setdefault("prompt_cache_key", told[:32])
        request = chosen.api.request(head, sent, asked.stream)
        return {name: value for name, value in request.items() if name not in chosen.refused}

    def _ask(self, request: dict[str, Any]) -> Procedure[Any]:
        """The model's response; without a parameter that the server does not know, where it says so."""
        while True:
            try:
                return (yield Ask(request))
            except Exception as error:
                name = _refused(error, request, self.settings.api.optional)
                if name is None:
                    raise
                self.settings.refused.add(name)
                request = {key: value for key, value in request.items() if key != name}

    def _record_failure(
        self, asked: TurnRequest, begun: StartedCall, part: Answer, clock: _Clock, error: BaseException
    ) -> Procedure[None]:
        """Store what had arrived, and that the call failed or was cancelled; the error itself goes on."""
        status = "error" if isinstance(error, Exception) else "cancelled"
        request_id = part.request_id or request_id_of(error)
        outcome = _outcome(status, replace(part, request_id=request_id), clock, described(error))
        try:
            yield from self._end(asked, begun, part, outcome)
        except Exception as second:
            error.add_note(f"tokenmem could not record the call: {type(second).__name__}: {second}")

    def _end(
        self, asked: TurnRequest, begun: StartedCall, answer: Answer, outcome: Outcome
    ) -> Procedure[Reply]:
        """The second transaction, tried again while the database is away: the reply is not to be lost.

        Nor is it to an impatient user: a first Ctrl-C waits until it is stored.
        """
        interrupted: BaseException | None = None
        for seconds in (*_RETRIES, None):
            try:
                ended, counts = yield from self._store_end(asked, begun, answer.messages, outcome)
            except DatabaseUnavailable:
                if seconds is None or interrupted is not None:
                    raise
                yield Pause(seconds)
            except KeyboardInterrupt as error:
                if interrupted is not None or seconds is None:
                    raise
                interrupted = error
            except end_call.AlreadyEnded:
                return (yield from self._ended_before(asked, begun))
            else:
                break
        yield KeepAlive(None)
        if interrupted is not None:
            raise interrupted
        first = ended.appended.first_position if ended.appended is not None else 0
        stored = [
            replace(message, position=position, token_count=count)
            for position, (message, count) in enumerate(zip(answer.messages, counts, strict=True), first)
        ]
        return _reply(stored, answer.text, FinishedCall(ended.call, begun.window, stored))

    def _store_end(
        self, asked: TurnRequest, begun: StartedCall, messages: Sequence[Message], outcome: Outcome
    ) -> Procedure[tuple[Ended, Sequence[int]]]:
        place = (asked.conversation_id, begun.number)
        if not messages:
            ended: Ended = yield from with_retries(self._end_write(place, None, outcome))
            return ended, ()
        counted: Sequence[int] = ()

        def store(counts: list[int], name: str) -> Write:
            nonlocal counted
            counted = counts
            pending = self._draft(asked, messages, counts, name, must_exist=True)
            return self._end_write(place, pending, outcome)

        ended = yield from self.procedures.count_and_write(messages, self.counter, store)
        return ended, counted

    def _end_write(self, place: tuple[str, int], pending: PendingAppend | None, outcome: Outcome) -> Write:
        write = self.procedures.write(end_call.end, *place, pending, outcome)
        return replace(write, one_statement=end_call.is_one_statement(pending))

    def _ended_before(self, asked: TurnRequest, begun: StartedCall) -> Procedure[Reply]:
        """The reply that an earlier try has stored, or, had we been taken for dead, the other one's."""
        found = yield self.procedures.read(end_call.ended, asked.conversation_id, begun.number)
        if found is None and asked.key is not None:
            found = yield from self._wait(asked)
        if not isinstance(found, FinishedCall):
            raise ModelError("the call was taken for dead, and its reply is not stored; ask again")
        return (yield from self._replay(replace(asked, stream=False), found))


def _read_stream(response: Any, reader: StreamReader, clock: _Clock) -> Procedure[Answer]:
    """Deliver a stream's text as it comes, and put its pieces together.

    Raises:
        ModelError: it ended before the model did.
    """
    while (event := (yield Next(response))) is not END:
        text = reader.feed(event)
        if text:
            clock.first_token_ms = clock.now() if clock.first_token_ms is None else clock.first_token_ms
            yield Deliver(text)
    if not reader.complete:
        raise ModelError(
            "the stream ended before the reply was complete; what had arrived is stored: ask again"
        )
    return reader.answer()


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
    return "".join(message.content or "" for message in messages if message.kind in ("message", "tool_call"))


def described(error: BaseException) -> str:
    """An error in a few words: its name, and the provider's status and code, but never its text.

    A provider's text may repeat what the prompt said.
    """
    told = [type(error).__name__]
    for name in ("status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, (int, str)) and _A_CODE.fullmatch(str(value)):
            told.append(str(value))
    return " ".join(told)


def _refused(error: Exception, request: Mapping[str, Any], optional: Mapping[str, str]) -> str | None:
    """The parameter that the server refuses, of those that it need not know."""
    if getattr(error, "status_code", None) not in (400, 422):
        return None
    told = f"{error} {getattr(error, 'body', '')}".lower()
    return next((name for name, word in optional.items() if name in request and word in told), None)
