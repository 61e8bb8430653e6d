"""The window: the newest messages that fit a limit, found without reading the rest of the conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement, with_pieces
from tokenmem.edges import (
    NOTHING,
    Before,
    calls_to_look_for,
    choose_start,
    newest_start,
    stepped_budget,
)
from tokenmem.errors import WindowTooSmall
from tokenmem.messages.calls import call_ids
from tokenmem.messages.message import Message
from tokenmem.models import Window
from tokenmem.operations.damage import damaged, is_integer
from tokenmem.operations.rows import (
    COST_OF,
    IS_PINNED,
    KIND_OF,
    KNOWN_KINDS,
    KNOWN_ROLES,
    NO_BOUND,
    ROLE_OF,
    StoredRows,
    damaged_row,
    messages_of,
    no_conversation,
)

# Walk the primary key backwards to the first message that no longer fits, then read the range above it.
# Both ends of the range are given: with one end alone PostgreSQL expects a third of the conversation and,
# on a long one, reads the whole table. Pinned messages below the range come by their own small index.
# IS NOT TRUE, not "<": PostgreSQL would guess that few rows are less and, in a small table of long messages,
# rather read and sort them all than walk.
# No ORDER BY: it would sort what comes in order anyway; for `loaded_of` to sort it again costs little.
# One row, without a role, tells of the conversation itself; in every row that would make a quarter of the
# cost of a long window.
NEWEST = """
, last_that_does_not_fit AS MATERIALIZED (
    SELECT e.position, e.kind FROM {messages} e
    WHERE e.conversation_id = :id AND e.position <= (SELECT last_position FROM c)
        AND (e.tokens_before >= (SELECT least_before FROM c)) IS NOT TRUE
    ORDER BY e.position DESC LIMIT 1
), edge AS MATERIALIZED (
    SELECT COALESCE((SELECT position FROM last_that_does_not_fit), 0) AS position
)
SELECT c.message_count, NULL, (SELECT kind FROM last_that_does_not_fit), {conversation}, {key},
    c.total_tokens, false, NULL, {calls}
FROM c
UNION ALL
SELECT {message_columns} FROM {messages} m
WHERE m.conversation_id = :id
    AND m.position > (SELECT position FROM edge) AND m.position <= (SELECT last_position FROM c)
UNION ALL
SELECT {message_columns} FROM {messages} m {by_pinned}
WHERE m.conversation_id = :id AND m.pinned AND m.position <= (SELECT position FROM edge)
"""
LEAST_BEFORE = """CASE WHEN total_tokens > CAST(:limit AS bigint)
            THEN ((total_tokens - :limit + CAST(:stride AS bigint) - 1) / :stride) * :stride
            ELSE 0 END AS least_before"""
WINDOW = Statement(
    """
WITH c AS MATERIALIZED (
    SELECT last_position, message_count, total_tokens, {least_before}
    FROM {conversations} c WHERE id = :id AND {owned}
){newest}""",
    newest=with_pieces(NEWEST, conversation="NULL", key="NULL", calls="NULL"),
    least_before=LEAST_BEFORE,
)

_CALLS_BEFORE = Statement("""
SELECT {message_columns} FROM {conversations} c JOIN {messages} m ON m.conversation_id = c.id
WHERE c.id = :id AND {owned} AND m.kind = 'tool_call'
    AND m.position < :before AND m.position >= CAST(:before AS bigint) - :reach
