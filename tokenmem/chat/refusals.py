"""Why a provider refuses a request, by its error: a message, the length, the request itself, or unknown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tokenmem.messages.message import Message
from tokenmem.messages.parsing import digest
from tokenmem.messages.values import JSONMapping, JSONObject
from tokenmem.operations.snapshot import CallNote

REFUSING = (400, 413, 422)
"""The statuses by which a provider refuses a request as it is: the same one would be refused again."""

Kind = Literal["message", "filter", "too_long", "request", "unknown"]

_PROMPT = ("messages", "input")
# Options that are common words as well: named only where they stand in quotes.
_WORDS = frozenset(
    {"audio", "include", "metadata", "n", "prediction", "reasoning", "seed", "stop", "store", "stream"}
    | {"text", "user", "model", "tools", "instructions", "truncation", "modalities", "verbosity"}
)
_MODEL = re.compile(
    r"model_not_found|(?:unknown|invalid|no such) model"
    r"|\bmodel\b.{0,80}(?:does not exist|not found|is unknown|not available|no access|decommissioned)"
)
_TOOL = re.compile(
    r"\btools\b['\"]?[\s.,\[(]{1,3}\d|invalid schema for function|function\.parameters|tool schema"
)
_TOO_LONG = re.compile(
    r"context.?(?:length|window|size)|context_length|maximum (?:context|prompt|input|number of tokens)"
    r"|(?:prompt|input|request|messages?|payload|entity|conversation)s? (?:is |are |was )?too (?:long|large)"
    r"|too many (?:input )?tokens|too_long|reduce the length|token (?:count|limit)[^.]{0,40}exceed"
    r"|exceeds?[^.]{0,60}(?:token|context)|request too large|\u4e0a\u4e0b\u6587|\u8d85\u51fa|\u8d85\u8fc7"
)
_FILTER = re.compile(
    r"content.?filter|content.?policy_violation|content (?:policy|management)|responsibleai"
    r"|(?:was|were|been) flagged|prohibited_content|data_inspection|inappropriate content"
    r"|safety (?:system|policy|reasons)|invalid_prompt"
)
# messages[3].content, messages.3.content, ["body", "messages", 3, …], message at index 3
_INDEX = re.compile(r"\b(?:messages?|input)(?:\.?\[|\.|['\"],\s*|\s+(?:at\s+)?index\s+)['\"]?(\d{1,6})\b")
# The id of an item of the Responses API.
_ITEM = re.compile(r"\b(?:rs|msg|fc|ctc|ws|ig|mcp)_[a-z0-9]+\b")
_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class Refusal:
    """That a provider has refused a request as it was.

    Attributes:
        kind: what it names: a "message", by its index or its id; a content "filter"; that the prompt is
            "too_long"; the "request" besides its messages: a parameter, a tool, the model; or "unknown".
        told: the error's text, in lower case. It may repeat the prompt, and is never stored.
        index: the place of the message in the request.
        items: ids of items that it names.
        is_sure: the error says in a field of its own that it is the request.
        is_large: what is too long is so in bytes.
    """

    kind: Kind
    told: str
    index: int | None = None
    items: tuple[str, ...] = ()
    is_sure: bool = False
    is_large: bool = False


def refusal_of(error: BaseException, request: JSONMapping) -> Refusal | None:
    """How a provider has refused a request; None where it did not, or where another try may do.

    Args:
        error: what the client has raised.
        request: the parameters of the request.
    """
    body = getattr(error, "body", None)
    status = _status(error, body)
    if status not in REFUSING:
        return None
    told = told_by(error)
    parameter = _named_parameter(error, body)
    if parameter in request and parameter not in _PROMPT:
        return Refusal("request", told, is_sure=True)
    if _TOO_LONG.search(told):
        return Refusal("too_long", told, is_large=status == _TOO_LARGE)
    index, items = _INDEX.search(told), tuple(_ITEM.findall(told))
    if index is not None or items:
        return Refusal("message", told, int(index[1]) if index is not None else None, items)
    if _names_request(told, request):
        return Refusal("request", told)
    if status == _TOO_LARGE:
        return Refusal("too_long", told, is_large=True)
    return Refusal("filter" if _FILTER.search(told) else "unknown", told)


def told_by(error: BaseException) -> str:
    """All that an error says, in lower case."""
    body = getattr(error, "body", None)
    return f"{error} {body if body is not None else ''} {_text_of_response(error)}".lower()


def _status(error: BaseException, body: object) -> int | None:
    """The status of the response, or the one that an error tells in a stream of status 200."""
    inner = body.get("error", body) if isinstance(body, Mapping) else {}
    response = getattr(error, "response", None)  # as httpx and requests have it
    codes = [getattr(error, "status_code", None), getattr(response, "status_code", None)]
    codes += [getattr(error, "code", None)]
    codes += [inner.get("code"), inner.get("status")] if isinstance(inner, Mapping) else []
    for code in codes:
        if isinstance(code, int) or (isinstance(code, str) and code.isdigit()):
            return int(code)
    return None


def _text_of_response(error: BaseException) -> str:
    """What the response of another package's error says."""
    if hasattr(error, "body"):
        return ""
    try:
        text = getattr(getattr(error, "response", None), "text", "")
    except Exception:  # of a stream that has not been read
        return ""
    return text if isinstance(text, str) else ""


