"""What a turn with a model begins with: the window's messages, and what the turn has to know besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import sqlalchemy as sa

from tokenmem.database.statements import Parameters, Row, Scope, Statement, with_pieces
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, JSONValue, load_json
from tokenmem.models import Appended
from tokenmem.operations.calls import LEASE
from tokenmem.operations.damage import CALL, damaged, find, is_integer
from tokenmem.operations.rows import NO_BOUND
from tokenmem.operations.window import (
    LEAST_BEFORE,
    NEWEST,
    Loaded,
    WindowParameters,
    loaded_of,
    take_fact_row,
)

# All of it in one statement, since each one is a round trip.
_CONVERSATION = """{json_array}(c.newest_position, c.revision, c.token_counter, c.last_call){as_text}"""
# Calls that overlap end in any order; more than a few do not. What was changed, which may be damaged, goes as
# text.
_CALLS = """(SELECT {json_array}({newest_reply}, {json_list}({json_array}(newest.number, newest.status,
            newest.model, newest.last_position, newest.changes)) FILTER (WHERE {tells_of_refusals}
            OR (newest.status = 'refused' AND newest.number = c.last_call))){as_text}
    FROM (SELECT l.number, l.status, l.model, l.last_position, l.reply_position,
            CAST(l.changes AS text) AS changes
        FROM {llm_calls} l WHERE l.conversation_id = :id ORDER BY l.number DESC LIMIT 8) newest)"""
_NEWEST_REPLY = "max(newest.reply_position)"
_KEY = """(SELECT {json_array}(k.first_position, k.last_position, k.digest, k.call_number,
        l.alive_at IS NOT NULL, l.alive_at > {ago}, l.status, l.reply_position,
        (SELECT count(*) FROM {messages} m WHERE m.conversation_id = :id
            AND m.position BETWEEN k.first_position AND k.last_position),
        (SELECT m.position FROM {messages} m WHERE m.conversation_id = :id
            AND m.position > COALESCE(k.last_part, k.last_position)
            AND m.position <= (SELECT newest_position FROM c) ORDER BY m.position LIMIT 1)){as_text}
    FROM k LEFT JOIN {llm_calls} l ON l.conversation_id = :id AND l.number = k.call_number)"""

_NOTE = {name: CALL[name] for name in ("number", "status", "model", "last_position", "changes")}


# Where the window ends that is not to end with the newest message.
_AT_KEY = """
    SELECT * FROM {append_keys} WHERE conversation_id = :id AND key = CAST(:key AS text)"""
_AT_POSITION = "SELECT CAST(:ends_at AS bigint) AS last_position"


_AS_IT_IS = """
WITH c AS MATERIALIZED (
    SELECT last_position AS newest_position, last_position, message_count, total_tokens, revision,
        token_counter, last_call, {least_before}
    FROM {conversations} c WHERE id = :id AND {owned}
){newest}"""
_UP_TO = """
WITH k AS MATERIALIZED ({end}
), ends AS MATERIALIZED (
    SELECT c.last_position AS newest_position, COALESCE(k.last_position, c.last_position) AS last_position,
        c.message_count, c.revision, c.token_counter, c.last_call,
        CASE WHEN k.last_position IS NULL THEN c.total_tokens ELSE (
            SELECT m.tokens_before + m.token_count FROM {messages} m
            WHERE m.conversation_id = :id AND m.position <= k.last_position
            ORDER BY m.position DESC LIMIT 1
        ) END AS total_tokens
    FROM {conversations} c LEFT JOIN k ON true WHERE c.id = :id AND {owned}
), c AS MATERIALIZED (
    SELECT *, {least_before} FROM ends
){newest}"""


@lru_cache
def _statement(end: str, *, with_newest_reply: bool) -> Statement:
    """WINDOW with what a turn has to know; where `end` finds a row, up to its last position."""
    newest_reply = _NEWEST_REPLY if with_newest_reply else "NULL"
    newest = with_pieces(
        NEWEST,
        conversation=_CONVERSATION,
        calls=with_pieces(_CALLS, newest_reply=newest_reply),
        key=_KEY if end == _AT_KEY else "NULL",
    )
    return Statement(_UP_TO if end else _AS_IT_IS, end=end, newest=newest, least_before=LEAST_BEFORE)


def statement_up_to(*, key: bool) -> Statement:
    """The statement of `take` for a person to look at: without a key, or with one."""
    return _statement(_AT_KEY if key else "", with_newest_reply=True)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """What an earlier request with the same idempotency key has left.

    Attributes:
        first_position: the first message that it stored.
        last_position: the last one; below `first_position` where it stored none.
        digest: tells its messages from others.
        call_number: the newest call that it led to; None where none began.
        unfinished: whether that call has not ended.
        running: whether its process still gives signs of life.
        status: how the call ended.
        reply_position: where its reply, or the part of it that arrived, begins.
        complete: whether all that it stored is still there; where it stored nothing, anything to ask with.
        moved_on: whether anything stands behind that but parts that its own failed calls left.
    """

    first_position: int
    last_position: int
    digest: str
    call_number: int | None
    unfinished: bool
    running: bool
    status: str | None
    reply_position: int | None
    complete: bool
    moved_on: bool

    @property
    def is_answered(self) -> bool:
        """Whether a reply has been stored, which may have been removed since."""
        return not self.unfinished and self.status == "ok" and self.reply_position is not None


@dataclass(frozen=True, slots=True)
class CallNote:
    """What a call tells later ones of messages that its provider has refused.

    Attributes:
        number: the call's number in the conversation.
        status: how it ended.
        model: the model that was asked.
        last_position: with which message what was sent ended; None where that is not on record.
        changes: what was changed in what was sent, or refused of it; see LLMCall.
    """

    number: int
    status: str
    model: str
    last_position: int | None
    changes: list[JSONObject]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A conversation as a turn finds it.

    Attributes:
        loaded: the messages among which a window may begin.
        last_position: the highest position ever given.
        revision: by which it is known whether anything has changed since.
        token_counter: the name of the counter that it is counted by.
        newest_reply: where the newest reply begins; 0 where there is none, or it was not asked for.
        key: what an earlier request with the same idempotency key has left.
        last_call: the number of its newest call; 0 where there is none.
        notes: of the eight newest calls those that tell of refusals, in order; the newest of all also where
            it tells no more than that it was refused.
    """

    loaded: Loaded
    last_position: int
    revision: int
    token_counter: str
    newest_reply: int
    key: KnownKey | None
    last_call: int = 0
    notes: tuple[CallNote, ...] = ()


