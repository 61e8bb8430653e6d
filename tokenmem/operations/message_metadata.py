"""The data that an application keeps beside a message."""

from __future__ import annotations

import sqlalchemy as sa

from tokenmem.database.statements import Scope, Statement
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, dump_json
from tokenmem.operations.rows import lock_conversation
from tokenmem.operations.stored import message_at

_SET = Statement("""
UPDATE {messages} SET metadata = CAST(:metadata AS {json})
WHERE conversation_id = :id AND position = :position
""")
# Not touched: a rating is no activity, and must not bring an old conversation to the top of a list.
_RAISE_REVISION = Statement("UPDATE {conversations} SET revision = revision + 1 WHERE id = :id")


def update_message(
    connection: sa.Connection,
    scope: Scope,
    conversation_id: str,
    position: int,
    metadata: JSONObject | None,
    merge: bool,
) -> Message:
    """Set a message's metadata, or with `merge` put these keys among those that are there.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        MessageNotFound: there is no message at the position.
    """
    conversation = lock_conversation(connection, scope, conversation_id)
    old = message_at(connection, scope, conversation, position)
    if merge and metadata is not None:
        metadata = {**(old.metadata or {}), **metadata}
    text = None if metadata is None else dump_json(metadata)
    _SET.run(connection, scope, {"id": conversation_id, "position": position, "metadata": text})
    _RAISE_REVISION.run(connection, scope, {"id": conversation_id})
    return message_at(connection, scope, conversation, position)