def _named_parameter(error: BaseException, body: object) -> str | None:
    inner = body.get("error", body) if isinstance(body, Mapping) else {}
    given = getattr(error, "param", None) or (inner.get("param") if isinstance(inner, Mapping) else None)
    return re.split(r"[.\[]", given)[0] if isinstance(given, str) else None


def _names_request(told: str, request: JSONMapping) -> bool:
    """Whether an error's words name what is no message: a parameter of the request, a tool, the model."""
    extra = request.get("extra_body")
    names = {*request, *(extra if isinstance(extra, Mapping) else ())} - {*_PROMPT}
    if any(_is_named(name, told) for name in names):
        return True
    return _MODEL.search(told) is not None or ("tools" in request and _TOOL.search(told) is not None)


def _is_named(name: str, told: str) -> bool:
    quoted = any(f"{quote}{name.lower()}{quote}" in told for quote in "'\"`")
    return quoted or (name not in _WORDS and re.search(rf"\b{re.escape(name.lower())}\b", told) is not None)


@dataclass(frozen=True, slots=True)
class KnownRefusals:
    """What the newest calls of a conversation tell of refusals.

    Attributes:
        refused: the positions of messages that were refused, each with what tells its content from another.
        perhaps: the positions of messages of which one may have been why a request was refused.
        token_limit: what a window may cost since a longer one was refused, in tokens; None where none was.
        last_was_refused: whether the newest call was.
    """

    refused: Mapping[int, str] = field(default_factory=dict)
    perhaps: frozenset[int] = frozenset()
    token_limit: int | None = None
    last_was_refused: bool = False

    @property
    def may_be_blocked(self) -> bool:
        """Whether a request that is refused is asked again without what may be why."""
        return self.last_was_refused or bool(self.perhaps)


NOTHING_REFUSED = KnownRefusals()


def known_refusals(notes: Sequence[CallNote], last_call: int, model: str) -> KnownRefusals:
    """What the newest calls tell; of each position the newest word holds.

    Args:
        notes: those of the newest calls, in order.
        last_call: the number of the newest call.
        model: the model that is asked: another one may take longer prompts.
    """
    if not notes:
        return NOTHING_REFUSED
    refused: dict[int, str] = {}
    perhaps: set[int] = set()
    token_limit = None
    for note in notes:
        for change in note.changes:
            position, kind = change.get("position"), change.get("change")
            limit = change.get("token_limit")
            if kind == "too_long" and note.model == model and isinstance(limit, int) and limit > 0:
                token_limit = limit
            if not isinstance(position, int) or kind not in ("refused", "perhaps_refused", "accepted"):
                continue
            refused.pop(position, None)
            perhaps.discard(position)
            if kind == "refused":
                refused[position] = str(change.get("digest"))
            elif kind == "perhaps_refused":
                perhaps.add(position)
    last_was_refused = notes[-1].number == last_call and notes[-1].status == "refused"
    return KnownRefusals(refused, frozenset(perhaps), token_limit, last_was_refused)


def content_digest(message: Message) -> str:
    """What tells a message's content from another: an edited one is sent again.

    Two bytes do, but for one edit in 65,536, and tell nothing of a text that has been deleted since.
    """
    return digest([message])[:4]


def still_refused(known: KnownRefusals, messages: Sequence[Message]) -> frozenset[int]:
    """The positions of those of the messages that were refused, and have not been edited since."""
    return frozenset(
        message.position
        for message in messages
        if message.position in known.refused and known.refused[message.position] == content_digest(message)
    )


def refused_change(message: Message) -> JSONObject:
    """What is put on record of a message that was refused."""
    return {"position": message.position, "change": "refused", "digest": content_digest(message)}
