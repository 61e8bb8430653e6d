"""The arguments of `record_call`, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenmem.arguments import (
    LARGEST_COST,
    checked_choice,
    checked_metadata,
    checked_name,
    checked_number,
    checked_text,
    optional_name,
    optional_number,
)
from tokenmem.call_options import named_scalars
from tokenmem.errors import InvalidArgument
from tokenmem.messages.values import check_json, dump_json
from tokenmem.operations.record_call import RecordedCall

STATUSES = ("ok", "error", "refused", "cancelled")
COUNTS = (
    *("window_tokens", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"),
    *("reasoning_tokens", "latency_ms", "first_token_ms"),
)
NAMES = ("finish_reason", "request_id", "api")


def checked_call(conversation_id: object, **told: object) -> RecordedCall:
    """The call as it is stored.

    Args:
        conversation_id: the conversation.
        **told: the arguments of `record_call`.

    Raises:
        InvalidArgument: one is wrong; the text names it.
    """
    numbers = {name: optional_number(told.pop(name), name, most=LARGEST_COST) for name in COUNTS}
    names = {name: optional_name(told.pop(name), name) for name in NAMES}
    first, last = _window(told.pop("first_position"), told.pop("last_position"))
    reply, messages = _reply(told.pop("reply_position"), told.pop("reply_messages"))
    pinned = _pinned(told.pop("pinned"), first, last)
    return RecordedCall(
        conversation_id=checked_name(conversation_id, "conversation_id"),
        model=checked_name(told.pop("model"), "model"),
        status=checked_choice(told.pop("status"), "status", STATUSES),
        error=_optional_text(told.pop("error"), "error"),
        token_limit=optional_number(told.pop("token_limit"), "token_limit"),
        options=_options(told.pop("options")),
        metadata=_json(checked_metadata(told.pop("metadata"))),
        changes=_changes(told.pop("changes")),
        instructions=_optional_text(told.pop("instructions"), "instructions"),
        tools=_objects(told.pop("tools"), "tools"),
        first_position=first,
        last_position=last,
        reply_position=reply,
        reply_messages=messages,
        pinned=pinned,
        highest=max(last or 0, (reply or 1) + (messages or 0) - 1, *(pinned or (0,))),
        **numbers,  # type: ignore[arg-type]  # of the types that their names have
        **names,  # type: ignore[arg-type]
        **told,  # type: ignore[arg-type]  # what is left is refused
    )


def _optional_text(value: object, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} is a {type(value).__name__}; pass a string or None")
    return checked_text(value, what)


def _window(first: object, last: object) -> tuple[int | None, int | None]:
    first, last = (None if each == 0 else each for each in (first, last))  # as a Window of pinned ones has it
    if first is None and last is None:
        return None, None
    if first is None or last is None:
        raise InvalidArgument("pass first_position and last_position, or neither")
    start = checked_number(first, "first_position", least=1)
    return start, checked_number(last, "last_position", least=start)


def _reply(position: object, messages: object) -> tuple[int | None, int | None]:
    if position is None:
        if messages is not None:
            raise InvalidArgument(
                "reply_messages says how many messages the reply is; pass reply_position too"
            )
        return None, None
    stored = 1 if messages is None else messages
    count = optional_number(stored, "reply_messages", least=1, most=LARGEST_COST)
    return checked_number(position, "reply_position", least=1), count


def _pinned(value: object, first: int | None, last: int | None) -> list[int] | None:
    if value is None:
        return None
    positions = [checked_number(each, "a position of pinned", least=1) for each in _listed(value, "pinned")]
    if first is not None and last is not None:  # those in the window are known by it
        positions = [position for position in positions if not first <= position <= last]
    return sorted(set(positions))


def _listed(value: object, what: str) -> Sequence[object]:
    if isinstance(value, (list, tuple)):
        return value
    raise InvalidArgument(f"{what} is a {type(value).__name__}; pass a list or None")


def _options(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"options is a {type(value).__name__}; pass a dict or None")
    return _json(named_scalars({str(name): item for name, item in value.items()}))


def _changes(value: object) -> str | None:
    """A list of places and of what was done: more could be what people said."""
    if value is None:
        return None
    for index, each in enumerate(_listed(value, "changes")):
        if not isinstance(each, dict) or each.keys() != {"position", "change"}:
            raise InvalidArgument(
                f'changes[{index}] is no change; pass {{"position": 3, "change": "left_out"}}'
            )
        checked_number(each["position"], f"the position of changes[{index}]", least=1)
        checked_name(each["change"], f"the change of changes[{index}]")
    return _json(value or None)


def _objects(value: object, what: str) -> str | None:
    if value is None:
        return None
    for index, each in enumerate(_listed(value, what)):
        if not isinstance(each, dict):
            raise InvalidArgument(f"{what}[{index}] is a {type(each).__name__}; pass a dict")
        check_json(each, f"{what}[{index}]")
    return _json(value or None)


def _json(value: object) -> str | None:
    return None if value is None else dump_json(value)
