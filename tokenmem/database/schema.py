"""The tables, as SQLAlchemy describes them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from tokenmem.database import sqlalchemy_internals
from tokenmem.database.column_types import json, text_key, timestamp
from tokenmem.errors import InvalidArgument

DEFAULT_SCHEMA = "tokenmem"
"""The PostgreSQL schema, unless the caller names another. SQLite has plain names."""

VERSION_TABLE = "tokenmem_alembic_version"

VIEWS = (
    "conversation_overview",
    "message_log",
    "tool_calls",
    "usage_by_day",
    "call_windows",
    "call_log",
    "count_error_by_model",
)

TABLES = (
    "conversations",
    "messages",
    "llm_calls",
    "append_keys",
    "call_prompts",
    "schema_settings",
    "message_versions",
    "usage_kept",
)
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def checked_schema(schema: str | None) -> str | None:
    """The schema's name, if it needs no quotes: it becomes part of statements.

    Raises:
        InvalidArgument: it is not a lower-case SQL identifier of at most 63 characters, or is reserved.
    """
    if schema is None:
        return None
    if not (isinstance(schema, str) and _IDENTIFIER.fullmatch(schema)):
        raise InvalidArgument(
            f"schema {schema!r:.80}: use lower-case letters, digits and underscores, "
            f"at most 63, not a digit first"
        )
    if schema == DEFAULT_SCHEMA:
        return schema
    if schema in sqlalchemy_internals.reserved_words() or schema.startswith("pg_"):
        raise InvalidArgument(f"schema {schema!r} is one of PostgreSQL's own words; use another")
    return schema


def tables(schema: str | None) -> sa.MetaData:
    """The tables as the newest migration leaves them; `alembic check` compares a database with it."""
    metadata = sa.MetaData(schema=schema)
    for define in (
        _conversations,
        _messages,
        _llm_calls,
        _append_keys,
        _call_prompts,
        _schema_settings,
        _message_versions,
        _usage_kept,
    ):
        define(metadata)
    return metadata


def _conversation_id() -> sa.Column[str]:
    return sa.Column(
        "conversation_id",
        text_key(),
        sa.ForeignKey("conversations.id", ondelete="CASCADE"),
        primary_key=True,
        comment="The conversation it belongs to",
    )


def _integer(name: str, comment: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=nullable, comment=comment)


def _big(name: str, comment: str, *, nullable: bool = False, numbers: bool = False) -> sa.Column[int]:
    """An integer of 64 bits; one that `numbers` rows is part of their key and given by tokenmem."""
    return sa.Column(
        name,
        sa.BigInteger,
        nullable=nullable,
        comment=comment,
        primary_key=numbers,
        autoincrement=False if numbers else "auto",
    )


def _text(name: str, comment: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable, comment=comment)


def _moment(name: str, comment: str, *, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, timestamp(), nullable=nullable, comment=comment)


def _conversations(metadata: sa.MetaData) -> None:
    table = sa.Table(
        "conversations",
        metadata,
        sa.Column(
            "id", text_key(), primary_key=True, comment="The application's own id, 1 to 255 characters"
        ),
        _text("owner", "User or tenant", nullable=True),
        _text("title", "A name for people", nullable=True),
        sa.Column("metadata", json(), comment="The application's own JSON object"),
        _text("token_counter", "The counter that produced every count in it"),
        _big("last_position", "The highest position ever given; 0 before the first"),
        _big("message_count", "How many messages it holds"),
        _big("total_tokens", "Running total behind its newest message, in tokens, since its first"),
        _big("revision", "Raised by every change of the conversation, its messages or pins"),
        _big("last_call", "The highest number ever given to one of its model calls"),
        _moment("created_at", "When it was created, UTC"),
        _moment("updated_at", "When it last changed, UTC"),
        sa.Column("parent_id", text_key(), comment="The conversation that it was forked from"),
        _big("forked_at", "The last position that it has in common with its parent", nullable=True),
        _moment(
            "recent_at",
            "updated_at, up to 30 seconds late; null while nothing has changed since",
            nullable=True,
        ),
        _moment("archived_at", "When it was put away from the lists, UTC", nullable=True),
        sa.Column("keep", sa.Boolean, nullable=False, comment="Exempt from purges"),
        comment="One row a conversation; its lock is the order of its messages",
    )
    _index_conversations(table)


def _index_conversations(table: sa.Table) -> None:
    column = table.c
    is_owned, is_listed = column.owner.is_not(None), column.archived_at.is_(None)
    made, changed = column.recent_at.is_(None), column.recent_at.is_not(None)
    _partial_index("conversations_by_owner", is_owned, column.owner, column.id)
    _partial_index("conversations_by_parent", column.parent_id.is_not(None), column.parent_id, column.id)
    for suffix, condition, first in (("", sa.true(), ()), ("_by_owner", is_owned, (column.owner,))):
        _partial_index(
            f"conversations_made{suffix}",
            condition & made & is_listed,
            *first,
            *(column.created_at, column.id),
        )
        _partial_index(
            f"conversations_changed{suffix}", condition & changed & is_listed, *first, column.recent_at
        )
        _partial_index(
            f"conversations_archived{suffix}",
            condition & column.archived_at.is_not(None),
            *first,
            *(column.archived_at, column.id),
        )
        _partial_index(
            f"conversations_archived_changed{suffix}",
            condition & column.archived_at.is_not(None),
            *first,
            *(column.recent_at, column.created_at),
        )


def _partial_index(name: str, condition: sa.ColumnElement[bool], *columns: sa.Column[Any]) -> None:
    sa.Index(name, *columns, postgresql_where=condition, sqlite_where=condition)


def _messages(metadata: sa.MetaData) -> None:
    table = sa.Table(
        "messages",
        metadata,
        _conversation_id(),
        _big("position", "Place in the conversation, from 1", numbers=True),
        _big("tokens_before", "The conversation's running total before it, in tokens"),
        _moment("created_at", "When it was stored, UTC"),
        _integer("token_count", "Its cost in tokens by the conversation's counter"),
        sa.Column("pinned", sa.Boolean, nullable=False, comment="Part of every window"),
        _text("role", "system, developer, user, assistant, tool or function"),
        _text("kind", "message, tool_call, tool_result, reasoning or other"),
        _text("content", "The text that a person reads", nullable=True),
        sa.Column("payload", json(), comment="The provider's message where role and text cannot rebuild it"),
        sa.Column("metadata", json(), comment="The application's own JSON object: never counted, never sent"),
        _moment("stored_at", "When it was stored, UTC, where created_at came with it", nullable=True),
        comment="One row a message; a suffix of a conversation costs total_tokens - tokens_before",
        sqlite_with_rowid=False,
    )
    sa.Index(
        "messages_pinned",
        table.c.conversation_id,
        table.c.position,
        postgresql_where=table.c.pinned,
        sqlite_where=table.c.pinned,
    )


def _llm_calls(metadata: sa.MetaData) -> None:
    sa.Table(
        "llm_calls",
        metadata,
        _conversation_id(),
        _big("number", "The call's number in its conversation, from 1", numbers=True),
        _text("model", "The model that was asked"),
        _big("first_position", "First message of the window that was sent", nullable=True),
        _big("last_position", "Last message of the window that was sent", nullable=True),
        _integer("window_tokens", "Our count of what was sent", nullable=True),
        _integer("input_tokens", "The provider's count of what was sent", nullable=True),
        _integer("cached_tokens", "Of these, read from the provider's prompt cache", nullable=True),
        _integer("output_tokens", "The provider's count of the reply", nullable=True),
        _integer("reasoning_tokens", "Of these, spent on reasoning", nullable=True),
        _big("reply_position", "Where the reply is stored", nullable=True),
        _integer("reply_messages", "How many messages the reply is, from reply_position on", nullable=True),
        _integer("latency_ms", "From request to the end of the reply, in milliseconds", nullable=True),
        _integer("first_token_ms", "From request to the first token, in milliseconds", nullable=True),
        _text("finish_reason", "Why the model stopped", nullable=True),
        _text("status", "ok, error, refused or cancelled"),
        _text("error", "What went wrong", nullable=True),
        _text("request_id", "The provider's id of the request", nullable=True),
        _text("prompt_digest", "The instructions and tools that were sent, see call_prompts", nullable=True),
        _moment("created_at", "When the call was recorded, UTC"),
        _moment(
            "alive_at",
            "While the call runs, when its process last said so, UTC; null once it has ended",
            nullable=True,
        ),
        _big("revision", "The conversation's revision that it read", nullable=True),
        _text("api", "The API that was asked: chat, responses or another", nullable=True),
        _big("token_limit", "The limit as the caller gave it, in tokens", nullable=True),
        sa.Column("options", json(), comment="The request's options that are numbers, flags or names"),
        sa.Column("metadata", json(), comment="The application's own JSON object"),
        _integer("cache_write_tokens", "Of the provider's count, written to its prompt cache", nullable=True),
        sa.Column(
            "pinned",
            json(),
            comment="The positions of the pinned messages that were sent from outside the window",
        ),
        sa.Column(
            "changes",
            json(),
            comment="What was changed in what was sent, or refused of it: "
            "a list of positions and what was done",
        ),
        comment="One row a model call: what the model saw and what it cost",
        sqlite_with_rowid=False,
    )


def _append_keys(metadata: sa.MetaData) -> None:
    sa.Table(
        "append_keys",
        metadata,
        _conversation_id(),
        sa.Column("key", text_key(), primary_key=True, comment="The caller's idempotency key"),
        _big("first_position", "First message that the append stored"),
        _big("last_position", "Last message that the append stored"),
        _big("call_number", "The model call that the append led to", nullable=True),
        _big(
            "last_part",
            "The last message of the parts that its failed model calls left, directly behind what it stored; "
            "null where there are none",
            nullable=True,
        ),
        _text("digest", "SHA-256 of the messages: tells a retry from another"),
        _moment("created_at", "When the append was stored, UTC", nullable=True),
        comment="One row an append with an idempotency key, so that a retry stores nothing twice",
        sqlite_with_rowid=False,
    )


def _call_prompts(metadata: sa.MetaData) -> None:
    sa.Table(
        "call_prompts",
        metadata,
        _conversation_id(),
        sa.Column(
            "digest", text_key(), primary_key=True, comment="SHA-256 of both: a call names its row by it"
        ),
        _text("instructions", "What the model was told before the messages", nullable=True),
        sa.Column("tools", json(), comment="The tools' schemas"),
        _moment("created_at", "When they were first sent, UTC"),
        comment="One row for each set of instructions and tools that a conversation's calls sent",
        sqlite_with_rowid=False,
    )


def _schema_settings(metadata: sa.MetaData) -> None:
    sa.Table(
        "schema_settings",
        metadata,
        sa.Column("name", text_key(), primary_key=True, comment="The setting's name"),
        _text("value", "Its value"),
        comment="One row a setting; oldest_revision: code that knows this revision works on the tables",
        sqlite_with_rowid=False,
    )


def _message_versions(metadata: sa.MetaData) -> None:
    sa.Table(
        "message_versions",
        metadata,
        _conversation_id(),
        _big("position", "Where it stood", numbers=True),
        _big("version", "Its number among those that stood there, from 1", numbers=True),
        _big("part", "Which of the messages that were replaced together, from 1", numbers=True),
        _big("since_revision", "The conversation's revision from which on it stood there"),
        _big("replaced_at_revision", "The conversation's revision that replaced it"),
        _moment("replaced_at", "When it was replaced, UTC"),
        _integer("token_count", "What it cost in tokens by the conversation's counter then"),
        _text("role", "As in messages"),
        _text("kind", "As in messages"),
        _text("content", "As in messages", nullable=True),
        sa.Column("payload", json(), comment="As in messages"),
        comment="One row for each content that an edit has replaced; gone with its message",
        sqlite_with_rowid=False,
    )


def _usage_kept(metadata: sa.MetaData) -> None:
    keys = (
        ("owner", "User or tenant; empty for conversations without one"),
        ("day", "The day of the calls, UTC, as 2026-01-31"),
        ("model", "The model that was asked"),
    )
    sa.Table(
        "usage_kept",
        metadata,
        *(sa.Column(name, text_key(), primary_key=True, comment=comment) for name, comment in keys),
        _big("calls", "Model calls"),
        _big("failed_calls", "Of these, failed, refused or cancelled"),
        _big("estimated_calls", "Of these, without a bill: their tokens are our counts"),
        _big("input_tokens", "What was sent, in tokens"),
        _big("cached_tokens", "Of these, read from the provider's prompt cache"),
        _big("cache_write_tokens", "Of these, written to it"),
        _big("output_tokens", "The replies, in tokens"),
        _big("reasoning_tokens", "Of these, spent on reasoning"),
        comment="What the calls of removed conversations cost, so that a deletion resets no quota",
        sqlite_with_rowid=False,
    )
