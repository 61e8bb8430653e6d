"""Import many messages: tokenmem against COPY FROM STDIN and executemany on the same columns.

Both get their input as they take it, made before the clock starts: Message objects, and counted tuples.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.overhead.floor import INSERT_MESSAGES
from benchmarks.peers.tokenmem import CharacterCounter
from benchmarks.support import texts
from benchmarks.support.copying import conversation_id
from benchmarks.support.databases import Workshop
from benchmarks.support.results import Results
from tokenmem import Message, Store
from tokenmem.messages.json_lines import ConversationLine

CONVERSATION_MESSAGES = 1_000
AT_A_TIME = 10
COUNTER = CharacterCounter()
COLUMNS = "conversation_id, position, role, kind, content, payload, token_count, tokens_before, pinned"
HEADS = "id, token_counter, last_position, message_count, total_tokens"

Conversations = list[tuple[str, list[texts.Message]]]


def import_into_tokenmem(store: Store, lines: list[ConversationLine]) -> None:
    """tokenmem's best way to store many messages, some thousand at a time."""
    for first in range(0, len(lines), AT_A_TIME):
        store.import_conversations(lines[first : first + AT_A_TIME])


def import_by_copy(connection: Any, heads: list[Any], rows: list[Any]) -> None:
    """COPY FROM STDIN, one transaction, row by row as psycopg documents it."""
    with connection.transaction(), connection.cursor() as cursor:
        with cursor.copy(f"COPY tokenmem.conversations ({HEADS}) FROM STDIN") as copy:
            for head in heads:
                copy.write_row(head)
        with cursor.copy(f"COPY tokenmem.messages ({COLUMNS}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def import_by_executemany(connection: Any, heads: list[Any], rows: list[Any]) -> None:
    """executemany of sqlite3, one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(f"INSERT INTO conversations ({HEADS}) VALUES (?, ?, ?, ?, ?)", heads)
    connection.executemany(INSERT_MESSAGES, rows)
    connection.execute("COMMIT")


def run(workshop: Workshop, results: Results, *, messages: int, rounds: int) -> None:
    """Pieces of the whole in turn, each into its own database; the ratio of every pair of pieces."""
    results.progress(f"measuring the import of {messages:,} messages")
    floor = import_by_copy if workshop.engine == "postgresql" else import_by_executemany
    times: list[tuple[float, float]] = []
    with workshop.database() as ours, workshop.database() as bare:
        for database in (ours, bare):
            with Store(database.url) as store:
                store.upgrade()
        with Store(ours.url, counter=COUNTER) as store:
            connection = bare.connect()
            for piece in range(rounds):
                made = list(_conversations(piece, messages // rounds))
                lines = [
                    ConversationLine(id_, [Message(**each) for each in messages]) for id_, messages in made
                ]
                heads, rows = _rows(made)
                started = time.perf_counter()
                import_into_tokenmem(store, lines)
                between = time.perf_counter()
                floor(connection, heads, rows)
                times.append((between - started, time.perf_counter() - between))
            connection.close()
    ratios = [bare / ours for ours, bare in times]
    summary = {
        "messages": messages,
        "tokenmem": messages / sum(ours for ours, _ in times),
        "floor": messages / sum(bare for _, bare in times),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }
    results.record("bulk", "import", summary)


def _conversations(piece: int, messages: int) -> Iterator[tuple[str, list[texts.Message]]]:
    source = itertools.cycle(texts.messages("250"))
    for number in range(messages // CONVERSATION_MESSAGES):
        id_ = conversation_id(4_000_000 + piece * 100_000 + number)
        yield id_, [dict(message) for message in itertools.islice(source, CONVERSATION_MESSAGES)]


def _rows(conversations: Conversations) -> tuple[list[Any], list[Any]]:
    """The same messages as the bare driver takes them: counted and added up before the clock starts."""
    heads, rows = [], []
    for id_, messages in conversations:
        before = 0
        for position, message in enumerate(messages, 1):
            content, tokens = message["content"], len(message["content"]) // 4
            rows.append((id_, position, message["role"], "message", content, None, tokens, before, False))
            before += tokens
        heads.append((id_, COUNTER.name, len(messages), len(messages), before))
    return heads, rows
