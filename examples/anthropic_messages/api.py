"""How a prompt is sent by Anthropic's Messages API, and its reply read, whole and in pieces."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from examples.anthropic_messages.turns import CACHED, JSONObject, marked, turns_of
from tokenmem.chat import Answer, ModelAPI, Usage
from tokenmem.errors import ModelError

OPTIONS = frozenset(
    {
        "max_tokens",
        "metadata",
        "service_tier",
        "stop_sequences",
        "temperature",
        "tool_choice",
        "top_k",
        "top_p",
    }
)


class AnthropicMessages(ModelAPI):
    """How a prompt is sent by Anthropic's Messages API, and its reply read.

    Args:
        max_tokens: how long a reply may be unless the option of this name says otherwise, in tokens.
    """

    reserved = frozenset({"messages", "model", "stream", "system", "tools"})

    def __init__(self, max_tokens: int = 1024) -> None:
        self.max_tokens = max_tokens

    def endpoint(self, client: Any) -> Any:
        """What sends a request."""
        return client.create

    def accepted_options(self, client: Any) -> Collection[str]:  # noqa: ARG002
        """The parameters of a request that are not the chat's."""
        return OPTIONS

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> list[JSONObject]:
        """The tools as this API describes them."""
        described = []
        for tool in super().tools(tools):
            function = tool.get("function") or {}
            made = {
                "name": function.get("name"),
                "input_schema": function.get("parameters") or {"type": "object"},
            }
            described.append(made | {key: function[key] for key in ("description",) if key in function})
        return described

    def instructions(self, text: str) -> JSONObject:
        """The parameter that carries the instructions; with the tools before them they begin every prompt."""
        return {"system": [{"type": "text", "text": text, **CACHED}]} if text.strip() else {}

    def request(self, head: JSONObject, sent: Sequence[JSONObject], stream: bool) -> JSONObject:
        """The parameters of a request."""
        request = {"max_tokens": self.max_tokens, **head}
        system, turns = turns_of(sent)
        request["messages"] = marked(turns)
        if system:
            request["system"] = [*request.get("system", []), *system]
        called = {block["name"] for turn in turns for block in turn["content"] if block["type"] == "tool_use"}
        if request.get("tools") and not request.get("system"):
            request["tools"] = [*request["tools"][:-1], {**request["tools"][-1], **CACHED}]
        elif called and not request.get("tools"):  # what stands in the prompt has to be described
            request["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in sorted(called)]
            request["tool_choice"] = {"type": "none"}
        return {**request, "stream": True} if stream else request

    def read(self, response: Any) -> Answer:
        """The reply.

        Raises:
            ModelError: there is none in it.
        """
        content = response.get("content") if isinstance(response, dict) else None
        if not isinstance(content, list):
            raise ModelError("the model's answer has no content")
        return Answer.of_message(
            _reply(content),
            finish_reason=response.get("stop_reason"),
            usage=_usage(response.get("usage") or {}),
            request_id=response.get("request_id"),
        )

    def reader(self, response: Any) -> MessageReader | None:
        """What puts a stream together."""
        return None if isinstance(response, dict) else MessageReader(response.request_id)


class MessageReader:
    """The reply of a stream, from its events."""

    def __init__(self, request_id: str | None = None) -> None:
        self.complete = False
        self._request_id = request_id
        self._blocks: dict[int, JSONObject] = {}
        self._stop_reason: str | None = None
        self._usage: JSONObject = {}

    def feed(self, event: JSONObject) -> str:
        """Take an event in and return the text in it; those of unknown types are passed over.

        Raises:
            ModelError: it says that the reply has failed.
        """
        match event.get("type"):
            case "message_start":
                self._add_usage(event["message"].get("usage"))
            case "content_block_start":
                block = dict(event["content_block"])
                self._blocks[event["index"]] = block | ({"json": ""} if block["type"] == "tool_use" else {})
                return str(block.get("text") or "")
            case "content_block_delta":
                return self._add(self._blocks[event["index"]], event["delta"])
            case "message_delta":
                self._stop_reason = event["delta"].get("stop_reason")
                self._add_usage(event.get("usage"))
            case "message_stop":
                self.complete = True
            case "error":
                raise ModelError(f"the model's answer has failed ({event['error'].get('type')}); ask again")
        return ""

    def answer(self) -> Answer:
        """The whole reply."""
        usage = _usage(self._usage)
        message = _reply(list(self._blocks.values()))
        return Answer.of_message(
            message, finish_reason=self._stop_reason, usage=usage, request_id=self._request_id
        )

    def part(self) -> Answer:
        """What has arrived of a reply that was cut off."""
        message = _reply(list(self._blocks.values()))
        begun = {"tool_calls": message["tool_calls"]} if "tool_calls" in message else {}
        return Answer.part_of_message(
            message["content"] or "", begun, usage=_usage(self._usage), request_id=self._request_id
        )

    def _add(self, block: JSONObject, delta: JSONObject) -> str:
        if delta["type"] == "input_json_delta":
            block["json"] += delta["partial_json"]
        elif delta["type"] == "text_delta":
            block["text"] += delta["text"]
            return str(delta["text"])
        return ""

    def _add_usage(self, usage: JSONObject | None) -> None:
        self._usage |= {key: value for key, value in (usage or {}).items() if value is not None}


def _reply(blocks: Sequence[JSONObject]) -> JSONObject:
    """A reply's blocks as the message that is stored: Chat Completions', which every API can be sent."""
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [
        {
            "id": block["id"],
            "type": "function",
            "function": {"name": block["name"], "arguments": block.get("json") or json.dumps(block["input"])},
        }
        for block in blocks
        if block["type"] == "tool_use"
    ]
    return {"content": text or None, "tool_calls": calls} if calls else {"content": text}


def _usage(usage: JSONObject) -> Usage:
    """What is billed; `input_tokens` is here what neither came from the cache nor went into it."""
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    counts = [usage.get(name) or 0 for name in parts]
    return {
        "input_tokens": sum(counts) if "input_tokens" in usage else None,
        "cached_tokens": counts[2],
        "cache_write_tokens": counts[1],
        "output_tokens": usage.get("output_tokens"),
    }
