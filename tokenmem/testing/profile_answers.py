"""How the answers of servers look that are not as OpenAI's are: whole ones, and the chunks of streams."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tokenmem.testing.exchange import Rendering
from tokenmem.testing.replies import JSONObject, StreamError

Chunks = list[JSONObject]

_DONE = b"[DONE]"


def _same(body: JSONObject) -> JSONObject:
    return body


def _same_chunks(chunks: Chunks) -> Chunks:
    return chunks


@dataclass(frozen=True, slots=True)
class Shape:
    """How answers of Chat Completions look.

    Attributes:
        whole: makes the body of a whole answer from OpenAI's.
        chunks: makes the chunks of a stream from OpenAI's.
    """

    whole: Callable[[JSONObject], JSONObject] = _same
    chunks: Callable[[Chunks], Chunks] = _same_chunks


AS_IT_IS = Shape()


def _delta(chunk: JSONObject) -> JSONObject:
    """What a chunk adds; nothing where it is the last, with the usage."""
    delta: JSONObject = chunk["choices"][0]["delta"] if chunk["choices"] else {}
    return delta


def _like(chunk: JSONObject, **delta: object) -> JSONObject:
    """A chunk of the same envelope that adds this."""
    made = copy.deepcopy(chunk)
    made["choices"] = [{"index": 0, "delta": delta, "finish_reason": None}]
    return made


def _message(body: JSONObject) -> JSONObject:
    message: JSONObject = body["choices"][0]["message"]
    return message


def _calls_in(chunks: Chunks) -> list[JSONObject]:
    """The calls of a stream, each with its index."""
    calls: dict[int, JSONObject] = {}
    for chunk in chunks:
        for piece in _delta(chunk).get("tool_calls") or ():
            known = calls.setdefault(piece["index"], copy.deepcopy(piece) | {"function": {"arguments": ""}})
            for key, text in piece["function"].items():
                known["function"][key] = known["function"].get(key, "") + text
    return list(calls.values())


# Doubled calls


def _doubled(body: JSONObject) -> JSONObject:
    message = _message(body)
    if message.get("tool_calls"):
        message["tool_calls"] = [*message["tool_calls"], *copy.deepcopy(message["tool_calls"])]
    return body


def _doubled_chunks(chunks: Chunks) -> Chunks:
    """Each call once more behind its last piece."""
    calls = _calls_in(chunks)
    last = {call["index"]: 0 for call in calls}
    for number, chunk in enumerate(chunks):
        last |= {piece["index"]: number for piece in _delta(chunk).get("tool_calls") or ()}
    made = []
    for number, chunk in enumerate(chunks):
        made.append(chunk)
        made += [_like(chunk, tool_calls=[call]) for call in calls if last[call["index"]] == number]
    return made


DOUBLED_CALLS = Shape(_doubled, _doubled_chunks)


# Several choices


def _several(body: JSONObject) -> JSONObject:
    choice = body["choices"][0]
    calls = choice["message"].pop("tool_calls", None)
    if calls:
        second = {"role": "assistant", "tool_calls": calls}
        body["choices"].append({"message": second, "finish_reason": choice["finish_reason"]})
    return body


def _several_chunks(chunks: Chunks) -> Chunks:
    made = copy.deepcopy(chunks)
    for chunk in made:
        if _delta(chunk).get("tool_calls"):
            chunk["choices"][0]["index"] = 1
    return made


SEVERAL_CHOICES = Shape(_several, _several_chunks)


# Parts


def _parts_chunks(chunks: Chunks) -> Chunks:
    made = copy.deepcopy(chunks)
    for chunk in made:
        if text := _delta(chunk).get("content"):
            _delta(chunk)["content"] = [{"type": "text", "text": text}]
    return made


PARTS = Shape(chunks=_parts_chunks)


# Halves of characters


def _halves_chunks(chunks: Chunks) -> Chunks:
    """Every character that JSON writes as two escapes, in two chunks."""
    made = []
    for chunk in chunks:
        text = _delta(chunk).get("content")
        if not text or all(character < "\U00010000" for character in text):
            made.append(chunk)
            continue
        units = text.encode("utf-16-be", "surrogatepass")
        halves = [chr(int.from_bytes(units[at : at + 2], "big")) for at in range(0, len(units), 2)]
        made += [_like(chunk, content=half) for half in halves]
    return made


HALVES = Shape(chunks=_halves_chunks)


# Names in fragments


def _fragments_chunks(chunks: Chunks) -> Chunks:
    made = []
    for chunk in chunks:
        pieces = _delta(chunk).get("tool_calls") or [{}]
        name = (pieces[0].get("function") or {}).get("name") or ""
        if len(name) < 4:
            made.append(chunk)
            continue
        first, second = copy.deepcopy(pieces[0]), {"index": pieces[0]["index"]}
        first["function"]["name"] = name[:3]
        made += [
            _like(chunk, tool_calls=[first]),
            _like(chunk, tool_calls=[second | {"function": {"name": name[3:], "arguments": ""}}]),
        ]
    return made


NAME_FRAGMENTS = Shape(chunks=_fragments_chunks)


# Streams without a finish_reason


def _unfinished_chunks(chunks: Chunks) -> Chunks:
    return [chunk for chunk in chunks if not (chunk["choices"] and chunk["choices"][0]["finish_reason"])]


NO_FINISH_REASON = Shape(chunks=_unfinished_chunks)


# What is to be sent back

_THOUGHT = "The user wants to know something. I had better look."


def _with_reasoning(body: JSONObject) -> JSONObject:
    _message(body)["reasoning_content"] = _THOUGHT
    return body


def _with_reasoning_chunks(chunks: Chunks) -> Chunks:
    first, *rest = chunks
    half = len(_THOUGHT) // 2
    thoughts = [_like(first, reasoning_content=piece) for piece in (_THOUGHT[:half], _THOUGHT[half:])]
    return [first, *thoughts, *rest]


REASONING_CONTENT = Shape(_with_reasoning, _with_reasoning_chunks)


def _signed(calls: Sequence[JSONObject]) -> None:
    for call in calls[:1]:
        call["extra_content"] = {"google": {"thought_signature": "c2lnbmVk"}}


def _with_signatures(body: JSONObject) -> JSONObject:
    _signed(_message(body).get("tool_calls") or ())
    return body


def _with_signatures_chunks(chunks: Chunks) -> Chunks:
    made = copy.deepcopy(chunks)
    begun = [chunk for chunk in made if (_delta(chunk).get("tool_calls") or [{}])[0].get("id")]
    for chunk in begun[:1]:
        _signed(_delta(chunk)["tool_calls"])
    return made


SIGNATURES = Shape(_with_signatures, _with_signatures_chunks)

_DETAILS: tuple[JSONObject, ...] = (
    {"type": "reasoning.summary", "summary": _THOUGHT, "format": "openai-responses-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "gAAAAB", "id": "rs_1", "index": 0},
)


def _with_details(body: JSONObject) -> JSONObject:
    _message(body)["reasoning_details"] = copy.deepcopy(list(_DETAILS))
    return body


def _with_details_chunks(chunks: Chunks) -> Chunks:
    first, *rest = chunks
    summary, encrypted = _DETAILS
    pieces = [summary | {"summary": _THOUGHT[:9]}, summary | {"summary": _THOUGHT[9:]}, encrypted]
    return [first, *(_like(first, reasoning_details=[piece]) for piece in pieces), *rest]


REASONING_DETAILS = Shape(_with_details, _with_details_chunks)


# Odd forms


def _odd(body: JSONObject) -> JSONObject:
    message = _message(body)
    message["role"] = "model"
    calls = message.get("tool_calls")
    if calls:
        message["tool_calls"] = {str(index): call for index, call in enumerate(calls)}
    else:
        message["tool_calls"] = {}
    return body


def _odd_chunks(chunks: Chunks) -> Chunks:
    made = copy.deepcopy(chunks)
    for chunk in made:
        if "role" in _delta(chunk):
            _delta(chunk)["role"] = "model"
    return made


ODD_FORMS = Shape(_odd, _odd_chunks)


# Usage elsewhere


def _usage_elsewhere(body: JSONObject) -> JSONObject:
    body["choices"][0]["usage"] = body.pop("usage")
    return body


def _usage_elsewhere_chunks(chunks: Chunks) -> Chunks:
    """In Groq's own place, and behind it a usage of zeros."""
    made = copy.deepcopy(chunks)
    for chunk in made:
        usage = chunk.pop("usage", None)
        if usage:
            chunk["x_groq"] = {"usage": usage}
            zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            return [*made, {**chunk, "x_groq": None, "usage": zeros}]
    return made


