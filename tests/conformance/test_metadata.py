"""Metadata of conversations that several set at once: each sets its keys, and none is lost."""

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from tests.conformance.test_concurrency import in_processes
from tests.support.round_trips import RoundTrips
from tests.support.stores import Databases, Direct, Facade, Stores, Unit, texts
from tokenmem import KEEP, Store, errors

KEYS = int(os.environ.get("TOKENMEM_TEST_KEYS", "20"))  # of each of 8 processes; 125 is what is promised


@pytest.fixture
def counted(stores: Stores) -> Store:
    return stores.open(counter=Unit())


def revision(sql: Direct, name: str) -> int:
    return int(sql.value("SELECT revision FROM {conversations} WHERE id = :id", id=name))


def test_merge_needs_what_to_merge(counted: Store, sql: Direct) -> None:
    counted.create("c1", metadata={"a": 1})
    before = sql.rows("SELECT * FROM {conversations}")
    for wrong in (
        {"merge": True},
        {"merge": True, "metadata": None},
        {"merge": 1, "metadata": {}},
        {"merge": True, "metadata": [1]},
        {"merge": True, "metadata": {"a": float("nan")}},
        {"keep": "yes"},
        {"title": ""},
        {"title": 5},
    ):
        with pytest.raises(errors.InvalidArgument):
            counted.update("c1", **wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="merge_metadata is a list"):
        counted.append("c1", texts(1), merge_metadata=[])  # type: ignore[arg-type]
    assert sql.rows("SELECT * FROM {conversations}") == before
    assert counted.update("c1", title=KEEP, metadata=KEEP).metadata == {"a": 1}
    assert repr(KEEP) == "KEEP"


@pytest.mark.parametrize("count", [1, 300])
def test_an_append_merges_metadata(counted: Store, sql: Direct, count: int) -> None:
    many = texts(*[1] * count)
    counted.append("c1", many, metadata={"a": 1, "b": 1}, merge_metadata={"b": 2, "c": {"x": 1}})
    assert counted.conversation("c1").metadata == {"a": 1, "b": 2, "c": {"x": 1}}
    before = revision(sql, "c1")
    counted.append(
        "c1", many, metadata={"a": 9}, merge_metadata={"c": {"y": "é"}, "d": None}, idempotency_key="k"
    )
    assert counted.conversation("c1").metadata == {"a": 1, "b": 2, "c": {"y": "é"}, "d": None}
    assert revision(sql, "c1") == before + 1, "messages and metadata are one change"
    again = counted.append("c1", many, merge_metadata={"d": "replayed"}, idempotency_key="k")
    assert again.replayed
    with pytest.raises(errors.PositionConflict):
        counted.append("c1", many, merge_metadata={"d": "refused"}, expected_position=1)
    with pytest.raises(errors.IdempotencyConflict):
        counted.append("c1", texts(7), merge_metadata={"d": "refused"}, idempotency_key="k")
    assert counted.conversation("c1").metadata["d"] is None
    counted.append("c1", many, merge_metadata={})
    counted.append("c2", many, merge_metadata={"only": True})
    assert counted.conversation("c2").metadata == {"only": True}
    assert counted.verify() == []


def test_what_is_merged_is_rolled_back_with_the_messages(stores: Stores) -> None:
    stores.open(counter=Unit()).append("c1", texts(1), metadata={"a": 1})
    with stores.transaction(stores.open(counter=Unit())) as transaction:
        transaction.store.append("c1", texts(2), merge_metadata={"b": 2})
        transaction.store.archive("c1")
        transaction.store.create("c2")
        assert transaction.store.conversation("c1").metadata == {"a": 1, "b": 2}
        transaction.rollback()
    found = stores.open().conversation("c1")
    assert (found.metadata, found.message_count, found.archived_at) == ({"a": 1}, 1, None)


def test_many_tasks_merge_and_none_is_lost(stores: Stores) -> None:
    store: Any = stores.open(counter=Unit())
    store.create("c1", metadata={"first": True})

    def key(worker: int, turn: int) -> str:
        return f"{worker}/{turn}"

    if isinstance(store, Facade):

        async def work(worker: int) -> None:
            for turn in range(25):
                if (worker + turn) % 2:
                    await store.store.update("c1", metadata={key(worker, turn): turn}, merge=True)
                else:
                    await store.store.append("c1", texts(1), merge_metadata={key(worker, turn): turn})
                await store.store.append("c1", texts(1))

        async def everybody() -> None:
            await asyncio.gather(*map(work, range(8)))

        stores.loop.run(everybody())
    else:

        def work_blocking(worker: int) -> None:
            for turn in range(25):
                if (worker + turn) % 2:
                    store.update("c1", metadata={key(worker, turn): turn}, merge=True)
                else:
                    store.append("c1", texts(1), merge_metadata={key(worker, turn): turn})
                store.append("c1", texts(1))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work_blocking, range(8)))
    found = store.conversation("c1")
    assert found.metadata == {"first": True} | {key(w, t): t for w in range(8) for t in range(25)}
    assert found.message_count == 300
    assert store.verify() == []


def merge_beside_appends(number: int, barrier: Barrier, url: str) -> int:
    """Keys of each of eight processes, half of them with a message; archives and moves between them."""
    source, stored = random.Random(number), 0
    with Store(url, counter=Unit()) as store:
        barrier.wait()
        for turn in range(KEYS):
            given = {f"{number}/{turn}": turn}
            if turn % 2:
                store.update("c1", metadata=given, merge=True)
            else:
                store.append("c1", texts(1), merge_metadata=given, idempotency_key=f"{number}/{turn}")
                stored += 1
            if source.random() < 0.1:
                source.choice([store.archive, store.restore])("c1")
            if source.random() < 0.1:
                store.move("c1", owner=source.choice([None, "ann", "bob"]))
            if source.random() < 0.3:
                store.append("c1", texts(1))
                stored += 1
    return stored


def test_eight_processes_merge_and_none_is_lost(ready_url: str) -> None:
    with Store(ready_url, counter=Unit()) as store:
        store.create("c1")
        stored = in_processes(8, merge_beside_appends, ready_url)
        found = store.conversation("c1")
        assert found.metadata == {f"{n}/{turn}": turn for n in range(8) for turn in range(KEYS)}
        assert found.message_count == found.last_position == sum(stored)
        assert store.verify() == []


def test_an_append_without_it_is_one_round_trip_as_before(databases: Databases) -> None:
    """On PostgreSQL no BEGIN and no COMMIT; with it, a transaction."""
    with RoundTrips(databases.postgresql()) as trips, Store(trips.url, counter=Unit()) as store:
        store.upgrade()
        counts = []
        for merged in (None, {"a": 1}) * 3:  # at first psycopg asks the server what it needs
            before = trips.count
            store.append("c1", texts(1), merge_metadata=merged)
            counts.append(trips.count - before)
        assert counts[4] == 1 < counts[5]