def take(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    token_limit: int,
    key: str | None,
    stored: Appended | None,
    new: Sequence[Message],
    with_newest_reply: bool,
) -> Snapshot | None:
    """The newest messages that fit the limit, and what a turn has to know besides, by one statement.

    Only where a tool's result among them answers a call that lies further back, another one looks for that.

    Args:
        connection: to read by.
        scope: the schema and the owner.
        conversation_id: the conversation.
        token_limit: what the messages may cost, in tokens.
        key: the request's idempotency key. Where it is known, the messages end with those that it stored.
        stored: what the turn has appended already, with which the messages end; None where there is a key.
        new: what the turn adds; results among it may answer calls that lie before what is loaded.
        with_newest_reply: whether to look for the newest reply.

    Returns:
        None where there is no conversation of this id, or it is another owner's.
    """
    end = _AT_KEY if key is not None else _AT_POSITION if stored is not None else ""
    request = WindowParameters(id=conversation_id, owner=scope.owner, limit=token_limit, stride=1)
    ends: Parameters = {}
    if key is not None:
        ends = {"key": key, "seconds": LEASE}
    elif stored is not None:
        ends = {"ends_at": stored.last_position}
    rows = _statement(end, with_newest_reply=with_newest_reply).fetch(connection, scope, {**request, **ends})
    if not rows:
        return None
    facts = take_fact_row(rows)
    total_tokens = facts[5]
    if facts[5] is None:  # nothing is left of what it should end with
        facts = (*facts[:5], 0, *facts[6:])
    told = load_json(facts[3])
    last_position, revision, token_counter, last_call = told
    newest_reply, noted = load_json(facts[8])
    for column, value in zip(("last_position", "revision"), told, strict=False):
        _check_integer(conversation_id, column, value)
    _check_integer(conversation_id, "last_call", last_call)
    known = None
    if facts[4] is not None:
        of_key = load_json(facts[4])
        for column, value in zip(("first_position", "last_position"), of_key, strict=False):
            _check_integer(conversation_id, f"{column} of append_keys", value)
        known = _known_key(of_key, total_tokens=total_tokens)
    asked = known or stored
    asked_from, new = (NO_BOUND, new) if asked is None else (asked.first_position, ())
    loaded = loaded_of(connection, scope, request, rows, facts, new, asked_from)
    notes = _notes(conversation_id, noted) if noted else ()
    return Snapshot(
        loaded, last_position, revision, token_counter, newest_reply or 0, known, last_call, notes
    )


def _check_integer(conversation_id: str, column: str, value: object) -> None:
    if not is_integer(value):
        raise damaged(conversation_id, "", column, "integer")


def _notes(conversation_id: str, noted: Sequence[Row]) -> tuple[CallNote, ...]:
    notes = []
    for row in noted:
        number, status, model, last_position, changes = row
        place = f"call {number}" if is_integer(number) else "a call"
        if (error := find(conversation_id, place, _NOTE, row)) is not None:
            raise error
        listed = [] if changes is None else [each for each in load_json(changes) if isinstance(each, dict)]
        notes.append(CallNote(number, status, model, last_position, listed))
    return tuple(sorted(notes, key=lambda note: note.number))


def _known_key(facts: JSONValue, *, total_tokens: int | None) -> KnownKey:
    first, last, digest, number, unfinished, running, status, reply_position, count, moved_on = facts
    complete = total_tokens is not None and count == last - first + 1
    return KnownKey(
        first,
        last,
        digest,
        number,
        bool(unfinished),
        bool(running),
        status,
        reply_position,
        complete,
        moved_on is not None,
    )
