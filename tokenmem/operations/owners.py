"""All that an owner has: removed, or made nobody's, some conversations a transaction."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.operations import several, usage

BATCH = 500
"""Conversations a transaction, at most."""

BATCH_MESSAGES = 50_000
"""Messages a transaction, unless one conversation alone has more."""

_NEXT = Statement("""
SELECT c.id, c.message_count FROM {conversations} c
WHERE c.owner = :owner AND c.id > :after ORDER BY c.id LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class OwnerStep:
    """What one transaction did.

    Attributes:
        conversations: how many conversations.
        last_id: where the next one goes on; None where behind `after` there was none.
    """

    conversations: int
    last_id: str | None


def delete_next(connection: sa.Connection, scope: Scope, after: str) -> OwnerStep:
    """Remove the next conversations of the scope's owner behind the id `after`.

    Where there is none at all, what removed ones have cost is erased: it was kept for the owner alone.
    """
    several.begin_on_sqlite(connection, scope)
    found = _next_ids(connection, scope, after)
    if not found:
        if not after:
            usage.erase(connection, scope, _owner(scope))
        return OwnerStep(0, None)
    # Meanwhile another process may have removed some, or another owner may have made them anew.
    locked = several.lock(connection, scope, found)
    several.erase(connection, scope, locked)
    return OwnerStep(len(locked), found[-1])


# An empty text rather than none, and plain messages alone, so that each can still be sent: a call without its
# name, or a result that names no call, would be refused.
_BLANK = [
    Statement("""
UPDATE {messages} SET content = '', payload = NULL, metadata = NULL, kind = 'message',
    role = CASE WHEN role IN ('tool', 'function') THEN 'assistant' ELSE role END
WHERE conversation_id {one_of_ids}
"""),
    Statement("DELETE FROM {message_versions} WHERE conversation_id {one_of_ids}"),
    # A key may name a person, and a digest tells a text that somebody guesses.
    Statement("DELETE FROM {append_keys} WHERE conversation_id {one_of_ids}"),
    # A call that runs ends here: its reply would be stored with its text.
    Statement("""
UPDATE {llm_calls} SET error = NULL, request_id = NULL, prompt_digest = NULL, options = NULL, metadata = NULL,
    changes = NULL, alive_at = NULL
WHERE conversation_id {one_of_ids}
"""),
    Statement("DELETE FROM {call_prompts} WHERE conversation_id {one_of_ids}"),
    Statement("""
UPDATE {conversations} AS c SET owner = :pseudonym, title = NULL, metadata = NULL,
    archived_at = COALESCE(c.archived_at, {now}), revision = c.revision + 1, {touched}
WHERE c.id {one_of_ids}
"""),
]


def anonymize_next(connection: sa.Connection, scope: Scope, after: str, pseudonym: str) -> OwnerStep:
    """Blank the next conversations of the scope's owner behind the id `after`, and give them a pseudonym.

    Where there is none at all, what removed ones have cost goes under the pseudonym too.
    """
    several.begin_on_sqlite(connection, scope)
    found = _next_ids(connection, scope, after)
    if not found:
        if not after:
            usage.give_away(connection, scope, _owner(scope), pseudonym)
        return OwnerStep(0, None)
    locked = several.lock(connection, scope, found)
    request = {"ids": several.ids_of(connection, locked), "pseudonym": pseudonym}
    for statement in _BLANK:
        statement.run(connection, scope, request)
    return OwnerStep(len(locked), found[-1])


def _owner(scope: Scope) -> str:
    if scope.owner is None:
        raise AssertionError("an operation for one owner runs in that owner's scope")
    return scope.owner


def _next_ids(connection: sa.Connection, scope: Scope, after: str) -> list[str]:
    """Conversations for one transaction: not too many, nor too many messages."""
    ids: list[str] = []
    messages = 0
    request = {"owner": scope.owner, "after": after, "limit": BATCH}
    for conversation_id, count in _NEXT.fetch(connection, scope, request):
        if ids and messages + count > BATCH_MESSAGES:
            break
        ids.append(conversation_id)
        messages += count
    return ids
