"""tokenmem against the floor: what its Python costs above the same SQL on the bare driver."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg

from benchmarks.overhead import floor
from benchmarks.peers.filling import conversations, fill
from benchmarks.peers.tokenmem import CharacterCounter, TokenmemAsyncStore, TokenmemStore
from benchmarks.support import texts
from benchmarks.support.copying import conversation_id
from benchmarks.support.databases import Database, Workshop
from benchmarks.support.results import Results
from benchmarks.support.timing import Effort, Subject, compare

COUNTER = CharacterCounter()
APPEND_MESSAGES = 1_000
"""How long the conversations are to which is appended; each subject has its own."""


@dataclass
class Both:
    """Everything that is compared, on one database."""

    database: Database
    store: TokenmemStore
    async_store: TokenmemAsyncStore
    recorder: floor.Recorder
    connection: Any
    async_connection: psycopg.AsyncConnection[Any] | None


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        store, async_store = TokenmemStore(COUNTER), TokenmemAsyncStore(COUNTER)
        for ours in (store, async_store):
            await ours.open(database)
            stack.push_async_callback(ours.close)
        recorder = floor.Recorder(database, COUNTER)
        stack.callback(recorder.close)
        connection = database.connect()
        stack.callback(connection.close)
        async_connection = None
        if database.engine == "postgresql":
            async_connection = await psycopg.AsyncConnection.connect(database.address, autocommit=True)
            stack.push_async_callback(async_connection.close)
        yield Both(database, store, async_store, recorder, connection, async_connection)


def window_subjects(both: Both, size: str, length: int, token_limit: int) -> list[Subject]:
    """The same window by every way, on one conversation."""
    id_, *_ = conversations(size, length)
    connection = both.connection
    statement = both.recorder.window(id_, token_limit)
    scan = both.recorder.range_scan(id_, token_limit)
    calls: dict[str, Callable[[], Any]] = {}
    if both.async_connection:
        for name, sent in (("window statement", statement), ("range scan", scan)):
            calls[name] = floor.fetched(connection, sent, prepare=True)
            calls[f"{name}, unprepared"] = floor.fetched(connection, sent, prepare=False)
    else:  # SQLite's driver keeps statements compiled
        calls["window statement"] = floor.fetched(connection, statement)
        calls["range scan"] = floor.fetched(connection, scan)
    subjects = [
        Subject("Store", lambda: both.store.window(id_, token_limit)),
        Subject("AsyncStore", lambda: both.async_store.window(id_, token_limit), asynchronous=True),
        Subject("Store, Message objects", lambda: both.store.store.window(id_, token_limit).messages),
        Subject("Store, nothing looked at", lambda: both.store.store.window(id_, token_limit)),
        *(Subject(name, call) for name, call in calls.items()),
    ]
    if both.async_connection:
        awaited = floor.fetched_awaiting(both.async_connection, statement)
        subjects.append(Subject("window statement, awaited", awaited, asynchronous=True))
    return [Subject(f"{each.name}@{length}", each.operation, each.asynchronous) for each in subjects]


def append_subjects(both: Both) -> list[Subject]:
    """An exchange appended by every way, each to a conversation of its own."""
    ids = [conversation_id(2_000_000 + number) for number in range(4)]
    for id_ in ids:
        first = list(itertools.islice(itertools.cycle(texts.messages("250")), APPEND_MESSAGES))
        both.store.append(id_, first)
    numbers = itertools.count()

    def exchange() -> list[texts.Message]:
        return texts.exchange("250", next(numbers))

    subjects = [
        Subject("Store", lambda: both.store.append(ids[0], exchange())),
        Subject("AsyncStore", lambda: both.async_store.append(ids[1], exchange()), asynchronous=True),
    ]
    if both.async_connection is None:
        bare = both.connection
        call = partial(floor.append_on_sqlite, bare, ids[2], COUNTER.name)
        return [*subjects, Subject("statement", lambda: call(exchange()))]
    sent, awaited = (both.recorder.append(id_, exchange()) for id_ in ids[2:])
    return [
        *subjects,
        Subject("statement", floor.fetched(both.connection, sent, prepare=True)),
        Subject(
            "statement, awaited", floor.fetched_awaiting(both.async_connection, awaited), asynchronous=True
        ),
    ]


async def run(
    workshop: Workshop,
    results: Results,
    *,
    lengths: Mapping[str, list[int]],
    works: list[str],
    effort: Effort,
    others: int,
) -> None:
    """Measure the windows at every length in turn, then the appends with and without durability."""
    with ExitStack() as stack:
        database = stack.enter_context(workshop.database())
        async with opened(database) as both:
            if any(work.startswith("window") for work in works):
                results.progress("filling tokenmem")
                await fill(both.store, database, lengths, others)
                await _windows(both, results, lengths, works, effort)
            if "append" in works:
                results.progress("measuring appends")
                results.record_cell(
                    "overhead", "append", await compare(append_subjects(both), effort), whole=True
                )
        if "append" in works:
            await _appends_without_waiting(workshop, results, effort)


async def _windows(
    both: Both, results: Results, lengths: Mapping[str, list[int]], works: list[str], effort: Effort
) -> None:
    for size, token_limit in itertools.product(lengths, (4_000, 128_000)):
        work = f"window_{token_limit}"
        if work in works:
            results.progress(f"measuring {work} of {size}")
            subjects = [
                subject
                for length in lengths[size]
                for subject in window_subjects(both, size, length, token_limit)
            ]
            results.record_cell("overhead", f"{work}/{size}", await compare(subjects, effort), whole=True)


async def _appends_without_waiting(workshop: Workshop, results: Results, effort: Effort) -> None:
    """The same where no commit waits for the disk: what is left is the work itself."""
    if not workshop.can_skip_waiting:
        return
    results.progress("measuring appends that do not wait for the disk")
    with workshop.without_waiting() as database:
        async with opened(database) as both:
            summaries = await compare(append_subjects(both), effort)
            results.record_cell("overhead", "append, no waiting", summaries, whole=True)
