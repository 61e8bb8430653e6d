"""Conversations, messages, model calls, idempotency keys, settings, and the views that people read."""

import sqlalchemy as sa
from alembic import op

from tokenmem.database.column_types import json, text_key, timestamp
from tokenmem.database.migration_steps import (
    conversation_id,
    dialect_name,
    downgrade_views,
    integer,
    moment,
    tables_schema,
    upgrade_views,
)

revision = "tokenmem_0001"
down_revision = None
branch_labels = ("tokenmem",)
depends_on = None

# In the order in which they are created: a table comes before those that refer to it.
TABLES = ("conversations", "messages", "llm_calls", "append_keys", "call_prompts", "schema_settings")

# Windows of long messages load in half to four fifths of the time. Servers before 14 cannot, and not every
# later one is built with it; asked in the database, so that it also works as offline SQL.
COMPRESS_WITH_LZ4 = """DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_settings
            WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        EXECUTE 'ALTER TABLE {0} ALTER content SET COMPRESSION lz4, ALTER payload SET COMPRESSION lz4';
    END IF;
END $$"""


def upgrade() -> None:
    schema = tables_schema()
    dialect = dialect_name()
    create_conversations(schema, dialect)
    create_messages(schema, dialect)
    create_llm_calls(schema)
    create_append_keys(schema)
    create_call_prompts(schema)
    create_schema_settings(schema)
    upgrade_views(revision)


def downgrade() -> None:
    schema = tables_schema()
    downgrade_views(revision)
    for table in reversed(TABLES):
        op.drop_table(table, schema=schema)


def create_conversations(schema: str | None, dialect: str) -> None:
    op.create_table(
        "conversations",
        sa.Column(
            "id",
            text_key(),
            sa.CheckConstraint("length(id) BETWEEN 1 AND 255", name="conversations_id_length"),
            primary_key=True,
            nullable=False,
            comment="The application's own id, 1 to 255 characters",
        ),
        sa.Column("owner", sa.Text(), comment="User or tenant"),
        sa.Column("title", sa.Text(), comment="A name for people"),
        sa.Column("metadata", json(), comment="The application's own JSON object"),
        sa.Column(
            "token_counter", sa.Text(), nullable=False, comment="The counter that produced every count in it"
        ),
        integer("last_position", "The highest position ever given; 0 before the first", zero=True, big=True),
        integer("message_count", "How many messages it holds", zero=True, big=True),
        integer(
            "total_tokens",
            "Running total behind its newest message, in tokens, since its first",
            zero=True,
            big=True,
        ),
        integer(
            "revision",
            "Raised by every change of the conversation, its messages or pins",
            zero=True,
            big=True,
        ),
        integer("last_call", "The highest number ever given to one of its model calls", zero=True, big=True),
        moment("created_at", "When it was created, UTC"),
        moment("updated_at", "When it last changed, UTC"),
        schema=schema,
        comment="One row a conversation; its lock is the order of its messages",
    )
    if dialect == "postgresql":
        # Room on every page, so that the counters are updated in place (HOT). As a statement: SQLAlchemy 2.0
        # has no table option for it.
        op.execute(f"ALTER TABLE {schema}.conversations SET (fillfactor = 90)")
    op.create_index(
        "conversations_by_owner",
        "conversations",
        ["owner", "id"],
        schema=schema,
        postgresql_where=sa.text("owner IS NOT NULL"),
        sqlite_where=sa.text("owner IS NOT NULL"),
    )


def create_messages(schema: str | None, dialect: str) -> None:
    op.create_table(
        "messages",
        conversation_id(),
        sa.Column(
            "position",
            sa.BigInteger(),
            primary_key=True,
            nullable=False,
            autoincrement=False,
            comment="Place in the conversation, from 1",
        ),
        # The short ones first: SQLite need not follow a long text to reach them, PostgreSQL pads less.
        integer("tokens_before", "The conversation's running total before it, in tokens", big=True),
        moment("created_at", "When it was stored, UTC"),
        integer("token_count", "Its cost in tokens by the conversation's counter"),
        sa.Column(
            "pinned", sa.Boolean(), nullable=False, server_default=sa.false(), comment="Part of every window"
        ),
        sa.Column(
            "role", sa.Text(), nullable=False, comment="system, developer, user, assistant, tool or function"
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="message, tool_call, tool_result, reasoning or other"
        ),
        sa.Column("content", sa.Text(), comment="The text that a person reads"),
        sa.Column("payload", json(), comment="The provider's message where role and text cannot rebuild it"),
        schema=schema,
        comment="One row a message; a suffix of a conversation costs total_tokens - tokens_before",
        sqlite_with_rowid=False,
    )
    op.create_index(
        "messages_pinned",
        "messages",
        ["conversation_id", "position"],
        schema=schema,
        postgresql_where=sa.text("pinned"),
        sqlite_where=sa.text("pinned"),
    )
    if dialect == "postgresql":
        op.execute(COMPRESS_WITH_LZ4.format(f"{schema}.messages"))


