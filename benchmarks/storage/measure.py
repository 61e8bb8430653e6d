"""Bytes on disk for each message, above the text itself: every library fills its own tables by its API."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from benchmarks.peers import peers_of
from benchmarks.peers.interface import settled
from benchmarks.support import texts
from benchmarks.support.copying import conversation_id
from benchmarks.support.databases import Database, Workshop
from benchmarks.support.results import Results

EXCHANGES = 50
"""In each conversation, appended one by one as in a chat."""

SIZE = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""


async def run(workshop: Workshop, results: Results, *, chosen: list[str], conversations: int) -> None:
    """Fill, clean up, measure the size; one library after the other."""
    seen = set()
    for key, peer in peers_of(workshop.engine, chosen).items():
        if peer.storage in seen or peer.limited:  # the same tables
            continue
        seen.add(peer.storage)
        results.progress(f"measuring the size of {peer.storage}")
        with ExitStack() as stack:
            database = stack.enter_context(workshop.without_waiting())  # thousands of commits
            await peer.open(database)
            for conversation in range(conversations):
                id_ = conversation_id(5_000_000 + conversation)
                for exchange in range(EXCHANGES):
                    await settled(peer.append(id_, texts.exchange("250", conversation + exchange)))
            await peer.close()
            messages = 2 * EXCHANGES * conversations
            overhead = size(database) / messages - texts.CHARACTERS
            value = {"messages": messages, "conversations": conversations, "bytes": overhead}
            results.record_cell("storage", "sizes", {key: value})


def size(database: Database) -> int:
    """What the tables and their indexes take on disk after a clean-up."""
    if database.engine == "sqlite":
        database.run("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)")
        return Path(database.address).stat().st_size
    return int(database.run("VACUUM", SIZE)[0][0])
