"""From the driver's rows to values, and the conversation's row that every operation begins with."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, TypeVar

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement
from tokenmem.errors import ConversationNotFound, DatabaseError
from tokenmem.messages.message import (
    KINDS,
    ROLES,
    Message,
    MessageFields,
    MessageWithoutPayload,
    provider_message,
)
from tokenmem.messages.values import JSONObject, dump_json, load_json, moment_text
from tokenmem.models import Conversation
from tokenmem.operations import damage

T = TypeVar("T")

NO_BOUND = 2**62
"""Above every position, number and count of rows: the limit where there is none."""

_ORIGIN = datetime(2000, 1, 1)
_ORIGIN_IN_UTC = _ORIGIN.replace(tzinfo=UTC)


ROLE_OF, KIND_OF, COST_OF, IS_PINNED = map(operator.itemgetter, (1, 2, 5, 6))
"""What stands in these places of a row of `{message_columns}`."""

KNOWN_ROLES, KNOWN_KINDS = frozenset(ROLES), frozenset(KINDS)


def check_rows(rows: Sequence[Row], conversation_id: str) -> None:
    """Check what of rows of `{message_columns}` is worked with as it came; a hot path.

    Raises:
        DatabaseError: a role, a kind or a number of tokens is damaged.
    """
    try:
        if KNOWN_ROLES.issuperset(map(ROLE_OF, rows)) and KNOWN_KINDS.issuperset(map(KIND_OF, rows)):
            # Of what is no number there is no sum: half of what a look at the types takes.
            sum(map(COST_OF, rows))
            return
    except TypeError:
        pass
    raise damaged_row(rows, conversation_id)


def damaged_row(rows: Sequence[Row], conversation_id: str) -> DatabaseError:
    """The error of rows of `{message_columns}` of which one is known to be damaged."""
    error = damage.find_in_messages(conversation_id, rows)
    return error or damage.damaged(conversation_id, "a message", "position", "integer")


def messages_of(rows: Sequence[Row], conversation_id: str) -> list[Message]:
    """Messages from `{message_columns}`.

    Raises:
        DatabaseError: a row is damaged.
    """
    check_rows(rows, conversation_id)
    return _unless_damaged(_made, rows, conversation_id)


def _unless_damaged(make: Callable[[Sequence[Row]], T], rows: Sequence[Row], conversation_id: str) -> T:
    """What is made of the rows; where one is damaged, the error that names it."""
    try:
        return make(rows)
    except damage.UNREADABLE:
        error = damage.find_in_messages(conversation_id, rows)
        if error is None:
            raise
    raise error  # out here, so that it does not carry the other one, which has the text


def _made(rows: Sequence[Row]) -> list[Message]:
    """A hot path, since a long window has thousands."""
    made: list[Any] = list(map(object.__new__, repeat(MessageFields, len(rows))))
    in_text, parse = rows and isinstance(rows[0][7], str), datetime.fromisoformat
    for message, row in zip(made, rows, strict=True):
        (
            message.position,
            message.role,
            message.kind,
            message.content,
            payload,
            message.token_count,
            pinned,
            created_at,
            metadata,
        ) = row
        message.payload = None if payload is None else load_object(payload)
        message.metadata = None if metadata is None else load_object(metadata)
        message.pinned = pinned == 1
        # The difference and the sum take a fifth of what replace(tzinfo=UTC) takes.
        message.created_at = parse(created_at) if in_text else _ORIGIN_IN_UTC + (created_at - _ORIGIN)
        if message.created_at.tzinfo is None:  # written by hand: SQLite's own functions answer in UTC
            message.created_at = message.created_at.replace(tzinfo=UTC)
        message.__class__ = Message
    return made


def load_object(text: str) -> JSONObject:
    """A JSON object that a column holds.

    Raises:
        ValueError: it holds none; the text of the error may be that of the column.
    """
    value = load_json(text)
    if value.__class__ is not dict:
        raise ValueError("no object")
    found: JSONObject = value
    return found


def messages_without_payload(rows: Sequence[Row], conversation_id: str) -> list[Message]:
    """Messages from `{message_columns}` without their payloads, and behind these whether they have one."""
    made = messages_of([row[:-1] for row in rows], conversation_id)
    for message, row in zip(made, rows, strict=True):
        if row[-1]:
            object.__setattr__(message, "__class__", MessageWithoutPayload)
    return made


def _as_openai(rows: Sequence[Row]) -> list[JSONObject]:
    return [
        {"role": role, "content": content}
        if payload is None
        else provider_message(role, content, load_object(payload))
        for _, role, _, content, payload, _, _, _, _ in rows
    ]


class StoredRows:
    """Checked rows of `{message_columns}`, in order, of which messages are made when they are needed.

    Attributes:
        rows: the rows, as `check_rows` lets them pass.
        conversation_id: whose they are, for the error that tells of a damaged one.
    """

    __slots__ = ("_made", "conversation_id", "rows")

    def __init__(self, rows: Sequence[Row], conversation_id: str) -> None:
        self.rows = rows
        self.conversation_id = conversation_id
        self._made: list[Message] | None = None

    def __reduce__(self) -> tuple[type[StoredRows], tuple[Sequence[Row], str]]:
        return StoredRows, (self.rows, self.conversation_id)

    def messages(self) -> list[Message]:
        """The messages. Raises DatabaseError where a row is damaged."""
        if self._made is None:
            self._made = _unless_damaged(_made, self.rows, self.conversation_id)
        return self._made

    def to_openai(self) -> list[JSONObject]:
        """The messages as OpenAI's chat API takes them. Raises DatabaseError where a row is damaged."""
        return _unless_damaged(_as_openai, self.rows, self.conversation_id)

    def plain(self) -> list[JSONObject] | None:
        """The messages where each is a role and a text alone; None where one is more, or says nothing."""
        for _, role, kind, content, payload, _, _, _, _ in self.rows:
            if payload is not None or kind != "message" or (role == "assistant" and not content):
                return None
        return self.to_openai()


