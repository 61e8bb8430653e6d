"""A whole conversation as one line of JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.messages.line_records import RECORDS, checked_records
from tokenmem.messages.line_writing import FORMAT, LineWriter
from tokenmem.messages.message import PARTIAL, RAW, Message
from tokenmem.messages.parsing import parse_marked, parse_message, parse_messages
from tokenmem.messages.unstorable import unescaped
from tokenmem.messages.values import (
    MAX_NESTING,
    JSONObject,
    JSONValue,
    check_json,
    check_text,
    dump_json,
    moment_of,
    moment_text,
)

LARGEST_POSITION = 2**53
"""The largest position of a line: what every JSON reader still takes as a whole number."""

_TIMES = ("created_at", "updated_at", "archived_at")
_NUMBERS = ("forked_at", "last_position", "last_call")
_MARKED = ("opaque", "partial", "raw")


@dataclass(frozen=True, slots=True)
class ConversationLine:
    """One line of a JSON Lines file: a whole conversation.

    Attributes:
        id: the conversation's id.
        messages: its messages, checked.
        owner: its owner, or None.
        title: its title, or None.
        token_counter: the name of the counter that it is counted by, or None.
        metadata: the line's `metadata` and every key of the line that is not one of ours.
        created_at: when it was created, in UTC. As all that follows, of a line that `export` has written, and
            None or empty in others.
        updated_at: when it last changed, in UTC.
        archived_at: when it was put away from the lists, in UTC.
        parent_id: the conversation that it was forked from.
        forked_at: the last position that it has in common with that one.
        keep: whether it is exempt from purges.
        positions: where its messages stand, where these are not the numbers from 1 on.
        last_position: the highest position ever given, where that is not the last message's.
        last_call: the highest number ever given to a model call, where that is not the last call's.
        versions: what edits replaced: rows of `message_versions`, as JSON objects.
        calls: its model calls: rows of `llm_calls`.
        call_prompts: what these calls told the models: rows of `call_prompts`.
    """

    id: str
    messages: list[Message]
    owner: str | None = None
    title: str | None = None
    token_counter: str | None = None
    metadata: JSONObject = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    archived_at: datetime | None = None
    parent_id: str | None = None
    forked_at: int | None = None
    keep: bool = False
    positions: Sequence[int] | None = None
    last_position: int | None = None
    last_call: int | None = None
    versions: Sequence[JSONObject] = ()
    calls: Sequence[JSONObject] = ()
    call_prompts: Sequence[JSONObject] = ()

    @property
    def is_export(self) -> bool:
        """Whether it tells more of the conversation than an append could."""
        told = (self.created_at, self.updated_at, self.archived_at, self.parent_id, self.positions)
        counted = (self.forked_at, self.last_position, self.last_call)
        listed = self.keep or self.versions or self.calls or self.call_prompts
        return any(each is not None for each in (*told, *counted)) or bool(listed)

    def position_of(self, index: int) -> int:
        """Where one of its messages is to stand."""
        return index + 1 if self.positions is None else self.positions[index]


def parse_line(line: str | bytes) -> ConversationLine:
    """Read one line of JSON Lines: `{"id": …, "messages": […]}`.

    Optional are owner, title, token_counter, metadata, and beside the messages: pinned, the pinned ones by
    number, from 1; times, one for each message, or null; message_metadata, an object for some of them, by
    number. Any further key is kept in the metadata, but in a line that `export` has written, which holds all
    of a conversation.

    Raises:
        InvalidArgument: the line is not such an object.
        InvalidMessage: one of its messages cannot be stored.
    """
    try:
        record = json.loads(line)
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"not UTF-8 at byte {error.start}; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidArgument(
            f"not JSON at character {error.pos}: {error.msg}; write one object a line, without line breaks"
        ) from None
    except ValueError:
        raise InvalidArgument("not JSON: a number of thousands of digits; write it as a string") from None
    except RecursionError:
        raise InvalidArgument(f"nests deeper than {MAX_NESTING} levels; flatten it") from None
    if not isinstance(record, dict):
        raise InvalidArgument(f"a {type(record).__name__}; a line is an object with id and messages")
    missing = [key for key in ("id", "messages") if key not in record]
    if missing:
        raise InvalidArgument(f"no {' and no '.join(missing)}; a line is an object with id and messages")
    if not isinstance(record["messages"], list):
        raise InvalidMessage(f"messages is a {type(record['messages']).__name__}; it must be a list")
    return _conversation_line(record)


def _conversation_line(record: JSONObject) -> ConversationLine:
    rest: JSONObject = {}
    if FORMAT in record:
        rest = _exported(record)
    messages = _messages(record, rest)
    metadata = _object(record, "metadata")
    named = {key: record.pop(key, None) for key in ("owner", "title", "token_counter")}
    conversation_id = record.pop("id")
    if twice := record.keys() & metadata.keys():
        raise InvalidArgument(f"{min(twice)!r} stands in the line and in its metadata; keep one of them")
    line = ConversationLine(conversation_id, messages, **named, metadata={**record, **metadata}, **rest)
    check_line(line)
    return line


def _messages(record: JSONObject, rest: JSONObject) -> list[Message]:
    """The messages with what stands beside them."""
    given, escaped = record.pop("messages"), rest.pop("escaped", ())
    beside = {name: rest.pop(name, {}) for name in _MARKED}
    if any(beside.values()) or escaped:
        given = [_marked(each, number, beside, escaped) for number, each in enumerate(given, 1)]
    is_exported = "created_at" in rest
    messages = parse_messages(given, translate=not is_exported) if given or not is_exported else []
    for number in _numbers(record.pop("pinned", None), "pinned", len(messages)):
        messages[number - 1] = replace(messages[number - 1], pinned=True)
    times = record.pop("times", None)
    if times is not None and (not isinstance(times, list) or len(times) != len(messages)):
        raise InvalidArgument(f"times is no list of {len(messages)}; it must hold a time, or null, a message")
    for index, time in enumerate(times or ()):
        if (moment := moment_of(time, f"times[{index}]")) is not None:
            messages[index] = replace(messages[index], created_at=moment)
    for number, value in _by_number(record, "message_metadata", len(messages)).items():
        where = f"message_metadata[{number}]"
        if not isinstance(value, dict):
            raise InvalidArgument(f"{where} is a {type(value).__name__}; it must be an object")
        check_json(value, where)
        messages[number - 1] = replace(messages[number - 1], metadata=value)
    return messages


def _marked(
    given: JSONValue, number: int, beside: Mapping[str, Mapping[int, JSONValue]], escaped: Sequence[int]
) -> JSONValue:
    """A message that no provider's form can hold; others are left as they are."""
    opaque, partial, raw = (number in beside[name] for name in _MARKED)
    is_escaped = number in escaped
    if not (opaque or partial or raw or is_escaped):
        return given
    if not isinstance(given, dict):
        raise InvalidMessage(f"messages[{number - 1}] is a {type(given).__name__}; it must be an object")
    data, rest, reply = (beside[name].get(number) for name in _MARKED)
    if is_escaped:
        given, data, rest, reply = (unescaped(each) for each in (given, data, rest, reply))
    if opaque:
        made = Message.opaque(data, given.get("content"), role=str(given.get("role")))
        return parse_message(made, "escape" if is_escaped else "refuse", translate=False)
    if not (partial or raw):
        return parse_message(given, "escape", translate=False)
    if partial and not isinstance(rest, dict) and rest is not True:
        raise InvalidArgument(f"partial[{number}] is a {type(rest).__name__}; it must be an object or true")
    marks = {**({PARTIAL: rest or True} if partial else {}), **({RAW: reply} if raw else {})}
    return parse_marked(given, marks, "escape" if is_escaped else "refuse")


