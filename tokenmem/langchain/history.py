"""A conversation's newest messages without the questions whose calls have failed, as LangChain keeps none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass, replace
from typing import TypeVar

from tokenmem.database.statements import Row
from tokenmem.edges import StartOn
from tokenmem.execution.effects import Effect, EffectAnswer
from tokenmem.messages.message import Message
from tokenmem.operations.failed_questions import FailedQuestions, failed_questions
from tokenmem.operations.rows import StoredRows
from tokenmem.operations.snapshot import Snapshot
from tokenmem.procedures import Procedures

E = TypeVar("E")
Look = Callable[[int], Generator[E, EffectAnswer, Snapshot | None]]
"""Reads the conversation with the messages that fit a limit, in tokens."""


@dataclass(frozen=True, slots=True)
class History:
    """A conversation as it was read.

    Attributes:
        snapshot: with the messages that fit the limit and may be more; None where there is no conversation.
        left_out: the positions of those among them that are not part of the history.
        question: the row of the last message where that is one whose call has failed, and nothing has been
            said since; else None.
    """

    snapshot: Snapshot | None
    left_out: frozenset[int] = frozenset()
    question: Row | None = None

    def without_failed(self, kept: Collection[int] = ()) -> Snapshot | None:
        """The snapshot in which what is left out costs nothing.

        Args:
            kept: positions of messages that are not left out: what is asked, with which the window ends.
        """
        left_out = self.left_out.difference(kept)
        if self.snapshot is None or not left_out:
            return self.snapshot
        loaded = self.snapshot.loaded
        last = max(kept, default=self.snapshot.last_position)
        rows = [
            (*row[:5], 0, *row[6:]) if row[0] in left_out else row
            for row in loaded.rows.rows
            if row[0] <= last or row[0] not in left_out
        ]
        cost = sum(row[5] for row in rows)
        return replace(
            self.snapshot,
            loaded=replace(loaded, rows=StoredRows(rows, loaded.rows.conversation_id), cost=cost),
        )

    def newest(self, token_limit: int, start_on: StartOn) -> list[Message]:
        """The messages that fit the limit, in order; none where not even the pinned ones fit."""
        found = self.without_failed()
        if found is None or found.loaded.reserved > token_limit:
            return []
        loaded = found.loaded
        start = loaded.start([token_limit - loaded.reserved], start_on)
        if start is None:
            return loaded.pinned.messages() if loaded.is_all and not loaded.rows.rows else []
        messages = [*loaded.pinned.messages(), *loaded.rows.messages()[start:]]
        return [message for message in messages if message.position not in self.left_out]


def history_of(
    procedures: Procedures, conversation_id: str, token_limit: int, look: Look[E]
) -> Generator[E | Effect, EffectAnswer, History]:
    """Read a conversation with as much of it as fits the limit where failed questions cost nothing.

    Args:
        procedures: the store's.
        conversation_id: the conversation.
        token_limit: in tokens.
        look: reads it.
    """
    enough = token_limit
    while True:
        found = yield from look(enough)
        if found is None or not found.last_call:
            return History(found)
        rows = found.loaded.rows.rows
        first = rows[0][0] if rows else found.last_position + 1
        failed = yield from procedures.read(failed_questions, conversation_id, first)
        history = _history(found, failed)
        kept = sum(row[5] for row in rows if row[0] not in history.left_out)
        is_enough = found.loaded.reserved + kept > token_limit or not _matters(found, failed, first)
        if found.loaded.is_all or (is_enough and not _ends_before(found, failed)):
            return history
        enough = max(enough * 2, 1)


def _history(found: Snapshot, failed: FailedQuestions) -> History:
    rows = found.loaded.rows.rows
    left_out = {
        row[0] for row in rows if row[0] in failed.parts or (row[1] == "user" and row[0] in failed.questions)
    }
    behind = [row for row in rows if row[0] not in failed.parts]
    last = behind[-1] if behind else None
    is_question = last is not None and last[1] == "user" and last[0] in failed.questions
    return History(found, frozenset(left_out), last if is_question else None)


def _matters(found: Snapshot, failed: FailedQuestions, first_position: int) -> bool:
    """Whether something that has failed is among what was loaded, or kept what lies before from it."""
    has_gaps = found.loaded.message_count != found.last_position
    before = 0 if has_gaps else first_position - 1  # where the message lies that no longer fitted
    return any(position >= before for position in failed.positions)


def _ends_before(found: Snapshot, failed: FailedQuestions) -> bool:
    """Whether the conversation ends with a failed question that has not been loaded, for it is too long."""
    newest = max(failed.questions, default=0)
    rows = found.loaded.rows.rows
    return bool(newest) and all(row[0] > newest and row[0] in failed.parts for row in rows)
