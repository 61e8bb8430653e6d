"""Stores in pickles, in other processes, and copied: the same database, owner and options."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.support.processes import NEW
from tests.support.stores import Facade, Stores, Unit, pools_of, texts
from tokenmem import AsyncStore, Message, Store
from tokenmem.errors import InvalidArgument

COPIES = [copy.copy, copy.deepcopy]


def bare(store: Any) -> Any:
    """The store itself, without the face that makes an async one look sync."""
    return store.store if isinstance(store, Facade) else store


def faced(stores: Stores, store: Any) -> Store:
    return cast("Store", Facade(store, stores.loop) if stores.is_async else store)


def unpickled(stores: Stores, store: Store) -> Store:
    return faced(stores, pickle.loads(pickle.dumps(bare(store))))


def is_connected(store: Store) -> bool:
    return any(pool.checkedin() + pool.checkedout() for pool in pools_of(store))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_store_is_on_the_same_database(stores: Stores, protocol: int) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2))
    again = faced(stores, pickle.loads(pickle.dumps(bare(store), protocol)))
    assert not is_connected(again)
    with again:
        assert again.window("c1", 2).first_position == 2
        again.append("c1", texts(3))
        assert not {id(pool) for pool in pools_of(again)} & {id(pool) for pool in pools_of(store)}
    assert not is_connected(again), "it closes what it has opened"
    assert store.conversation("c1").total_tokens == 6


def test_everything_that_a_store_was_opened_with(stores: Stores) -> None:
    store = stores.open(counter=Unit("ten", factor=10), keep_versions=False, unstorable="escape")
    store.append("theirs", texts(1))
    with unpickled(stores, store.for_owner("ann")) as ann:
        ann.append("c1", texts(1))
        ann.append("c1", [Message.user("2 \0")])
        assert ann.conversation("c1").token_counter == "ten"
        assert ann.conversation("c1").owner == "ann"
        ann.edit("c1", 1, texts(5)[0])
        assert ann.versions("c1", 1) == []
        assert ann.messages("c1")[1].to_openai()["content"] == "2 \0"
        assert [each.id for each in ann.conversations()] == ["c1"]
        with pytest.raises(InvalidArgument, match="owner 'ann'"):
            ann.append("c2", texts(1), owner="bob")
    assert len(store.conversations()) == 2


def test_the_schema_is_kept(stores: Stores) -> None:
    if stores.dialect == "sqlite":
        assert unpickled(stores, stores.open()).conversations() == []
        return
    stores.sql.run("DROP SCHEMA IF EXISTS pickled CASCADE")
    with unpickled(stores, stores.open(schema="pickled")) as store:
        store.upgrade()
        store.append("c1", [Message.user("x")])
    assert stores.open().conversations() == []
    assert stores.sql.value("SELECT count(*) FROM pickled.messages") == 1


def test_the_environment_and_the_directory_count_as_they_were(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    kind: Any = AsyncStore if stores.is_async else Store
    url = stores.url
    if stores.dialect == "sqlite":
        monkeypatch.chdir(tmp_path)
        url = "sqlite:///tokenmem.db"
    monkeypatch.setenv("TOKENMEM_URL", url)
    store = faced(stores, kind())
    monkeypatch.delenv("TOKENMEM_URL")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with store, unpickled(stores, store) as again:
        store.append("c1", [Message.user("x")])
        assert again.conversation("c1").message_count == 1


def append_there(store: Store | AsyncStore) -> None:
    """In another process."""

    async def append(store: AsyncStore) -> None:
        async with store:
            await store.append("c1", texts(3))

    if isinstance(store, AsyncStore):
        asyncio.run(append(store))
    else:
        with store:
            store.append("c1", texts(3))


def test_a_store_is_handed_to_another_process(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1), owner="ann")
    process = NEW.Process(target=append_there, args=(bare(store.for_owner("ann")),))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert store.conversation("c1").total_tokens == 4


def test_what_cannot_be_pickled_says_why(stores: Stores) -> None:
    store = stores.open()
    with stores.transaction(store) as transaction:
        for bound in (transaction.store, bare(transaction.store).for_owner("ann")):
            with pytest.raises(
                InvalidArgument, match=r"bound to a connection.*pickle the store that it was made"
            ):
                pickle.dumps(bare(bound))
    with store.transaction() as bound, pytest.raises(InvalidArgument, match="bound to a connection"):
        pickle.dumps(bare(bound))
    engine = stores.engine()
    for own in (stores.open(engine), stores.open(engine).for_owner("ann")):
        with pytest.raises(InvalidArgument, match=r"Engine of your own.*on a URL"):
            pickle.dumps(bare(own))
    if stores.is_async:
        stores.loop.run(engine.dispose())
    else:
        engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_cannot_be_pickled(stores: Stores, url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"memory of this process.*use a file"):
        pickle.dumps(bare(stores.open(url)))


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_works_on_the_same_connections(stores: Stores, copied: Callable[[Any], Any]) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1), owner="ann")
    for original in (store, store.for_owner("ann")):
        other = faced(stores, copied(bare(original)))
        assert bare(other) is not bare(original)
        assert list(map(id, pools_of(other))) == list(map(id, pools_of(store)))
        other.append("c1", texts(2))
        assert other.conversations() == original.conversations()
        other.close()
        assert is_connected(store), "a copy closes nothing"
    assert faced(stores, copied(bare(store.for_owner("bob")))).conversations() == []
    assert store.conversation("c1").total_tokens == 5


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_store_that_cannot_be_pickled(stores: Stores, copied: Callable[[Any], Any]) -> None:
    engine = stores.engine()
    on_engine = faced(stores, copied(bare(stores.open(engine))))
    on_engine.append("c1", [Message.user("x")])
    assert on_engine.conversation("c1").message_count == 1
    if stores.is_async:
        stores.loop.run(engine.dispose())
    else:
        engine.dispose()
    in_memory = stores.open("sqlite://")
    in_memory.upgrade()
    in_memory.append("c1", [Message.user("x")])
    assert faced(stores, copied(bare(in_memory))).conversation("c1").message_count == 1
    with stores.open().transaction() as bound:
        bound.append("c2", [Message.user("x")])
        assert faced(stores, copied(bare(bound))).conversation("c2").message_count == 1


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_new_files_store_upgrades_it_as_that_store_would(
    stores: Stores, copied: Callable[[Any], Any], tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    faced(stores, copied(bare(stores.open(url)))).upgrade()
    assert (tmp_path / "new.db").read_bytes()[18] == 2, (
        "it is in write-ahead logging, by SQLite's file format"
    )
