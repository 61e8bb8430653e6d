"""Answers that came in the other form than was asked for: a stream as one text, or JSON as a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenmem.chat.apis.replies import is_stream, request_id_of
from tokenmem.messages.values import JSONValue, json_or

# Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
_LINE_END = re.compile("\r\n|\n|\r")
_DONE = "[DONE]"
_NO_JSON = object()


class WholeBody(dict[str, Any]):
    """The JSON object of an answer to a request for a stream, with the provider's id of the request."""

    request_id: str | None = None


def parsed_text(text: str | bytes) -> JSONValue:
    """What an answer's text holds: a JSON value, or a tuple of a stream's events; None for other texts."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text.lstrip("\ufeff")
    value = json_or(text, _NO_JSON)
    return (tuple(_events(text)) or None) if value is _NO_JSON else value


def _events(text: str) -> Iterator[JSONValue]:
    """The events in the text of a stream, up to its end mark."""
    kind, lines = "", list[str]()
    for line in [*_LINE_END.split(text), ""]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            lines.append(value)
        elif name == "event":
            kind = value
        elif not line:
            for event in _data(lines):
                if event == _DONE:
                    return
                yield _of_kind(kind, event)
            kind, lines = "", []


def _data(lines: list[str]) -> Iterator[JSONValue]:
    """The JSON in the data of an event; some servers leave out the empty line between events."""
    whole = json_or("\n".join(lines), _NO_JSON)
    for line in ["\n".join(lines)] if whole is not _NO_JSON else lines:
        if line.strip() == _DONE:
            yield _DONE
        elif line.strip():
            value = json_or(line, _NO_JSON)
            yield line if value is _NO_JSON else value


def _of_kind(kind: str, event: JSONValue) -> JSONValue:
    """The event with the type that stood beside it."""
    if kind == "error" and not (isinstance(event, dict) and event.get("error")):
        return {"type": "error", "error": event or True}
    if isinstance(event, dict) and kind and "type" not in event and "choices" not in event:
        return {"type": kind, **event}
    return event


def is_json_stream(answer: object) -> bool:
    """Whether a stream of the openai package's is none: the server has answered with JSON.

    The package looks for events in it and finds none.
    """
    if not is_stream(answer):
        return False
    headers = getattr(getattr(answer, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return False
    kind = str(headers.get("content-type", "")).partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def body_of(answer: object, content: bytes) -> JSONValue:
    """The JSON in such an answer, or its text."""
    value = json_or(content.decode("utf-8", "replace"), _NO_JSON)
    if value is _NO_JSON:
        return content.decode("utf-8", "replace")
    if isinstance(value, dict):
        body = WholeBody(value)
        body.request_id = request_id_of(answer)
        return body
    return value


def is_text(response: object) -> bool:
    """Whether an answer came as text: the openai package hands on so what its headers do not call JSON."""
    return isinstance(response, (str, bytes))
