"""What is only read: pages of messages, and how many conversations there are."""

from __future__ import annotations

import operator

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.message import Message
from tokenmem.operations.rows import (
    NO_BOUND,
    messages_of,
    no_conversation,
)

_POSITION = operator.attrgetter("position")

# The limit stands beside the order, inside: behind the join all of the conversation would be read and sorted.
_PAGE = """
SELECT {message_columns}
FROM {conversations} c LEFT JOIN (
    SELECT * FROM {messages} WHERE conversation_id = :id AND position > :after AND position < :before
    ORDER BY position {order} LIMIT :limit
) m ON true
WHERE c.id = :id AND {owned}
"""
_PAGES = {False: Statement(_PAGE, order="ASC"), True: Statement(_PAGE, order="DESC")}


def messages(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    after: int | None,
    before: int | None,
    limit: int | None,
    newest_first: bool,
) -> list[Message]:
    """Messages with after < position < before.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    request = {
        "id": conversation_id,
        "owner": scope.owner,
        "after": after or 0,
        "before": NO_BOUND if before is None else before,
        "limit": NO_BOUND if limit is None else limit,
    }
    rows = _PAGES[newest_first].fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    found = messages_of([row for row in rows if row[0] is not None])
    found.sort(key=_POSITION, reverse=newest_first)  # as they come, but that is no promise
    return found


_COUNT_CONVERSATIONS = Statement("SELECT count(*) FROM {conversations}")


def count_conversations(connection: sa.Connection, scope: Scope) -> int:
    """How many conversations the database holds, of all owners."""
    return int(_COUNT_CONVERSATIONS.fetch(connection, scope, {})[0][0])
