"""Conversations, messages, model calls, idempotency keys, and the views that people read."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "tokenmem_0001"
down_revision = None
branch_labels = ("tokenmem",)
depends_on = None

VIEWS = {
    "conversation_overview": "One row a conversation: how long it is and what its model calls cost",
    "message_log": "Every message as a person reads it, tool calls included",
    "tool_calls": "One row a tool call, with its result; a call id may occur again: each has its own result",
    "usage_by_day": "What each model cost, by the day (UTC)",
    "call_windows": "Every message that each model call sent, the pinned ones included",
}


# Windows of long messages load in half to four fifths of the time. Servers before 14 cannot, and not every
# later one is built with it; asked in the database, so that it also works as offline SQL.
COMPRESS_WITH_LZ4 = """DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_settings
            WHERE name = 'default_toast_compression' AND 'lz4' = ANY (enumvals)) THEN
        EXECUTE 'ALTER TABLE {0} ALTER content SET COMPRESSION lz4, ALTER payload SET COMPRESSION lz4';
    END IF;
END $$"""


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    dialect = op.get_context().dialect.name
    create_conversations(schema, dialect)
    create_messages(schema, dialect)
    create_llm_calls(schema, dialect)
    create_append_keys(schema)
    prefix = f"{schema}." if schema else ""
    for name, query in views(prefix, dialect).items():
        op.execute(f"CREATE VIEW {prefix}{name} AS\n{query}")
        if dialect == "postgresql":
            op.execute(f"COMMENT ON VIEW {prefix}{name} IS '{VIEWS[name]}'")


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    prefix = f"{schema}." if schema else ""
    for view in VIEWS:
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
        conversation_id(schema),
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
        moment("created_at", dialect, "When it was stored, UTC"),
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
    "calls": """json_array_elements(CASE
        WHEN json_typeof(m.payload -> 'tool_calls') = 'array' THEN m.payload -> 'tool_calls'
        WHEN json_typeof(m.payload -> 'function_call') = 'object'
        THEN json_build_array(m.payload -> 'function_call')
        ELSE '[]' END) WITH ORDINALITY AS listed (item, number)""",
    "parts": """json_array_elements(CASE
        WHEN json_typeof(m.payload -> 'content') = 'array' THEN m.payload -> 'content'
        ELSE '[]' END) WITH ORDINALITY AS listed (item, number)""",
    "item": "listed.item",
    "number": "listed.number",
    "lines": "string_agg(line, E'\\n' ORDER BY place, number)",
    "day": "CAST(created_at AT TIME ZONE 'UTC' AS date)",
    "integer": "bigint",
}
SQLITE = {
    "calls": """json_each(CASE
        WHEN json_type(m.payload, '$.tool_calls') = 'array' THEN m.payload -> '$.tool_calls'
        WHEN json_type(m.payload, '$.function_call') = 'object'
        THEN json_array(json(m.payload -> '$.function_call'))
        ELSE '[]' END) AS listed""",
    # An element that is plain text stands in `value` without its quotes, so it is no JSON there.
    "parts": """json_each(CASE
        WHEN json_type(m.payload, '$.content') = 'array' THEN m.payload -> '$.content'
        ELSE '[]' END) AS listed""",
    "item": "CASE listed.type WHEN 'object' THEN listed.value END",
    "number": "listed.key + 1",
    "lines": "group_concat(line, char(10))",
    "day": "substr(created_at, 1, 10)",
    "integer": "integer",
}


def value(dialect: str, document: str, *path: str) -> str:
    """What stands at a path of a JSON document, as text: a string's own, else its JSON, null as NULL."""
    if dialect == "postgresql":
        *parents, last = (f"'{key}'" for key in path)
        return f"({' -> '.join([document, *parents])} ->> {last})"
    place = f"'$.{'.'.join(path)}'"
    return (
        f"CASE json_type({document}, {place}) WHEN 'text' THEN {document} ->> {place} "
        f"WHEN 'null' THEN NULL ELSE {document} -> {place} END"
    )


def first(dialect: str, document: str, *paths: str) -> str:
    """The first of several paths at which something stands."""
    return f"COALESCE({', '.join(value(dialect, document, *path.split('.')) for path in paths)})"


