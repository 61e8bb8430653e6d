"""How the pieces of a message that Chat Completions streams become one message."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from tokenmem.chat.apis.repeated_calls import is_complete, is_placeholder
from tokenmem.messages.calls import called_function
from tokenmem.messages.message import text_of_parts
from tokenmem.messages.values import JSONObject, JSONValue, json_text

_WHOLE = frozenset({"id", "type", "role", "name", "format", "signature", "thought_signature"})
"""What a stream sends whole, some servers with every piece, or empty with every later one."""

_CALLED = ("function", "custom", "function_call")
"""Where the name of a function stands: some servers stream it in pieces."""

_OF_PARTS = frozenset({"content", "thinking", "summary", "reasoning", "reasoning_details", "thinking_blocks"})
"""Lists whose parts need no index: a piece of the same type as the last part grows it."""

_TEXTS = ("text", "thinking", "summary", "reasoning", "refusal")
"""What grows in such a part; other parts, such as images, come whole."""


def merge(whole: JSONObject, delta: Mapping[str, object]) -> None:
    """Add a streamed piece to what has come before it: texts grow, the rest is put in its place.

    Nothing of the piece is kept, and it is not changed.
    """
    _merge(whole, delta, is_called=False)


def _merge(whole: JSONObject, delta: Mapping[str, object], *, is_called: bool) -> None:
    for key, value in delta.items():
        known = whole.get(key)
        if value is None or (value == "" and key in _WHOLE):
            whole.setdefault(key, value)
        elif key == "content":
            whole[key] = _merged_content(known, value)
        elif isinstance(value, list):
            whole[key] = _as_list(known)
            merge_list(key, whole[key], value)
        elif key == "tool_calls" and isinstance(known, list) and isinstance(value, dict):
            merge_list(key, known, [value] if value else [])
        elif isinstance(value, dict) and isinstance(known, dict):
            _merge(known, value, is_called=key in _CALLED)
        elif isinstance(value, str) and isinstance(known, list):
            if value:
                _add_text(known, value)
        elif is_called and key == "name" and isinstance(known, str) and isinstance(value, str):
            whole[key] = _name(known, value)
        elif isinstance(value, str) and isinstance(known, str) and key not in _WHOLE:
            whole[key] = known + value
        elif isinstance(known, str) and key in _TEXTS:
            whole[key] = known + json_text(value)  # a text that has been delivered does not become another
        else:
            whole[key] = copy.deepcopy(value)


def _name(known: str, piece: str) -> str:
    """A function's name with one more piece: some servers send it in pieces, others whole each time."""
    return piece if piece.startswith(known) else known + piece


def _merged_content(known: JSONValue, value: JSONValue) -> JSONValue:
    """The content with one more piece: text, parts, or, where a model answers with JSON, an object."""
    if isinstance(value, dict) and (isinstance(known, list) or (known and isinstance(known, str))):
        value = [value] if "type" in value else json_text(value)
    if isinstance(value, list):
        parts = _as_list(known)
        merge_list("content", parts, value)
        return parts
    if known is None or known == "":
        return copy.deepcopy(value)
    if isinstance(known, dict) and isinstance(value, dict):
        merge(known, value)
        return known
    if isinstance(known, list):
        if value != "":
            _add_text(known, json_text(value))
        return known
    return json_text(known) + json_text(value)


def _as_list(known: JSONValue) -> list[JSONValue]:
    """What a list is added to: some servers stream content as parts and as text in turn."""
    if isinstance(known, list):
        return known
    if isinstance(known, dict):
        return [known]
    return [{"type": "text", "text": json_text(known)}] if known not in (None, "") else []


def _add_text(parts: list[JSONValue], text: str) -> None:
    last = parts[-1] if parts else None
    if isinstance(last, dict) and last.get("type") == "text" and isinstance(last.get("text"), str):
        last["text"] += text
    else:
        parts.append({"type": "text", "text": text})


def _content_part(part: JSONValue) -> JSONValue:
    if part is None or isinstance(part, (str, dict)):
        return part
    return {"type": "text", "text": json_text(part)}


def merge_list(key: str, whole: list[JSONValue], pieces: Sequence[JSONValue]) -> None:
    """Add pieces to the list that a message has under this key; some of them grow an item of it."""
    if key == "tool_calls":
        pieces = [piece for piece in pieces if piece != {}]
    if key == "content":
        pieces = list(map(_content_part, pieces))
    for number, piece in enumerate(pieces):
        last = whole[-1] if whole and number == 0 else None  # parts that come together are two
        if key == "content" and isinstance(piece, str) and isinstance(last, str):
            whole[-1] = last + piece
            continue
        grown = _grown_by(key, whole, last, piece) if isinstance(piece, dict) else None
        if grown is not None:
            merge(grown, piece)
        elif piece is not None:
            whole.append(copy.deepcopy(piece))


