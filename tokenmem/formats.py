"""Between the provider's messages and ours, and between conversations and JSON Lines. Nothing is lost."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

from tokenmem.errors import InvalidArgument, InvalidMessage
from tokenmem.items import split_item
from tokenmem.models import JSONObject, Message, Role, plain_message, text_of_parts

ROLES: tuple[str, ...] = get_args(Role)


class PydanticMessage(Protocol):
    """A message as the openai package returns it: a pydantic model."""

    def model_dump(self, *, mode: str, exclude_unset: bool) -> dict[str, Any]:
        """The fields that the provider sent, as JSON values."""


MessageLike = Message | Mapping[str, Any] | PydanticMessage
"""What `append` takes: a Message, an OpenAI message as a dict, or one as the openai package returns it.

An item of the Responses API is a message too: a function_call, its output, reasoning, or any other.
"""

MAX_NESTING = 200
"""How deep a payload may nest: copying takes two of Python's 1,000 stack frames a level."""

_PLAIN_ROLES = ("user", "assistant", "system", "developer")
_RESULT_PARTS = {"tool_result"}
_CALL_PARTS = {"tool_call", "tool_use"}


def parse_messages(messages: Iterable[MessageLike]) -> list[Message]:
    """Check messages from outside and split each into text for people and payload.

    Raises:
        InvalidMessage: one of them cannot be stored; the text names its place in the list and why.
    """
    if isinstance(messages, (str, bytes, Mapping, Message)) or hasattr(messages, "model_dump"):
        raise InvalidMessage(f"messages is a single {type(messages).__name__}; pass a list of messages")
    try:
        listed = list(messages)
    except TypeError:
        raise InvalidMessage(f"messages is a {type(messages).__name__}; pass a list of messages") from None
    if not listed:
        raise InvalidMessage("messages is empty; pass at least one message")
    return [_plain(message) or _parse(message, f"messages[{index}]") for index, message in enumerate(listed)]


def parse_message(message: MessageLike) -> Message:
    """The same for one message."""
    return _parse(message, "message")


def _plain(message: Any) -> Message | None:
    """A role and a text with which nothing can be wrong: most messages, in a tenth of the time."""
    if type(message) is dict and message.keys() == {"role", "content"}:
        role, content = message["role"], message["content"]
    elif type(message) is Message and message.pinned is False and message.payload is None:
        role, content = message.role, message.content
    else:
        return None
    if not _is_plain(role, content) or role not in _PLAIN_ROLES:
        return None
    return plain_message(role, content)


def _parse(message: MessageLike, where: str) -> Message:
    pinned = False
    if isinstance(message, Message):
        pinned = message.pinned
        _check_fields(message, where)
        original = message.to_openai()
    elif isinstance(message, Mapping):
        original = dict(message)
    elif hasattr(message, "model_dump"):
        original = message.model_dump(mode="json", exclude_unset=True)
    else:
        raise InvalidMessage(f"{where} is a {type(message).__name__}; pass a Message or a dict with a role")
    check_json(original, where)
    if "role" not in original and "type" in original:
        return _parse_item(message, original, where)
    role = _role(original, where)
    content = _content(original, where)
    kind = _kind(role, original, where)
    if pinned and kind != "message":
        raise InvalidMessage(f"{where} is a {kind} and pinned; only plain messages can be pinned")
    text, payload = _split(original, content)
    if isinstance(message, Message):
        _check_derived(message, role, text, where)
    return Message(role, text, kind=kind, payload=payload, pinned=pinned)


def _parse_item(message: MessageLike, item: JSONObject, where: str) -> Message:
    role, kind, text, payload = split_item(item, where)
    if isinstance(message, Message):
        if message.pinned:
            raise InvalidMessage(f"{where} is a {kind} and pinned; only plain messages can be pinned")
        _check_derived(message, role, text, where)
    return Message(role, text, kind=kind, payload=payload)


def _check_derived(message: Message, role: str, text: str | None, where: str) -> None:
    if (message.role, message.content) != (role, text):
        raise InvalidMessage(
            f"{where}: role or content differ from the payload's; change the dict of to_openai() instead"
        )


def _check_fields(message: Message, where: str) -> None:
    """What a Message made by hand may hold although its types forbid it."""
    if not isinstance(message.pinned, bool):
        raise InvalidMessage(f"{where}: pinned is a {type(message.pinned).__name__}; use True or False")
    payload: Any = message.payload
    if payload is not None and not isinstance(payload, dict):
        raise InvalidMessage(f"{where}: the payload is a {type(payload).__name__}; use a dict or None")
    check_json(payload, where)  # before it is copied


def _role(message: JSONObject, where: str) -> str:
    role = message.get("role")
    if role not in ROLES:
        shown = repr(role)[:40] if "role" in message else "missing"
        raise InvalidMessage(f"{where}: the role is {shown}; use one of {', '.join(ROLES)}")
    return ROLES[ROLES.index(role)]  # the text itself, where an Enum of the caller's equals it


