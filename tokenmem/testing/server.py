"""The scripted server: its address, its threads, and its life."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import Any, Self

from tokenmem.testing.handler import Handler
from tokenmem.testing.model import ScriptedModel
from tokenmem.testing.replies import Request, Script
from tokenmem.testing.usage import Meter

Connection = Any
"""What `socketserver` hands over: here a socket, to a type checker it may be a datagram."""

_PATIENCE = 5.0  # seconds for threads to end: only a script's own function can take that long


class ModelServer:
    """A server on loopback that speaks OpenAI's protocol and answers from a script.

    Each server has a free port of its own, and its threads are daemons. It serves clients of any process.

    Args:
        script: one reply for all requests; replies that are used in order of arrival; or a function that
            takes the Request and returns the reply, and is called in the server's threads.
        strict: whether a prompt that breaks the provider's rules is answered with status 400, as the
            provider does. It uses up no reply, and is among the requests and the problems either way.
        cache: whether `usage` tells how many tokens a prompt cache would have had.
        count: counts a prompt in tokens, in the server's threads; None for tokenmem's own counts.
        allow_keys: as for `problems_in`.
        allow_items: as for `problems_in`.

    Attributes:
        problems: every breach of the provider's rules that was received, every request for which the
            script had no reply, and every error of the script's function.
    """

    def __init__(
        self,
        script: Script,
        *,
        strict: bool = True,
        cache: bool = False,
        count: Callable[[Request], int] | None = None,
        allow_keys: Collection[str] = (),
        allow_items: Collection[str] = (),
    ) -> None:
        meter = Meter(count, cache=cache)
        self._model = ScriptedModel(
            script, strict=strict, meter=meter, allow_keys=allow_keys, allow_items=allow_items
        )
        self.problems = self._model.problems
        self._listener: Listener | None = None
        self._port = 0

    @property
    def base_url(self) -> str:
        """Where clients find it; still known when it is closed. Raises RuntimeError before it is started."""
        if not self._port:
            raise RuntimeError("the server has no address yet: use it in a with statement, or call start()")
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def requests(self) -> list[Request]:
        """What was asked so far with a body that is a JSON object, in order of arrival."""
        return self._model.requests

    @property
    def open_streams(self) -> int:
        """How many responses are being written now."""
        return self._model.open_streams

    def reply_with(self, script: Script) -> None:
        """Answer from this script from now on."""
        self._model.reply_with(script)

    def start(self) -> Self:
        """Listen on a free port. Raises RuntimeError where it does already."""
        if self._listener is not None:
            raise RuntimeError("the server is running already")
        self._listener = Listener(self._model)
        self._port = self._listener.server_port
        self._listener.run()
        return self

    def close(self) -> None:
        """Stop, at once: whatever is being answered is cut. Closing twice is fine."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.close()


class Listener(ThreadingHTTPServer):
    """The sockets and threads of a running server."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # connections: a test may open a thousand at once

    def __init__(self, model: ScriptedModel) -> None:
        self.model = model
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._serving: list[threading.Thread] = []
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    def server_bind(self) -> None:
        """Bind, without asking a name server what loopback is called."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]

    def run(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    def close(self) -> None:
        """Accept no more, cut every connection, and wait for the threads."""
        self.closing.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # the client has left
                    connection.shutdown(socket.SHUT_RDWR)
        until = time.monotonic() + _PATIENCE
        for thread in {self._thread, *self._serving} - {threading.current_thread()}:
            thread.join(max(0.0, until - time.monotonic()))

    def process_request(self, request: Connection, client_address: object) -> None:
        """Serve a connection in a thread of its own."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._serving = [each for each in self._serving if each.is_alive()]
        self._serving.append(thread)
        with self._lock:
            self._connections.add(request)
        thread.start()

    def shutdown_request(self, request: Connection) -> None:
        """Close a connection, which then is none of ours."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Connection, client_address: object) -> None:  # noqa: ARG002
        """Clients leave as they like; any other error is a mistake of ours that a test must see."""
        if not isinstance(sys.exception(), OSError):
            self.model.note("server", traceback.format_exc())
