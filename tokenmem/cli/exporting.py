"""From a store into JSON Lines, one conversation in memory at a time."""

from __future__ import annotations

import gzip
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from tokenmem.cli.output import complain, is_terminal, safe_json
from tokenmem.cli.upkeep import every_conversation
from tokenmem.errors import ConversationNotFound
from tokenmem.formats import ConversationLine, render_line
from tokenmem.models import Conversation
from tokenmem.store import Store

Write = Callable[[str], None]


def write_conversations(store: Store, conversation_ids: Sequence[str], write: Write) -> tuple[int, int]:
    """Write the conversations, all where none is named, and return how many, and how many messages."""
    conversations = messages = 0
    for conversation in _chosen(store, conversation_ids):
        try:
            # One query, so that what is written is the conversation at one moment.
            found = store.messages(conversation.id, limit=None)
        except ConversationNotFound:  # removed meanwhile
            continue
        if not found:
            complain(f"conversation {conversation.id!r} has no messages and is left out")
            continue
        write(
            render_line(
                ConversationLine(
                    conversation.id,
                    found,
                    conversation.owner,
                    conversation.title,
                    conversation.token_counter,
                    conversation.metadata,
                )
            )
        )
        conversations += 1
        messages += len(found)
    return conversations, messages


def _chosen(store: Store, conversation_ids: Sequence[str]) -> Iterator[Conversation]:
    if conversation_ids:
        return map(store.conversation, conversation_ids)
    return every_conversation(store)


@contextmanager
def destination(name: str | None) -> Iterator[Write]:
    """Takes lines; a file gets its name when the block has ended well, and nothing is left otherwise."""
    if name is None:
        shown = safe_json if is_terminal() else str
        sys.stdout.flush()
        yield lambda line: _write_line(sys.stdout.buffer, shown(line))
        sys.stdout.buffer.flush()
        return
    path = os.path.realpath(name)  # a link keeps pointing where it points
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as file:  # a device or a pipe cannot be replaced, and a directory says so
            yield lambda line: _write_line(file, line)
        return
    with _replaced(path) as written:
        yield lambda line: _write_line(written, line)


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


def _write_line(file: IO[bytes], line: str) -> None:
    file.write(line.encode() + b"\n")
