"""Conversations, messages, model calls, idempotency keys, and the views that people read."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "tokenmem_0001"
down_revision = None
branch_labels = ("tokenmem",)
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    dialect = op.get_context().dialect.name
    create_conversations(schema, dialect)
    create_messages(schema, dialect)
    create_llm_calls(schema, dialect)
    create_append_keys(schema)
    for statement in views(f"{schema}." if schema else "", dialect):
        op.execute(statement)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    prefix = f"{schema}." if schema else ""
    for view in ("call_windows", "usage_by_day", "tool_calls", "message_log", "conversation_overview"):
        op.execute(f"DROP VIEW {prefix}{view}")
    for table in ("append_keys", "llm_calls", "messages", "conversations"):
        op.drop_table(table, schema=schema)


def text_key() -> Any:
    return sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def json() -> Any:
    return postgresql.JSON().with_variant(sa.Text(), "sqlite")


def moment(name: str, dialect: str, comment: str) -> Any:
    now = "now()" if dialect == "postgresql" else "(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
    kind = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")
    return sa.Column(name, kind, nullable=False, server_default=sa.text(now), comment=comment)


def integer(name: str, comment: str, *, null: bool = False, zero: bool = False, big: bool = False) -> Any:
    default = sa.text("0") if zero else None
    kind = sa.BigInteger() if big else sa.Integer()
    return sa.Column(name, kind, nullable=null, server_default=default, comment=comment)


def conversation_id(schema: str | None) -> Any:
    parent = f"{schema}.conversations.id" if schema else "conversations.id"
    return sa.Column(
        "conversation_id",
        text_key(),
        sa.ForeignKey(parent, ondelete="CASCADE"),
        primary_key=True,
        nullable=False,
        comment="The conversation it belongs to",
    )


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
        moment("created_at", dialect, "When it was created, UTC"),
        moment("updated_at", dialect, "When it last changed, UTC"),
        schema=schema,
        comment="One row a conversation; its lock is the order of its messages",
        # Room on every page, so that the counters are updated in place (HOT).
        postgresql_with={"fillfactor": 90},
    )
    op.create_index(
        "conversations_by_owner",
        "conversations",
        ["owner"],
        schema=schema,
        postgresql_where=sa.text("owner IS NOT NULL"),
    )


def create_messages(schema: str | None, dialect: str) -> None:
    op.create_table(
        "messages",
        conversation_id(schema),
        sa.Column(
            "position",
            sa.BigInteger(),
            primary_key=True,
            nullable=False,
            autoincrement=False,
            comment="Place in the conversation, from 1",
        ),
        sa.Column(
            "role", sa.Text(), nullable=False, comment="system, developer, user, assistant, tool or function"
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="message, tool_call, tool_result, reasoning or other"
        ),
        sa.Column("content", sa.Text(), comment="The text that a person reads"),
        sa.Column("payload", json(), comment="The provider's message where role and text cannot rebuild it"),
        integer("token_count", "Its cost in tokens by the conversation's counter"),
        integer("tokens_before", "The conversation's running total before it, in tokens", big=True),
        sa.Column(
            "pinned", sa.Boolean(), nullable=False, server_default=sa.false(), comment="Part of every window"
        ),
        moment("created_at", dialect, "When it was stored, UTC"),
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


def create_llm_calls(schema: str | None, dialect: str) -> None:
    op.create_table(
        "llm_calls",
        conversation_id(schema),
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
        integer("latency_ms", "From request to the end of the reply, in milliseconds", null=True),
        integer("first_token_ms", "From request to the first token, in milliseconds", null=True),
        sa.Column("finish_reason", sa.Text(), comment="Why the model stopped"),
        sa.Column("status", sa.Text(), nullable=False, comment="ok, error or cancelled"),
        sa.Column("error", sa.Text(), comment="What went wrong"),
        sa.Column("request_id", sa.Text(), comment="The provider's id of the request"),
        moment("created_at", dialect, "When the call was recorded, UTC"),
        schema=schema,
        comment="One row a model call: what the model saw and what it cost",
        sqlite_with_rowid=False,
    )


def create_append_keys(schema: str | None) -> None:
    op.create_table(
        "append_keys",
        conversation_id(schema),
        sa.Column(
            "key", text_key(), primary_key=True, nullable=False, comment="The caller's idempotency key"
        ),
        integer("first_position", "First message that the append stored", big=True),
        integer("last_position", "Last message that the append stored", big=True),
        sa.Column(
            "digest", sa.Text(), nullable=False, comment="SHA-256 of the messages: tells a retry from another"
        ),
        schema=schema,
        comment="One row an append with an idempotency key, so that a retry stores nothing twice",
        sqlite_with_rowid=False,
    )


# What the two engines write differently in the views.
POSTGRESQL = {
    "calls": """json_array_elements(CASE json_typeof(m.payload -> 'tool_calls')
        WHEN 'array' THEN m.payload -> 'tool_calls' ELSE '[]' END)
        WITH ORDINALITY AS listed (call, number)""",
    "call_id": "listed.call ->> 'id'",
    "call_number": "listed.number",
    "call_name": "COALESCE(listed.call -> 'function' ->> 'name', listed.call ->> 'name')",
    "call_arguments": "COALESCE(listed.call -> 'function' ->> 'arguments', listed.call ->> 'arguments')",
    "answered_id": "r.payload ->> 'tool_call_id'",
    "join_calls": "string_agg({call}, E'\\n')",
    "newline": "E'\\n'",
    "day": "CAST(created_at AT TIME ZONE 'UTC' AS date)",
    "number": "bigint",
}
SQLITE = {
    "calls": """json_each(CASE json_type(m.payload, '$.tool_calls')
        WHEN 'array' THEN json_extract(m.payload, '$.tool_calls') ELSE '[]' END) AS listed""",
    "call_id": "json_extract(listed.value, '$.id')",
    "call_number": "listed.key + 1",
    "call_name": """COALESCE(json_extract(listed.value, '$.function.name'),
        json_extract(listed.value, '$.name'))""",
    "call_arguments": """COALESCE(json_extract(listed.value, '$.function.arguments'),
        json_extract(listed.value, '$.arguments'))""",
    "answered_id": "json_extract(r.payload, '$.tool_call_id')",
    "join_calls": "group_concat({call}, char(10))",
    "newline": "char(10)",
    "day": "substr(created_at, 1, 10)",
    "number": "integer",
}


def views(prefix: str, dialect: str) -> list[str]:
    words = POSTGRESQL if dialect == "postgresql" else SQLITE
    shown_call = f"{words['call_name']} || '(' || COALESCE({words['call_arguments']}, '') || ')'"
    shown_calls = words["join_calls"].format(call=shown_call)
    return [
        f"""CREATE VIEW {prefix}conversation_overview AS
