"""Fill a database for one library: the conversation to measure among 1,000 others."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice

from benchmarks.peers.interface import Peer
from benchmarks.support import texts
from benchmarks.support.copying import conversation_id, copy_conversations
from benchmarks.support.databases import Database

OTHERS = 1_000
OTHERS_MESSAGES = 50
COPIES = 10
"""Conversations of one short length, appended to in turn so that none grows much while it is measured."""

WINDOW, LONG_WINDOW = 4_000, 128_000


def conversations(size: str, length: int) -> list[str]:
    """The ids of the conversations of this size and length; the first is only read."""
    first = 1_000_000 + 100 * (sorted(texts.SIZES).index(size) * 100 + len(str(length)))
    return [conversation_id(first + copy) for copy in range(1 + (COPIES if length <= 1_000 else 1))]


async def fill(
    peer: Peer, database: Database, lengths: Mapping[str, list[int]], others_count: int = OTHERS
) -> None:
    """Make the conversations of these lengths, by size, and the others; `peer` is open on the database."""
    others = {conversation_id(10_000 + other): OTHERS_MESSAGES for other in range(others_count)}
    for size, wanted in lengths.items():
        made = {id_: length for length in wanted for id_ in conversations(size, length)}
        await _make(peer, database, size, others | made)
        others = {}
    peer.finish_copies(database)
    database.settle()
    for size, wanted in lengths.items():
        for length in wanted:
            read, *appended = conversations(size, length)
            await peer.prepare(read, LONG_WINDOW)
            for id_ in (read, *appended):
                await peer.prepare(id_, WINDOW)


async def _make(peer: Peer, database: Database, size: str, lengths: Mapping[str, int]) -> None:
    messages = texts.messages(size)
    tables = peer.copied_tables(database.engine)
    if tables:
        template = conversation_id(1 + sorted(texts.SIZES).index(size))
        await peer.write(template, messages)
        copy_conversations(database, tables, template, lengths)
        return
    for id_, length in lengths.items():
        await peer.write(id_, list(islice(cycle(messages), length)))
