"""From a store into JSON Lines, a page of messages in memory at a time."""

from __future__ import annotations

import gzip
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import IO

from tokenmem.cli.output import complain, is_terminal, safe_json
from tokenmem.cli.upkeep import every_conversation
from tokenmem.errors import ConversationNotFound
from tokenmem.messages.json_lines import ConversationLine, render_pieces
from tokenmem.messages.message import Message
from tokenmem.models import Conversation
from tokenmem.store import Store

Write = Callable[[str], None]

PAGE = 1000
"""Messages in memory at a time."""


def write_conversations(store: Store, conversation_ids: Sequence[str], write: Write) -> tuple[int, int]:
    """Write the conversations, all where none is named, and return how many, and how many messages."""
    conversations = messages = 0
    for conversation_id in conversation_ids or (each.id for each in every_conversation(store)):
        try:
            with _at_one_moment(store) as reader:
                written = _write_conversation(reader, reader.conversation(conversation_id), write)
        except ConversationNotFound:
            if conversation_ids:
                raise
            continue  # removed meanwhile
        conversations += written > 0
        messages += written
    return conversations, messages


def _write_conversation(store: Store, conversation: Conversation, write: Write) -> int:
    pages = _pages(store, conversation.id)
    first = next(pages, None)
    if first is None:
        complain(f"conversation {conversation.id!r} has no messages and is left out")
        return 0
    line = ConversationLine(
        conversation.id,
        [],
        conversation.owner,
        conversation.title,
        conversation.token_counter,
        conversation.metadata,
    )
    for piece in render_pieces(line, chain([first], pages)):
        write(piece)
    write("\n")
    return conversation.message_count


def _pages(store: Store, conversation_id: str) -> Iterator[list[Message]]:
    after = 0
    while page := store.messages(conversation_id, after=after, limit=PAGE):
        yield page
        after = page[-1].position


@contextmanager
def _at_one_moment(store: Store) -> Iterator[Store]:
    """A store that shows the database as it is now, whatever others write meanwhile."""
    with store.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
        with connection.begin():
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN")  # its driver begins nothing for a SELECT
            yield store.bind(connection)


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
