"""A server on loopback that speaks Anthropic's Messages API from a script, and checks its documented rules.

The rules: https://docs.anthropic.com/en/api/messages, .../build-with-claude/tool-use, .../prompt-caching.
"""

import json
import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

JSONObject = dict[str, Any]

PARAMETERS = frozenset(
    {"max_tokens", "messages", "metadata", "model", "service_tier", "stop_sequences", "stream", "system"}
    | {"temperature", "tool_choice", "tools", "top_k", "top_p"}
)
KEYS = {
    "text": {"type", "text", "cache_control"},
    "image": {"type", "source", "cache_control"},
    "tool_use": {"type", "id", "name", "input", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
}
MOST_MARKS = 4
LOOK_BACK = 20
"""Blocks before a mark among which the provider looks for what it has kept."""


@dataclass(frozen=True)
class Says:
    """A reply: text in pieces, then calls of tools, each a name and its input."""

    pieces: Sequence[str] = ()
    calls: Sequence[tuple[str, str, JSONObject]] = ()
    stop_reason: str | None = None
    stalls_after: int | None = None
    """Pieces behind which nothing more is sent until the client leaves."""
    error: str | None = None
    """The type of an error event in place of the reply's end."""


class AnthropicServer:
    """Answers with the replies in order.

    Attributes:
        problems: every breach of the rules.
        requests: the bodies that came, in order.
        left: is set when a client has left a reply that stalls.
    """

    def __init__(self, replies: Sequence[Says]) -> None:
        self.replies = list(replies)
        self.problems: list[str] = []
        self.requests: list[JSONObject] = []
        self.left = threading.Event()
        self.closing = threading.Event()
        self._kept: set[str] = set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.owner = self  # type: ignore[attr-defined]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()

    def usage(self, body: JSONObject) -> JSONObject:
        """What a prompt cache has of the prompt, and what it keeps from now on; a character is a token."""
        blocks = list(blocks_of(body))
        prefixes, whole = [], ""
        for block in blocks:
            whole += json.dumps({key: block[key] for key in block if key != "cache_control"}, sort_keys=True)
            prefixes.append(whole)
        marks = [index for index, block in enumerate(blocks) if "cache_control" in block]
        known = [
            len(prefixes[place])
            for mark in marks
            for place in range(max(mark - LOOK_BACK, 0), mark + 1)
            if prefixes[place] in self._kept
        ]
        self._kept |= {prefixes[mark] for mark in marks}
        read = max(known, default=0)
        marked = len(prefixes[marks[-1]]) if marks else 0
        return {
            "input_tokens": len(whole) - max(marked, read),
            "cache_creation_input_tokens": max(marked - read, 0),
            "cache_read_input_tokens": read,
            "output_tokens": 1,
        }


def blocks_of(body: JSONObject) -> Iterator[JSONObject]:
    """The prompt in the order in which it is kept: tools, system, messages."""
    yield from body.get("tools") or []
    system = body.get("system") or []
    yield from [{"type": "text", "text": system}] if isinstance(system, str) else system
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        yield from ({"role": message["role"], **block} for block in blocks)


def problems_in(body: JSONObject) -> Iterator[str]:
    """What the provider would refuse."""
    yield from (f"{key}: Extra inputs are not permitted" for key in body.keys() - PARAMETERS)
    if not isinstance(body.get("model"), str):
        yield "model: Field required"
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        yield "max_tokens: Field required"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "messages: at least one message is required"
        return
    yield from problems_in_turns(messages)
    marks = sum("cache_control" in block for block in blocks_of(body))
    if marks > MOST_MARKS:
        yield f"A maximum of 4 blocks with cache_control may be provided. Found {marks}."
    for block in blocks_of(body):
        if block.get("cache_control", {"type": "ephemeral"}) != {"type": "ephemeral"}:
            yield "cache_control: unknown"
    for tool in body.get("tools") or []:
        if not isinstance(tool.get("name"), str) or tool.get("input_schema", {}).get("type") != "object":
            yield "tools: name and input_schema are required"
    uses_tools = any(block.get("type") == "tool_use" for block in blocks_of(body))
    if uses_tools and not body.get("tools"):
        yield "Requests which include `tool_use` or `tool_result` blocks must define tools"
    for block in body.get("system") or []:
        if set(block) - KEYS["text"] or not block["text"].strip():
            yield "system: text content blocks must be non-empty"


def problems_in_turns(messages: Sequence[JSONObject]) -> Iterator[str]:
    if messages[0].get("role") != "user":
        yield "messages: first message must use the user role"
    if messages[-1].get("role") != "user":
        yield "messages: the conversation must end with a user message"
    seen: set[str] = set()
    waiting: list[str] = []
    before = None
    for number, message in enumerate(messages):
        where = f"messages.{number}"
        role, content = message.get("role"), message.get("content")
        if set(message) != {"role", "content"} or role not in ("user", "assistant"):
            yield f"{where}: a message is a role, user or assistant, and a content"
        if role == before:
            yield f"{where}: roles must alternate between user and assistant"
        before = role
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not blocks:
            yield f"{where}: content must be non-empty"
            continue
        for block in blocks:
            yield from (f"{where}: {told}" for told in problems_in_block(block, str(role)))
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if any(block["type"] != "tool_result" for block in blocks[: len(results)]):
            yield f"{where}: tool_result blocks must come first"
        if sorted(results) != sorted(waiting):
            yield f"{where}: `tool_use` ids and `tool_result` blocks differ: {waiting} and {results}"
        waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if len({*waiting}) < len(waiting) or seen & {*waiting}:
            yield f"{where}: `tool_use` ids must be unique"
        seen |= {*waiting}
    if waiting:
        yield f"`tool_use` ids were found without `tool_result` blocks immediately after: {waiting}"


def problems_in_block(block: JSONObject, role: str) -> Iterator[str]:
    kind = str(block.get("type"))
    if kind not in KEYS or set(block) - KEYS[kind]:
        yield f"unknown block, or a key that it has not: {block}"
        return
    if kind == "text" and not block["text"].strip():
        yield "text content blocks must contain non-whitespace text"
    if (kind == "tool_use") is not (role == "assistant") and kind in ("tool_use", "tool_result", "image"):
        yield f"a {kind} block is not for the role {role}"
    if kind == "tool_use":
        if not re.fullmatch(r"[a-zA-Z0-9_-]+", block["id"]) or not re.fullmatch(
            r"[\w-]{1,128}", block["name"]
        ):
            yield "tool_use.id or name: String should match pattern"
        if not isinstance(block["input"], dict):
            yield "tool_use.input: Input should be a valid dictionary"
    for inner in block.get("content") or [] if kind == "tool_result" else []:
        if inner.get("type") not in ("text", "image"):
            yield "tool_result: content is text or images"
        yield from problems_in_block(inner, "user")


def events_of(reply: Says, usage: JSONObject) -> Iterator[JSONObject]:
    """A reply as events; in message_start the output is not yet known."""
    message = {"id": "msg_1", "role": "assistant", "content": [], "usage": usage}
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}
    index = 0
    if reply.pieces:
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for piece in reply.pieces:
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        yield {"type": "content_block_stop", "index": 0}
        index = 1
    for number, (call_id, name, given) in enumerate(reply.calls, index):
        block = {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        yield {"type": "content_block_start", "index": number, "content_block": block}
        text = json.dumps(given) if given else ""
        for piece in ("", text[:5], text[5:]):
            delta = {"type": "input_json_delta", "partial_json": piece}
            yield {"type": "content_block_delta", "index": number, "delta": delta}
        yield {"type": "content_block_stop", "index": number}
    if reply.error is not None:
        yield {"type": "error", "error": {"type": reply.error, "message": "Overloaded"}}
        return
    delta = {"stop_reason": stop_reason(reply), "stop_sequence": None}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}
    yield {"type": "message_stop"}


