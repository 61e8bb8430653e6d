"""Purges by inactivity, by owner, of keys; what is kept; and an owner's removal, batch by batch."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.conformance.test_concurrency import wait_until_blocked
from tests.support.stores import Databases, Direct, Stores, Unit, positions, texts
from tokenmem import Purged, Store, errors
from tokenmem.operations import owners, purge

DAY = timedelta(days=1)


@pytest.fixture
def counted(stores: Stores) -> Store:
    return stores.open(counter=Unit())


def ids(store: Store) -> list[str]:
    return [conversation.id for conversation in store.conversations()]


def aged(sql: Direct, where: str, days: float = 3) -> None:
    """Make conversations and what they hold older."""
    sql.age(days, f"conversation_id IN (SELECT id FROM {{conversations}} WHERE {where})")
    sql.age(days, where, table="conversations")


# --- idle_for


def test_idle_conversations_go_whole(counted: Store, sql: Direct) -> None:
    counted.append("idle", texts(1, 2), idempotency_key="k")
    counted.append("used", texts(1, 2))
    counted.append("short", texts(1))
    aged(sql, "id <> 'used'")
    sql.age(9)  # however old the messages: somebody uses the conversation
    would = counted.purge(idle_for=DAY, dry_run=True)
    assert would.conversations == 2
    assert ids(counted) == ["idle", "short", "used"]
    assert counted.purge(idle_for=DAY) == would
    assert ids(counted) == ["used"]
    assert positions(counted.messages("used")) == [1, 2]
    assert counted.purge(idle_for=DAY) == Purged(0, 0)
    assert counted.verify() == []


def test_a_fork_is_as_old_as_itself(counted: Store, sql: Direct) -> None:
    counted.append("parent", texts(1, 2))
    aged(sql, "id = 'parent'")
    counted.fork("parent", "copy")
    assert counted.purge(idle_for=DAY) == Purged(1, 2)
    assert ids(counted) == ["copy"]


def test_a_conversation_whose_call_runs_stays(counted: Store, sql: Direct) -> None:
    for name, alive in (("runs", "2099-01-01"), ("died", "2020-01-01")):
        counted.append(name, texts(1))
        sql.call(name, 1, alive_at=f"'{alive}T00:00:00.000Z'", status="'cancelled'")
        sql.call(name, 2)
    aged(sql, "true")
    assert counted.purge(idle_for=DAY, dry_run=True).conversations == 1
    assert counted.purge(idle_for=DAY).conversations == 1
    assert ids(counted) == ["runs"]


def test_what_is_used_between_the_look_and_the_lock_stays(databases: Databases) -> None:
    url = databases.postgresql()  # on SQLite writers take turns
    sql = Direct(url)
    with Store(url, counter=Unit()) as store, ThreadPoolExecutor(1) as pool:
        for name in ("a", "b", "c"):
            store.append(name, texts(1))
        aged(sql, "true")
        with sql.engine.connect() as other:
            store.bind(other).append("b", texts(2))
            waiting = pool.submit(store.purge, idle_for=DAY)
            wait_until_blocked(sql)
            other.commit()
        assert waiting.result() == Purged(2, 2)
        assert ids(store) == ["b"]
        assert store.verify() == []
    sql.close()


# --- keep, owner, by


@pytest.mark.parametrize("arguments", [{"idle_for": DAY}, {"older_than": DAY}], ids=str)
def test_what_is_kept_is_exempt(counted: Store, sql: Direct, arguments: dict[str, Any]) -> None:
    counted.append("kept", texts(1, 2))
    counted.append("other", texts(1))
    sql.run("UPDATE {conversations} SET keep = true WHERE id = 'kept'")
    aged(sql, "true")
    assert counted.purge(**arguments, dry_run=True) == Purged(1, 1)
    assert counted.purge(**arguments) == Purged(1, 1)
    assert ids(counted) == ["kept"]
    assert counted.conversation("kept").message_count == 2


@pytest.mark.parametrize("arguments", [{"idle_for": DAY}, {"older_than": DAY}], ids=str)
def test_by_owner(counted: Store, sql: Direct, arguments: dict[str, Any]) -> None:
    for name, owner in (("a", "ann"), ("b", "bob"), ("c", None)):
        counted.append(name, texts(1), owner=owner, idempotency_key="k")
    aged(sql, "true")
    sql.run("UPDATE {append_keys} SET created_at = '2020-01-01T00:00:00.000Z'")
    found = counted.purge(**arguments, owner="ann", keys_older_than=DAY, dry_run=True)
    assert found == Purged(1, 1, 1)
    assert counted.purge(**arguments, owner="ann", keys_older_than=DAY).conversations == 1
    assert ids(counted) == ["b", "c"]
    assert counted.for_owner("bob").purge(**arguments).conversations == 1
    with pytest.raises(errors.InvalidArgument, match=r"'ann'.*'bob'"):
        counted.for_owner("ann").purge(**arguments, owner="bob")
    assert ids(counted) == ["c"]


def test_messages_are_as_old_as_their_storing(counted: Store, sql: Direct) -> None:
    """A history that came in yesterday is a day old, whatever its messages say, unless told otherwise."""
    counted.append("c", texts(1, 2, 3))
    aged(sql, "true", 900)
    sql.run("UPDATE {messages} SET stored_at = '2099-01-01T00:00:00.000Z' WHERE position > 1")
    assert counted.purge(older_than=DAY, dry_run=True, by="created").messages == 3
    assert counted.purge(older_than=DAY) == Purged(0, 1)
    assert positions(counted.messages("c")) == [2, 3]
    assert counted.purge(older_than=DAY) == Purged(0, 0)
    assert counted.purge(older_than=DAY, by="created") == Purged(1, 2)


def test_a_time_ahead_keeps_a_message_that_is_told_by_it(counted: Store, sql: Direct) -> None:
    counted.append("c", texts(1))
    aged(sql, "true")
    sql.run("UPDATE {messages} SET stored_at = created_at, created_at = '2099-01-01T00:00:00.000Z'")
    assert counted.purge(older_than=DAY, by="created") == Purged(0, 0)
    assert counted.purge(older_than=DAY) == Purged(1, 1)


def test_what_cannot_be_asked(counted: Store, sql: Direct) -> None:
    anything: Any = counted
    for arguments, match in (
        ({}, "older_than is None, and so are idle_for and keys_older_than"),
        ({"owner": "ann"}, "older_than is None"),
        ({"older_than": DAY, "idle_for": DAY}, "exclude each other"),
        ({"idle_for": 5}, "idle_for is 5; pass a timedelta"),
        ({"keys_older_than": -DAY}, "keys_older_than is .*pass a timedelta"),
        ({"older_than": DAY, "by": "said"}, "by is 'said'; use one of stored, created"),
        ({"older_than": DAY, "owner": ""}, "owner has 0 characters"),
    ):
        with pytest.raises(errors.InvalidArgument, match=match):
            anything.purge(**arguments)


# --- keys


def test_keys_expire(counted: Store, sql: Direct) -> None:
    for key in ("old", "young", "running", "died", "unknown"):
        counted.append("c", texts(1), idempotency_key=key)
    counted.append("d", texts(1), idempotency_key="unknown")
    old = "created_at = '2020-01-01T00:00:00.000Z'"
    sql.run(f"UPDATE {{append_keys}} SET {old} WHERE key IN ('old', 'running', 'died')")
    sql.run("UPDATE {append_keys} SET created_at = NULL WHERE key = 'unknown'")
    sql.run(f"UPDATE {{conversations}} SET {old}, keep = true WHERE id = 'c'")
    for number, (key, alive) in enumerate((("running", "2099-01-01"), ("died", "2020-01-01")), 1):
        sql.call("c", number, alive_at=f"'{alive}T00:00:00.000Z'")
        sql.run(f"UPDATE {{append_keys}} SET call_number = {number} WHERE key = '{key}'")
    assert counted.purge(keys_older_than=DAY, dry_run=True) == Purged(0, 0, 3)
    assert counted.purge(keys_older_than=DAY) == Purged(0, 0, 3)
    left = sql.rows("SELECT conversation_id, key FROM {append_keys} ORDER BY 1, 2")
    assert left == [("c", "running"), ("c", "young"), ("d", "unknown")]
    assert counted.purge(keys_older_than=DAY) == Purged(0, 0, 0)
    assert counted.append("c", texts(1), idempotency_key="young").replayed
    assert not counted.append("c", texts(1), idempotency_key="old").replayed, "behind the horizon"
    assert counted.verify() == []


def test_keys_of_any_number_of_conversations(
    counted: Store, sql: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "BATCH", 3)
    for number in range(8):
        counted.append(f"c{number}", texts(1), idempotency_key="k")
    sql.run("UPDATE {append_keys} SET created_at = '2020-01-01T00:00:00.000Z'")
    aged(sql, "id < 'c4'")
    assert counted.purge(idle_for=DAY, keys_older_than=DAY) == Purged(4, 4, 4)


# --- an owner's removal, in batches


@pytest.fixture
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "BATCH", 3)
    monkeypatch.setattr(owners, "BATCH_MESSAGES", 5)


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("method", ["delete_owner", "anonymize_owner"])
def test_all_of_an_owners_in_any_number_of_batches(counted: Store, sql: Direct, method: str) -> None:
    for number in range(10):
        counted.append(f"c{number}", texts(*[1] * (1 + 7 * (number == 4))), owner="ann")
    counted.append("bobs", texts(1), owner="bob")
    assert getattr(counted, method)("ann") == 10
    assert [c.id for c in counted.conversations(owner="bob")] == ["bobs"]
    assert counted.conversations(owner="ann") == []
    owned = sql.rows("SELECT DISTINCT owner FROM {conversations} WHERE owner <> 'bob'")
    assert len(owned) == (method == "anonymize_owner")
    assert counted.verify() == []


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("method", ["delete_owner", "anonymize_owner"])
def test_an_interrupted_removal_goes_on(
    counted: Store, stores: Stores, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    for number in range(8):
        counted.append(f"c{number}", texts(1), owner="ann")
    batches = 0
    find = owners._next_ids

    def interrupted(*arguments: Any) -> list[str]:
        nonlocal batches
        batches += 1
        if batches == 3:
            raise KeyboardInterrupt
        return find(*arguments)

    monkeypatch.setattr(owners, "_next_ids", interrupted)
    with pytest.raises(KeyboardInterrupt):
        getattr(counted, method)("ann")
    left = stores.sql.value("SELECT count(*) FROM {conversations} WHERE owner = 'ann'")
    assert left == 2
    assert getattr(counted, method)("ann") == 2
    assert stores.sql.value("SELECT count(*) FROM {conversations} WHERE owner = 'ann'") == 0


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.parametrize("method", ["delete_owner", "anonymize_owner"])
def test_all_batches_are_in_the_callers_transaction(stores: Stores, counted: Store, method: str) -> None:
    for number in range(8):
        counted.append(f"c{number}", texts(1), owner="ann")
    with stores.transaction(counted) as mine:
        assert getattr(mine.store, method)("ann") == 8
        assert mine.store.conversations(owner="ann") == []
        mine.rollback()
    assert len(counted.conversations(owner="ann")) == 8


@pytest.mark.parametrize("method", ["delete_owner", "anonymize_owner"])
def test_two_at_once_and_one_that_appends(
    ready_url: str, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(owners, "BATCH", 7)
    with Store(ready_url, counter=Unit()) as store:
        for number in range(60):
            store.append(f"c{number}", texts(1, 2), owner="ann", idempotency_key="k")
        stop = threading.Event()

        def append() -> int:
            with Store(ready_url, counter=Unit()) as mine:
                number = 0
                while not stop.is_set() and number < 40:
                    number += 1
                    mine.append(f"new{number}", texts(1), owner="ann")
            return number

        def remove() -> int:
            with Store(ready_url, counter=Unit()) as mine:
                return int(getattr(mine, method)("ann"))

        with ThreadPoolExecutor(3) as pool:
            appending = pool.submit(append)
            removing = [pool.submit(remove) for _ in range(2)]
            removed = sum(each.result() for each in removing)
            stop.set()
            made = appending.result()
        removed += remove()
        assert removed == 60 + made, "each is removed once"
        assert store.conversations(owner="ann") == []
        assert store.verify() == []
