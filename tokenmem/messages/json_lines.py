"""A whole conversation as one line of JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import parse_messages
from tokenmem.messages.values import MAX_NESTING, JSONObject, dump_json


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
    """

    id: str
    messages: list[Message]
    owner: str | None = None
    title: str | None = None
    token_counter: str | None = None
    metadata: JSONObject = field(default_factory=dict)


def parse_line(line: str | bytes) -> ConversationLine:
    """Read one line of JSON Lines: `{"id": …, "messages": […]}`.

    Optional are owner, title, token_counter, metadata, and pinned: the pinned messages by number, from 1.
    Any further key is kept in the metadata.

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
    messages = parse_messages(record.pop("messages"))
    pinned = record.pop("pinned", None)
    pinned = [] if pinned is None else pinned
    if not isinstance(pinned, list):
        raise InvalidArgument(f"pinned is a {type(pinned).__name__}; it must be a list of numbers")
    for number in pinned:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(messages):
            raise InvalidArgument(f"pinned names message {number!r}; they are numbered 1 to {len(messages)}")
        messages[number - 1] = replace(messages[number - 1], pinned=True)
    metadata = record.pop("metadata", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict):
        raise InvalidArgument(f"metadata is a {type(metadata).__name__}; it must be an object")
    named = {key: record.pop(key, None) for key in ("owner", "title", "token_counter")}
    conversation_id = record.pop("id")
    if twice := record.keys() & metadata.keys():
        raise InvalidArgument(f"{min(twice)!r} stands in the line and in its metadata; keep one of them")
    return ConversationLine(conversation_id, messages, **named, metadata={**record, **metadata})


def render_line(line: ConversationLine) -> str:
    """One line of JSON Lines, without the newline; `parse_line` reads it back."""
    return "".join(render_pieces(line, [line.messages]))


def render_pieces(line: ConversationLine, pages: Iterable[Sequence[Message]]) -> Iterator[str]:
    """One line of JSON Lines in pieces: its messages come from `pages`, which may be too many for memory."""
    record: JSONObject = {"id": line.id}
    named = {"owner": line.owner, "title": line.title, "token_counter": line.token_counter}
    record |= {key: value for key, value in named.items() if value is not None}
    if line.metadata:
        record["metadata"] = line.metadata
    yield dump_json(record)[:-1] + ',"messages":['
    pinned: list[int] = []
    count = 0
    for page in pages:
        yield ("," if count else "") + ",".join(dump_json(message.to_openai()) for message in page)
        pinned += [number for number, message in enumerate(page, count + 1) if message.pinned]
        count += len(page)
    yield f'],"pinned":{dump_json(pinned)}}}' if pinned else "]}"