def stop_reason(reply: Says) -> str:
    return reply.stop_reason or ("tool_use" if reply.calls else "end_turn")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: AnthropicServer = self.server.owner  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append(body)
        problems = list(problems_in(body))
        needed = ("x-api-key", "anthropic-version")
        problems += [f"{name}: required" for name in needed if name not in self.headers]
        if self.path != "/v1/messages":
            problems.append(f"{self.path}: not found")
        server.problems += problems
        if problems:
            self._refuse(400, "invalid_request_error", problems[0])
            return
        reply, usage = server.replies.pop(0), server.usage(body)
        if body.get("stream"):
            self._stream(server, reply, usage)
            return
        if reply.error is not None:
            self._refuse(529, reply.error, "Overloaded")
            return
        content: list[JSONObject] = []
        if reply.pieces:
            content.append({"type": "text", "text": "".join(reply.pieces)})
        for call_id, name, given in reply.calls:
            content.append({"type": "tool_use", "id": call_id, "name": name, "input": given})
        told = {"id": "msg_1", "type": "message", "role": "assistant", "content": content}
        ended = {"model": body["model"], "stop_reason": stop_reason(reply), "stop_sequence": None}
        self._send_json(200, {**told, **ended, "usage": {**usage, "output_tokens": 9}})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test's output is the test's."""

    def _refuse(self, status: int, kind: str, message: str) -> None:
        self._send_json(status, {"type": "error", "error": {"type": kind, "message": message}})

    def _send_json(self, status: int, body: JSONObject) -> None:
        data = json.dumps(body).encode()
        self._head(status, "application/json", length=len(data))
        self.wfile.write(data)

    def _head(self, status: int, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("request-id", "req_1")
        if length is None:
            self.send_header("connection", "close")
            self.close_connection = True
        else:
            self.send_header("content-length", str(length))
        self.end_headers()

    def _stream(self, server: AnthropicServer, reply: Says, usage: JSONObject) -> None:
        self._head(200, "text/event-stream; charset=utf-8")
        pieces = 0
        for event in events_of(reply, usage):
            if pieces == reply.stalls_after:
                self._wait_until_left(server)
                return
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            pieces += event["type"] == "content_block_delta"

    def _wait_until_left(self, server: AnthropicServer) -> None:
        self.connection.settimeout(0.05)
        while not server.closing.is_set():
            with suppress(TimeoutError):
                if not self.connection.recv(1, socket.MSG_PEEK):
                    break
        server.left.set()
