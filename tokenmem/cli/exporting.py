"""From a store into JSON Lines, a page of messages in memory at a time."""

from __future__ import annotations

import gzip
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import IO

from tokenmem.cli.output import is_terminal, safe_json
from tokenmem.store import Store
from tokenmem.store_methods.transfer import Tally, export_pieces

Write = Callable[[str], None]


def write_conversations(store: Store, conversation_ids: Sequence[str], write: Write) -> tuple[int, int]:
    """Write the conversations, all where none is named, and return how many, and how many messages."""
    tally = Tally()
    with closing(export_pieces(store, list(conversation_ids) or None, tally)) as pieces:
        for piece in pieces:
            write(piece)
    return tally.conversations, tally.messages


@contextmanager
def destination(name: str | None) -> Iterator[Write]:
    """Takes text; a file gets its name when the block has ended well, and nothing is left otherwise."""
    if name is None:
        shown = safe_json if is_terminal() else str
        sys.stdout.flush()
        yield lambda text: _write(sys.stdout.buffer, shown(text))
        sys.stdout.buffer.flush()
        return
    path = os.path.realpath(name)  # a link keeps pointing where it points
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as file:  # a device or a pipe cannot be replaced, and a directory says so
            yield lambda text: _write(file, text)
        return
    with _replaced(path) as written:
        yield lambda text: _write(written, text)


@contextmanager
def _replaced(path: str) -> Iterator[IO[bytes]]:
    temporary = os.path.join(os.path.dirname(path), f".{os.path.basename(path)[:200]}.{os.getpid()}.part")
    try:
        with open(temporary, "xb") as file:
            if path.endswith(".gz"):
                with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as compressed:
                    yield compressed  # type: ignore[misc]
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.remove(temporary)
        raise


def _write(file: IO[bytes], text: str) -> None:
    file.write(text.encode())
