"""The window that a turn sends, found among the messages that were loaded: pure work, with nothing locked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile

from tokenmem.chat.pricing import Prompt, PromptForm, prompt_of
from tokenmem.chat.refusals import NOTHING_REFUSED, KnownRefusals, still_refused
from tokenmem.chat.settings import Settings
from tokenmem.edges import choose_start, newest_start, stepped_budget
from tokenmem.errors import InvalidArgument, WindowTooSmall
from tokenmem.messages.message import Message, plain_form
from tokenmem.messages.values import JSONObject
from tokenmem.models import Window, rows_of, with_rows
from tokenmem.operations.rows import StoredRows
from tokenmem.operations.snapshot import Snapshot
from tokenmem.operations.window import EMPTY, nothing_fits

_TRIES = 14
"""Windows that are tried where what is sent costs more than what is stored: a bisection of the limit."""

_MARGIN = 16
"""Tokens that what is asked may cost more as it is sent."""

_FULL = 0.8
"""How full of the limit such a window must be to be taken at once."""


class NothingFits(Exception):
    """No window that may begin among the messages at hand fits the limit."""


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """Rows of stored messages, and behind them messages that a turn adds."""

    rows: StoredRows
    new: tuple[Message, ...]

    def messages(self) -> list[Message]:
        """The messages."""
        return [*self.rows.messages(), *self.new]

    def to_openai(self) -> list[JSONObject]:
        """The messages as OpenAI's chat API takes them."""
        return [*self.rows.to_openai(), *(message.to_openai() for message in self.new)]

    def plain(self) -> list[JSONObject] | None:
        """The messages where each is a role and a text alone; None where one is more, or says nothing."""
        stored = self.rows.plain()
        added = [plain_form(message) for message in self.new]
        if stored is None or None in added:
            return None
        return [*stored, *(message for message in added if message is not None)]


def stored_at(window: Window, moment: datetime) -> Window:
    """The window of a turn, with its new messages as stored at this moment."""
    rows = rows_of(window)
    if not isinstance(rows, JoinedRows):
        return window
    new = tuple(replace(message, created_at=message.created_at or moment) for message in rows.new)
    return with_rows(window, JoinedRows(rows.rows, new))


class Candidates:
    """Messages among which a window may begin: those that were loaded, and behind them the turn's new ones.

    Args:
        conversation_id: the conversation.
        snapshot: the conversation as it was read; None where there is none yet.
        new: the turn's new messages, with their places and costs.
        settings: the chat's.
    """

    def __init__(
        self, conversation_id: str, snapshot: Snapshot | None, new: Sequence[Message], settings: Settings
    ) -> None:
        self.conversation_id = conversation_id
        self.loaded = snapshot.loaded if snapshot is not None else EMPTY
        self.new = tuple(new)
        self.settings = settings
        self.new_tokens = sum(message.token_count for message in new)
        self.total_tokens = self.loaded.total_tokens + self.new_tokens
        rows = self.loaded.rows.rows
        self.costs = [row[5] for row in rows] + [message.token_count for message in new]
        self.plain = self.loaded.plain and all(message.kind == "message" for message in new)

    @property
    def messages(self) -> list[Message]:
        """All of them, in order, but for the pinned ones."""
        return [*self.loaded.newest, *self.new]

    def window(self, token_limit: int) -> Window:
        """The longest window that fits the limit by what its messages cost as they are stored.

        Raises:
            NothingFits: there is none.
        """
        start = self._start(token_limit)
        loaded = self.loaded
        if start is None:
            is_empty = loaded.is_all and not loaded.rows.rows and not self.new
            if not is_empty or loaded.reserved > token_limit:
                raise NothingFits
            start = len(self.costs)  # nothing but pinned messages, and the limit holds them
        rows, new = loaded.rows.rows[start:], self.new[max(start - len(loaded.rows.rows), 0) :]
        positions = [row[0] for row in rows[:1]] + [message.position for message in new[:1]]
        ends = [row[0] for row in rows[-1:]] + [message.position for message in new[-1:]]
        kept = len(loaded.pinned.rows) + len(rows) + len(new)
        stored = (
            StoredRows([*loaded.pinned.rows, *rows], loaded.rows.conversation_id)
            if loaded.pinned.rows or start
            else loaded.rows
        )
        return Window.of_rows(
            JoinedRows(stored, new),
            token_count=loaded.reserved + sum(self.costs[start:]),
            token_limit=token_limit,
            first_position=positions[0] if positions else 0,
            last_position=ends[-1] if ends else 0,
            omitted=loaded.message_count + len(self.new) - kept,
        )

    def _start(self, token_limit: int) -> int | None:
        """Where the window begins; a start off the stride is better than none."""
        stride, start_on = self.settings.stride, self.settings.start_on
        reserved = self.loaded.reserved
        stepped = stepped_budget(self.total_tokens, token_limit, stride) - reserved
        budgets = [stepped, stepped_budget(self.total_tokens, token_limit, None) - reserved]
        if self.plain and start_on != "turn":
            return self._plain_start(budgets)
        messages, before = self.messages, self.loaded.before
        if stride:
            start = choose_start(messages, [stepped], start_on, fall_back=False, before=before)
            if start is not None:
                return start
        return choose_start(messages, budgets, start_on, before=before)

    def _plain_start(self, budgets: Sequence[int]) -> int | None:
        """Where the window begins where every message may begin one; no message need be made."""
        for budget in budgets:
            cost = sum(self.costs)
            for index, tokens in enumerate(self.costs):
                if cost <= budget:
                    return index
                cost -= tokens
        return None

    def too_small(self, token_limit: int) -> WindowTooSmall | None:
        """What would have to fit; None where more messages have to be loaded to know."""
        found = newest_start(self.messages, self.settings.start_on, self.loaded.before)
        if found is None and not self.loaded.is_all and self.loaded.reserved <= token_limit:
            return None
        return nothing_fits(self.conversation_id, token_limit, self.loaded, self.messages, found)


