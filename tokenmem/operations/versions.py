"""What stood at a position before: kept by the edit that replaces it, and gone with its message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import sqlalchemy as sa

from tokenmem.database.statements import Row, Scope, Statement
from tokenmem.errors import MessageNotFound
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import digest
from tokenmem.messages.values import JSONObject, load_json
from tokenmem.models import MessageVersion
from tokenmem.operations import damage
from tokenmem.operations.rows import no_conversation, utc

# Before the edit: the row as it stands, and the revision that the edit is about to make. A content stands
# from the moment on at which the one before it was replaced.
_KEEP = Statement("""
INSERT INTO {message_versions} (conversation_id, position, version, part, since_revision,
    replaced_at_revision, replaced_at, token_count, role, kind, content, payload)
SELECT m.conversation_id, m.position, COALESCE(v.version, 0) + 1, 1, COALESCE(v.replaced_at_revision, 0),
    c.revision + 1, {now}, m.token_count, m.role, m.kind, m.content, m.payload
FROM {conversations} c
JOIN {messages} m ON m.conversation_id = c.id AND m.position = :position
LEFT JOIN (
    SELECT version, replaced_at_revision FROM {message_versions}
    WHERE conversation_id = :id AND position = :position ORDER BY version DESC, part DESC LIMIT 1
) v ON true
WHERE c.id = :id
""")
DELETE_UP_TO = Statement(
    "DELETE FROM {message_versions} WHERE conversation_id = :id AND position <= :position"
)


def keep(connection: sa.Connection, scope: Scope, conversation_id: str, old: Message, new: Message) -> None:
    """Keep what an edit is about to replace, the conversation's row being locked; not what is equal."""
    if _content(old) != _content(new):
        _KEEP.run(connection, scope, {"id": conversation_id, "position": old.position})


def _content(message: Message) -> str:
    """What makes one content another: neither its pin nor the order of a payload's keys does."""
    return digest([replace(message, pinned=False)])


_OF_POSITION = Statement("""
SELECT m.position, v.version, v.since_revision, v.replaced_at_revision, v.replaced_at{in_utc},
    v.role, v.kind, v.content, v.payload{as_text}, v.token_count, c.last_position
FROM {conversations} c
LEFT JOIN {messages} m ON m.conversation_id = c.id AND m.position = :position
LEFT JOIN {message_versions} v ON v.conversation_id = m.conversation_id AND v.position = m.position
WHERE c.id = :id AND {owned} ORDER BY v.version, v.part
""")


def versions(
    connection: sa.Connection, scope: Scope, conversation_id: str, position: int
) -> list[MessageVersion]:
    """What stood at a position before what stands there now, the oldest first.

    Raises:
        ConversationNotFound: there is none of this id, or it is another owner's.
        MessageNotFound: there is no message at the position.
    """
    request = {"id": conversation_id, "owner": scope.owner, "position": position}
    rows = _OF_POSITION.fetch(connection, scope, request)
    if not rows:
        raise no_conversation(conversation_id, scope)
    if rows[0][0] is None:
        raise MessageNotFound(
            f"conversation {conversation_id!r} has no message at position {position}; "
            f"its last position is {rows[0][-1]}"
        )
    kept = groupby((row for row in rows if row[1] is not None), key=lambda row: row[1:5])
    return [_version_of(conversation_id, key, list(parts)) for key, parts in kept]


_CHECKS: damage.Checks = {
    name: damage.MESSAGE[name] for name in ("role", "kind", "content", "payload", "token_count")
}


def _version_of(conversation_id: str, key: Row, parts: Sequence[Row]) -> MessageVersion:
    version, since, replaced, moment = key
    place = f"message {parts[0][0]}, version {version if damage.is_integer(version) else 'of no number'}"
    for row in parts:
        if (error := damage.find(conversation_id, place, _CHECKS, row[5:10])) is not None:
            raise error
    for column, value in (("since_revision", since), ("replaced_at_revision", replaced)):
        if not damage.is_integer(value):
            raise damage.damaged(conversation_id, place, column, "integer")
    if not damage.is_moment(moment):
        raise damage.damaged(conversation_id, place, "replaced_at", "time")
    return MessageVersion(version, tuple(map(_message_of, parts)), since, replaced, utc(moment))


def _message_of(row: Row) -> Message:
    position, role, kind, content, payload, token_count = row[0], *row[5:10]
    loaded: JSONObject | None = None if payload is None else load_json(payload)
    return Message(role, content, kind, loaded, position=position, token_count=token_count)