SELECT c.id, c.owner, c.title, c.message_count, c.total_tokens, c.token_counter,
    (SELECT count(*) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS calls,
    (SELECT sum(l.input_tokens) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS input_tokens,
    (SELECT sum(l.output_tokens) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS output_tokens,
    c.created_at, c.updated_at
FROM {prefix}conversations c""",
        f"""CREATE VIEW {prefix}message_log AS
SELECT m.conversation_id, m.position, m.role, m.kind,
    CASE m.kind WHEN 'tool_call' THEN
        COALESCE(NULLIF(m.content, '') || {words["newline"]}, '')
        || COALESCE((SELECT {shown_calls} FROM {words["calls"]}), '')
    ELSE m.content END AS text,
    m.token_count, m.tokens_before + m.token_count AS running_total, m.pinned, m.created_at,
    c.owner, c.title
FROM {prefix}messages m JOIN {prefix}conversations c ON c.id = m.conversation_id""",
        f"""CREATE VIEW {prefix}tool_calls AS
WITH called AS (
    SELECT m.conversation_id, m.position, {words["call_number"]} AS number, {words["call_id"]} AS call_id,
        {words["call_name"]} AS name, {words["call_arguments"]} AS arguments
    FROM {prefix}messages m, {words["calls"]}
    WHERE m.kind = 'tool_call'
), paired AS (
    SELECT called.*, lead(position) OVER (
        PARTITION BY conversation_id, call_id ORDER BY position, number) AS called_again
    FROM called
), answered AS (
    SELECT paired.*, (
        SELECT min(r.position) FROM {prefix}messages r
        WHERE r.conversation_id = paired.conversation_id AND r.kind = 'tool_result'
            AND r.position > paired.position AND {words["answered_id"]} = paired.call_id
            AND (paired.called_again IS NULL OR r.position < paired.called_again)
        ) AS result_position
    FROM paired
)
SELECT a.conversation_id, a.position, a.number, a.call_id, a.name, a.arguments,
    a.result_position, r.content AS result, a.result_position IS NULL AS unanswered
FROM answered a
LEFT JOIN {prefix}messages r ON r.conversation_id = a.conversation_id AND r.position = a.result_position""",
        f"""CREATE VIEW {prefix}usage_by_day AS
SELECT {words["day"]} AS day, model, count(*) AS calls,
    sum(CASE status WHEN 'ok' THEN 0 ELSE 1 END) AS failed_calls,
    CAST(sum(window_tokens) AS {words["number"]}) AS window_tokens,
    CAST(sum(input_tokens) AS {words["number"]}) AS input_tokens,
    CAST(sum(cached_tokens) AS {words["number"]}) AS cached_tokens,
    CAST(sum(output_tokens) AS {words["number"]}) AS output_tokens,
    CAST(sum(reasoning_tokens) AS {words["number"]}) AS reasoning_tokens
FROM {prefix}llm_calls
GROUP BY {words["day"]}, model""",
        f"""CREATE VIEW {prefix}call_windows AS
SELECT l.conversation_id, l.number, l.model, l.status, m.position, m.role, m.kind, m.content,
    m.token_count, m.pinned, l.created_at AS called_at
FROM {prefix}llm_calls l
JOIN {prefix}messages m ON m.conversation_id = l.conversation_id
    AND m.position <= l.last_position AND (m.position >= l.first_position OR m.pinned)""",
    ]
