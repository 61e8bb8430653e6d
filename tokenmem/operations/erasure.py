"""What of an owner's texts must be in no file once all that the owner has is deleted."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement

PROBE = 48
"""Bytes of a text that are looked for: its beginning, its middle and its end."""

LEAST = 8
"""Bytes of the shortest text that is looked for: what is shorter may stand in any file by chance."""

_COLUMNS = {
    "messages": ("content", "payload", "metadata"),
    "message_versions": ("content", "payload"),
    "llm_calls": ("error", "request_id", "options", "metadata"),
    "call_prompts": ("instructions", "tools"),
    "append_keys": ("key",),
    "conversations": ("id", "owner", "title", "metadata"),
}
_TEXTS = {
    table: Statement(
        """
SELECT {columns} FROM {table} t JOIN {conversations} c ON c.id = {whose} WHERE {owned}
""",
        columns=", ".join(f"t.{column}" for column in columns),
        table=f"{{{table}}}",
        whose="t.id" if table == "conversations" else "t.conversation_id",
    )
    for table, columns in _COLUMNS.items()
}


def texts(connection: sa.Connection, scope: Scope) -> Iterator[str]:
    """Each text that the scope's owner has stored; everybody's in a scope of no owner."""
    for statement in _TEXTS.values():
        for row in statement.fetch(connection, scope, {"owner": scope.owner}):
            yield from (value for value in row if isinstance(value, str))


def probes(text: str, encoding: str) -> Iterator[bytes]:
    """Pieces of a text as a file in this encoding holds them, none so long that it fills a page."""
    content = text.encode(encoding, "surrogatepass")
    if len(content) >= LEAST:
        for start in {0, max(0, (len(content) - PROBE) // 2), max(0, len(content) - PROBE)}:
            yield content[start : start + PROBE]
