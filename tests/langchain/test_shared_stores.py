"""Memories that name no store share one a database: few connections, one upgrade, closed with the last."""

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.memories import heard, memory, talk
from tests.support.processes import NEW
from tests.support.stores import Direct, pools_of
from tokenmem import ConversationChain, ConversationTokenBufferMemory, Store
from tokenmem.errors import DatabaseUnavailable, InvalidArgument
from tokenmem.langchain import shared_stores
from tokenmem.langchain.shared_stores import shared_store

MEMORIES = 200
ONE_POOL = 15
"""Connections of one pool of SQLAlchemy's default size: 5 that stay, 10 more where they are needed."""


class Connections:
    """The connections of one application to a database: the server's own count, or the pools'."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._sql = Direct(url)

    def count(self, store: Any) -> int:
        if self._sql.engine.dialect.name == "sqlite":
            pools = [] if store is None else pools_of(store)
            return sum(pool.checkedin() + pool.checkedout() for pool in pools)
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = :name"
        return int(self._sql.value(query, name=self._name))

    def wait_until_gone(self) -> None:
        """A server's process takes a moment to leave."""
        for _ in range(10_000):
            if self.count(None) == 0:
                return
        raise AssertionError(f"{self.count(None)} connections are still there")

    def close(self) -> None:
        self._sql.close()


