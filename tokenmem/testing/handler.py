"""One connection to a scripted server: reads requests, and performs the steps of their replies."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler

from tokenmem.testing.delivery import HangUp, Pause, Step, steps_of_stream, steps_of_whole, whole
from tokenmem.testing.exchange import error_body
from tokenmem.testing.listener import Listener
from tokenmem.testing.model import ENDPOINTS
from tokenmem.testing.replies import Failure, JSONObject, RawReply

_BUFFER = 65_536  # bytes
_MODELS = ("gpt-3.5-turbo-instruct", "gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini")


class Handler(BaseHTTPRequestHandler):
    """Serves a connection until the client leaves it."""

    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """GET /v1/models."""
        self._read()
        if self.path.partition("?")[0] == "/v1/models":
            models = [{"id": each, "object": "model", "created": 0, "owned_by": "system"} for each in _MODELS]
            self._send_json(200, {"object": "list", "data": models})
        else:
            self._send_not_found()

    def do_POST(self) -> None:
        """An endpoint of the models; whatever else is asked for is not found."""
        data = self._read()
        if data is None:
            return
        path = self.path.partition("?")[0]
        if self.command != "POST" or path not in ENDPOINTS:
            self._send_not_found()
            return
        try:
            body = json.loads(data)
        except ValueError:  # no JSON, or no UTF-8
            body = None
        if not isinstance(body, dict):
            problem = "We could not parse the JSON body of your request: a JSON object is expected."
            self.server.model.note(path, problem)
            self._send_json(400, error_body(400, "invalid_request_error", problem))
            return
        self._answer(path, body)

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is the test's."""

    def _read(self) -> bytes | None:
        """The request's body; None where the client has left while sending it."""
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length)
        if len(data) < length:
            self.close_connection = True
            return None
        return data

    def _answer(self, path: str, body: JSONObject) -> None:
        model = self.server.model
        headers = {name.lower(): value for name, value in self.headers.items()}
        request, reply = model.receive(path, body, headers)
        if isinstance(reply, Failure):
            described = error_body(reply.status, reply.code, reply.message)
            self._send_json(reply.status, described, reply.headers)
        elif isinstance(reply, RawReply):
            self._send_json(reply.status, reply.body)
        else:
            rendering = model.render(request, reply)
            steps_of = steps_of_stream if model.streams(request) else steps_of_whole
            self._perform(steps_of(reply, rendering, self._headers()))

    def _headers(self) -> dict[str, str]:
        return {"x-request-id": self.server.model.ids.new("req_")}

    def _send_json(
        self, status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> None:
        self._perform([whole(status, body, self._headers() | dict(headers or {}))])

    def _send_not_found(self) -> None:
        self._send_json(404, error_body(404, None, f"Invalid URL ({self.command} {self.path})"))

    def _perform(self, steps: Iterable[Step]) -> None:
        waiting = bytearray()
        # What goes out last goes out behind this block: a client that has read it all finds no open stream.
        with self.server.model.responding():
            for step in steps:
                if isinstance(step, bytes):
                    if len(waiting) >= _BUFFER:
                        self.connection.sendall(waiting)
                        waiting.clear()
                    waiting += step
                elif isinstance(step, HangUp):
                    self.close_connection = True
                elif step.seconds > 0:
                    self.connection.sendall(waiting)
                    waiting.clear()
                    if not self._pause(step):
                        self.close_connection = True
                        return
        self.connection.sendall(waiting)

    def _pause(self, pause: Pause) -> bool:
        """Wait; False where the client left meanwhile or the server closed."""
        until = time.monotonic() + pause.seconds
        self.connection.settimeout(pause.seconds)
        try:
            data = self.connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.connection.settimeout(None)
        # The client has sent its next request already, so the connection cannot say when it leaves.
        return bool(data) and not self.server.closing.wait(until - time.monotonic())
