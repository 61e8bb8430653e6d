"""What is only read: pages of messages, and how many conversations there are."""

from __future__ import annotations

import operator
from datetime import datetime

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.message import Message
from tokenmem.operations.rows import (
    NO_BOUND,
    as_compared,
    messages_of,
    messages_without_payload,
    no_conversation,
)

_POSITION = operator.attrgetter("position")

# The limit stands beside the order, inside: behind the join all of the conversation would be read and sorted.
_PAGE = """
SELECT {columns}
FROM {conversations} c LEFT JOIN (
    SELECT * FROM {messages}
    WHERE conversation_id = :id AND position > :after AND position < :before {since}
    ORDER BY position {order} LIMIT :limit
) m ON true
WHERE c.id = :id AND {owned}
"""
# Whether a message has a payload is known without reading that.
_WITHOUT_PAYLOAD = """m.position, m.role, m.kind, m.content, NULL, m.token_count, m.pinned,
    m.created_at{in_utc}, m.metadata{as_text}, m.payload IS NOT NULL"""
_SINCE = "AND {since_said}"


def _by_order(columns: str, since: str = "") -> dict[bool, Statement]:
    orders = {False: "ASC", True: "DESC"}
    return {
        newest_first: Statement(_PAGE, columns=columns, since=since, order=order)
        for newest_first, order in orders.items()
    }


_PAGES = _by_order("{message_columns}")
_PAGES_SINCE = _by_order("{message_columns}", _SINCE)
_LISTS = _by_order(_WITHOUT_PAYLOAD)
_LISTS_SINCE = _by_order(_WITHOUT_PAYLOAD, _SINCE)


def messages(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    after: int | None,
    before: int | None,
    limit: int | None,
    newest_first: bool,
    *,
    payload: bool = True,
    since: datetime | None = None,
) -> list[Message]:
    """Messages with after < position < before; with `since` those of them that were said then or later.

    Without `payload` the payloads are not read, and their messages refuse to be sent.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    request: dict[str, object] = {
        "id": conversation_id,
        "owner": scope.owner,
        "after": after or 0,
        "before": NO_BOUND if before is None else before,
        "limit": NO_BOUND if limit is None else limit,
    }
    statements = _PAGES if payload else _LISTS
    if since is not None:
        statements = _PAGES_SINCE if payload else _LISTS_SINCE
        request["since"] = as_compared(since, connection.dialect.name)
    rows = statements[newest_first].fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    rows = [row for row in rows if row[0] is not None]
    found = (messages_of if payload else messages_without_payload)(rows, conversation_id)
    found.sort(key=_POSITION, reverse=newest_first)  # as they come, but that is no promise
    return found


_COUNT_CONVERSATIONS = Statement("SELECT count(*) FROM {conversations}")


def count_conversations(connection: sa.Connection, scope: Scope) -> int:
    """How many conversations the database holds, of all owners."""
    return int(_COUNT_CONVERSATIONS.fetch(connection, scope, {})[0][0])
