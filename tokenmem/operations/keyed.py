"""Append with a key for each message: of a batch that comes again, only what is new is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tokenmem.arguments import checked_name
from tokenmem.database.statements import Scope, Statement
from tokenmem.errors import ConversationNotFound, IdempotencyConflict, InvalidArgument
from tokenmem.messages.parsing import digest
from tokenmem.messages.values import dump_json
from tokenmem.models import Appended
from tokenmem.operations import append as appending
from tokenmem.operations.append import CounterMismatch, PendingAppend

# On SQLite the transaction has the only lock there is.
_LOCK = {
    "postgresql": Statement("SELECT owner, total_tokens FROM {conversations} WHERE id = :id FOR UPDATE"),
    "sqlite": Statement("SELECT owner, total_tokens FROM {conversations} WHERE id = :id"),
}
_KEYS = {
    "postgresql": "SELECT value FROM json_array_elements_text(CAST(:keys AS json)) AS value",
    "sqlite": "SELECT value FROM json_each(:keys)",
}
_KNOWN = {
    dialect: Statement(
        """
SELECT k.key, k.first_position, k.last_position, k.digest, (
    SELECT sum(m.token_count) FROM {messages} m WHERE m.conversation_id = k.conversation_id
        AND m.position BETWEEN k.first_position AND k.last_position)
FROM {append_keys} k WHERE k.conversation_id = :id AND k.key IN ({keys})
""",
        keys=keys,
    )
    for dialect, keys in _KEYS.items()
}
_ROWS = {
    "postgresql": "json_to_recordset(CAST(:rows AS json)) AS n (key text, position bigint, digest text)",
    "sqlite": """(SELECT value ->> '$.key' AS key, value ->> '$.position' AS position,
        value ->> '$.digest' AS digest FROM json_each(:rows)) AS n""",
}
_STORE_KEYS = {
    dialect: Statement(
        """
INSERT INTO {append_keys} (conversation_id, key, first_position, last_position, digest, created_at)
SELECT :id, n.key, n.position, n.position, n.digest, {now} FROM {rows}
""",
        rows=rows,
    )
    for dialect, rows in _ROWS.items()
}


@dataclass(frozen=True, slots=True)
class _Known:
    """What a key has stored."""

    first_position: int
    last_position: int
    digest: str
    token_count: int


def checked_keys(keys: Sequence[str], count: int, idempotency_key: str | None) -> list[str]:
    """A key for each of so many messages.

    Raises:
        InvalidArgument: they are not as many, one is no key or is there twice, or there is one for all too.
    """
    if idempotency_key is not None:
        raise InvalidArgument("idempotency_key is for all messages, and keys are one for each; pass either")
    if isinstance(keys, (str, bytes)) or not isinstance(keys, Sequence):
        raise InvalidArgument(f"keys is a {type(keys).__name__}; pass a list with a key for each message")
    if len(keys) != count:
        raise InvalidArgument(f"there are {len(keys)} keys and {count} messages; pass a key for each message")
    named = [checked_name(key, f"keys[{index}]") for index, key in enumerate(keys)]
    places: dict[str, int] = {}
    for index, key in enumerate(named):
        if (first := places.setdefault(key, index)) != index:
            raise InvalidArgument(f"keys[{first}] and keys[{index}] are both {key!r}; give each its own")
    return named


def append(
    connection: sa.Connection, scope: Scope, pending: PendingAppend, keys: Sequence[str]
) -> Appended | CounterMismatch:
    """Store those of the messages whose keys are new behind the conversation's last, all or none.

    Args:
        connection: in a transaction.
        scope: the schema and the owner.
        pending: all of the messages.
        keys: a key for each of them.

    Raises:
        ConversationNotFound: it belongs to another owner.
        IdempotencyConflict: one of the keys has stored another message before.
        PositionConflict: something is new, and the conversation is not at the expected position.
        WriteConflict: another process stored one of the keys or removed the conversation meanwhile.
    """
    known, total_tokens = _locked_known(connection, scope, pending, keys)
    digests = [digest([message]) for message in pending.messages]
    for key, one in zip(keys, digests, strict=True):
        if key in known and known[key].digest != one:
            raise _conflict(pending.conversation_id, key, known[key])
    new = [index for index, key in enumerate(keys) if key not in known]
    if not new:
        return _replayed([known[key] for key in keys], total_tokens)
    outcome = appending.append(connection, scope, _only(pending, new))
    if isinstance(outcome, CounterMismatch):
        return outcome
    places = dict(zip(new, outcome.positions, strict=True))
    rows = [{"key": keys[index], "position": places[index], "digest": digests[index]} for index in new]
    _store_keys(connection, scope, pending.conversation_id, rows)
    positions = tuple(
        places[index] if index in places else known[key].first_position for index, key in enumerate(keys)
    )
    return outcome if len(new) == len(keys) else replace(outcome, _positions=positions)


def _locked_known(
    connection: sa.Connection, scope: Scope, pending: PendingAppend, keys: Sequence[str]
) -> tuple[dict[str, _Known], int]:
    """What of the keys is known, and the running total; nobody else appends until the transaction ends."""
    dialect = connection.dialect.name
    rows = _LOCK[dialect].fetch(connection, scope, {"id": pending.conversation_id})
    if not rows:
        return {}, 0
    owner, total_tokens = rows[0]
    if pending.owner is not None and owner != pending.owner:
        raise ConversationNotFound(
            f"no conversation {pending.conversation_id!r} of owner {pending.owner!r} to append to; "
            f"use another id"
        )
    request = {"id": pending.conversation_id, "keys": dump_json(list(keys))}
    found = _KNOWN[dialect].fetch(connection, scope, request)
    known = {key: _Known(first, last, told, int(tokens or 0)) for key, first, last, told, tokens in found}
    return known, total_tokens


def _only(pending: PendingAppend, indexes: Sequence[int]) -> PendingAppend:
    """The append of these of its messages."""
    return replace(
        pending,
        messages=[pending.messages[index] for index in indexes],
        token_counts=[pending.token_counts[index] for index in indexes],
    )


def _store_keys(
    connection: sa.Connection, scope: Scope, conversation_id: str, rows: Sequence[dict[str, object]]
) -> None:
    request = {"id": conversation_id, "rows": dump_json(rows)}
    try:
        _STORE_KEYS[connection.dialect.name].run(connection, scope, request)
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) != appending.UNIQUE_VIOLATION:
            raise
        raise appending.overtaken(conversation_id) from None  # both have found no conversation to lock


def _replayed(known: Sequence[_Known], total_tokens: int) -> Appended:
    positions = tuple(each.first_position for each in known)
    tokens = sum(each.token_count for each in known)
    return Appended(min(positions), max(positions), tokens, total_tokens, replayed=True, _positions=positions)


def _conflict(conversation_id: str, key: str, known: _Known) -> IdempotencyConflict:
    last = "" if known.last_position <= known.first_position else f" to {known.last_position}"
    return IdempotencyConflict(
        f"conversation {conversation_id!r}: key {key!r} has stored another message at position "
        f"{known.first_position}{last}; use a new key for a new message"
    )
