"""Recount: move a conversation to another token counter, all of its rows in one transaction."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.message import Message
from tokenmem.messages.values import dump_json
from tokenmem.operations.read import messages
from tokenmem.operations.rows import lock_conversation, payload_text

PAGE = 1000
"""Messages held in memory at a time."""

_COUNT_MESSAGES = {
    "postgresql": Statement("""
UPDATE {messages} AS m SET token_count = n.token_count, tokens_before = n.tokens_before
FROM json_to_recordset(CAST(:rows AS json)) AS n (position bigint, token_count int, tokens_before bigint)
WHERE m.conversation_id = :id AND m.position = n.position
"""),
    # LIMIT: a table of its own, through which SQLite walks to look up each message; else, without statistics,
    # it would walk through the conversation and look through the list at each of its messages.
    "sqlite": Statement("""
UPDATE {messages} AS m SET token_count = n.token_count, tokens_before = n.tokens_before
FROM (
    SELECT value ->> '$.position' AS position, value ->> '$.token_count' AS token_count,
        value ->> '$.tokens_before' AS tokens_before
    FROM json_each(:rows) LIMIT -1
) AS n
WHERE m.conversation_id = :id AND m.position = n.position
"""),
}
_COUNT_CONVERSATION = Statement("""
UPDATE {conversations} AS c SET token_counter = :token_counter, total_tokens = :total_tokens,
    revision = c.revision + 1, {touched}
WHERE id = :id
""")


@dataclass(frozen=True, slots=True)
class Page:
    """Messages side by side, as they were read."""

    after: int
    last: int
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class CountedPage:
    """What remains of a page when it is counted: sixteen bytes a message.

    Attributes:
        after: the position behind which it begins.
        last: the position with which it ends.
        fingerprint: tells whether its messages are still those that were counted.
        positions: where they stand.
        token_counts: what each of them costs, in tokens.
    """

    after: int
    last: int
    fingerprint: int
    positions: array[int]
    token_counts: array[int]

    @classmethod
    def of(cls, page: Page, token_counts: Sequence[int]) -> CountedPage:
        """The page with what its messages cost."""
        positions = array("q", [message.position for message in page.messages])
        return cls(page.after, page.last, fingerprint(page.messages), positions, array("q", token_counts))


def fingerprint(page: Sequence[Message]) -> int:
    """Tells whether messages are still the ones that were counted."""
    return hash(tuple((m.position, m.role, m.content, payload_text(m)) for m in page))


def next_page(connection: sa.Connection, scope: Scope, conversation_id: str, after: int) -> Page | None:
    """The messages behind a position.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    found = messages(connection, scope, conversation_id, after, None, PAGE, newest_first=False)
    return Page(after, found[-1].position, found) if found else None


def recount(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    token_counter: str,
    counted: Sequence[CountedPage],
) -> Page | None:
    """Write the new counts if they are of the messages that are there; else change nothing, and return a page
    that has to be counted, anew or for the first time.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    lock_conversation(connection, scope, conversation_id)
    for page in counted:
        found = _between(connection, scope, conversation_id, page)
        if fingerprint(found) != page.fingerprint:
            return Page(page.after, page.last, found)
    after = counted[-1].last if counted else 0
    if page_behind := next_page(connection, scope, conversation_id, after):
        return page_behind
    total = 0
    for page in counted:
        rows = list(_rows(page, total))
        total += sum(page.token_counts)
        change = {"id": conversation_id, "rows": dump_json(rows)}
        _COUNT_MESSAGES[connection.dialect.name].run(connection, scope, change)
    new = {"id": conversation_id, "token_counter": token_counter, "total_tokens": total}
    _COUNT_CONVERSATION.run(connection, scope, new)
    return None


def _between(
    connection: sa.Connection, scope: Scope, conversation_id: str, page: CountedPage
) -> list[Message]:
    return messages(connection, scope, conversation_id, page.after, page.last + 1, None, newest_first=False)


def _rows(page: CountedPage, before: int) -> Iterator[dict[str, int]]:
    for position, tokens in zip(page.positions, page.token_counts, strict=True):
        yield {"position": position, "token_count": tokens, "tokens_before": before}
        before += tokens
