"""From the driver's rows to values, and the conversation's row that every operation begins with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import methodcaller
from typing import Any

import sqlalchemy as sa

from tokenmem.errors import ConversationNotFound
from tokenmem.formats import dump_json, load_json
from tokenmem.models import Conversation, JSONObject, Message
from tokenmem.schema import Scope, Statement

MESSAGE_COLUMNS = """m.position, m.role, m.kind, m.content, CAST(m.payload AS text),
    m.token_count, m.pinned, m.created_at"""
CONVERSATION_COLUMNS = """c.id, c.owner, c.title, CAST(c.metadata AS text), c.token_counter,
    c.last_position, c.message_count, c.total_tokens, c.created_at, c.updated_at"""
OWNED = "(CAST(:owner AS text) IS NULL OR c.owner = :owner)"


class _Fields:
    """A Message while it is being made: a frozen class's own __init__ takes four times as long."""

    __slots__ = Message.__slots__

    def __init__(
        self,
        role: str,
        content: str | None,
        kind: str,
        payload: JSONObject | None,
        pinned: bool,
        position: int,
        token_count: int,
        created_at: datetime,
    ) -> None:
        self.role = role
        self.content = content
        self.kind = kind
        self.payload = payload
        self.pinned = pinned
        self.position = position
        self.token_count = token_count
        self.created_at = created_at


def messages_of(rows: Sequence[Sequence[Any]]) -> list[Message]:
    """Messages from MESSAGE_COLUMNS; a hot path, since a long window has thousands."""
    to_utc = _to_utc(rows[0][-1]) if rows else utc
    made: list[Any] = [
        _Fields(
            role,
            content,
            kind,
            None if payload is None else load_json(payload),
            pinned == 1,
            position,
            token_count,
            to_utc(created_at),
        )
        for position, role, kind, content, payload, token_count, pinned, created_at in rows
    ]
    for message in made:
        message.__class__ = Message
    return made


def conversation_of(row: Sequence[Any]) -> Conversation:
    """A conversation from CONVERSATION_COLUMNS."""
    id_, owner, title, metadata, counter, last_position, count, tokens, created_at, updated_at = row
    return Conversation(
        id_,
        owner,
        title,
        load_json(metadata or "{}"),
        counter,
        last_position,
        count,
        tokens,
        utc(created_at),
        utc(updated_at),
    )


def values_of(message: Message) -> dict[str, Any]:
    """What a message's row holds of it, by column; the way back from `messages_of`."""
    return {
        "role": message.role,
        "kind": message.kind,
        "content": message.content,
        "payload": None if message.payload is None else dump_json(message.payload),
        "token_count": message.token_count,
        "pinned": message.pinned,
    }


def utc(moment: datetime | str) -> datetime:
    """UTC and aware of it: PostgreSQL answers in the session's time zone, SQLite with text."""
    return _to_utc(moment)(moment)


def _to_utc(example: datetime | str) -> Callable[[Any], datetime]:
    """What turns the driver's times into UTC; all of one answer are of one kind and zone."""
    if isinstance(example, str):
        return datetime.fromisoformat
    return _as_it_is if example.tzinfo is UTC else methodcaller("astimezone", UTC)


def _as_it_is(moment: datetime) -> datetime:
    return moment


def no_conversation(conversation_id: str, scope: Scope) -> ConversationNotFound:
    """The same words whether it is not there or another owner's: nobody learns of others' ids."""
    whose = "" if scope.owner is None else f" of owner {scope.owner!r}"
    return ConversationNotFound(
        f"no conversation {conversation_id!r}{whose}; check the id, or append to create it"
    )


_CONVERSATION = f"SELECT {CONVERSATION_COLUMNS} FROM {{conversations}} c WHERE c.id = :id AND {OWNED}"
_READ = Statement(_CONVERSATION)
# On SQLite a write, though it changes nothing: a transaction that has only read could not be upgraded.
_LOCK = {
    "postgresql": Statement(_CONVERSATION + " FOR UPDATE"),
    "sqlite": Statement(f"""
UPDATE {{conversations}} AS c SET updated_at = updated_at WHERE c.id = :id AND {OWNED}
RETURNING {CONVERSATION_COLUMNS.replace("c.", "")}
"""),
}


def read_conversation(connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    """The conversation's row.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    return _one(_READ, connection, scope, conversation_id)


def lock_conversation(connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    """The same, and nobody else changes the conversation until the transaction ends."""
    return _one(_LOCK[connection.dialect.name], connection, scope, conversation_id)


def _one(statement: Statement, connection: sa.Connection, scope: Scope, conversation_id: str) -> Conversation:
    rows = statement.fetch(connection, scope, {"id": conversation_id, "owner": scope.owner})
    if not rows:
        raise no_conversation(conversation_id, scope)
    return conversation_of(rows[0])