def _exported(record: JSONObject) -> JSONObject:
    """What only a line that `export` has written holds, taken out of it.

    Raises:
        InvalidArgument: it cannot be read here.
    """
    if record.pop(FORMAT) != 1:
        raise InvalidArgument("exported by a newer tokenmem; import it with that one")
    count = len(record["messages"])
    found: JSONObject = {name: moment_of(record.pop(name, None), name) for name in _TIMES}
    found |= {name: record.pop(name, None) for name in (*_NUMBERS, "parent_id", "positions")}
    found["keep"] = record.pop("keep", False)
    found |= {name: record.pop(name, None) for name in RECORDS}
    found["escaped"] = frozenset(_numbers(record.pop("escaped", None), "escaped", count))
    for name in _MARKED:
        found[name] = _by_number(record, name, count)
    return {name: value for name, value in found.items() if value is not None}


def _object(record: JSONObject, name: str) -> JSONObject:
    value = record.pop(name, None)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name} is a {type(value).__name__}; it must be an object")
    return value


def _by_number(record: JSONObject, name: str, count: int) -> dict[int, JSONValue]:
    """An object that holds something for some of the messages, by their numbers."""
    found = {}
    for key, value in _object(record, name).items():
        number = int(key) if key.isascii() and key.isdigit() and len(key) < 20 else 0
        if not 1 <= number <= count:
            raise InvalidArgument(f"{name} names message {key!r:.40}; they are numbered 1 to {count}")
        found[number] = value
    return found


