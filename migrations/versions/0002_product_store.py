"""What products need of a store: data beside messages, lists by recency, versions, usage that stays."""

import sqlalchemy as sa
from alembic import op

from tokenmem.database.column_types import json, text_key, timestamp
from tokenmem.database.migration_steps import (
    conversation_id,
    downgrade_views,
    integer,
    keep_writers_out,
    moment,
    set_oldest_revision,
    tables_schema,
    upgrade_views,
)

revision = "tokenmem_0002"
down_revision = "tokenmem_0001"
branch_labels = None
depends_on = None

COLUMNS = {
    "conversations": (
        ("parent_id", text_key(), "The conversation that it was forked from"),
        ("forked_at", sa.BigInteger(), "The last position that it has in common with its parent"),
        ("recent_at", timestamp(), "updated_at, up to 30 seconds late; null while nothing has changed since"),
        ("archived_at", timestamp(), "When it was put away from the lists, UTC"),
    ),
    "messages": (
        ("metadata", json(), "The application's own JSON object: never counted, never sent"),
        ("stored_at", timestamp(), "When it was stored, UTC, where created_at came with it"),
    ),
    "llm_calls": (
        ("revision", sa.BigInteger(), "The conversation's revision that it read"),
        ("api", sa.Text(), "The API that was asked: chat, responses or another"),
        ("token_limit", sa.BigInteger(), "The limit as the caller gave it, in tokens"),
        ("options", json(), "The request's options that are numbers, flags or names"),
        ("metadata", json(), "The application's own JSON object"),
        ("cache_write_tokens", sa.Integer(), "Of the provider's count, written to its prompt cache"),
        ("pinned", json(), "The positions of the pinned messages that were sent from outside the window"),
        ("changes", json(), "What was changed in what was sent: a list of positions and what was done"),
    ),
    "append_keys": (("created_at", timestamp(), "When the append was stored, UTC"),),
}

# (name, columns, only where this holds). A conversation stands in the list of those that have not changed
# since they were made, or in that of those that have, or in the archive: once by owner, once among all.
INDEXES = (
    ("conversations_made", ("created_at", "id"), "recent_at IS NULL AND archived_at IS NULL"),
    ("conversations_changed", ("recent_at",), "recent_at IS NOT NULL AND archived_at IS NULL"),
    ("conversations_archived", ("archived_at", "id"), "archived_at IS NOT NULL"),
    ("conversations_archived_changed", ("recent_at", "created_at"), "archived_at IS NOT NULL"),
    ("conversations_by_parent", ("parent_id", "id"), "parent_id IS NOT NULL"),
)


def upgrade() -> None:
    keep_writers_out()
    schema = tables_schema()
    for table, columns in COLUMNS.items():
        for name, kind, comment in columns:
            op.add_column(table, sa.Column(name, kind, comment=comment), schema=schema)
    op.add_column(
        "conversations",
        sa.Column(
            "keep", sa.Boolean(), nullable=False, server_default=sa.false(), comment="Exempt from purges"
        ),
        schema=schema,
    )
    fill_columns(f"{schema}." if schema else "")
    create_indexes(schema)
    create_message_versions(schema)
    create_usage_kept(schema)
    set_oldest_revision(revision)
    upgrade_views(revision)


def downgrade() -> None:
    keep_writers_out()
    schema = tables_schema()
    downgrade_views(revision)
    set_oldest_revision("tokenmem_0001")
    op.drop_table("usage_kept", schema=schema)
    op.drop_table("message_versions", schema=schema)
    for name, _, _ in all_indexes():
        op.drop_index(name, "conversations", schema=schema)
    op.drop_column("conversations", "keep", schema=schema)
    for table, columns in COLUMNS.items():
        for name, _, _ in columns:
            op.drop_column(table, name, schema=schema)


def all_indexes() -> list[tuple[str, tuple[str, ...], str]]:
    """Each index, and but for the last the same by owner."""
    owned = [
        (f"{name}_by_owner", ("owner", *columns), f"owner IS NOT NULL AND {condition}")
        for name, columns, condition in INDEXES[:-1]
    ]
    return [*INDEXES, *owned]


def create_indexes(schema: str | None) -> None:
    for name, columns, condition in all_indexes():
        where = sa.text(condition)
        op.create_index(
            name, "conversations", list(columns), schema=schema, postgresql_where=where, sqlite_where=where
        )


def fill_columns(prefix: str) -> None:
    """Conversations that have changed since they were made, and when keys were stored."""
    op.execute(f"UPDATE {prefix}conversations SET recent_at = updated_at WHERE updated_at <> created_at")
    op.execute(
        f"UPDATE {prefix}append_keys SET created_at = COALESCE("
        f"(SELECT m.created_at FROM {prefix}messages m WHERE m.conversation_id = append_keys.conversation_id"
        f" AND m.position = append_keys.first_position),"
        f" (SELECT c.updated_at FROM {prefix}conversations c WHERE c.id = append_keys.conversation_id))"
    )


def create_message_versions(schema: str | None) -> None:
    op.create_table(
        "message_versions",
        conversation_id(),
        *(
            sa.Column(
                name, sa.BigInteger(), primary_key=True, nullable=False, autoincrement=False, comment=comment
            )
            for name, comment in (
                ("position", "Where it stood"),
                ("version", "Its number among those that stood there, from 1"),
                ("part", "Which of the messages that were replaced together, from 1"),
            )
        ),
        integer("since_revision", "The conversation's revision from which on it stood there", big=True),
        integer("replaced_at_revision", "The conversation's revision that replaced it", big=True),
        moment("replaced_at", "When it was replaced, UTC"),
        integer("token_count", "What it cost in tokens by the conversation's counter then"),
        sa.Column("role", sa.Text(), nullable=False, comment="As in messages"),
        sa.Column("kind", sa.Text(), nullable=False, comment="As in messages"),
        sa.Column("content", sa.Text(), comment="As in messages"),
        sa.Column("payload", json(), comment="As in messages"),
        schema=schema,
        comment="One row for each content that an edit has replaced; gone with its message",
        sqlite_with_rowid=False,
    )


def create_usage_kept(schema: str | None) -> None:
    zeros = (
        ("calls", "Model calls"),
        ("failed_calls", "Of these, failed or cancelled"),
        ("estimated_calls", "Of these, without a bill: their tokens are our counts"),
        ("input_tokens", "What was sent, in tokens"),
        ("cached_tokens", "Of these, read from the provider's prompt cache"),
        ("cache_write_tokens", "Of these, written to it"),
        ("output_tokens", "The replies, in tokens"),
        ("reasoning_tokens", "Of these, spent on reasoning"),
    )
    op.create_table(
        "usage_kept",
        sa.Column(
            "owner",
            text_key(),
            primary_key=True,
            nullable=False,
            comment="User or tenant; empty for conversations without one",
        ),
        sa.Column(
            "day",
            text_key(),
            primary_key=True,
            nullable=False,
            comment="The day of the calls, UTC, as 2026-01-31",
        ),
        sa.Column("model", text_key(), primary_key=True, nullable=False, comment="The model that was asked"),
        *(integer(name, comment, zero=True, big=True) for name, comment in zeros),
        schema=schema,
        comment="What the calls of removed conversations cost, so that a deletion resets no quota",
        sqlite_with_rowid=False,
    )
