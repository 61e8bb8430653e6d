"""How a reply goes over the connection: bytes, pauses, and where it is cut. Nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from tokenmem.testing.exchange import Rendering, dump, error_body
from tokenmem.testing.replies import Answer, Cut, Stall, StreamError


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is sent for so long.

    Attributes:
        seconds: how long.
    """

    seconds: float


class HangUp:
    """The connection is closed."""


Step = bytes | Pause | HangUp
SpokenReply = Answer | Stall | Cut | StreamError
_LAST_CHUNK = b"0\r\n\r\n"


def whole(status: int, body: Mapping[str, object], headers: Mapping[str, str]) -> bytes:
    """A response with a JSON body."""
    data = dump(body).encode()
    length = {"content-type": "application/json", "content-length": str(len(data))}
    return _head(status, length | dict(headers)) + data


def steps_of_whole(reply: SpokenReply, rendering: Rendering, headers: Mapping[str, str]) -> Iterator[Step]:
    """How an answer is delivered that is not streamed."""
    if isinstance(reply, StreamError):
        yield whole(500, error_body(500, reply.code, reply.message), headers)
        return
    yield Pause(_answer(reply).delay)
    if isinstance(reply, Stall):
        yield Pause(reply.seconds)
    sent = whole(200, rendering.body(), headers)
    if isinstance(reply, Cut):
        if reply.after:
            body = sent.index(b"\r\n\r\n") + 4
            yield sent[: (body + len(sent)) // 2]
        yield HangUp()
    else:
        yield sent


def steps_of_stream(reply: SpokenReply, rendering: Rendering, headers: Mapping[str, str]) -> Iterator[Step]:
    """How an answer is delivered as server-sent events."""
    answer, events = _answer(reply), rendering.events()
    kind = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
    yield Pause(answer.delay)
    yield _head(200, kind | dict(headers))
    # What is cut or fails never gets to its last event: that would tell the client that all is well.
    until = len(events) if isinstance(reply, Answer | Stall) else min(reply.after, len(events) - 1)
    for number, event in enumerate(events[:until]):
        if isinstance(reply, Stall) and number == min(reply.after, len(events) - 1):
            yield Pause(reply.seconds)
        elif number:
            yield Pause(answer.chunk_delay)
        yield _chunk(event)
    if isinstance(reply, Cut):
        yield HangUp()
        return
    if isinstance(reply, StreamError):
        yield _chunk(rendering.error_event(reply, until))
    yield _LAST_CHUNK


def _answer(reply: SpokenReply) -> Answer:
    return reply if isinstance(reply, Answer) else reply.answer


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_REASONS = {status.value: status.phrase for status in HTTPStatus}


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