def _content(message: JSONObject, where: str) -> Any:
    content = message.get("content")
    if content is None or type(content) is str:
        return content
    if isinstance(content, str):
        return str.__str__(content)  # an Enum's text, not its name
    if not isinstance(content, list):
        raise InvalidMessage(
            f"{where}: the content is a {type(content).__name__}; use text, a list of parts, or None"
        )
    for index, part in enumerate(content):
        if not isinstance(part, (dict, str)):
            raise InvalidMessage(
                f"{where}: content[{index}] is a {type(part).__name__}; a part is a dict with a type"
            )
    return content


def _kind(role: str, message: JSONObject, where: str) -> str:
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise InvalidMessage(f"{where}: tool_calls is not a list of objects; use OpenAI's tool_calls format")
    parts = _part_types(message.get("content"))
    if role in ("tool", "function") or parts & _RESULT_PARTS:
        return "tool_result"
    if calls or message.get("function_call") or parts & _CALL_PARTS:
        return "tool_call"
    return "message"


def _part_types(content: Any) -> set[str]:
    if not isinstance(content, list):
        return set()
    types = [part.get("type") for part in content if isinstance(part, dict)]
    return {name for name in types if isinstance(name, str)}


def _split(message: JSONObject, content: Any) -> tuple[str | None, JSONObject | None]:
    """The text column and the payload column. `Message.to_openai` is the way back."""
    if isinstance(content, str):
        rest = {key: value for key, value in message.items() if key != "content"}
        return content, (rest if len(rest) > 1 else None)
    return (text_of_parts(content) if isinstance(content, list) else None), message


def check_json(value: Any, where: str) -> None:
    """Check that JSON text can carry the value and give back an equal one, on both engines.

    NUL characters and lone surrogates are refused: PostgreSQL's text holds neither, and SQLite's own
    functions cut a text at its first NUL.

    Raises:
        InvalidMessage: it cannot; the text names the place and the remedy.
    """
    if isinstance(value, dict) and all(map(_is_plain, value, value.values())):
        return  # most messages, in a third of the time
    pending = [(value, where, 0)]
    while pending:
        item, path, depth = pending.pop()
        if isinstance(item, str):
            check_text(item, path)
        elif isinstance(item, dict):
            if depth >= MAX_NESTING:
                raise InvalidMessage(f"{where} nests deeper than {MAX_NESTING} levels; flatten it")
            for key, inner in item.items():
                if not isinstance(key, str):
                    raise InvalidMessage(f"{path} has a key of type {type(key).__name__}; JSON keys are text")
                check_text(key, f"a key of {path}")
                pending.append((inner, _inside(path, key), depth + 1))
        elif isinstance(item, list):
            if depth >= MAX_NESTING:
                raise InvalidMessage(f"{where} nests deeper than {MAX_NESTING} levels; flatten it")
            pending.extend((inner, f"{path}[{index}]", depth + 1) for index, inner in enumerate(item))
        else:
            _check_scalar(item, path)


def _is_plain(key: Any, item: Any) -> bool:
    if type(key) is not str or type(item) is not str:
        return False
    return key.isascii() and item.isascii() and "\x00" not in key and "\x00" not in item


def _inside(path: str, key: str) -> str:
    """Name a place without repeating a key that is text of a person's rather than a field's name."""
    return f"{path}.{key}" if key.isidentifier() and len(key) <= 40 else f"{path}[…]"


def _check_scalar(item: Any, path: str) -> None:
    if item is None or isinstance(item, bool):
        return
    if isinstance(item, float):
        if math.isfinite(item):
            return
        raise InvalidMessage(f"{path} is {item}, which JSON cannot carry; use null or a string")
    if isinstance(item, int):
        # Python refuses to print longer ones (sys.set_int_max_str_digits), and no JSON reader takes them.
        if item.bit_length() <= 4096:
            return
        raise InvalidMessage(f"{path} is a whole number of {item.bit_length()} bits; write it as a string")
    raise InvalidMessage(
        f"{path} is a {type(item).__name__}; use only dict, list, str, int, float, bool and None"
    )


def check_text(text: str, where: str) -> None:
    """Check that both databases can hold the text.

    Raises:
        InvalidMessage: it has a NUL character or half of a surrogate pair; the text names the position.
    """
    position = text.find("\x00")
    if position >= 0:
        raise InvalidMessage(
            f"{where} has a NUL character at position {position}, which databases cannot hold; "
            f'remove it, for example with text.replace("\\x00", "")'
        )
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidMessage(
            f"{where} has half of a surrogate pair (U+{ord(text[error.start]):04X}) "
            f"at position {error.start}, "
            f'which UTF-8 cannot carry; repair it, for example with text.encode("utf-8", "replace").decode()'
        ) from None


def dump_json(value: Any) -> str:
    """Compact JSON text; other scripts' letters stay readable in the row."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def load_json(text: str) -> Any:
    """The value back."""
    return json.loads(text)


def digest(messages: Sequence[Message]) -> str:
    """SHA-256 of messages as they would be stored: tells a repeated append from another one."""
    hashed = hashlib.sha256()
    for message in messages:
        text = f"{message.role} {message.content}"
        if message.payload is not None:
            text = json.dumps(message.to_openai(), sort_keys=True, separators=(",", ":"))
        pinned, plain = int(message.pinned), int(message.payload is None)
        hashed.update(f"{pinned}{plain} {len(text)} {text}".encode())
    return hashed.hexdigest()


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
    """The same in pieces, for a conversation too long for memory: its messages come from `pages`."""
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
