"""From the driver's rows to values, and the conversation's row that every operation begins with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from tokenmem.errors import ConversationNotFound
from tokenmem.formats import load_json
from tokenmem.models import Conversation, Message
from tokenmem.schema import Scope, Statement

MESSAGE_COLUMNS = """m.position, m.role, m.kind, m.content, CAST(m.payload AS text),
    m.token_count, m.pinned, m.created_at"""
CONVERSATION_COLUMNS = """c.id, c.owner, c.title, CAST(c.metadata AS text), c.token_counter,
    c.last_position, c.message_count, c.total_tokens, c.created_at, c.updated_at"""
OWNED = "(CAST(:owner AS text) IS NULL OR c.owner = :owner)"


def message_of(row: Sequence[Any]) -> Message:
    """A message from MESSAGE_COLUMNS."""
    position, role, kind, content, payload, token_count, pinned, created_at = row
    return Message(
        role,
        content,
        kind,
        None if payload is None else load_json(payload),
        bool(pinned),
        position,
        token_count,
        utc(created_at),
    )


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


def utc(moment: datetime | str) -> datetime:
    """UTC and aware of it: PostgreSQL answers in the session's time zone, SQLite with text."""
    if isinstance(moment, str):
        return datetime.fromisoformat(moment)
    return moment.astimezone(UTC)


def no_conversation(conversation_id: str, scope: Scope) -> ConversationNotFound:
    """The same words whether it is not there or another owner's: nobody learns of others' ids."""
    whose = "" if scope.owner is None else f" of owner {scope.owner!r}"
    return ConversationNotFound(
        f"no conversation {conversation_id!r}{whose}; check the id, or append to create it"
    )


_CONVERSATION = f"SELECT {CONVERSATION_COLUMNS} FROM {{conversations}} c WHERE c.id = :id AND {OWNED}"
_READ = Statement(_CONVERSATION)
_LOCK = {"postgresql": Statement(_CONVERSATION + " FOR UPDATE"), "sqlite": _READ}


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