USAGE_ELSEWHERE = Shape(_usage_elsewhere, _usage_elsewhere_chunks)


# Errors in answers of status 200: in about every third answer

_ERROR = {"code": 502, "message": "Upstream error."}


def _breaks(chunk: JSONObject) -> bool:
    return sum(str(chunk.get("id")).encode()) % 3 == 0


def _failed(body: JSONObject) -> JSONObject:
    return {"error": _ERROR} if _breaks(body) else body


def _failed_chunks(chunks: Chunks) -> Chunks:
    if not _breaks(chunks[0]):
        return chunks
    error = _like(chunks[0])
    error["choices"][0] |= {"finish_reason": "error", "error": _ERROR}
    return [*chunks[: len(chunks) // 2], error]


ERRORS = Shape(_failed, _failed_chunks)


class Reshaped:
    """An answer of Chat Completions in another shape.

    Args:
        rendering: as OpenAI has it.
        shape: the other shape.
    """

    def __init__(self, rendering: Rendering, shape: Shape) -> None:
        self._rendering = rendering
        self._shape = shape

    def body(self) -> JSONObject:
        """The answer as a whole."""
        return self._shape.whole(self._rendering.body())

    def events(self) -> list[bytes]:
        """The answer as server-sent events."""
        events = self._rendering.events()
        if self._shape.chunks is _same_chunks:
            return events
        told = [event.removeprefix(b"data: ").strip() for event in events]
        chunks = [json.loads(each) for each in told if each != _DONE]
        made = [json.dumps(chunk, separators=(",", ":")).encode() for chunk in self._shape.chunks(chunks)]
        return [b"data: %b\n\n" % each for each in (*made, _DONE)]

    def error_event(self, error: StreamError, sent: int) -> bytes:
        """The event that says that the stream failed."""
        return self._rendering.error_event(error, sent)