""")

LOOK_BACK = 100
"""Messages before a window among which the call of a late result is looked for."""

_PLAIN = frozenset({"message"})


class WindowParameters(TypedDict):
    """What the statement of a window is given; a turn's is given where it ends, besides.

    Attributes:
        id: the conversation.
        owner: only this owner's; None for all.
        limit: what the messages may cost, in tokens.
        stride: in steps of how many tokens what is left out grows.
    """

    id: str
    owner: str | None
    limit: int
    stride: int


def window(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    token_limit: int,
    start_on: str,
    stride: int | None,
    fall_back: bool = True,
) -> Window:
    """The pinned messages and the newest of the others that fit, from one snapshot.

    Without `fall_back` a window of turns never starts at a step.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        WindowTooSmall: nothing fits.
    """
    request = WindowParameters(id=conversation_id, owner=scope.owner, limit=token_limit, stride=1)
    if stride:
        loaded = _load(connection, scope, request | {"stride": stride})
        start = loaded.start([loaded.budget], start_on, fall_back=False)
        if start is not None:
            return _window(loaded, start, token_limit)
    loaded = _load(connection, scope, request)
    stepped = stepped_budget(loaded.total_tokens, token_limit, stride) - loaded.reserved
    start = loaded.start([stepped, loaded.budget], start_on, fall_back=fall_back)
    if start is None and not loaded.only_pinned_fit:
        error = _too_small(connection, scope, request, start_on, loaded, fall_back)
        if error is None:  # removed meanwhile
            return window(connection, scope, conversation_id, token_limit, start_on, stride, fall_back)
        raise error
    return _window(loaded, start or 0, token_limit)


@dataclass(slots=True)
class Loaded:
    """What WINDOW returned: the pinned messages, the newest of the others, and what lies before these.

    Attributes:
        message_count: of the whole conversation.
        is_all: there is nothing before the messages that were loaded.
        total_tokens: the conversation's running total.
        budget: what the pinned messages leave of the limit for the others, in tokens.
        reserved: what the pinned messages cost, in tokens.
        pinned: the pinned messages, in order.
        rows: the others, in order.
        cost: what the others cost, in tokens.
        plain: the others have neither tool calls nor results nor reasoning: they may start anywhere.
        before: what lies before the others.
    """

    message_count: int
    is_all: bool
    total_tokens: int
    budget: int
    reserved: int
    pinned: StoredRows
    rows: StoredRows
    cost: int
    plain: bool
    before: Before

    @property
    def newest(self) -> list[Message]:
        """The messages that are not pinned."""
        return self.rows.messages()

    def start(self, budgets: Sequence[int], start_on: str, *, fall_back: bool = True) -> int | None:
        """Where in `newest` the window begins."""
        if self.plain and self.rows.rows and start_on != "turn" and self.cost <= budgets[0]:
            return 0  # as `choose_start` would find: the common case, in which no message need be made
        return choose_start(self.newest, budgets, start_on, fall_back=fall_back, before=self.before)

    @property
    def only_pinned_fit(self) -> bool:
        """There is nothing but pinned messages, or nothing at all, and the limit holds it."""
        return self.is_all and not self.rows.rows and self.budget >= 0


def _load(connection: sa.Connection, scope: Scope, request: WindowParameters) -> Loaded:
    rows = WINDOW.fetch(connection, scope, request)
    if not rows:
        raise no_conversation(request["id"], scope)
    return loaded_of(connection, scope, request, rows, take_fact_row(rows))


def take_fact_row(rows: list[Row]) -> Row:
    """The row that tells of the conversation itself, taken out of the others."""
    return rows.pop(next(index for index, row in enumerate(rows) if row[1] is None))


def loaded_of(
    connection: sa.Connection,
    scope: Scope,
    request: WindowParameters,
    rows: list[Row],
    facts: Row,
    new: Sequence[Message] = (),
    asked_from: int = NO_BOUND,
) -> Loaded:
    """What was loaded, told apart; where results among it or among `new` ask for it, what lies before.

    From `asked_from` on a message is what a turn asks, which comes last even where it is pinned.
    """
    message_count, _, kind_before, _, _, total_tokens, *_ = facts
    if not (is_integer(message_count) and is_integer(total_tokens)):
        column = "total_tokens" if is_integer(message_count) else "message_count"
        raise damaged(request["id"], "", column, "integer")
    if (told_apart := _told_apart(rows, asked_from)) is None:
        raise damaged_row(rows, request["id"])
    pinned, rows, reserved, cost, plain = told_apart
    loaded = Loaded(
        message_count,
        kind_before is None,
        total_tokens,
        stepped_budget(total_tokens, request["limit"], request["stride"]) - reserved,
        reserved,
        StoredRows(pinned, request["id"]),
        StoredRows(rows, request["id"]),
        cost,
        plain=plain and kind_before != "reasoning",
        before=NOTHING,
    )
    if not loaded.plain or any(message.kind != "message" for message in new):
        loaded.before = _before(connection, scope, request, loaded, kind_before, new)
    return loaded


_Apart = tuple[list[Row], list[Row], int, int, bool]


def _told_apart(rows: list[Row], asked_from: int) -> _Apart | None:
    """Pinned rows, the others, what both cost, whether these are plain; None where a row is damaged."""
    pinned: list[Row] = []
    try:
        rows.sort()  # by position, which is unique: nothing else is compared
        if any(map(IS_PINNED, rows)):
            pinned = [row for row in rows if IS_PINNED(row) and row[0] < asked_from]
            rows = [row for row in rows if not IS_PINNED(row) or row[0] >= asked_from]
        reserved, cost = sum(map(COST_OF, pinned)), sum(map(COST_OF, rows))
    except TypeError:  # a position or a cost that is no number
        return None
    if not (KNOWN_ROLES.issuperset(map(ROLE_OF, rows)) and KNOWN_ROLES.issuperset(map(ROLE_OF, pinned))):
        return None
    plain = _PLAIN.issuperset(map(KIND_OF, rows))
    if not plain and not KNOWN_KINDS.issuperset(map(KIND_OF, rows)):
        return None
    return pinned, rows, reserved, cost, plain


def _before(
    connection: sa.Connection,
    scope: Scope,
    request: WindowParameters,
    loaded: Loaded,
    kind: str | None,
    new: Sequence[Message],
) -> Before:
    newest = [*loaded.newest, *new]
    missing = set() if loaded.is_all else calls_to_look_for(newest)
    if not missing or not loaded.newest:
        return Before(kind)
    found = _calls_before(connection, scope, request, loaded.newest[0].position)
    return Before(kind, frozenset(missing & found))


def _calls_before(
    connection: sa.Connection, scope: Scope, request: WindowParameters, position: int
) -> set[str]:
    """The ids of the tool calls shortly before a position: results may come late and out of order."""
    rows = _CALLS_BEFORE.fetch(connection, scope, request | {"before": position, "reach": LOOK_BACK})
    found = messages_of(rows, request["id"])
    return {call_id for message in found for call_id in call_ids(message)}


def _window(loaded: Loaded, start: int, token_limit: int) -> Window:
    pinned, newest = loaded.pinned.rows, loaded.rows.rows
    cost = loaded.cost
    if start:
        newest = newest[start:]
        cost = sum(map(COST_OF, newest))
    return Window.of_rows(
        StoredRows([*pinned, *newest], loaded.rows.conversation_id) if pinned or start else loaded.rows,
        token_count=loaded.reserved + cost,
        token_limit=token_limit,
        first_position=newest[0][0] if newest else 0,
        last_position=newest[-1][0] if newest else 0,
        omitted=loaded.message_count - len(pinned) - len(newest),
    )


EMPTY = Loaded(0, True, 0, 0, 0, StoredRows([], ""), StoredRows([], ""), cost=0, plain=True, before=NOTHING)
"""What there is of a conversation that does not exist yet."""


def _too_small(
    connection: sa.Connection,
    scope: Scope,
    request: WindowParameters,
    start_on: str,
    loaded: Loaded,
    fall_back: bool,
) -> WindowTooSmall | None:
    """What would have to fit; None where the messages are gone by now."""
    found, enough = None, max(request["limit"], 1)
    if loaded.reserved <= request["limit"]:
        while not (found := _newest_start(loaded, start_on, fall_back)) and not loaded.is_all:
            enough *= 2
            loaded = _load(connection, scope, request | {"limit": enough})
        if not loaded.newest:
            return None
    turns_only = start_on == "turn" and not fall_back
    return nothing_fits(request["id"], request["limit"], loaded, loaded.newest, found, turns_only=turns_only)


def _newest_start(loaded: Loaded, start_on: str, fall_back: bool) -> tuple[int, int] | None:
    return newest_start(loaded.newest, start_on, loaded.before, fall_back=fall_back)


def nothing_fits(
    conversation_id: str,
    token_limit: int,
    loaded: Loaded,
    newest: Sequence[Message],
    found: tuple[int, int] | None,
    *,
    turns_only: bool = False,
) -> WindowTooSmall:
    """The error that names the newest message at which a window could start, and what it costs from there on.

    Args:
        conversation_id: the conversation.
        token_limit: what a window may cost, in tokens.
        loaded: what was loaded.
        newest: the messages that are not pinned, in order, up to the last.
        found: the index of that message and the cost from it on, by `edges.newest_start`.
        turns_only: whether it must be a user's.
    """
    if loaded.reserved > token_limit:
        position, cost = loaded.pinned.rows[-1][0], loaded.reserved
        detail = f"its pinned messages alone cost {cost} tokens and the limit is {token_limit}"
        remedy = "raise token_limit, or unpin some with edit(…, pinned=False)"
    else:
        start, cost = found or (0, sum(message.token_count for message in newest))
        position, cost = newest[start].position, cost + loaded.reserved
        detail = f"message {position}, with all that must go with it, costs {cost} tokens "
        detail += f"and the limit is {token_limit}"
        remedy = "raise token_limit"
        if not found and turns_only:
            detail = "no turn begins in it, that is, no message of a user's"
            remedy = "append one, or allow it to fall_back to a step"
        elif not found:
            detail = f"from message {position} on there are only tool results whose call is not stored"
            remedy = (
                "no prompt may begin with one: append a message, or store the conversation from its start"
            )
    return WindowTooSmall(
        conversation_id,
        position=position,
        token_count=cost,
        token_limit=token_limit,
        detail=f"{detail}; {remedy}",
    )
