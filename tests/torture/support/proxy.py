"""A TCP proxy that fails on demand, in front of a PostgreSQL server."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from sqlalchemy import make_url

Mode = Literal["pass", "black hole", "refuse"]

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Link:
    """One client's connection, and ours to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server

    def cut(self, *, reset: bool = False) -> None:
        """End the client's side; the server's goes on to the end of what it was sent."""
        if reset:
            connection = self.client.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.client.close()


class Proxy:
    """Listens on loopback, in a thread of its own.

    Attributes:
        mode: "pass" hands on; "black hole" takes connections and bytes, and nothing ever comes back; "refuse"
            refuses new connections. A mode changes connections that exist as well.
        cuts_after_send: asked with what a client has sent; where it says so, that is handed on to the server,
            and the client's connection is ended before any answer.
        cuts: how often that was done.
        accepted: how many connections were taken.
    """

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.mode: Mode = "pass"
        self.cuts_after_send: Callable[[bytes], bool] = lambda _: False
        self.cuts = 0
        self.accepted = 0
        self._links: set[Link] = set()
        self._passing = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._listener: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The database's URL through the proxy."""
        return self._url.set(host="127.0.0.1", port=self._port).render_as_string(hide_password=False)

    @property
    def connections(self) -> int:
        """How many connections there are now; one that either side has ended counts until the other has."""
        return len(self._links)

    def set_mode(self, mode: Mode) -> None:
        self._wait(self._set_mode(mode))

    def cut_all(self, *, reset: bool = False) -> int:
        """End all connections now; how many there were."""
        return self._wait(self._cut_all(reset))

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._wait(self._set_mode("pass"))
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _set_mode(self, mode: Mode) -> None:
        self.mode = mode
        if mode == "black hole":
            self._passing.clear()
        else:
            self._passing.set()
        if mode == "refuse" and self._listener is not None:
            self._listener.close()
            self._listener = None
        if mode != "refuse" and self._listener is None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def _cut_all(self, reset: bool) -> int:
        links = list(self._links)
        for link in links:
            link.cut(reset=reset)
        return len(links)

    async def _close(self) -> None:
        await self._set_mode("refuse")
        await self._cut_all(False)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            theirs, ours = await asyncio.open_connection(self._url.host, self._url.port)
        except OSError:
            writer.close()
            return
        link = Link(writer, ours)
        self._links.add(link)
        back = asyncio.create_task(self._hand_on(theirs, writer))
        try:
            await self._hand_over(reader, link)
            ours.write_eof()
            await asyncio.wait_for(back, 10)
        except (OSError, TimeoutError, asyncio.CancelledError):
            back.cancel()
        finally:
            self._links.discard(link)
            ours.close()
            writer.close()

    async def _hand_over(self, reader: asyncio.StreamReader, link: Link) -> None:
        """From the client to the server."""
        while data := await reader.read(65536):
            await self._passing.wait()
            cut = self.cuts_after_send(data)
            if cut:
                self.cuts += 1
                link.cut(reset=self.cuts % 2 == 0)
            link.server.write(data)
            await link.server.drain()
            if cut:
                return

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """From the server to the client."""
        try:
            while data := await reader.read(65536):
                await self._passing.wait()
                if not writer.is_closing():
                    writer.write(data)
        finally:
            writer.close()  # also where the server has reset the connection
