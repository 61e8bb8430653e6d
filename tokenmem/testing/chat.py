"""Answers in the form of Chat Completions, and of the older text completions."""

from __future__ import annotations

from collections.abc import Iterator

from tokenmem.testing.exchange import Exchange, dump, pieces, with_usage
from tokenmem.testing.replies import JSONObject, StreamError

_DONE = b"data: [DONE]\n\n"
_FINGERPRINT = "fp_tokenmem"


class ChatCompletion:
    """An answer of POST /v1/chat/completions."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._answer = exchange.answer
        self._id = exchange.ids.new("chatcmpl-")
        self._calls: list[JSONObject] = [
            {
                "id": call.id or exchange.ids.new("call_"),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_text},
            }
            for call in self._answer.calls
        ]

    def body(self) -> JSONObject:
        """The answer as a whole."""
        message: JSONObject = {
            "role": "assistant",
            "content": self._answer.text,
            "refusal": self._answer.refusal,
            "annotations": [],
        }
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {
            "index": 0,
            "message": message | dict(self._answer.extra),
            "logprobs": None,
            "finish_reason": self._exchange.finish_reason,
        }
        return self._envelope("chat.completion", [choice]) | {"usage": chat_usage(self._exchange)}

    def events(self) -> list[bytes]:
        """The answer as server-sent events, `[DONE]` among them."""
        options = self._exchange.request.body.get("stream_options") or {}
        finish = self._exchange.finish_reason
        choices = [[_choice(delta)] for delta in self._deltas()] + [[_choice({}, finish)]]
        chunks = [self._envelope("chat.completion.chunk", each) for each in choices]
        if options.get("include_usage"):
            for chunk in chunks:
                chunk["usage"] = None
            last = self._envelope("chat.completion.chunk", [])
            chunks.append(last | {"usage": chat_usage(self._exchange)})
        return [*map(_event, chunks), _DONE]

    def error_event(self, error: StreamError, sent: int) -> bytes:  # noqa: ARG002
        """The event that says that the stream failed."""
        return _error_event(error)

    def _envelope(self, kind: str, choices: list[JSONObject]) -> JSONObject:
        return {
            "id": self._id,
            "object": kind,
            "created": self._exchange.created,
            "model": self._exchange.model,
            "service_tier": "default",
            "system_fingerprint": _FINGERPRINT,
            "choices": choices,
        }

    def _deltas(self) -> Iterator[JSONObject]:
        text, refusal = self._answer.text, self._answer.refusal
        first = {"role": "assistant", "content": None if text is None else "", "refusal": None}
        yield first | dict(self._answer.extra)
        for piece in pieces(text or "", self._answer.chunks):
            yield {"content": piece}
        for piece in pieces(refusal or "", self._answer.chunks):
            yield {"refusal": piece}
        for index, call in enumerate(self._calls):
            function = call["function"]
            opened = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
            yield {"tool_calls": [opened]}
            for piece in pieces(function["arguments"], self._answer.chunks):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


class TextCompletion:
    """An answer of POST /v1/completions."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._id = exchange.ids.new("cmpl-")

    def body(self) -> JSONObject:
        """The answer as a whole."""
        choice = self._choice(self._exchange.answer.text, self._exchange.finish_reason)
        return self._envelope([choice]) | {"usage": chat_usage(self._exchange)}

    def events(self) -> list[bytes]:
        """The answer as server-sent events, `[DONE]` among them."""
        texts = pieces(self._exchange.answer.text or "", self._exchange.answer.chunks)
        choices = [self._choice(piece, None) for piece in texts]
        choices.append(self._choice("", self._exchange.finish_reason))
        return [*(_event(self._envelope([choice])) for choice in choices), _DONE]

    def error_event(self, error: StreamError, sent: int) -> bytes:  # noqa: ARG002
        """The event that says that the stream failed."""
        return _error_event(error)

    def _choice(self, text: str | None, finish_reason: str | None) -> JSONObject:
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}

    def _envelope(self, choices: list[JSONObject]) -> JSONObject:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._exchange.created,
            "model": self._exchange.model,
            "choices": choices,
        }


def chat_usage(exchange: Exchange) -> JSONObject:
    """What the exchange cost, in tokens; the reasoning is part of the completion."""
    usage = {
        "prompt_tokens": exchange.prompt_tokens,
        "completion_tokens": exchange.answer_tokens + exchange.reasoning_tokens,
        "prompt_tokens_details": {"cached_tokens": exchange.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": exchange.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    return with_usage(usage, exchange.answer.usage, ("prompt_tokens", "completion_tokens"))


def _choice(delta: JSONObject, finish_reason: str | None = None) -> JSONObject:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(chunk: JSONObject) -> bytes:
    return f"data: {dump(chunk)}\n\n".encode()


def _error_event(error: StreamError) -> bytes:
    described = {"message": error.message, "type": "server_error", "param": None, "code": error.code}
    return _event({"error": described})
