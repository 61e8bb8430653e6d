"""Tool calls that wait for their results."""

from __future__ import annotations

import operator

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.calls import calls_of_keys, results_of_calls
from tokenmem.models import OpenToolCall
from tokenmem.operations.rows import messages_of, no_conversation

REACH = 200
"""The newest messages among which open calls are looked for."""

# A result stands behind its call: what the newest messages hold is enough to pair their calls.
_POSITION = operator.attrgetter("position")

_NEWEST_STEPS = Statement("""
SELECT {message_columns}
FROM {conversations} c LEFT JOIN (
    SELECT * FROM (
        SELECT * FROM {messages} WHERE conversation_id = :id AND position > 0 AND position < :behind_all
        ORDER BY position DESC LIMIT :reach
    ) AS newest WHERE kind IN ('tool_call', 'tool_result')
) m ON true
WHERE c.id = :id AND {owned}
""")


def open_tool_calls(connection: sa.Connection, scope: Scope, conversation_id: str) -> list[OpenToolCall]:
    """The calls among the newest messages that have no result, in order.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
    """
    request = {"id": conversation_id, "owner": scope.owner, "reach": REACH, "behind_all": 2**62}
    rows = _NEWEST_STEPS.fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    messages = messages_of([row for row in rows if row[0] is not None], conversation_id)
    messages.sort(key=_POSITION)
    results = results_of_calls(messages)
    return [
        OpenToolCall(call.id, call.name, call.arguments, call.custom, message.position)
        for index, message in enumerate(messages)
        for call, result in zip(calls_of_keys(message), results.get(index, ()), strict=True)
        if result is None
    ]
