"""Append: take the conversation's row, which is the lock, the positions and the running total at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tokenmem.database.driver_errors import WriteConflict
from tokenmem.database.statements import Scope, Statement, with_pieces
from tokenmem.errors import ConversationNotFound, IdempotencyConflict, PositionConflict
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, dump_json
from tokenmem.models import Appended
from tokenmem.operations import damage, insert
from tokenmem.operations.rows import first_revision, no_conversation
from tokenmem.operations.together import Change, take_and_change


@dataclass(frozen=True, slots=True)
class PendingAppend:
    """An append whose messages have been checked and counted.

    Attributes:
        conversation_id: the conversation; it is created where it is not there.
        messages: what to store, in order.
        token_counts: what each of them costs, in tokens.
        token_counter: the name of the counter that counted them.
        owner: whose conversation it is; None does not ask.
        title: for a new conversation.
        metadata: for a new conversation.
        merge_metadata: for a new conversation too; an old one's keys of these names get these values.
        key: the idempotency key, or None.
        digest: tells these messages from others under the same key.
        expected_position: the last position that the caller has seen, or None.
        must_exist: never create the conversation: a late reply must not bring back one that was deleted.
        line: what else is told of a conversation that comes from an export (`bulk_create` alone).
    """

    conversation_id: str
    messages: Sequence[Message]
    token_counts: Sequence[int]
    token_counter: str
    owner: str | None = None
    title: str | None = None
    metadata: JSONObject | None = None
    merge_metadata: JSONObject | None = None
    key: str | None = None
    digest: str = ""
    expected_position: int | None = None
    must_exist: bool = False
    line: ConversationLine | None = None


@dataclass(frozen=True, slots=True)
class CounterMismatch:
    """Nothing was stored: the conversation's counts come from the counter of this name."""

    name: str


UNIQUE_VIOLATION = "23505"  # PostgreSQL's; on SQLite writers take turns, so that no key comes in between

# The row of a new conversation, or the same row moved on. Without the row nothing is stored: its key is
# known, it is another owner's, its counter is another, or it is not at the expected position.
TAKE_ANY = """
INSERT INTO {conversations} AS c
    (id, owner, title, metadata, token_counter, last_position, message_count, total_tokens, created_at,
    updated_at, revision)
SELECT CAST(:id AS text), CAST(:owner AS text), CAST(:title AS text), CAST(:metadata AS {json}),
    CAST(:token_counter AS text), CAST(:count AS bigint), CAST(:count AS bigint), CAST(:tokens AS bigint),
    {now}, {now}, CAST(:first_revision AS bigint)
WHERE NOT EXISTS (
    SELECT 1 FROM {append_keys} k WHERE k.conversation_id = :id AND k.key = CAST(:key AS text))
ON CONFLICT (id) DO UPDATE SET
    last_position = c.last_position + excluded.last_position,
    message_count = c.message_count + excluded.message_count,
    total_tokens = c.total_tokens + excluded.total_tokens,
    revision = c.revision + 1,
    {touched_by_take}
WHERE c.token_counter = excluded.token_counter
    AND (CAST(:owner AS text) IS NULL OR c.owner = :owner)
    AND (CAST(:expected AS bigint) IS NULL OR c.last_position = :expected)
{returning_taken}
"""
# Past position 0 the conversation must be there: an INSERT would make a new one after a delete.
TAKE_EXISTING = """
UPDATE {conversations} AS c SET
    last_position = c.last_position + :count,
    message_count = c.message_count + :count,
    total_tokens = c.total_tokens + :tokens,
    revision = c.revision + 1,
    {touched_by_take}
WHERE c.id = :id AND c.token_counter = :token_counter
    AND (CAST(:expected AS bigint) IS NULL OR c.last_position = :expected)
    AND (CAST(:owner AS text) IS NULL OR c.owner = :owner)
    AND NOT EXISTS (
        SELECT 1 FROM {append_keys} k WHERE k.conversation_id = :id AND k.key = CAST(:key AS text))
    {condition}
{returning_taken}
"""
_TAKE_EXISTING = with_pieces(TAKE_EXISTING, condition="")
_TAKE = {take: Statement(take) for take in (TAKE_ANY, _TAKE_EXISTING)}

STORE_KEY = Change(
    "keyed",
    """
INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest, created_at)
SELECT :id, :key, taken_position - :count + 1, taken_position, :digest, taken_at FROM taken
""",
)
_STORE_KEY = Statement("""
INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest, created_at)
VALUES (:id, :key, :first_position, :last_position, :digest, :moment)
""")

_WHY_NOT = Statement("""
SELECT c.owner, c.token_counter, c.last_position, c.total_tokens,
    k.first_position, k.last_position, k.digest,
    (SELECT sum(m.token_count) FROM {messages} m WHERE m.conversation_id = c.id
        AND m.position BETWEEN k.first_position AND k.last_position)
FROM {conversations} c
LEFT JOIN {append_keys} k ON k.conversation_id = c.id AND k.key = CAST(:key AS text)
WHERE c.id = :id
""")


