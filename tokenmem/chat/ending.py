"""What is put on record of a call when it ends: what was sent in the end, and what was refused of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import takewhile

from tokenmem.chat.opening import Opening
from tokenmem.chat.recording import BY_POSITION, changes_in
from tokenmem.chat.recovery import message_named
from tokenmem.chat.refusals import NOTHING_REFUSED, Refusal, refused_change
from tokenmem.chat.settings import Settings
from tokenmem.chat.start import StartedTurn
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, dump_json, load_json
from tokenmem.operations.end_call import Outcome


def outcome_of(
    settings: Settings, started: StartedTurn, outcome: Outcome, refusal: Refusal | None = None
) -> Outcome:
    """How a call ended, with what was sent in the end where that differs from what it began with.

    Args:
        settings: the chat's.
        started: the turn.
        outcome: how it ended.
        refusal: that it was refused; None where it was not.
    """
    if not settings.asks_again:
        return outcome
    opening = started.opening
    if started.is_mended:
        tokens = opening.prompt.token_count + opening.extra
        outcome = replace(outcome, first_position=opening.window.first_position, window_tokens=tokens)
    elif refusal is None and opening.known is NOTHING_REFUSED:
        return outcome
    told = load_json(started.record.changes or "[]")
    changes = [change for change in told if change["change"] == "cut"] + changes_in(opening, (), ())
    if outcome.status in ("ok", "refused"):  # it is known now, or told anew
        changes = [change for change in changes if change["change"] != "perhaps_refused"]
    if refusal is not None:
        changes += _refused(settings, opening, refusal)
    elif outcome.status == "ok":
        changes += _accepted(opening)
    changes.sort(key=BY_POSITION)
    return outcome if changes == told else replace(outcome, changes=dump_json(changes))


def with_large_reply(
    settings: Settings, started: StartedTurn, outcome: Outcome, token_counts: Sequence[int]
) -> Outcome:
    """How a call ended, with a word of a reply that takes more than half of what a window may cost.

    Args:
        settings: the chat's.
        started: the turn.
        outcome: how it ended.
        token_counts: what each message of the reply costs, in tokens.
    """
    largest = max(token_counts, default=0)
    if not settings.asks_again or largest * 2 <= settings.window_limit:
        return outcome
    told = load_json(outcome.changes or started.record.changes or "[]")
    changes = [*told, {"position": "reply", "change": "over_half"}]
    number = list(token_counts).index(largest) + 1
    return replace(outcome, changes=dump_json(changes), reply_number=number)


def _accepted(opening: Opening) -> list[JSONObject]:
    """That messages were accepted which were refused before, or perhaps were."""
    known = opening.known
    doubted = {*known.refused, *known.perhaps} - opening.prompt.left_out
    sent = {each.position for each in opening.window.messages} if doubted else set()
    return [{"position": position, "change": "accepted"} for position in doubted & sent]


def _refused(settings: Settings, opening: Opening, refusal: Refusal) -> list[JSONObject]:
    """What a refusal tells of the messages that were sent."""
    messages, asked = opening.window.messages, opening.asked
    if refusal.kind == "request":
        return []
    if refusal.kind == "too_long":  # the next turn finds out how long a prompt may be
        return [{"position": opening.window.first_position, "change": "too_long"}, *_doubted(opening)]
    named = message_named(settings, opening, refusal)
    if refusal.kind == "filter" or named is not None:
        positions = asked if named is None else {named.position}
        return [refused_change(each) for each in messages if each.position in positions]
    return _doubted(opening)


def _doubted(opening: Opening) -> list[JSONObject]:
    """What may be why, as far as anybody knows: what no accepted prompt has held."""
    messages, asked = opening.window.messages, opening.asked
    doubted = opening.known.perhaps | asked | _newest_reply(messages, asked)
    there = {each.position for each in messages} - opening.prompt.left_out
    return [{"position": position, "change": "perhaps_refused"} for position in doubted & there]


def _newest_reply(messages: Sequence[Message], asked: Collection[int]) -> frozenset[int]:
    """Where the newest reply is stored: it was never part of a prompt that was accepted."""
    before = [each for each in messages if each.position not in asked]
    newest = takewhile(lambda each: each.role != "user", reversed(before))
    return frozenset(each.position for each in newest)


def told_of(refusal: Refusal, changes: str | None) -> str | None:
    """What a caller is told of a refusal besides the client's error; None where nothing is left out for it.

    Args:
        refusal: the refusal.
        changes: what is on record of the call's changes.
    """
    listed = load_json(changes or "[]")
    refused = [str(each["position"]) for each in listed if each["change"] == "refused"]
    perhaps = [str(each["position"]) for each in listed if each["change"] == "perhaps_refused"]
    if refusal.kind == "too_long":
        return "the prompt was too long for the model; where the next one is refused too, it is made shorter"
    if refused:
        return (
            f"message {', '.join(refused)} was refused; later prompts leave it out, and asking again without "
            f"a message sends it once more"
        )
    if perhaps:
        return (
            f"the provider did not say what it refused; where the next request is refused too, it is sent "
            f"again without what is new since the last answer: message {', '.join(perhaps)}"
        )
    return None