def views(prefix: str, dialect: str) -> dict[str, str]:
    words = POSTGRESQL if dialect == "postgresql" else SQLITE
    calls, item, number = words["calls"], f"({words['item']})", words["number"]
    call_id = value(dialect, item, "id")
    call_name = first(dialect, item, "function.name", "custom.name", "name")
    part_input = f"'(' || COALESCE({value(dialect, item, 'input')}, '') || ')'"
    call_arguments = first(dialect, item, "function.arguments", "custom.input", "arguments")
    return {
        "conversation_overview": f"""SELECT c.id, c.owner, c.title, c.message_count, c.total_tokens,
    c.token_counter,
    (SELECT count(*) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS calls,
    (SELECT sum(l.input_tokens) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS input_tokens,
    (SELECT sum(l.output_tokens) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS output_tokens,
    c.created_at, c.updated_at
FROM {prefix}conversations c""",
        # The text, then what else there is: a refusal, parts without text (an image as [image_url]), calls.
        "message_log": f"""SELECT m.conversation_id, m.position, m.role, m.kind,
    CASE WHEN m.payload IS NULL THEN m.content ELSE COALESCE((
        SELECT {words["lines"]} FROM (
            SELECT 1 AS place, 1 AS number, NULLIF(m.content, '') AS line
            UNION ALL
            SELECT 2, 1, {value(dialect, "m.payload", "refusal")}
            UNION ALL
            SELECT 3, {number}, COALESCE({value(dialect, item, "refusal")},
                {value(dialect, item, "name")} || {part_input}, {value(dialect, item, "content")},
                '[' || {value(dialect, item, "type")} || ']')
            FROM {words["parts"]} WHERE {value(dialect, item, "text")} IS NULL
            UNION ALL
            SELECT 4, {number}, COALESCE({call_name}, '?') || '(' || COALESCE({call_arguments}, '') || ')'
            FROM {calls}
        ) AS lines WHERE line IS NOT NULL
    ), m.content) END AS text,
    m.token_count, m.tokens_before + m.token_count AS running_total, m.pinned, m.created_at,
    c.owner, c.title
FROM {prefix}messages m JOIN {prefix}conversations c ON c.id = m.conversation_id""",
        # The n-th call with an id in a message is answered by the n-th result with that id behind it, before
        # the id is called again. Calls of the old kind have no id: their function's name stands for it.
        # Windows, all by conversation, and no GROUP BY: so both engines read the one conversation asked for.
        "tool_calls": f"""WITH events AS (
    SELECT m.conversation_id, m.position, {number} AS number, {call_id} AS call_id, {call_name} AS name,
        {call_arguments} AS arguments, COALESCE({call_id}, {call_name}, '') AS answer_key, NULL AS content
    FROM {prefix}messages m, {calls}
    WHERE m.kind = 'tool_call'
    UNION ALL
    SELECT m.conversation_id, m.position, 0, NULL, NULL,
        NULL, {first(dialect, "m.payload", "tool_call_id", "name")}, m.content
    FROM {prefix}messages m
    WHERE m.kind = 'tool_result'
), placed AS (
    SELECT events.*, max(CASE WHEN number > 0 THEN position END) OVER (
        PARTITION BY conversation_id, answer_key ORDER BY position) AS called_at
    FROM events
), numbered AS (
    SELECT placed.*, row_number() OVER (
        PARTITION BY conversation_id, answer_key, called_at, number > 0 ORDER BY position, number) AS turn
    FROM placed
), paired AS (
    SELECT numbered.*, lead(position) OVER turns AS result_position, lead(content) OVER turns AS result
    FROM numbered
    WINDOW turns AS (PARTITION BY conversation_id, answer_key, called_at, turn ORDER BY position)
)
SELECT conversation_id, position, number, call_id, name, arguments, result_position, result,
    result_position IS NULL AS unanswered
FROM paired
WHERE number > 0""",
        "usage_by_day": f"""SELECT {words["day"]} AS day, model, count(*) AS calls,
    sum(CASE status WHEN 'ok' THEN 0 ELSE 1 END) AS failed_calls,
    CAST(sum(window_tokens) AS {words["integer"]}) AS window_tokens,
    CAST(sum(input_tokens) AS {words["integer"]}) AS input_tokens,
    CAST(sum(cached_tokens) AS {words["integer"]}) AS cached_tokens,
    CAST(sum(output_tokens) AS {words["integer"]}) AS output_tokens,
    CAST(sum(reasoning_tokens) AS {words["integer"]}) AS reasoning_tokens
FROM {prefix}llm_calls
GROUP BY {words["day"]}, model""",
        # Two ranges rather than one with OR: a call is not to read all that lies before its window.
        "call_windows": "\nUNION ALL\n".join(
            f"""SELECT l.conversation_id, l.number, l.model, l.status, m.position, m.role, m.kind, m.content,
    m.token_count, m.pinned, l.created_at AS called_at
FROM {prefix}llm_calls l
JOIN {prefix}messages m ON m.conversation_id = l.conversation_id AND {which}"""
            for which in (
                "m.position BETWEEN l.first_position AND l.last_position",
                "m.pinned AND m.position < l.first_position",
            )
        ),
    }
