"""Recount: move a conversation to another token counter, all of its rows in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from tokenmem.formats import dump_json
from tokenmem.models import Message
from tokenmem.operations.read import messages
from tokenmem.operations.rows import lock_conversation
from tokenmem.schema import Scope
from tokenmem.statements import Statement

PAGE = 1000
"""Messages held in memory at a time."""

Counted = Mapping[int, tuple[int, int]]
"""For each position: a fingerprint of the message that was counted, and its tokens."""

_COUNT_MESSAGE = Statement("""
UPDATE {messages} SET token_count = :token_count, tokens_before = :tokens_before
WHERE conversation_id = :id AND position = :position
""")
_COUNT_CONVERSATION = Statement("""
UPDATE {conversations} SET token_counter = :token_counter, total_tokens = :total_tokens, updated_at = {now}
WHERE id = :id
""")


def fingerprint(message: Message) -> int:
    """Tells whether a message is still the one that was counted."""
    return hash((message.role, message.content, dump_json(message.payload)))


def recount(
    connection: sa.Connection, scope: Scope, conversation_id: str, token_counter: str, counted: Counted
) -> list[Message]:
    """Write the new counts, if every message has one; else change nothing and return those that lack it.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    lock_conversation(connection, scope, conversation_id)
    missing = [
        message
        for page in _pages(connection, scope, conversation_id)
        for message in page
        if counted.get(message.position, (None, 0))[0] != fingerprint(message)
    ]
    if missing:
        return missing
    total = 0
    for page in _pages(connection, scope, conversation_id):
        rows: list[dict[str, Any]] = []
        for message in page:
            tokens = counted[message.position][1]
            row = {"id": conversation_id, "position": message.position}
            rows.append(row | {"token_count": tokens, "tokens_before": total})
            total += tokens
        _COUNT_MESSAGE.run_many(connection, scope, rows)
    new = {"id": conversation_id, "token_counter": token_counter, "total_tokens": total}
    _COUNT_CONVERSATION.run(connection, scope, new)
    return []


def _pages(connection: sa.Connection, scope: Scope, conversation_id: str) -> Iterator[list[Message]]:
    after = 0
    while page := messages(connection, scope, conversation_id, after, None, PAGE, newest_first=False):
        yield page
        after = page[-1].position
