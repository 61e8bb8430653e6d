"""The sockets and threads of a scripted server: a thread for each connection, all of which end at once."""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
import time
import traceback
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tokenmem.testing.model import ScriptedModel

_PATIENCE = 5.0  # seconds for threads to end: only a script's own function can take that long


class Listener(ThreadingHTTPServer):
    """The sockets and threads of a running server.

    Args:
        model: what is asked.
        handler: serves a connection.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # connections: a test may open a thousand at once

    def __init__(self, model: ScriptedModel, handler: type[BaseHTTPRequestHandler]) -> None:
        self.model = model
        self.closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._serving: list[threading.Thread] = []
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), handler)
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

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._serving = [each for each in self._serving if each.is_alive()]
        self._serving.append(thread)
        with self._lock:
            self._connections.add(request)
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection, which then is none of ours."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Clients leave as they like; any other error is a mistake of ours that a test must see."""
        if not isinstance(sys.exception(), OSError):
            self.model.note("server", traceback.format_exc())
