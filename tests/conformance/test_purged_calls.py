"""A purge takes the calls of which it leaves nothing, and what these told the model; their cost stays."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import Message, Store

DAY = timedelta(days=1)
SECRET = "marker-51c0"


@pytest.fixture
def called(stores: Stores) -> Store:
    """Six messages; calls that saw 1 to 2, 1 to 4 and 5, with their replies, and one that saw nothing."""
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 3, 4, 5, 6), owner="ann")
    for first, last, instructions in ((1, 2, f"{SECRET} early"), (1, 4, "late"), (5, 5, "late")):
        store.record_call(
            "c1",
            model="m",
            first_position=first,
            last_position=last,
            reply_position=last + 1,
            input_tokens=10,
            output_tokens=3,
            instructions=instructions,
            metadata={"trace": f"t{last}"},
        )
    store.record_call("c1", model="m", input_tokens=1, output_tokens=1)
    return store


def numbers(store: Store) -> list[int]:
    return [call.number for call in store.calls("c1")]


def test_calls_of_which_nothing_stays_go_with_what_they_sent(called: Store, sql: Direct) -> None:
    before = called.usage(by="owner")
    sql.age(3, where="position <= 2")  # the reply to the first call stays
    assert called.purge(older_than=DAY).messages == 2
    assert numbers(called) == [1, 2, 3, 4]
    sql.age(3, where="position <= 3")
    assert called.purge(older_than=DAY, dry_run=True).messages == 1
    assert numbers(called) == [1, 2, 3, 4]
    assert called.purge(older_than=DAY).messages == 1
    assert numbers(called) == [2, 3, 4]
    assert sql.everywhere(SECRET) == set()
    assert sql.rows("SELECT instructions FROM {call_prompts}") == [("late",)]
    sql.age(3, where="position <= 5")
    called.purge(older_than=DAY)
    assert numbers(called) == [3, 4]
    assert sql.rows("SELECT instructions FROM {call_prompts}") == [("late",)]
    sql.age(3)  # all messages, but the conversation has changed since
    called.purge(older_than=DAY)
    assert numbers(called) == [4]
    assert sql.rows("SELECT instructions FROM {call_prompts}") == []
    assert called.usage(by="owner") == before
    assert called.usage(owner="ann", by="model")[0].calls == 4
    assert called.verify() == []
    assert called.record_call("c1", model="m").number == 5, "a number is given twice"


def test_a_call_without_a_bill_costs_what_it_did_before(stores: Stores, sql: Direct) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 30))
    store.append("c2", texts(1, 2, 30))
    sql.call("c1", first_position="1", last_position="2", window_tokens="3", reply_position="3")
    sql.call("c2", first_position="1", last_position="2", window_tokens="3", reply_position="3")
    before = store.usage(by="model")
    assert (before[0].estimated_calls, before[0].output_tokens) == (2, 60)
    sql.age(3)
    sql.age(3, "id = 'c2'", table="conversations")
    assert store.purge(older_than=DAY).conversations == 1  # of the other one the row stays
    assert sql.counts()["llm_calls"] == 0
    assert store.usage(by="model") == before


def test_a_reply_of_several_messages_that_is_partly_there(stores: Stores, sql: Direct) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2, 3))
    sql.call("c1", first_position="1", last_position="1", reply_position="2", reply_messages="2")
    sql.age(3, where="position <= 2")
    store.purge(older_than=DAY)
    assert numbers(store) == [1]
    store.append("c1", texts(4))
    sql.age(3, where="position <= 3")
    store.purge(older_than=DAY)
    assert numbers(store) == []


def test_a_call_that_runs_stays_and_one_whose_process_died_goes(stores: Stores, sql: Direct) -> None:
    store = stores.open(counter=Unit())
    store.append("c1", texts(1, 2), idempotency_key="k")
    store.append("c1", texts(3))
    window = {"first_position": "1", "last_position": "2"}
    now = datetime.now(UTC).replace(tzinfo=None)
    for number, alive in ((1, now - timedelta(hours=1)), (2, now + timedelta(hours=1))):
        sql.call("c1", number, alive_at=f"'{alive.isoformat(timespec='milliseconds')}Z'", **window)
    sql.run("UPDATE {append_keys} SET call_number = 2")
    sql.age(3, where="position <= 2")
    store.purge(older_than=DAY)
    assert numbers(store) == [2]
    assert sql.counts()["append_keys"] == 1, "the request whose call runs is not known any more"
    sql.run("UPDATE {llm_calls} SET alive_at = NULL")
    sql.age(3)
    store.purge(older_than=DAY)
    assert numbers(store) == []
    assert sql.counts()["append_keys"] == 0


@pytest.mark.parametrize("stores", ["postgresql-sync"], indirect=True)
def test_two_purges_keep_the_costs_of_the_same_owners(stores: Stores, sql: Direct) -> None:
    """Each takes the sums' rows in one order, and once: neither waits for what the other waits for."""
    store = stores.open(counter=Unit())
    for number in range(40):
        name = f"c{number:02}"
        store.append(name, texts(1, 2), owner=f"owner-{number % 7}")
        for call in (1, 2, 3):
            sql.call(name, call, model=f"'m{(number * call) % 5}'", first_position="1", last_position="1")
    before = store.usage(by="model")
    sql.age(3, where="position = 1")
    failures: list[BaseException] = []

    def purge(**options: Any) -> None:
        try:
            store.purge(older_than=DAY, **options)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=purge, kwargs={"owner": f"owner-{number}"}) for number in range(7)]
    threads += [threading.Thread(target=purge) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sql.counts()["llm_calls"] == 0
    assert store.usage(by="model") == before
    assert store.append("c00", [Message.user("5")]).first_position == 3