def _numbers(value: JSONValue, name: str, count: int) -> list[int]:
    value = [] if value is None else value
    if not isinstance(value, list):
        raise InvalidArgument(f"{name} is a {type(value).__name__}; it must be a list of numbers")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= count:
            raise InvalidArgument(f"{name} names message {number!r:.40}; they are numbered 1 to {count}")
    return value


def check_line(line: ConversationLine) -> None:
    """Check what only an exported line holds: it comes from outside, and becomes rows.

    Raises:
        InvalidArgument: something in it is not as `export` writes it.
        InvalidMessage: it has no messages, and tells nothing else.
    """
    if not line.messages and line.created_at is None:
        raise InvalidMessage("messages is empty; pass at least one message")
    for name in _TIMES:
        value = getattr(line, name)
        if value is not None and (not isinstance(value, datetime) or value.utcoffset() is None):
            raise InvalidArgument(f"{name} is {value!r:.60}; it must be a datetime with a time zone")
    for name in _NUMBERS:
        value = getattr(line, name)
        if value is not None and not _is_number(value, least=0):
            raise InvalidArgument(f"{name} is {value!r:.40}; it must be a number, 0 or more")
    if not isinstance(line.keep, bool):
        raise InvalidArgument(f"keep is a {type(line.keep).__name__}; it must be true or false")
    if line.parent_id is not None:
        if not isinstance(line.parent_id, str) or not 1 <= len(line.parent_id) <= 255:
            raise InvalidArgument("parent_id is no id of 1 to 255 characters")
        check_text(line.parent_id, "parent_id")
    _check_positions(line)
    for name in RECORDS:
        checked_records(name, getattr(line, name))
    places = {line.position_of(index) for index in range(len(line.messages))} if line.versions else set()
    for index, version in enumerate(line.versions):
        if version["position"] not in places:
            raise InvalidArgument(f"versions[{index}] is of a message that is not there")


def _check_positions(line: ConversationLine) -> None:
    positions = line.positions
    if positions is not None:
        if not isinstance(positions, (list, tuple)) or len(positions) != len(line.messages):
            raise InvalidArgument(
                f"positions is no list of {len(line.messages)} numbers, one for each message"
            )
        for before, number in zip((0, *positions), positions, strict=False):
            if not _is_number(number, least=before + 1):
                raise InvalidArgument(
                    f"positions has {number!r:.40} behind {before}; they must rise, from 1 on"
                )
    last = line.position_of(len(line.messages) - 1) if line.messages else 0
    if line.last_position is not None and line.last_position < last:
        raise InvalidArgument(f"last_position is {line.last_position}, and a message stands at {last}")


def _is_number(value: object, *, least: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return least <= value <= LARGEST_POSITION


def render_line(line: ConversationLine) -> str:
    """One line of JSON Lines, without the newline; `parse_line` reads it back.

    Times and metadata of messages are written where there are some; what only `export` knows, where told.
    """
    writer = LineWriter(numbered=False)
    pieces = [writer.head(head_of(line)), writer.page(line.messages), "]"]
    for name in writer.beside():
        pieces.append(f',"{name}":{{{writer.entries(name, line.messages, 1)[:-1]}}}')
    pieces += writer.lists(line.positions)
    listed: JSONObject = {"last_position": line.last_position}
    listed |= {name: getattr(line, name) or None for name in RECORDS}
    listed["last_call"] = line.last_call
    pieces += [f',"{name}":{dump_json(value)}' for name, value in listed.items() if value is not None]
    return "".join([*pieces, writer.end(is_export=line.is_export)])


def head_of(line: ConversationLine) -> JSONObject:
    """What a line holds before its messages."""
    record: JSONObject = {
        "id": line.id,
        "owner": line.owner,
        "title": line.title,
        "token_counter": line.token_counter,
        "metadata": line.metadata or None,
        **{name: _text_of(getattr(line, name)) for name in _TIMES},
        "parent_id": line.parent_id,
        "forked_at": line.forked_at,
        "keep": line.keep or None,
    }
    return {key: value for key, value in record.items() if value is not None}


def _text_of(moment: datetime | None) -> str | None:
    return None if moment is None else moment_text(moment.astimezone(UTC))
