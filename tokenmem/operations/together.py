"""A conversation's row is taken, and all that goes with it is written: as one statement where that counts.

Taking the row locks it, moves its position and running total, and tells where new rows go. The changes that
follow read the row as it has become, under the name `taken`. PostgreSQL runs all of them as one statement, so
in one round trip, with the row locked for no longer than that. SQLite, whose statements cost no round trip,
runs them one after the other inside the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import sqlalchemy as sa

from tokenmem.database.statements import Parameters, Row, Scope, Statement
from tokenmem.errors import DatabaseError
from tokenmem.messages.message import Message
from tokenmem.operations import insert
from tokenmem.operations.damage import REMEDY, is_moment
from tokenmem.operations.rows import utc

_GIVEN = """FROM (SELECT :taken_position AS taken_position, :taken_call AS taken_call,
    :taken_at AS taken_at) AS taken"""


_MOVE_RECENT = Statement("UPDATE {conversations} SET recent_at = updated_at WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Change:
    """A statement that reads `FROM taken` and changes a table.

    Attributes:
        name: what it is called inside the one statement.
        text: the statement.
        answers: whether it returns columns that the caller wants.
    """

    name: str
    text: str
    answers: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """The conversation's row as it has become.

    Attributes:
        last_position: the position of the last of the new messages.
        total_tokens: the running total behind it.
        last_call: the number of the newest call of a model.
        taken_at: when, as the driver tells it: the time at which the new messages are stored.
        answer: what the change that answers returned; None where it changed nothing, or none answers.
    """

    last_position: int
    total_tokens: int
    last_call: int
    taken_at: datetime | str
    answer: Row | None = None

    @property
    def moment(self) -> datetime:
        """When, in UTC. Raises DatabaseError where the conversation's time is damaged."""
        if not is_moment(self.taken_at):
            raise DatabaseError(
                f"the column updated_at of the conversation is damaged, it holds no time; {REMEDY}"
            )
        return utc(self.taken_at)


def take_and_change(
    connection: sa.Connection,
    scope: Scope,
    take: str,
    parameters: Parameters,
    *,
    messages: Sequence[Message] = (),
    token_counts: Sequence[int] = (),
    changes: tuple[Change, ...] = (),
    guard: str = "",
) -> Taken | None:
    """Take the conversation's row, store messages behind its last one, and make the changes.

    Args:
        connection: on SQLite in a transaction.
        scope: the schema and the owner.
        take: the statement that takes the row; it ends with `{returning_taken}`.
        parameters: of all of the statements; `:count` messages of `:tokens` tokens among them.
        messages: what to store.
        token_counts: what each of them costs, in tokens.
        changes: what else to write.
        guard: what `take` refers to on PostgreSQL; a part of the statement, with a comma behind it.

    Returns:
        None where the row could not be taken; nothing was written then.
    """
    request = dict(parameters)
    if connection.dialect.name == "postgresql":
        beside = insert.have_data_beside(messages)
        statement = as_one(take, len(messages), changes, guard, beside=beside)
        rows = statement.fetch(
            connection, scope, request | insert.values(messages, token_counts, beside=beside)
        )
        return _taken(*rows[0]) if rows else None
    rows = _statement(take).fetch(connection, scope, request)
    if not rows:
        return None
    last_position, total_tokens, last_call, moment, is_late = rows[0]
    if is_late:
        _MOVE_RECENT.run(connection, scope, request)
    if messages:
        first, before = last_position - len(messages) + 1, total_tokens - sum(token_counts)
        bulk = insert.bulk_rows(
            str(request["id"]),
            messages,
            token_counts,
            first_position=first,
            tokens_before=before,
            moment=moment,
        )
        insert.in_bulk(connection, scope, bulk)
    request |= {"taken_position": last_position, "taken_call": last_call, "taken_at": moment}
    answer: Row = ()
    for change in changes:
        statement = with_taken_given(change.text)
        if change.answers:
            answer = next(iter(statement.fetch(connection, scope, request)), ())
        else:
            statement.run(connection, scope, request)
    return _taken(last_position, total_tokens, last_call, moment, *answer)


def _taken(
    last_position: int, total_tokens: int, last_call: int, moment: datetime | str, *answer: object
) -> Taken:
    found = answer if answer and any(value is not None for value in answer) else None
    return Taken(last_position, total_tokens, last_call, moment, found)


@lru_cache(maxsize=256)
def _statement(text: str) -> Statement:
    return Statement(text)


@lru_cache(maxsize=256)
def with_taken_given(text: str) -> Statement:
    """A change's statement for SQLite, which is told what `taken` holds."""
    return Statement(text.replace("FROM taken", _GIVEN))


@lru_cache(maxsize=256)
def as_one(
    take: str, count: int, changes: tuple[Change, ...], guard: str, *, beside: bool = False
) -> Statement:
    """PostgreSQL's one statement for so many messages and these changes; see `take_and_change`."""
    parts = [f"taken AS ({take})"]
    if count:
        parts.append(f"stored AS ({insert.from_taken(count, beside=beside)})")
    columns, answers = "", ""
    for change in changes:
        parts.append(f"{change.name} AS ({change.text})")
        if change.answers:
            columns += f", {change.name}.*"
            answers += f" LEFT JOIN {change.name} ON true"
    return Statement(
        """WITH {guard} {parts}
SELECT taken_position, taken_tokens, taken_call, taken_at{in_utc}{columns} FROM taken{answers}""",
        guard=guard,
        parts=", ".join(parts),
        columns=columns,
        answers=answers,
    )