@pytest.fixture
def connections(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    name = f"tokenmem-{uuid4().hex[:12]}"
    options = f"?application_name={name}" if database_url.startswith("postgresql") else ""
    monkeypatch.setenv("TOKENMEM_URL", database_url + options)
    counted = Connections(database_url, name)
    yield counted
    counted.close()


@pytest.fixture
def upgrades(monkeypatch: pytest.MonkeyPatch) -> list[Store]:
    """The stores that have been upgraded, in order."""
    upgraded: list[Store] = []
    upgrade = Store.upgrade

    def noted(store: Store) -> None:
        upgraded.append(store)
        upgrade(store)

    monkeypatch.setattr(Store, "upgrade", noted)
    return upgraded


def test_memories_of_many_threads(connections: Connections, upgrades: list[Store]) -> None:
    together = threading.Barrier(MEMORIES)

    def session(number: int) -> tuple[ConversationTokenBufferMemory, int]:
        together.wait()
        mine = memory(f"c{number}")
        talk(mine)
        assert heard(mine)
        store = mine.store
        assert isinstance(store, Store)
        return mine, connections.count(store)

    with ThreadPoolExecutor(MEMORIES) as pool:
        sessions = list(pool.map(session, range(MEMORIES)))
    stores = {id(mine.store) for mine, _ in sessions}
    pools = len(pools_of(sessions[0][0].store))
    assert len(stores) == len(upgrades) == 1
    assert 1 <= max(count for _, count in sessions) <= ONE_POOL * pools
    assert all(heard(mine) for mine, _ in sessions)


def test_memories_of_many_tasks(connections: Connections, upgrades: list[Store]) -> None:
    async def session(number: int) -> tuple[ConversationTokenBufferMemory, int]:
        mine = memory(f"c{number}")
        await mine.asave_context({"input": f"I am c{number}"}, {"output": "hello"})
        loaded = await mine.aload_memory_variables({})
        assert loaded == {"history": f"Human: I am c{number}\nAI: hello"}
        return mine, await asyncio.to_thread(connections.count, mine.store)

    async def sessions() -> list[tuple[ConversationTokenBufferMemory, int]]:
        return await asyncio.gather(*map(session, range(MEMORIES)))

    done = asyncio.run(sessions())
    assert len({id(mine.store) for mine, _ in done}) == len(upgrades) == 1
    assert 1 <= max(count for _, count in done) <= ONE_POOL * len(pools_of(done[0][0].store))


def test_the_last_closes_the_store(connections: Connections) -> None:
    memories = [memory("one"), memory("two")]
    for each in memories:
        talk(each)
    pools = pools_of(memories[0].store)
    store = weakref.ref(memories[0].store)
    gc.disable()  # nothing is to wait for the garbage collector
    try:
        del each, memories[0]
        assert sum(pool.checkedin() for pool in pools) >= 1
        assert connections.count(store()) >= 1
        assert heard(memories[0])
        del memories[0]
        assert store() is None
        assert sum(pool.checkedin() for pool in pools) == 0
    finally:
        gc.enable()
    connections.wait_until_gone()
    assert heard(memory("one"))


def test_a_store_for_one_owner_may_outlive_the_memories(connections: Connections) -> None:
    mine = memory("one")
    talk(mine)
    pools = pools_of(mine.store)
    ann = mine.store.for_owner("ann")
    del mine
    gc.collect()
    assert ann.conversations() == []
    assert sum(pool.checkedin() for pool in pools) >= 1
    del ann
    gc.collect()
    connections.wait_until_gone()


def test_a_chain_without_a_memory_shares_the_store(connections: Connections, upgrades: list[Store]) -> None:
    chains = [ConversationChain(llm=lambda _: "hello") for _ in range(3)]
    assert [chain.predict(input="hi") for chain in chains] == ["hello"] * 3
    assert len({id(chain.memory.store) for chain in chains}) == len(upgrades) == 1


def test_each_database_has_a_store_of_its_own(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENMEM_URL", database_url)
    first = memory("one")
    talk(first)
    monkeypatch.setenv("TOKENMEM_URL", f"sqlite:///{tmp_path / 'other.db'}")
    second = memory("one")
    assert second.buffer == ""
    talk(second)
    second.clear()
    assert heard(first)
    assert first.store is shared_store(database_url)
    assert second.store is not first.store


def test_a_relative_file_is_another_one_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOKENMEM_URL", raising=False)
    places = [tmp_path / "here 100%", tmp_path / "there"]
    for place in places:
        place.mkdir()
    urls = [None, "sqlite:///file:data.db?uri=true"]
    held: list[Store] = []
    for url in urls:
        monkeypatch.chdir(places[0])
        here = shared_store(url)
        assert shared_store(url) is here
        monkeypatch.chdir(places[1])
        there = shared_store(url)
        assert there is not here
        shared_stores.upgrade_once(here)  # only now is the file made
        here.create("c")
        shared_stores.upgrade_once(there)
        assert there.conversations() == []
        held += [here, there]
    for place in places:
        assert {path.name for path in place.glob("*.db")} == {"tokenmem.db", "data.db"}
    monkeypatch.chdir(places[0])
    assert [shared_store(url) for url in urls] == held[::2]
    assert shared_store(f"sqlite:///{places[1] / 'tokenmem.db'}") is held[1]


def test_a_database_in_memory_is_shared_while_a_memory_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMEM_URL", "sqlite://")
    first, second = memory("one"), memory("one")
    talk(first)
    assert heard(second)
    del first, second
    gc.collect()
    assert memory("one").buffer == ""


def test_a_wrong_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMEM_URL", "mysql://host/database")
    with pytest.raises(InvalidArgument, match="mysql"):
        memory("one")


def test_a_shared_store_in_a_pickle_and_copied(connections: Connections) -> None:
    mine = memory("one")
    talk(mine)
    again = pickle.loads(pickle.dumps(mine.store))
    assert again.conversation("one").message_count == 2
    with NEW.Pool(1) as processes:
        assert processes.apply(messages_of, (mine.store, "one")) == ["I am one", "hello"]
    again.close()
    copied: Any = copy.deepcopy(mine.store)
    del mine
    gc.collect()
    assert copied.conversation("one").message_count == 2
    del copied
    gc.collect()
    connections.wait_until_gone()


def messages_of(store: Store, name: str) -> list[str | None]:
    with store:
        return [message.content for message in store.messages(name)]


def test_a_store_that_is_given_is_not_upgraded(database_url: str, upgrades: list[Store]) -> None:
    with Store(database_url) as store:
        store.upgrade()
        talk(ConversationTokenBufferMemory(store=store))
        assert upgrades == [store]


def test_who_waits_for_an_upgrade_that_fails_is_told(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One attempt for all that wait: each with a time limit of its own would make the last wait for hours."""
    waiting = threading.Event()
    attempts: list[Store] = []
    upgrade = Store.upgrade

    class Watched(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            waiting.set()
            return super().result(timeout)

    def fail_once(store: Store) -> None:
        attempts.append(store)
        if len(attempts) > 1:
            return upgrade(store)
        assert waiting.wait(60)
        raise DatabaseUnavailable("the server is away")

    monkeypatch.setattr(shared_stores, "Future", Watched)
    monkeypatch.setattr(Store, "upgrade", fail_once)
    monkeypatch.setenv("TOKENMEM_URL", database_url)

    def failure_of(name: str) -> str:
        with pytest.raises(DatabaseUnavailable) as caught:
            talk(memory(name))
        return str(caught.value)

    kept = memory("kept")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(failure_of, ("one", "two"))) == ["the server is away"] * 2
    assert len(attempts) == 1
    talk(kept)
    assert heard(kept)
    assert len(attempts) == 2


def test_a_failed_upgrade_does_not_hold_the_store(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(store: Store) -> None:
        raise DatabaseUnavailable("the server is away")

    monkeypatch.setattr(Store, "upgrade", fail)
    monkeypatch.setenv("TOKENMEM_URL", database_url)
    mine = memory("one")
    store = weakref.ref(mine.store)
    gc.disable()
    try:
        try:
            talk(mine)
        except DatabaseUnavailable:
            del mine
        assert store() is None
    finally:
        gc.enable()


def test_an_upgrade_that_is_interrupted_is_made_by_the_next(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = Store.upgrade
    monkeypatch.setenv("TOKENMEM_URL", database_url)
    mine = memory("one")

    def interrupt(store: Store) -> None:
        monkeypatch.setattr(Store, "upgrade", upgrade)
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "upgrade", interrupt)
    with pytest.raises(KeyboardInterrupt):
        talk(mine)
    talk(mine)
    assert heard(mine)
