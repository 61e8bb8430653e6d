"""A conversation's row and its messages, as one statement finds them: both of the same moment."""

from __future__ import annotations

import operator

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.message import Message
from tokenmem.models import Conversation
from tokenmem.operations.rows import NO_BOUND, conversation_of, messages_of, no_conversation

_CONVERSATION_COLUMNS, _MESSAGE_COLUMNS = 14, 9
# The conversation has a row of its own: in each message's row its metadata would come again and again.
_READ = Statement(
    """
WITH c AS MATERIALIZED (SELECT * FROM {conversations} c WHERE c.id = :id AND {owned})
SELECT {conversation_columns}, {no_message} FROM c
UNION ALL
SELECT {no_conversation}, {message_columns} FROM (
    SELECT * FROM {messages} WHERE conversation_id = :id AND position > 0
        AND position <= (SELECT last_position FROM c)
    ORDER BY position DESC LIMIT :limit
) m
""",
    no_message=", ".join(["NULL"] * _MESSAGE_COLUMNS),
    no_conversation=", ".join(["NULL"] * _CONVERSATION_COLUMNS),
)
_POSITION = operator.attrgetter("position")


def read(
    connection: sa.Connection, scope: Scope, conversation_id: str, limit: int | None
) -> tuple[Conversation, list[Message]]:
    """The conversation and its newest messages, in order; all of them where limit is None.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    request = {
        "id": conversation_id,
        "owner": scope.owner,
        "limit": NO_BOUND if limit is None else limit,
    }
    rows = _READ.fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    found = next(row for row in rows if row[0] is not None)
    messages = messages_of([row[_CONVERSATION_COLUMNS:] for row in rows if row[0] is None], conversation_id)
    messages.sort(key=_POSITION)
    return conversation_of(found[:_CONVERSATION_COLUMNS]), messages
