"""Conversations, messages, model calls, idempotency keys, settings, and the views that people read."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "tokenmem_0001"
down_revision = None
branch_labels = ("tokenmem",)
depends_on = None

TABLES = ("conversations", "messages", "llm_calls", "append_keys", "call_prompts", "schema_settings")

VIEWS = {
    "conversation_overview": "One row a conversation: how long it is and what its model calls cost",
    "message_log": "Every message as a person reads it, tool calls included",
    "tool_calls": "One row a tool call, with its result; a call id may occur again: each has its own result",
    "usage_by_day": "What each model cost, by the day (UTC)",
    "call_windows": "Every message that each model call sent, the pinned ones included",
    "call_log": "One row a model call: what it sent, what it cost, how it ended, or whether it still runs",
    "count_error_by_model": "How far our count of what was sent is from the provider's, in percent of that",
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
    create_call_prompts(schema, dialect)
    create_schema_settings(schema)
    prefix = f"{schema}." if schema else ""
    for name, query in views(prefix, dialect).items():
        op.execute(f"CREATE VIEW {prefix}{name} AS\n{query}")
        if dialect == "postgresql":
            comment = VIEWS[name].replace("'", "''")
            op.execute(f"COMMENT ON VIEW {prefix}{name} IS '{comment}'")


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    prefix = f"{schema}." if schema else ""
    for view in VIEWS:
        op.execute(f"DROP VIEW {prefix}{view}")
    for table in reversed(TABLES):
        op.drop_table(table, schema=schema)


def text_key() -> Any:
    return sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def json() -> Any:
    return postgresql.JSON().with_variant(sa.Text(), "sqlite")


def timestamp() -> Any:
    return sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def moment(name: str, dialect: str, comment: str) -> Any:
    now = "now()" if dialect == "postgresql" else "(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
    return sa.Column(name, timestamp(), nullable=False, server_default=sa.text(now), comment=comment)


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
        integer(
            "revision",
            "Raised by every change of the conversation, its messages or pins",
            zero=True,
            big=True,
        ),
        integer("last_call", "The highest number ever given to one of its model calls", zero=True, big=True),
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
        moment("created_at", dialect, "When the call was recorded, UTC"),
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
        conversation_id(schema),
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


def create_call_prompts(schema: str | None, dialect: str) -> None:
    op.create_table(
        "call_prompts",
        conversation_id(schema),
        sa.Column(
            "digest",
            text_key(),
            primary_key=True,
            nullable=False,
            comment="SHA-256 of both: a call names its row by it",
        ),
        sa.Column("instructions", sa.Text(), comment="What the model was told before the messages"),
        sa.Column("tools", json(), comment="The tools' schemas"),
        moment("created_at", dialect, "When they were first sent, UTC"),
        schema=schema,
        comment="One row for each set of instructions and tools that a conversation's calls sent",
        sqlite_with_rowid=False,
    )


def create_schema_settings(schema: str | None) -> None:
    settings = op.create_table(
        "schema_settings",
        sa.Column("name", text_key(), primary_key=True, nullable=False, comment="oldest_revision"),
        sa.Column("value", sa.Text(), nullable=False, comment="Its value"),
        schema=schema,
        comment="One row a setting; oldest_revision: code that knows this revision works on the tables",
        sqlite_with_rowid=False,
    )
    op.bulk_insert(settings, [{"name": "oldest_revision", "value": revision}])


# What the two engines write differently in the views.
POSTGRESQL = {
    "calls": """json_array_elements(CASE
        WHEN json_typeof(m.payload -> 'tool_calls') = 'array' THEN m.payload -> 'tool_calls'
        WHEN json_typeof(m.payload -> 'function_call') = 'object'
        THEN json_build_array(m.payload -> 'function_call')
        {item_call} ELSE '[]' END) WITH ORDINALITY AS listed (item, number)""",
    "parts": """json_array_elements(CASE
        WHEN json_typeof(m.payload -> 'content') = 'array' THEN m.payload -> 'content'
        {item_output} ELSE '[]' END) WITH ORDINALITY AS listed (item, number)""",
    "item": "listed.item",
    "number": "listed.number",
    "lines": "string_agg(line, E'\\n' ORDER BY place, number)",
    "day": "CAST(created_at AT TIME ZONE 'UTC' AS date)",
    "integer": "bigint",
    "long_ago": "statement_timestamp() - interval '15 seconds'",
}
SQLITE = {
    "calls": """json_each(CASE
        WHEN json_type(m.payload, '$.tool_calls') = 'array' THEN m.payload -> '$.tool_calls'
        WHEN json_type(m.payload, '$.function_call') = 'object'
        THEN json_array(json(m.payload -> '$.function_call'))
        {item_call} ELSE '[]' END) AS listed""",
    # An element that is plain text stands in `value` without its quotes, so it is no JSON there.
    "parts": """json_each(CASE
        WHEN json_type(m.payload, '$.content') = 'array' THEN m.payload -> '$.content'
        {item_output} ELSE '[]' END) AS listed""",
    "item": "CASE listed.type WHEN 'object' THEN listed.value END",
    "number": "listed.key + 1",
    "lines": "group_concat(line, char(10))",
    "day": "substr(created_at, 1, 10)",
    "integer": "integer",
    "long_ago": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-15 seconds')",
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


# What the views say of items of the Responses API and of a reply that was cut off. An item has no role in its
# payload. `item_call` gives a call, which has its id, the shape of a chat message's; what a built-in tool is
# to do stands in its action or operation. `item_output` lists the parts of an output that is no text;
# `content` labels what is neither said nor called; `whole` is made of the lines.
LABEL = """CASE WHEN m.kind IN ('reasoning', 'other') THEN '[' || COALESCE({type}, m.kind) || ']'
                || COALESCE(' ' || NULLIF(m.content, ''), '') ELSE NULLIF(m.content, '') END"""
WHOLE = "CASE WHEN {partial} THEN COALESCE({lines} || ' ', '') || '[incomplete]' ELSE {lines} END"
ITEMS = {
    "postgresql": {
        "item_call": """WHEN m.payload ->> 'call_id' IS NOT NULL AND m.payload ->> 'role' IS NULL
            AND m.kind = 'tool_call'
        THEN json_build_array(json_build_object('id', m.payload -> 'call_id',
            'name', COALESCE(m.payload -> 'name', m.payload -> 'type'),
            'arguments', COALESCE(m.payload -> 'arguments', m.payload -> 'input', m.payload -> 'action',
                m.payload -> 'operation')))""",
        "item_output": """WHEN m.kind = 'tool_result' AND json_typeof(m.payload -> 'output') = 'array'
        THEN m.payload -> 'output'
        WHEN m.kind = 'tool_result' AND json_typeof(m.payload -> 'output') = 'object'
        THEN json_build_array(m.payload -> 'output')""",
        "content": LABEL.format(type=value("postgresql", "m.payload", "type")),
        "whole": WHOLE.replace("{partial}", "m.payload -> 'tokenmem_partial' IS NOT NULL"),
        "answered": "tool_call_id call_id name",
    },
    "sqlite": {
        "item_call": """WHEN m.payload ->> '$.call_id' IS NOT NULL AND m.payload ->> '$.role' IS NULL
            AND m.kind = 'tool_call'
        THEN json_array(json_object('id', json(m.payload -> '$.call_id'),
            'name', json(COALESCE(m.payload -> '$.name', m.payload -> '$.type')),
            'arguments', json(COALESCE(m.payload -> '$.arguments', m.payload -> '$.input',
                m.payload -> '$.action', m.payload -> '$.operation'))))""",
        "item_output": """WHEN m.kind = 'tool_result' AND json_type(m.payload, '$.output') = 'array'
        THEN m.payload -> '$.output'
        WHEN m.kind = 'tool_result' AND json_type(m.payload, '$.output') = 'object'
        THEN json_array(json(m.payload -> '$.output'))""",
        "content": LABEL.format(type=value("sqlite", "m.payload", "type")),
        "whole": WHOLE.replace("{partial}", "json_type(m.payload, '$.tokenmem_partial') IS NOT NULL"),
        "answered": "tool_call_id call_id name",
    },
}


def views(prefix: str, dialect: str) -> dict[str, str]:
    items = ITEMS[dialect]
    words = POSTGRESQL if dialect == "postgresql" else SQLITE
    words = words | {name: words[name].format(**items) for name in ("calls", "parts")}
    return {
        "conversation_overview": conversation_overview(prefix),
        "message_log": message_log(prefix, dialect, words, items),
        "tool_calls": tool_calls(prefix, dialect, words, items),
        "usage_by_day": usage_by_day(prefix, words),
        "call_windows": call_windows(prefix),
        "call_log": call_log(prefix, words),
        "count_error_by_model": count_error_by_model(prefix),
    }


def conversation_overview(prefix: str) -> str:
    return f"""SELECT c.id, c.owner, c.title, c.message_count, c.total_tokens,
    c.token_counter,
    (SELECT count(*) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS calls,
    (SELECT sum(l.input_tokens) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS input_tokens,
    (SELECT sum(l.output_tokens) FROM {prefix}llm_calls l WHERE l.conversation_id = c.id) AS output_tokens,
    c.created_at, c.updated_at
FROM {prefix}conversations c"""


def usage_by_day(prefix: str, words: dict[str, str]) -> str:
    return f"""SELECT {words["day"]} AS day, model, count(*) AS calls,
    sum(CASE status WHEN 'ok' THEN 0 ELSE 1 END) AS failed_calls,
    CAST(sum(window_tokens) AS {words["integer"]}) AS window_tokens,
    CAST(sum(input_tokens) AS {words["integer"]}) AS input_tokens,
    CAST(sum(cached_tokens) AS {words["integer"]}) AS cached_tokens,
    CAST(sum(output_tokens) AS {words["integer"]}) AS output_tokens,
    CAST(sum(reasoning_tokens) AS {words["integer"]}) AS reasoning_tokens
FROM {prefix}llm_calls
GROUP BY {words["day"]}, model"""


def call_windows(prefix: str) -> str:
    # Two ranges rather than one with OR: a call is not to read all that lies before its window.
    return "\nUNION ALL\n".join(
        f"""SELECT l.conversation_id, l.number, l.model, l.status, m.position, m.role, m.kind, m.content,
    m.token_count, m.pinned, l.created_at AS called_at
FROM {prefix}llm_calls l
JOIN {prefix}messages m ON m.conversation_id = l.conversation_id AND {which}"""
        for which in (
            "m.position BETWEEN l.first_position AND l.last_position",
            "m.pinned AND m.position < l.first_position",
        )
    )


def call_parts(dialect: str, item: str) -> tuple[str, str]:
    """A call's name and arguments, in any of the forms that chat messages have for it."""
    name = first(dialect, item, "function.name", "custom.name", "name")
    return name, first(dialect, item, "function.arguments", "custom.input", "arguments")


def message_log(prefix: str, dialect: str, words: dict[str, str], items: dict[str, str]) -> str:
    item, number = f"({words['item']})", words["number"]
    call_name, call_arguments = call_parts(dialect, item)
    part_input = f"'(' || COALESCE({value(dialect, item, 'input')}, '') || ')'"
    # The text, then what else there is: a refusal, parts without text (an image as [image_url]), calls.
    return f"""SELECT m.conversation_id, m.position, m.role, m.kind,
    CASE WHEN m.payload IS NULL THEN m.content ELSE COALESCE((
        SELECT {items["whole"].format(lines=words["lines"])} FROM (
            SELECT 1 AS place, 1 AS number, {items["content"]} AS line
            UNION ALL
            SELECT 2, 1, {value(dialect, "m.payload", "refusal")}
            UNION ALL
            SELECT 3, {number}, COALESCE({value(dialect, item, "refusal")},
                {value(dialect, item, "name")} || {part_input}, {value(dialect, item, "content")},
                '[' || {value(dialect, item, "type")} || ']')
            FROM {words["parts"]} WHERE {value(dialect, item, "text")} IS NULL
            UNION ALL
            SELECT 4, {number}, COALESCE({call_name}, '?') || '(' || COALESCE({call_arguments}, '') || ')'
            FROM {words["calls"]}
        ) AS lines WHERE line IS NOT NULL
    ), m.content) END AS text,
    m.token_count, m.tokens_before + m.token_count AS running_total, m.pinned, m.created_at,
    c.owner, c.title
FROM {prefix}messages m JOIN {prefix}conversations c ON c.id = m.conversation_id"""


def tool_calls(prefix: str, dialect: str, words: dict[str, str], items: dict[str, str]) -> str:
    calls, item, number = words["calls"], f"({words['item']})", words["number"]
    call_id = value(dialect, item, "id")
    call_name, call_arguments = call_parts(dialect, item)
    # The n-th call with an id in a message is answered by the n-th result with that id behind it, before
    # the id is called again. Calls of the old kind have no id: their function's name stands for it.
    # Windows, all by conversation, and no GROUP BY: so both engines read the one conversation asked for.
    return f"""WITH events AS (
    SELECT m.conversation_id, m.position, {number} AS number, {call_id} AS call_id, {call_name} AS name,
        {call_arguments} AS arguments, COALESCE({call_id}, {call_name}, '') AS answer_key, NULL AS content
    FROM {prefix}messages m, {calls}
    WHERE m.kind = 'tool_call'
    UNION ALL
    SELECT m.conversation_id, m.position, 0, NULL, NULL,
        NULL, {first(dialect, "m.payload", *items["answered"].split())}, m.content
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
WHERE number > 0"""


def call_log(prefix: str, words: dict[str, str]) -> str:
    # Cast, so that both engines answer with the tools' text.
    return f"""SELECT l.conversation_id, l.number, l.model,
    CASE WHEN l.alive_at IS NULL THEN l.status WHEN l.alive_at > {words["long_ago"]} THEN 'running'
        ELSE 'died' END AS status,
    l.first_position, l.last_position, l.window_tokens, l.input_tokens, l.cached_tokens, l.output_tokens,
    l.reasoning_tokens, l.reply_position, l.reply_messages, l.latency_ms, l.first_token_ms, l.finish_reason,
    l.error, l.request_id, l.created_at, p.instructions, CAST(p.tools AS text) AS tools
FROM {prefix}llm_calls l
LEFT JOIN {prefix}call_prompts p ON p.conversation_id = l.conversation_id AND p.digest = l.prompt_digest"""


def count_error_by_model(prefix: str) -> str:
    # Whole millionths of a percent: fractions would round otherwise on SQLite, where they are binary.
    return f"""WITH compared AS (
    SELECT model, window_tokens, input_tokens,
        CAST(100000000 AS bigint) * (window_tokens - input_tokens) / input_tokens AS error
    FROM {prefix}llm_calls
    WHERE status = 'ok' AND window_tokens IS NOT NULL AND input_tokens > 0
), summed AS (
    SELECT model, count(*) AS calls, CAST(sum(window_tokens) AS bigint) AS window_tokens,
        CAST(sum(input_tokens) AS bigint) AS input_tokens, CAST(sum(error) AS bigint) / count(*) AS mean,
        min(CASE WHEN error < 0 THEN error ELSE 0 END) AS lowest,
        max(CASE WHEN error > 0 THEN error ELSE 0 END) AS highest
    FROM compared GROUP BY model
)
SELECT model, calls, window_tokens, input_tokens, {percent("mean")} AS mean_error_percent,
    {percent("lowest")} AS worst_undercount_percent, {percent("highest")} AS worst_overcount_percent
FROM summed"""


def percent(millionths: str) -> str:
    """Half a hundredth is rounded away from zero."""
    half = f"CASE WHEN {millionths} < 0 THEN -5000 ELSE 5000 END"
    return f"round(({millionths} + {half}) / 10000 / 100.0, 2)"
