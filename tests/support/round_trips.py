"""A proxy before a PostgreSQL server that counts how often its clients wait for an answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from sqlalchemy import make_url


class RoundTrips:
    """Counts round trips: each time that something is sent to the server after something has come from it.

    Several messages of the protocol that go out together and are answered together are one round trip.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        self._target = (parsed.host or "127.0.0.1", parsed.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = parsed.set(host="127.0.0.1", port=self._listener.getsockname()[1]).render_as_string(
            hide_password=False
        )
        self.count = 0
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = [self._listener]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, server]
                state = {"waiting": False}
                self._start(self._forward, client, server, state, True)
                self._start(self._forward, server, client, state, False)

    def _forward(
        self, source: socket.socket, target: socket.socket, state: dict[str, bool], asks: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    if asks and not state["waiting"]:
                        self.count += 1
                    state["waiting"] = asks
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> RoundTrips:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The listener's thread ends first, so that nothing is added. A thread that waits on a socket would
        # keep it open behind `close`.
        for number, each in enumerate(self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            if number == 0:
                self._threads[0].join()
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()