def append(connection: sa.Connection, scope: Scope, pending: PendingAppend) -> Appended | CounterMismatch:
    """Store the messages behind the conversation's last, all or none.

    Raises:
        ConversationNotFound: it belongs to another owner.
        IdempotencyConflict: the key has stored other messages before.
        PositionConflict: the conversation is not at the expected position.
        WriteConflict: another process stored the same key or removed the conversation meanwhile.
    """
    tokens = sum(pending.token_counts)
    try:
        taken = _take_and_store(connection, scope, pending, tokens)
    except IntegrityError as error:
        if pending.key is None or getattr(error.orig, "sqlstate", None) != UNIQUE_VIOLATION:
            raise
        raise overtaken(pending.conversation_id) from None
    if taken is None:
        return why_not(connection, scope, pending)
    if pending.merge_metadata:
        merge_metadata(connection, scope, pending.conversation_id, pending.merge_metadata)
    last_position, total_tokens = taken
    first_position = last_position - len(pending.messages) + 1
    return Appended(first_position, last_position, tokens, total_tokens)


_METADATA = Statement("SELECT metadata{as_text} FROM {conversations} WHERE id = :id")
# The append has set the times and raised the revision: both changes are one.
_SET_METADATA = Statement("UPDATE {conversations} SET metadata = :metadata WHERE id = :id")


def merge_metadata(connection: sa.Connection, scope: Scope, conversation_id: str, given: JSONObject) -> None:
    """Set these keys of a conversation's metadata, whose row the transaction has changed before."""
    (stored,) = _METADATA.fetch(connection, scope, {"id": conversation_id})[0]
    known = damage.loaded(stored or "{}")
    if not isinstance(known, dict):
        raise damage.damaged(conversation_id, "", "metadata", "JSON object")
    merged = dump_json(known | given)
    if merged != stored:
        _SET_METADATA.run(connection, scope, {"id": conversation_id, "metadata": merged})


def _take_and_store(
    connection: sa.Connection, scope: Scope, pending: PendingAppend, tokens: int
) -> tuple[int, int] | None:
    take = _TAKE_EXISTING if pending.expected_position or pending.must_exist else TAKE_ANY
    head = head_of(pending, tokens)
    if connection.dialect.name == "postgresql" and len(pending.messages) > insert.MANY:
        return _take_and_copy(connection, scope, pending, take, head)
    taken = take_and_change(
        connection,
        scope,
        take,
        head,
        messages=pending.messages,
        token_counts=pending.token_counts,
        changes=() if pending.key is None else (STORE_KEY,),
    )
    return None if taken is None else (taken.last_position, taken.total_tokens)


def _take_and_copy(
    connection: sa.Connection, scope: Scope, pending: PendingAppend, take: str, head: dict[str, object]
) -> tuple[int, int] | None:
    rows = _TAKE[take].fetch(connection, scope, head)
    if not rows:
        return None
    last_position, total_tokens, _, moment, _ = rows[0]
    first_position = last_position - len(pending.messages) + 1
    bulk = insert.bulk_rows(
        pending.conversation_id,
        pending.messages,
        pending.token_counts,
        first_position=first_position,
        tokens_before=total_tokens - sum(pending.token_counts),
        moment=moment,
    )
    insert.in_bulk(connection, scope, bulk)
    if pending.key is not None:
        positions = {"first_position": first_position, "last_position": last_position}
        _STORE_KEY.run(connection, scope, head | positions | {"moment": moment})
    return last_position, total_tokens


def head_of(pending: PendingAppend, tokens: int) -> dict[str, object]:
    """The parameters of a statement that takes the conversation's row, and of the key's."""
    metadata = (pending.metadata or {}) | (pending.merge_metadata or {})
    return {
        "id": pending.conversation_id,
        "owner": pending.owner,
        "title": pending.title,
        "metadata": dump_json(metadata) if metadata else None,
        "token_counter": pending.token_counter,
        "count": len(pending.messages),
        "tokens": tokens,
        "key": pending.key,
        "digest": pending.digest,
        "expected": pending.expected_position,
        "first_revision": first_revision(),
    }


def overtaken(conversation_id: str) -> WriteConflict:
    """Another process changed the conversation in between."""
    return WriteConflict(f"conversation {conversation_id!r} is being changed by another process; try again")


def why_not(connection: sa.Connection, scope: Scope, pending: PendingAppend) -> Appended | CounterMismatch:
    """Why the conversation's row could not be taken. Raises as `append` does."""
    rows = _WHY_NOT.fetch(connection, scope, {"id": pending.conversation_id, "key": pending.key})
    if not rows:
        if pending.must_exist:
            raise no_conversation(pending.conversation_id, scope)
        if pending.expected_position:
            raise PositionConflict(
                pending.conversation_id, expected_position=pending.expected_position, last_position=0
            )
        raise overtaken(pending.conversation_id)
    owner, token_counter, last_position, total_tokens, first_stored, last_stored, digest, tokens = rows[0]
    if pending.owner is not None and owner != pending.owner:
        raise ConversationNotFound(
            f"no conversation {pending.conversation_id!r} of owner {pending.owner!r} to append to; "
            f"use another id"
        )
    if digest is not None:
        if digest == pending.digest:
            return Appended(first_stored, last_stored, int(tokens or 0), total_tokens, replayed=True)
        raise IdempotencyConflict(
            f"conversation {pending.conversation_id!r}: idempotency key {pending.key!r} has stored other "
            f"messages at positions {first_stored} to {last_stored}; use a new key for new messages"
        )
    if pending.expected_position is not None and last_position != pending.expected_position:
        raise PositionConflict(
            pending.conversation_id, expected_position=pending.expected_position, last_position=last_position
        )
    if token_counter != pending.token_counter:
        return CounterMismatch(token_counter)
    raise overtaken(pending.conversation_id)
