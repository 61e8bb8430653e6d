"""What was said and not answered because the call failed, told by a conversation's newest calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement
from tokenmem.operations.calls import LEASE

_NEWEST_CALLS = Statement("""
SELECT l.last_position, l.status, l.reply_position, COALESCE(l.reply_messages, 1),
    COALESCE(l.alive_at > {ago}, false)
FROM {conversations} c JOIN {llm_calls} l ON l.conversation_id = c.id
WHERE c.id = :id AND {owned} AND l.number > c.last_call - CAST(:reach AS bigint)
ORDER BY l.number DESC
""")

_FAILED = frozenset({"error", "refused"})
"""How calls end that nobody has cancelled and that came to nothing."""

_REACH = 32
"""How many calls are looked at first; four times as many where these do not reach back far enough."""


@dataclass(frozen=True, slots=True)
class FailedQuestions:
    """What the newest calls tell of messages that have come to nothing.

    Attributes:
        questions: the positions with which calls ended that have failed, and that no later call answered.
        parts: the positions of what had arrived of replies whose calls failed or were refused.
    """

    questions: frozenset[int] = frozenset()
    parts: frozenset[int] = frozenset()

    @property
    def positions(self) -> frozenset[int]:
        """All of them."""
        return self.questions | self.parts


def failed_questions(
    connection: sa.Connection, scope: Scope, conversation_id: str, first_position: int
) -> FailedQuestions:
    """The failed questions from a position on, and those right before it.

    Args:
        connection: any.
        scope: the schema and the owner.
        conversation_id: the conversation; where there is none, nothing has failed.
        first_position: calls are looked at back to the newest successful one that ended before it.
    """
    reach = _REACH
    while True:
        request = {"id": conversation_id, "owner": scope.owner, "reach": reach, "seconds": LEASE}
        calls = _NEWEST_CALLS.fetch(connection, scope, request)
        if len(calls) < reach or any(_is_before(call, first_position) for call in calls):
            return of_calls(calls)
        reach *= 4


def _is_before(call: Row, position: int) -> bool:
    return call[1] == "ok" and call[0] is not None and call[0] < position


def of_calls(calls: Iterable[Row]) -> FailedQuestions:
    """The failed questions that these calls tell of.

    A call that was cancelled after a part of its reply had arrived is none: the part is what was said.

    Args:
        calls: where each ended, its status, where its reply begins, of how many messages it is, and whether
            it is still running; the newest first, which decides.
    """
    questions: set[int] = set()
    parts: set[int] = set()
    answered: set[int] = set()
    for last, status, reply, count, is_running in calls:
        if status in _FAILED and reply is not None:
            parts.update(range(reply, reply + count))
        if last is None or last in answered | questions:
            continue
        has_failed = status in _FAILED or (status != "ok" and reply is None and not is_running)
        (questions if has_failed else answered).add(last)
    return FailedQuestions(frozenset(questions), frozenset(parts))
