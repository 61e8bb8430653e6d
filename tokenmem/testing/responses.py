"""Answers in the form of the Responses API."""

from __future__ import annotations

from collections.abc import Iterator

from tokenmem.testing.exchange import Exchange, dump, pieces, with_usage
from tokenmem.testing.replies import JSONObject, StreamError

# The items that a model writes piece by piece: the key of the text, and what the events are called.
_WRITTEN = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
# The same for the parts of a message.
_PARTS = {"output_text": ("text", "response.output_text"), "refusal": ("refusal", "response.refusal")}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
# What a response repeats of its request, and what stands there where the request did not say.
_ECHOED: JSONObject = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class Response:
    """An answer of POST /v1/responses."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._answer = exchange.answer
        self._id = exchange.ids.new("resp_")
        self._cause = _INCOMPLETE.get(self._answer.finish_reason or "")
        given = self._answer.items
        self._items = list(self._made()) if given is None else [dict(item) for item in given]

    def body(self) -> JSONObject:
        """The answer as a whole."""
        done = self._response("incomplete" if self._cause else "completed")
        details = {"reason": self._cause} if self._cause else None
        return done | {
            "incomplete_details": details,
            "output": self._items,
            "usage": response_usage(self._exchange),
        }

    def events(self) -> list[bytes]:
        """The answer as server-sent events."""
        return [_event(number, kind, event) for number, (kind, event) in enumerate(self._events())]

    def error_event(self, error: StreamError, sent: int) -> bytes:
        """The event that says that the stream failed, after so many events."""
        if error.event == "error":
            return _event(sent, "error", {"code": error.code, "message": error.message, "param": None})
        failed = self._response("failed") | {"error": {"code": error.code, "message": error.message}}
        return _event(sent, "response.failed", {"response": failed})

    def _response(self, status: str) -> JSONObject:
        asked = self._exchange.request.body
        echoed = {key: default if asked.get(key) is None else asked[key] for key, default in _ECHOED.items()}
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._exchange.created,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self._exchange.model,
            "output": [],
            "service_tier": "default",
            "usage": None,
            **echoed,
        }

    def _made(self) -> Iterator[JSONObject]:
        """The output items: the reasoning, what is said, the calls."""
        answer, ids = self._answer, self._exchange.ids
        if answer.reasoning is not None:
            yield self._reasoning(answer.reasoning)
        part: JSONObject | None = None
        if answer.refusal is not None:
            part = {"type": "refusal", "refusal": answer.refusal}
        elif answer.text is not None:
            part = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer.text}
        if part:
            status = "incomplete" if self._cause else "completed"
            message = {"id": ids.new("msg_"), "type": "message", "status": status, "content": [part]}
            yield message | {"role": "assistant", **answer.extra}
        for call in answer.calls:
            yield {
                "id": ids.new("fc_"),
                "type": "function_call",
                "status": "completed",
                "arguments": call.arguments_text,
                "call_id": call.id or ids.new("call_"),
                "name": call.name,
            }

    def _reasoning(self, summary: str) -> JSONObject:
        item_id = self._exchange.ids.new("rs_")
        item: JSONObject = {
            "id": item_id,
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": summary}] if summary else [],
        }
        # The provider sends it to those who ask for it, and to nobody else.
        if "reasoning.encrypted_content" in (self._exchange.request.body.get("include") or ()):
            item["encrypted_content"] = f"encrypted-{item_id}"
        return item

    def _events(self) -> Iterator[tuple[str, JSONObject]]:
        yield "response.created", {"response": self._response("in_progress")}
        yield "response.in_progress", {"response": self._response("in_progress")}
        for index, item in enumerate(self._items):
            yield from _item_events(index, item, self._answer.chunks)
        done = self.body()
        yield f"response.{done['status']}", {"response": done}


def _item_events(index: int, item: JSONObject, chunks: int | None) -> Iterator[tuple[str, JSONObject]]:
    place = {"output_index": index, "item_id": item.get("id", "")}
    yield "response.output_item.added", {"output_index": index, "item": _opened(item)}
    kind = item.get("type")
    if kind == "message":
        for number, part in enumerate(item["content"]):
            yield from _part_events(place | {"content_index": number}, part, chunks)
    elif kind == "reasoning":
        for number, part in enumerate(item.get("summary", ())):
            yield from _summary_events(place | {"summary_index": number}, part, chunks)
    elif isinstance(kind, str) and kind in _WRITTEN:
        key, name = _WRITTEN[kind]
        yield from ((f"{name}.delta", place | {"delta": piece}) for piece in pieces(item[key], chunks))
        yield f"{name}.done", place | {key: item[key]}
    yield "response.output_item.done", {"output_index": index, "item": item}


def _opened(item: JSONObject) -> JSONObject:
    """The item before the model has written anything of it."""
    empty: JSONObject = {"message": {"content": []}, "reasoning": {"summary": []}}.get(
        item.get("type", ""), {}
    )
    if item.get("type") in _WRITTEN:
        empty = {_WRITTEN[item["type"]][0]: ""}
    status = {"status": "in_progress"} if "status" in item else {}
    return {**item, **empty, **status}


def _part_events(place: JSONObject, part: JSONObject, chunks: int | None) -> Iterator[tuple[str, JSONObject]]:
    key, name = _PARTS[part["type"]]
    # Only the events of a text have log probabilities.
    extra: JSONObject = {"logprobs": []} if key == "text" else {}
    yield "response.content_part.added", place | {"part": {**part, key: ""}}
    for piece in pieces(part[key], chunks):
        yield f"{name}.delta", place | {"delta": piece} | extra
    yield f"{name}.done", place | {key: part[key]} | extra
    yield "response.content_part.done", place | {"part": part}


def _summary_events(
    place: JSONObject, part: JSONObject, chunks: int | None
) -> Iterator[tuple[str, JSONObject]]:
    yield "response.reasoning_summary_part.added", place | {"part": {**part, "text": ""}}
    for piece in pieces(part["text"], chunks):
        yield "response.reasoning_summary_text.delta", place | {"delta": piece}
    yield "response.reasoning_summary_text.done", place | {"text": part["text"]}
    yield "response.reasoning_summary_part.done", place | {"part": part}


def response_usage(exchange: Exchange) -> JSONObject:
    """What the exchange cost, in tokens; the reasoning is part of the output."""
    usage: JSONObject = {
        "input_tokens": exchange.prompt_tokens,
        "input_tokens_details": {"cached_tokens": exchange.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": exchange.answer_tokens + exchange.reasoning_tokens,
        "output_tokens_details": {"reasoning_tokens": exchange.reasoning_tokens},
    }
    return with_usage(usage, exchange.answer.usage, ("input_tokens", "output_tokens"))


def _event(number: int, kind: str, event: JSONObject) -> bytes:
    numbered = {"type": kind, "sequence_number": number, **event}
    return f"event: {kind}\ndata: {dump(numbered)}\n\n".encode()