def _grown_by(key: str, whole: Sequence[JSONValue], last: JSONValue, piece: JSONObject) -> JSONObject | None:
    """The item that a piece belongs to; None where it begins one."""
    if key == "tool_calls":
        return _call_grown_by(whole, piece)
    if piece.get("index") is not None:
        same = [item for item in whole if isinstance(item, dict) and item.get("index") == piece["index"]]
        grown = next((item for item in reversed(same) if _is_same_part(item, piece)), None)
        # What is delivered is the text in its order: only the last of it can grow.
        is_behind = key == "content" and "text" in piece and grown is not _last_text(whole, grown)
        return None if is_behind else grown
    if key not in _OF_PARTS or not isinstance(last, dict):
        return None
    return last if _is_same_part(last, piece) and _goes_on(last, piece) else None


def _last_text(parts: Sequence[JSONValue], known: JSONObject | None) -> JSONValue:
    """The last part with a text, or the known one where none comes behind it."""
    for part in reversed(parts):
        if part is known or isinstance(part, str) or (isinstance(part, dict) and "text" in part):
            return part
    return known


def _is_same_part(item: Mapping[str, object], piece: Mapping[str, object]) -> bool:
    """Whether neither the types nor the ids of two parts differ; one of them may lack them."""
    return all(item[name] == piece[name] for name in ("type", "id") if item.get(name) and piece.get(name))


def _goes_on(last: Mapping[str, object], piece: Mapping[str, object]) -> bool:
    """Whether a piece without an index goes on with the text of the last part: a signature ends it."""
    grows = [name for name in _TEXTS if piece.get(name) is not None]
    if any(name in last for name in grows):
        return not ((last.get("signature") or last.get("closed")) and any(piece[name] for name in grows))
    return "signature" in piece and not grows and any(name in last for name in _TEXTS)


def _call_grown_by(whole: Sequence[JSONValue], piece: JSONObject) -> JSONObject | None:
    """The call that a piece belongs to; None where it begins one.

    OpenAI numbers the calls of a reply. Other servers send whole calls, without a number or all with the
    same, or tell pieces by the call's id.
    """
    index, items = piece.get("index"), [item for item in whole if isinstance(item, dict)]
    if len(items) > 1 and items[-1].get("index") == index is not None:
        items = items[-1:]  # most pieces belong to the newest call
    if index is not None:
        same = [item for item in items if item.get("index") == index]
    elif piece.get("id"):
        same = [item for item in items if item.get("id") == piece["id"]]
    else:
        same = [] if called_function(piece).get("name") or not called_function(piece) else items
    return same[-1] if same and not _is_another_call(same[-1], piece) else None


def _is_another_call(known: Mapping[str, object], piece: Mapping[str, object]) -> bool:
    """Whether a piece begins a call although an item has its number or id: it names a function once more.

    It may be the same call once more (`repeated_calls`).
    """
    before, now = called_function(known), called_function(piece)
    if not (before.get("name") and now.get("name")):
        return False
    if known.get("id") and piece.get("id") and known["id"] != piece["id"]:
        return True
    if not (known.get("id") or piece.get("id")) and _are_whole_names(before, now):
        return True
    if known.get("id") and known["id"] == piece.get("id") and is_placeholder(before.get("arguments")):
        return False
    return _can_begin(now.get("arguments")) and is_complete(before.get("arguments"))


def _are_whole_names(before: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Whether two names that come with arguments are two functions', not one name in pieces."""
    if not ("arguments" in before and "arguments" in now):
        return False
    return not str(now["name"]).startswith(str(before["name"]))


def _can_begin(arguments: object) -> bool:
    """Whether a piece can be the beginning of a call's arguments: only then is the call before it looked at.

    To parse a call's arguments at each of its pieces would take time in the square of their number.
    """
    return not isinstance(arguments, str) or not arguments.strip() or arguments.lstrip()[0] in "{["


def text_of_content(content: object) -> str:
    """The text of a message's content, as it is stored."""
    if isinstance(content, list):
        return text_of_parts(content) or ""
    return content if isinstance(content, str) else ""