def conversation_of(row: Row) -> Conversation:
    """A conversation from `{conversation_columns}`.

    Raises:
        DatabaseError: the row is damaged.
    """
    try:
        made = _conversation_of(row)
        if set(map(type, row[5:8])) <= {int}:
            return made
    except damage.UNREADABLE:
        pass
    error = damage.find(row[0], "", damage.CONVERSATION, row)
    raise error or damage.damaged(row[0], "", "metadata", "JSON object")


def _conversation_of(row: Row) -> Conversation:
    id_, owner, title, metadata, counter, last_position, count, tokens, created_at, updated_at = row[:10]
    parent_id, forked_at, archived_at, keep = row[10:]
    return Conversation(
        id_,
        owner,
        title,
        load_object(metadata or "{}"),
        counter,
        last_position,
        count,
        tokens,
        utc(created_at),
        utc(updated_at),
        parent_id,
        forked_at,
        None if archived_at is None else utc(archived_at),
        bool(keep),
    )


def values_of(message: Message, token_count: int) -> dict[str, object]:
    """What a message's row holds of it, by column; the way back from `messages_of`."""
    return {
        "role": message.role,
        "kind": message.kind,
        "content": message.content,
        "payload": payload_text(message),
        "token_count": token_count,
        "pinned": message.pinned,
    }


def metadata_text(message: Message) -> str | None:
    """What the column `metadata` holds of a message."""
    return None if message.metadata is None else dump_json(message.metadata)


def payload_text(message: Message) -> str | None:
    """What the column `payload` holds of a message."""
    return None if message.payload is None else dump_json(message.payload)


def first_revision() -> int:
    """The revision of a new conversation, in microseconds: not one that an earlier one of its id has had."""
    return time.time_ns() // 1000


def as_stored(moment: datetime, dialect: str) -> datetime | str:
    """A moment in UTC as this engine holds it; the way back from `utc`."""
    return moment if dialect == "postgresql" else moment_text(moment)


def as_compared(moment: datetime, dialect: str) -> datetime | str:
    """A moment in UTC as statements compare it by `{since_said}`: on SQLite text of any precision."""
    stored = as_stored(moment, dialect)
    return stored.removesuffix("Z") if isinstance(stored, str) else stored


def utc(moment: datetime | str) -> datetime:
    """UTC and aware of it: PostgreSQL answers in UTC without a zone, SQLite with text."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def no_conversation(conversation_id: str, scope: Scope) -> ConversationNotFound:
    """The error for one that is not there, or is another owner's: nobody learns of others' ids."""
    whose = "" if scope.owner is None else f" of owner {scope.owner!r}"
    return ConversationNotFound(
        f"no conversation {conversation_id!r}{whose}; check the id, or append to create it"
    )


_CONVERSATION = "SELECT {conversation_columns} FROM {conversations} c WHERE c.id = :id AND {owned}"
_READ = Statement(_CONVERSATION)
_LOCK = Statement(_CONVERSATION + " FOR UPDATE")
# On SQLite a write, though it changes nothing: a transaction that has only read could not be upgraded.
_LOCK_ON_SQLITE = Statement(
    "UPDATE {conversations} AS c SET updated_at = updated_at WHERE c.id = :id AND {owned}"
)


def read_conversation(connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    """The conversation's row.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    return _one(_READ, connection, scope, conversation_id)


def lock_conversation(connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    """The conversation's row, locked: nobody else changes the conversation until the transaction ends.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    if connection.dialect.name == "postgresql":
        return _one(_LOCK, connection, scope, conversation_id)
    _LOCK_ON_SQLITE.run(connection, scope, {"id": conversation_id, "owner": scope.owner})
    return _one(_READ, connection, scope, conversation_id)


def _one(statement: Statement, connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    rows = statement.fetch(connection, scope, {"id": conversation_id, "owner": scope.owner})
    if not rows:
        raise no_conversation(conversation_id, scope)
    return conversation_of(rows[0])
