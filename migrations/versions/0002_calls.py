"""What a model call sent before its messages, whether it still runs, and which append led to it."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "tokenmem_0002"
down_revision = "tokenmem_0001"
branch_labels = None
depends_on = None


NEW_VIEWS = {
    "call_log": "One row a model call: what it sent, what it cost, how it ended, or whether it still runs",
    "count_error_by_model": "How far our count of what was sent is from the provider's, in percent of that",
}


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    dialect = op.get_context().dialect.name
    prefix = f"{schema}." if schema else ""
    keep_writers_out(prefix, dialect)
    create_call_prompts(schema, dialect)
    for table, column in new_columns():
        op.add_column(table, column, schema=schema)
    replace_views(prefix, dialect, ITEMS[dialect])
    for name, query in new_views(prefix, dialect).items():
        op.execute(f"CREATE VIEW {prefix}{name} AS\n{query}")
        if dialect == "postgresql":
            comment = NEW_VIEWS[name].replace("'", "''")
            op.execute(f"COMMENT ON VIEW {prefix}{name} IS '{comment}'")


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    dialect = op.get_context().dialect.name
    prefix = f"{schema}." if schema else ""
    keep_writers_out(prefix, dialect)
    for name in NEW_VIEWS:  # first: SQLite drops no column that a view reads
        op.execute(f"DROP VIEW {prefix}{name}")
    replace_views(prefix, dialect, NO_ITEMS)
    for table, column in reversed(new_columns()):
        op.drop_column(table, column.name, schema=schema)
    op.drop_table("call_prompts", schema=schema)


def keep_writers_out(prefix: str, dialect: str) -> None:
    """Wait for the writers at the table where each of them begins: met at another it might be a deadlock."""
    if dialect == "postgresql":
        op.execute(f"LOCK TABLE {prefix}conversations IN EXCLUSIVE MODE")


def replace_views(prefix: str, dialect: str, items: dict[str, str]) -> None:
    """Give two views another text. On PostgreSQL grants on them, and views of the user's on top, stay."""
    for name, query in changed_views(prefix, dialect, items).items():
        if dialect == "postgresql":
            op.execute(f"CREATE OR REPLACE VIEW {prefix}{name} AS\n{query}")
        else:
            op.execute(f"DROP VIEW {prefix}{name}")
            op.execute(f"CREATE VIEW {prefix}{name} AS\n{query}")


def text_key() -> Any:
    return sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def timestamp() -> Any:
    return sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def new_columns() -> list[tuple[str, Any]]:
    """All may be null: so no engine rewrites a table for them, and the rows that are there stay true."""
    return [
        (
            "append_keys",
            sa.Column("call_number", sa.BigInteger(), comment="The model call that the append led to"),
        ),
        (
            "llm_calls",
            sa.Column(
                "alive_at",
                timestamp(),
                comment="While the call runs, when its process last said so, UTC; null once it has ended",
            ),
        ),
        (
            "llm_calls",
            sa.Column(
                "reply_messages",
                sa.Integer(),
                comment="How many messages the reply is, from reply_position on",
            ),
        ),
        (
            "llm_calls",
            sa.Column(
                "prompt_digest",
                sa.Text(),
                comment="The instructions and tools that were sent, see call_prompts",
            ),
        ),
    ]


def create_call_prompts(schema: str | None, dialect: str) -> None:
    parent = f"{schema}.conversations.id" if schema else "conversations.id"
    now = "now()" if dialect == "postgresql" else "(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
    op.create_table(
        "call_prompts",
        sa.Column(
            "conversation_id",
            text_key(),
            sa.ForeignKey(parent, ondelete="CASCADE"),
            primary_key=True,
            nullable=False,
            comment="The conversation it belongs to",
        ),
        sa.Column(
            "digest",
            text_key(),
            primary_key=True,
            nullable=False,
            comment="SHA-256 of both: a call names its row by it",
        ),
        sa.Column("instructions", sa.Text(), comment="What the model was told before the messages"),
        sa.Column("tools", postgresql.JSON().with_variant(sa.Text(), "sqlite"), comment="The tools' schemas"),
        sa.Column(
            "created_at",
            timestamp(),
            nullable=False,
            server_default=sa.text(now),
            comment="When they were first sent, UTC",
        ),
        schema=schema,
        comment="One row for each set of instructions and tools that a conversation's calls sent",
        sqlite_with_rowid=False,
    )


# What the two engines write differently in the views; the first four as the migration before has them, but
# for the places where Responses items come in.
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
NO_ITEMS = {
    "item_call": "",
    "item_output": "",
    "content": "NULLIF(m.content, '')",
    "whole": "{lines}",
    "answered": "tool_call_id name",
}


def changed_views(prefix: str, dialect: str, items: dict[str, str]) -> dict[str, str]:
    """The two views that show what messages hold: with Responses items, or as they were before those."""
    words = POSTGRESQL if dialect == "postgresql" else SQLITE
    words = words | {name: words[name].format(**items) for name in ("calls", "parts")}
    return {
        "message_log": message_log(prefix, dialect, words, items),
        "tool_calls": tool_calls(prefix, dialect, words, items),
    }


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


def new_views(prefix: str, dialect: str) -> dict[str, str]:
    words = POSTGRESQL if dialect == "postgresql" else SQLITE
    return {"call_log": call_log(prefix, words), "count_error_by_model": count_error_by_model(prefix)}


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