def create_llm_calls(schema: str | None) -> None:
    op.create_table(
        "llm_calls",
        conversation_id(),
        sa.Column(
            "number",
            sa.BigInteger(),
            primary_key=True,
            nullable=False,
            autoincrement=False,
            comment="The call's number in its conversation, from 1",
        ),
        sa.Column("model", sa.Text(), nullable=False, comment="The model that was asked"),
        integer("first_position", "First message of the window that was sent", null=True, big=True),
        integer("last_position", "Last message of the window that was sent", null=True, big=True),
        integer("window_tokens", "Our count of what was sent", null=True),
        integer("input_tokens", "The provider's count of what was sent", null=True),
        integer("cached_tokens", "Of these, read from the provider's prompt cache", null=True),
        integer("output_tokens", "The provider's count of the reply", null=True),
        integer("reasoning_tokens", "Of these, spent on reasoning", null=True),
        integer("reply_position", "Where the reply is stored", null=True, big=True),
        integer("reply_messages", "How many messages the reply is, from reply_position on", null=True),
        integer("latency_ms", "From request to the end of the reply, in milliseconds", null=True),
        integer("first_token_ms", "From request to the first token, in milliseconds", null=True),
        sa.Column("finish_reason", sa.Text(), comment="Why the model stopped"),
        sa.Column("status", sa.Text(), nullable=False, comment="ok, error or cancelled"),
        sa.Column("error", sa.Text(), comment="What went wrong"),
        sa.Column("request_id", sa.Text(), comment="The provider's id of the request"),
        sa.Column(
            "prompt_digest", sa.Text(), comment="The instructions and tools that were sent, see call_prompts"
        ),
        moment("created_at", "When the call was recorded, UTC"),
        sa.Column(
            "alive_at",
            timestamp(),
            comment="While the call runs, when its process last said so, UTC; null once it has ended",
        ),
        schema=schema,
        comment="One row a model call: what the model saw and what it cost",
        sqlite_with_rowid=False,
    )


def create_append_keys(schema: str | None) -> None:
    op.create_table(
        "append_keys",
        conversation_id(),
        sa.Column(
            "key", text_key(), primary_key=True, nullable=False, comment="The caller's idempotency key"
        ),
        integer("first_position", "First message that the append stored", big=True),
        integer("last_position", "Last message that the append stored", big=True),
        integer("call_number", "The model call that the append led to", null=True, big=True),
        integer(
            "last_part",
            "The last message of the parts that its failed model calls left, directly behind what it stored; "
            "null where there are none",
            null=True,
            big=True,
        ),
        sa.Column(
            "digest", sa.Text(), nullable=False, comment="SHA-256 of the messages: tells a retry from another"
        ),
        schema=schema,
        comment="One row an append with an idempotency key, so that a retry stores nothing twice",
        sqlite_with_rowid=False,
    )


def create_call_prompts(schema: str | None) -> None:
    op.create_table(
        "call_prompts",
        conversation_id(),
        sa.Column(
            "digest",
            text_key(),
            primary_key=True,
            nullable=False,
            comment="SHA-256 of both: a call names its row by it",
        ),
        sa.Column("instructions", sa.Text(), comment="What the model was told before the messages"),
        sa.Column("tools", json(), comment="The tools' schemas"),
        moment("created_at", "When they were first sent, UTC"),
        schema=schema,
        comment="One row for each set of instructions and tools that a conversation's calls sent",
        sqlite_with_rowid=False,
    )


def create_schema_settings(schema: str | None) -> None:
    settings = op.create_table(
        "schema_settings",
        sa.Column("name", text_key(), primary_key=True, nullable=False, comment="The setting's name"),
        sa.Column("value", sa.Text(), nullable=False, comment="Its value"),
        schema=schema,
        comment="One row a setting; oldest_revision: code that knows this revision works on the tables",
        sqlite_with_rowid=False,
    )
    op.bulk_insert(settings, [{"name": "oldest_revision", "value": revision}])
