"""How a turn begins: what is there is read, the prompt made of it, the message and the call stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokenmem.chat.effects import Pause, TurnProcedure
from tokenmem.chat.opening import Candidates, NothingFits, Opening, open_with, stored_at
from tokenmem.chat.pricing import counts_apply
from tokenmem.chat.recording import pending_call
from tokenmem.chat.refusals import NOTHING_REFUSED, KnownRefusals, known_refusals
from tokenmem.chat.requests import TurnRequest
from tokenmem.chat.settings import Settings
from tokenmem.counting.counters import DEFAULT_COUNTER, TokenCounter
from tokenmem.errors import IdempotencyConflict, PositionConflict, WindowTooSmall
from tokenmem.execution.effects import Compute, Write, characters_of, count_each, perform, with_retries
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import digest
from tokenmem.models import Appended, Window
from tokenmem.operations import append, calls, insert, snapshot, start_call
from tokenmem.operations.append import CounterMismatch, PendingAppend
from tokenmem.operations.calls import FinishedCall, StartedCall
from tokenmem.operations.rows import no_conversation
from tokenmem.operations.snapshot import KnownKey, Snapshot
from tokenmem.operations.start_call import PendingCall
from tokenmem.procedures import Procedures

CONFLICTS = 3
"""How often a turn is made anew because the conversation has changed meanwhile, before it appends first."""

_CHARACTERS_A_TOKEN = 4
"""Roughly: to tell whether the texts of a window are long."""


@dataclass(frozen=True, slots=True)
class StartedTurn:
    """A turn whose call has begun.

    Attributes:
        call: the call.
        opening: what is sent.
        window: the same as a window of stored messages.
        counter: what the conversation is counted by.
        record: what is on record of the call.
        is_mended: whether something else was sent than what the call began with.
    """

    call: StartedCall
    opening: Opening
    window: Window
    counter: TokenCounter
    record: PendingCall
    is_mended: bool = False


def with_opening(started: StartedTurn, opening: Opening) -> StartedTurn:
    """The turn with what was sent in the end."""
    if opening is started.opening:
        return started
    window = stored_at(opening.window, started.call.moment)
    return replace(started, opening=opening, window=window, is_mended=True)


class TurnStarter:
    """Begins the turns of one chat on one store.

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

    def start(self, request: TurnRequest) -> TurnProcedure[StartedTurn | FinishedCall]:
        """Store the messages and the call; or find the reply that the same request has got before.

        The message is stored only if nothing has changed since the prompt was made of what is there. Where
        that fails again and again, it is appended first, and the prompt made of what ends with it.

        Raises:
            PositionConflict: the conversation is not where the caller expects it, or where the key left it.
            IdempotencyConflict: the key has stored other messages.
            WindowTooSmall: the prompt does not fit; nothing is stored.
        """
        conflicts = 0
        while True:
            found = yield from self._look(request)
            if found is not None and found.key is not None:
                known = yield from self._of_key(request, found, found.key)
                if known is not None:
                    return known
                if found.key.running:
                    yield from self._wait(request)
                    continue
            else:
                self._check(request, found)
                if conflicts == CONFLICTS and request.messages:
                    return (yield from self._append_first(request, found))
            started = yield from self._begin(request, found, anyway=conflicts >= CONFLICTS)
            if started is not None:
                return started
            conflicts += 1

    def _look(
        self,
        request: TurnRequest,
        *,
        stored: Appended | None = None,
        new: Sequence[Message] | None = None,
        token_limit: int | None = None,
    ) -> TurnProcedure[Snapshot | None]:
        """The conversation as it is."""
        return self.procedures.read(
            snapshot.take,
            request.conversation_id,
            self.settings.window_limit if token_limit is None else token_limit,
            request.key,
            stored,
            request.messages if new is None else new,
            request.check is not None,
        )

    def _check(self, request: TurnRequest, found: Snapshot | None) -> None:
        """Whether the turn may begin: where the conversation is, and whether there is one."""
        if found is None and (not request.messages or (request.expected_position and self._is_owned)):
            raise no_conversation(request.conversation_id, self.procedures.scope)
        if found is None and request.check is not None:
            request.check((), 0)
        expected, last_position = request.expected_position, found.last_position if found is not None else 0
        if expected is not None and expected != last_position:
            raise PositionConflict(
                request.conversation_id, expected_position=expected, last_position=last_position
            )

    @property
    def _is_owned(self) -> bool:
        """Whether a conversation that is not found may be another owner's."""
        return self.procedures.scope.owner is not None

    def _of_key(
        self, request: TurnRequest, found: Snapshot, key: KnownKey
    ) -> TurnProcedure[FinishedCall | None]:
        """The reply that the key's request has got; None where it is to be made, or is being made.

        Raises:
            IdempotencyConflict: the key has stored other messages.
            PositionConflict: the reply is gone, or the message; or something else stands behind it.
        """
        given = request.given or request.messages
        if not request.resumes and (digest(given) if given else "") != key.digest:
            stored = f"stored other messages at positions {key.first_position} to {key.last_position}"
            used = stored if key.first_position <= key.last_position else "been used without a message"
            raise IdempotencyConflict(
                f"conversation {request.conversation_id!r}: idempotency key {request.key!r} has {used}; "
                f"use a new key for a new request"
            )
        if key.running:
            return None
        reply = None
        if key.is_answered and key.call_number is not None:
            reply = yield from self.procedures.read(calls.finished, request.conversation_id, key.call_number)
        if reply is None and (key.is_answered or key.moved_on or not key.complete):
            why = "has no reply, and something else stands behind its message"
            if key.is_answered or not key.complete:
                why = "has lost its reply" if key.is_answered else "has lost its message"
            raise PositionConflict(
                request.conversation_id,
                expected_position=key.last_position,
                last_position=found.last_position,
                detail=f"the request with the key {request.key!r} {why}; "
                f"read what is there, and send a new one",
            )
        return reply

    def _wait(self, request: TurnRequest) -> TurnProcedure[None]:
        """Wait until the same request, which another process is answering, is no longer running."""
        seconds = 0.02
        while (yield from self.procedures.read(calls.is_running, request.conversation_id, str(request.key))):
            yield Pause(seconds)
            seconds = min(seconds * 1.5, 0.5)

    def _begin(
        self, request: TurnRequest, found: Snapshot | None, *, anyway: bool
    ) -> TurnProcedure[StartedTurn | None]:
        """One try; None where the conversation has changed since it was read.

        Args:
            request: the request.
            found: the conversation as it was read.
            anyway: whether it does not count what has changed.
        """
        repeats = found is not None and found.key is not None
        counter = self._counter_of(found)
        new = () if repeats else request.messages
        opening = yield from self.open(request, found, new, counter)
        asked = replace(request, expected_position=None) if repeats else request
        pending = self._pending(asked, new, opening.token_counts, counter)
        call = pending_call(self.settings, request, opening, found, new, anyway=anyway)
        started = yield from self._write(pending, call, is_new=found is None)
        if started is None:
            return None
        window = stored_at(opening.window, started.moment)
        return StartedTurn(started, opening, window, counter, call)

    def _append_first(
        self, request: TurnRequest, found: Snapshot | None
    ) -> TurnProcedure[StartedTurn | FinishedCall]:
        """Append the messages, whatever comes before them, and begin with the window that ends there."""
        counter = self._counter_of(found)
        yield from self.open(request, found, request.messages, counter)  # whether it would be refused
        if request.check is None:  # results cannot stand without their calls
            yield from self._check_alone(request, counter)

        def store(counts: list[int], name: str) -> Write[Appended | CounterMismatch]:
            stored_by = self.procedures.counter_of(name, counter)
            pending = self._pending(request, request.messages, counts, stored_by)
            return self.procedures.write_of(append.append, pending)

        appended = yield from self.procedures.count_and_write(
            request.messages,
            counter,
            store,
            one_statement=len(request.messages) <= insert.MANY,
            is_repeatable=request.key is not None,
        )
        if request.key is not None:
            return (yield from self._begin_what_is_stored(replace(request, expected_position=None)))
        asked = replace(request, messages=(), check=None, expected_position=None)
        found = yield from self._look(asked, stored=appended)
        if found is None:
            raise no_conversation(request.conversation_id, self.procedures.scope)
        counter = self._counter_of(found)
        opening = yield from self.open(asked, found, (), counter)
        pending = self._pending(asked, (), (), counter)
        call = pending_call(self.settings, request, opening, found, request.messages, anyway=True)
        started = yield from self._write(pending, call, is_new=False)
        if started is None:
            raise no_conversation(request.conversation_id, self.procedures.scope)
        return StartedTurn(started, opening, opening.window, counter, call)

    def _begin_what_is_stored(self, request: TurnRequest) -> TurnProcedure[StartedTurn | FinishedCall]:
        """Begin for what this request has just appended with its key, whatever stands behind it by now."""
        found = yield from self._look(request)
        if found is not None and found.key is not None and found.key.call_number is None:
            started = yield from self._begin(request, found, anyway=True)
            if started is not None:
                return started
        return (yield from self.start(request))  # another process has got the same request

    def open(
        self,
        request: TurnRequest,
        found: Snapshot | None,
        new: Sequence[Message],
        counter: TokenCounter,
    ) -> TurnProcedure[Opening]:
        """Make the prompt of what was read and what is new; nothing is stored.

        Raises:
            WindowTooSmall: it does not fit.
            What `request.check` raises.
        """
        characters = characters_of(new)
        if found is not None and not (found.loaded.plain and counts_apply(self.settings, counter.name)):
            characters += found.loaded.cost * _CHARACTERS_A_TOKEN
        try:
            return (
                yield from perform(Compute(lambda: self._opening(request, found, new, counter), characters))
            )
        except NothingFits:
            raise (yield from self._nothing_fits(request, found, new, counter)) from None
        except WindowTooSmall as error:
            raise self._in_terms_of_the_chat(error, request) from None

    def _opening(
        self,
        request: TurnRequest,
        found: Snapshot | None,
        new: Sequence[Message],
        counter: TokenCounter,
    ) -> Opening:
        """What `open` computes."""
        counts = count_each(counter, new)
        options = self.settings.option_tokens(request.options)
        candidates = self._candidates(request, found, new, counts)
        known = self._known(found)
        limit = self._limit(options, counts)
        window, prompt, form = open_with(candidates, limit, counter.name, known)
        if request.check is not None and new:
            last_position, newest_reply = (found.last_position, found.newest_reply) if found else (0, 0)
            before = [message for message in window.messages if message.position <= last_position]
            request.check(before, newest_reply)
        extra = self.settings.extra + options
        return Opening(window, prompt, counts, extra, limit, candidates, form, known)

    def _known(self, found: Snapshot | None) -> KnownRefusals:
        """What the newest calls tell of refusals."""
        if found is None or not found.notes or not self.settings.asks_again:
            return NOTHING_REFUSED
        return known_refusals(found.notes, found.last_call, self.settings.model)

    def _candidates(
        self, request: TurnRequest, found: Snapshot | None, new: Sequence[Message], counts: Sequence[int]
    ) -> Candidates:
        last_position = found.last_position if found is not None else 0
        placed = [
            replace(message, position=position, token_count=tokens)
            for position, (message, tokens) in enumerate(zip(new, counts, strict=True), last_position + 1)
        ]
        return Candidates(request.conversation_id, found, placed, self.settings)

    def _limit(self, options: int, counts: Sequence[int]) -> int:
        """What a window may cost, in tokens."""
        chosen = self.settings
        return max(chosen.window_limit - max(options, 0), 0) + (sum(counts) if chosen.new_beside_limit else 0)

    def _nothing_fits(
        self,
        request: TurnRequest,
        found: Snapshot | None,
        new: Sequence[Message],
        counter: TokenCounter,
    ) -> TurnProcedure[WindowTooSmall]:
        """Why nothing fits; more is loaded until it is known what would have to."""
        counts = count_each(counter, new)
        limit = self._limit(self.settings.option_tokens(request.options), counts)
        enough = max(limit, 1)
        while True:
            error = self._candidates(request, found, new, counts).too_small(limit)
            if error is not None:
                return self._in_terms_of_the_chat(error, request)
            enough *= 2
            found = yield from self._look(request, new=new, token_limit=enough)

    def _in_terms_of_the_chat(self, error: WindowTooSmall, request: TurnRequest) -> WindowTooSmall:
        """The error in terms of the chat's own limit, which would help; unless nothing can be sent at all."""
        if error.token_count <= error.token_limit:
            return error
        taken = self.settings.token_limit - self.settings.window_limit
        stored = "nothing was stored: " if request.messages else ""
        return WindowTooSmall(
            error.conversation_id,
            position=error.position,
            token_count=error.token_count + taken,
            token_limit=self.settings.token_limit,
            detail=f"message {error.position}, with all that must go with it, costs {error.token_count} "
            f"tokens; of token_limit={self.settings.token_limit}, {taken} are for instructions, tools and "
            f"the reply; {stored}raise token_limit",
        )

    def _check_alone(self, request: TurnRequest, counter: TokenCounter) -> TurnProcedure[None]:
        """Whether the new messages fit alone, whatever comes before them. Raises as `open` does."""
        yield from self.open(replace(request, check=None), None, request.messages, counter)

    def _counter_of(self, found: Snapshot | None) -> TokenCounter:
        if found is None:
            return self.counter
        return self.procedures.counter_of(found.token_counter, self.counter)

    def _pending(
        self,
        request: TurnRequest,
        messages: Sequence[Message],
        counts: Sequence[int],
        counter: TokenCounter,
    ) -> PendingAppend:
        told = request.given or request.messages
        return PendingAppend(
            request.conversation_id,
            messages,
            counts,
            counter.name,
            owner=self.procedures.scope.owner,
            key=request.key,
            digest=digest(told) if request.key and told else "",
            expected_position=request.expected_position,
        )

    def _write(
        self, pending: PendingAppend, call: PendingCall, *, is_new: bool
    ) -> TurnProcedure[StartedCall | None]:
        write = self.procedures.write_of(start_call.start, pending, call, is_new=is_new)
        return with_retries(replace(write, one_statement=True, is_repeatable=pending.key is not None))
