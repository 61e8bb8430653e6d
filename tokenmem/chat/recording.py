"""What is put on record of a call when it begins: pure work over what is about to be sent."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import takewhile

from tokenmem.chat.opening import JoinedRows, Opening
from tokenmem.chat.prompt import changes_of
from tokenmem.chat.refusals import refused_change
from tokenmem.chat.requests import TurnRequest
from tokenmem.chat.settings import Settings
from tokenmem.messages.message import Message
from tokenmem.messages.sequences import neighbours
from tokenmem.messages.values import JSONObject, dump_json, load_json
from tokenmem.models import LLMCall, Window, rows_of
from tokenmem.operations.calls import UNFINISHED, StartedCall
from tokenmem.operations.snapshot import Snapshot
from tokenmem.operations.start_call import PendingCall

_TOLD_AT_THE_END = (
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
    *("reply_position", "reply_messages", "latency_ms", "first_token_ms", "finish_reason", "request_id"),
)
BY_POSITION = operator.itemgetter("position")
"""In what order changes are on record."""

_IS_PINNED = operator.itemgetter(6)  # of a row of {message_columns}


def pending_call(
    settings: Settings,
    request: TurnRequest,
    opening: Opening,
    found: Snapshot | None,
    new: Sequence[Message],
    *,
    anyway: bool,
) -> PendingCall:
    """The call of a turn, ready to begin.

    Args:
        settings: the chat's.
        request: the turn's.
        opening: what is sent.
        found: the conversation as the prompt was made of it.
        new: the turn's own messages, with which what is sent ends.
        anyway: begin it whatever has changed since.
    """
    window = opening.window
    key = found.key if found is not None else None
    pinned, changes = pinned_outside(window), changes_in(opening, request.given, new)
    return PendingCall(
        settings.model,
        window.first_position or None,
        window.last_position or None,
        opening.prompt.token_count + opening.extra,
        settings.instructions,
        settings.tools_json,
        settings.digest,
        read_revision=found.revision if found is not None else 0,
        anyway=anyway or found is None,
        api=settings.api_name,
        token_limit=settings.token_limit,
        options=settings.recorded(request.options),
        metadata=request.metadata,
        pinned=dump_json(pinned) if pinned else "[]",
        changes=dump_json(changes) if changes else None,
        claims=request.claims,
        repeats=key is not None,
        known_call=key.call_number if key is not None else None,
        dead_call=key.call_number if key is not None and key.unfinished else None,
    )


def running_call(conversation_id: str, call: StartedCall, record: PendingCall) -> LLMCall:
    """What `Store.calls` tells of a call that has just begun.

    Args:
        conversation_id: the conversation.
        call: the call.
        record: what was put on record of it.
    """
    loaded = (load_json(text or "null") for text in (record.options, record.metadata, record.changes))
    options, metadata, changes = loaded
    return LLMCall(
        conversation_id,
        call.number,
        record.model,
        record.first_position,
        record.last_position,
        record.window_tokens,
        **dict.fromkeys(_TOLD_AT_THE_END),
        status="cancelled",
        error=UNFINISHED,
        created_at=call.moment,
        running=True,
        revision=call.revision,
        api=record.api,
        token_limit=record.token_limit,
        options=options,
        metadata=metadata,
        pinned=tuple(load_json(record.pinned)),
        changes=changes,
    )


def pinned_outside(window: Window) -> list[int]:
    """The positions of the pinned messages that a window sends from outside its run of newest ones."""
    rows, first, last = rows_of(window), window.first_position, window.last_position
    if not isinstance(rows, JoinedRows):
        return [each.position for each in window.messages if not first <= each.position <= last]
    leading = takewhile(_IS_PINNED, rows.rows.rows)
    return [row[0] for row in leading if not first <= row[0] <= last]


def changes_in(opening: Opening, given: Sequence[Message], new: Sequence[Message]) -> list[JSONObject]:
    """What is sent otherwise than it is stored, and what was cut before it was stored.

    Args:
        opening: what is sent.
        given: a turn's new messages as the caller gave them, where they may have been cut.
        new: as they are stored.
    """
    window, prepared = opening.window, opening.prompt.prepared
    changes = _made_of(opening, prepared) if prepared is not None else []
    changes += _over_half(opening)
    if opening.known.token_limit is not None and opening.known.token_limit < opening.token_limit:
        limit = {"change": "too_long", "token_limit": opening.known.token_limit}
        changes.append({"position": window.first_position, **limit})
    perhaps = opening.known.perhaps - opening.prompt.left_out
    changes += [
        {"position": each, "change": "perhaps_refused"}
        for each in perhaps
        if window.first_position <= each <= window.last_position
    ]
    if len(given) == len(new):
        pairs = enumerate(zip(given, new, strict=True), window.last_position - len(new) + 1)
        cut = {position for position, (one, other) in pairs if one is not other}
        changes = [each for each in changes if each["position"] not in cut or each["change"] != "over_half"]
        changes += [{"position": position, "change": "cut"} for position in cut]
    return sorted(changes, key=BY_POSITION)


def _made_of(opening: Opening, prepared: Sequence[Message]) -> list[JSONObject]:
    """What was done to the window's messages."""
    messages, prompt = opening.window.messages, opening.prompt
    changes = changes_of(messages, prepared)
    if opening.form.rules.alternates:
        several = [group for group in neighbours([each.role for each in prepared]) if len(group) > 1]
        joined = {prepared[place].position for group in several for place in group}
        joined -= {0, *(change["position"] for change in changes)}
        changes += [{"position": position, "change": "joined"} for position in joined]
    if not prompt.left_out:
        return changes
    refused = {each.position: each for each in messages if each.position in opening.form.left_out}
    return [
        refused_change(refused[change["position"]]) if change["position"] in refused else change
        for change in changes
    ]


def _over_half(opening: Opening) -> list[JSONObject]:
    """The messages that take more than half of what a window may cost."""
    candidates = opening.candidates
    half = candidates.settings.window_limit / 2
    if not candidates.settings.asks_again or max(candidates.costs, default=0) <= half:
        return []
    sent = opening.window.messages
    return [{"position": each.position, "change": "over_half"} for each in sent if each.token_count > half]