def asked_of(candidates: Candidates) -> frozenset[int]:
    """The positions of what a turn asks: its new messages, else what stands behind the model's last word."""
    if candidates.new:
        return frozenset(message.position for message in candidates.new)
    newest = reversed(candidates.messages)
    unanswered = takewhile(lambda each: each.role != "assistant" or each.partial, newest)
    return frozenset(message.position for message in unanswered)


def least_limit(candidates: Candidates) -> int:
    """About what a window costs that holds what is asked and nothing else, in tokens."""
    pinned = sum(message.token_count for message in candidates.loaded.pinned.messages())
    asked = asked_of(candidates)
    return pinned + sum(each.token_count for each in candidates.messages if each.position in asked) + _MARGIN


def form_of(candidates: Candidates, known: KnownRefusals) -> PromptForm:
    """How these messages become a prompt: without those that were refused, unless they are asked again."""
    rules = candidates.settings.endpoint.rules
    if not known.refused:
        return PromptForm(rules)
    messages = [*candidates.loaded.pinned.messages(), *candidates.messages]
    return PromptForm(rules, still_refused(known, messages) - asked_of(candidates))


def open_with(
    candidates: Candidates, token_limit: int, counter: str, known: KnownRefusals
) -> tuple[Window, Prompt, PromptForm]:
    """The window that fits, by what is known of the endpoint and of the conversation's refusals.

    Args:
        candidates: the messages.
        token_limit: what they may cost, in tokens; less, where so much was too long and less will do.
        counter: the name of the counter that has counted them.
        known: what the newest calls tell.

    Raises:
        As `find` does.
    """
    form = form_of(candidates, known)
    limit = token_limit if known.token_limit is None else max(known.token_limit, least_limit(candidates))
    while limit < token_limit:
        with suppress(NothingFits, WindowTooSmall, InvalidArgument):
            return *find(candidates, limit, counter, form), form
        limit *= 2
    return *find(candidates, token_limit, counter, form), form


def find(candidates: Candidates, token_limit: int, counter: str, form: PromptForm) -> tuple[Window, Prompt]:
    """The window that fits as it will be sent: what closes an open call, or an image, may cost more.

    Args:
        candidates: the messages.
        token_limit: what they may cost, in tokens.
        counter: the name of the counter that has counted them.
        form: how they become a prompt.

    Raises:
        NothingFits: no window fits by what its messages cost as they are stored.
        WindowTooSmall: none fits as it would be sent.
        InvalidArgument: nothing in it can be sent.
    """
    limit = high = token_limit
    low, position, cost = 0, 0, 0
    found: tuple[Window, Prompt] | None = None
    for _ in range(_TRIES):
        try:
            window = candidates.window(limit)
            prompt = prompt_of(candidates.settings, window, counter, form)
        except (NothingFits, InvalidArgument):
            if limit == token_limit:
                raise
            low, excess = limit, 0
        else:
            excess = prompt.token_count - token_limit
            if excess > 0:
                high = min(limit, window.token_count)
                position, cost = window.first_position, prompt.token_count
            else:
                low, found = limit, (window, prompt)
                if prompt.token_count >= token_limit * _FULL or limit == token_limit:
                    return found
        if high - low < 2:
            break
        limit = max(high - excess if excess > 0 else 0, (low + high) // 2)
    if found is not None:
        return found
    raise WindowTooSmall(
        candidates.conversation_id,
        position=position,
        token_count=cost,
        token_limit=token_limit,
        detail=f"the messages from {position} on cost {cost} tokens as they are sent, "
        f"and the limit is {token_limit}; raise token_limit",
    )


@dataclass(frozen=True, slots=True)
class Opening:
    """What a call begins with.

    Attributes:
        window: what is sent besides instructions and tools.
        prompt: what is sent of it.
        token_counts: what each of the turn's new messages costs, in tokens.
        extra: what is sent besides the window, in tokens.
        token_limit: what the window may cost, in tokens.
        candidates: the messages among which it begins.
        form: how it becomes a prompt.
        known: what the conversation's newest calls tell of refusals.
    """

    window: Window
    prompt: Prompt
    token_counts: Sequence[int]
    extra: int
    token_limit: int
    candidates: Candidates
    form: PromptForm
    known: KnownRefusals = NOTHING_REFUSED

    @property
    def asked(self) -> frozenset[int]:
        """The positions of what is asked, which is never left out."""
        return asked_of(self.candidates)
