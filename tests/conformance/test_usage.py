"""What calls have cost: the same before a deletion and after it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.support.stores import Direct, Stores, Unit, texts
from tokenmem import Store, Usage, errors

DAY = timedelta(days=1)
BILL = {
    "input_tokens": "100",
    "cached_tokens": "40",
    "cache_write_tokens": "7",
    "output_tokens": "20",
    "reasoning_tokens": "5",
}


def at(day: str, clock: str = "12:00:00.000") -> dict[str, str]:
    return {"created_at": f"'{day}T{clock}Z'"}


@pytest.fixture
def billed(stores: Stores) -> Store:
    """Three owners' conversations with calls on two days, of two models, ended well and badly."""
    store, sql = stores.open(counter=Unit()), stores.sql
    for name, owner in (("a1", "ann"), ("a2", "ann"), ("b", "bob"), ("n", None)):
        store.append(name, texts(1, 2, 30, 4), owner=owner)
        sql.call(name, 1, **BILL, **at("2026-01-30"))
        sql.call(name, 2, **BILL, **at("2026-01-31", "00:00:00.000"), model="'big'")
    # Without a bill: the prompt as counted, and what is stored of the reply: two messages, then one.
    part = {"window_tokens": "11", "reply_position": "2", "reply_messages": "2", "status": "'cancelled'"}
    sql.call("a1", 3, **part, **at("2026-01-31", "23:59:59.999"))
    sql.call("a1", 4, window_tokens="11", reply_position="4", **at("2026-01-31"))
    sql.call("a2", 3, status="'error'", **at("2026-01-30"))
    sql.run("UPDATE {llm_calls} SET alive_at = created_at, error = 'not ended' WHERE status = 'cancelled'")
    return store


def answers(store: Store) -> list[list[Usage]]:
    """What is asked of usage, in every way."""
    days = (None, date(2026, 1, 30), date(2026, 1, 31), datetime(2026, 1, 31, 18, tzinfo=UTC))
    return [
        store.usage(owner=owner, since=since, until=until, by=by)  # type: ignore[arg-type]
        for by in ("day", "model", "owner")
        for owner in (None, "ann", "bob", "nobody")
        for since in days
        for until in days
    ]


def test_by_day_model_and_owner(billed: Store) -> None:
    anns = billed.usage(owner="ann")
    assert anns == [
        Usage(date(2026, 1, 30), None, None, 3, 1, 1, 200, 80, 14, 40, 10),
        Usage(date(2026, 1, 31), None, None, 4, 1, 2, 222, 80, 14, 76, 10),
    ]
    assert billed.for_owner("ann").usage() == anns
    by_model = billed.usage(owner="ann", by="model")
    assert [(line.model, line.calls, line.input_tokens) for line in by_model] == [
        ("big", 2, 200),
        ("m", 5, 222),
    ]
    by_owner = billed.usage(by="owner")
    assert [(line.owner, line.calls) for line in by_owner] == [(None, 2), ("ann", 7), ("bob", 2)]
    assert {(line.day, line.model) for line in by_owner} == {(None, None)}


STATUSES = {"ok": 0, "error": 1, "refused": 1, "cancelled": 1}


@pytest.mark.parametrize("status", STATUSES)
def test_whatever_did_not_end_well_has_failed(stores: Stores, status: str) -> None:
    """In sums over calls, in the view, and in what is kept of removed conversations."""
    store = stores.open(counter=Unit())
    for name in ("gone", "stays"):
        store.append(name, texts(1), owner="ann")
        stores.sql.call(name, 1, **BILL, **at("2026-01-30"), status=f"'{status}'")
    view = "tokenmem.usage_by_day" if stores.dialect == "postgresql" else "usage_by_day"
    failed = STATUSES[status]
    assert stores.sql.rows(f"SELECT calls, failed_calls FROM {view}") == [(2, 2 * failed)]
    before = answers(store)
    store.delete("gone")
    assert answers(store) == before
    assert stores.sql.rows("SELECT calls, failed_calls FROM {usage_kept}") == [(1, failed)]
    assert [(line.calls, line.failed_calls) for line in store.usage()] == [(2, 2 * failed)]


def test_days_count_as_a_whole(billed: Store) -> None:
    def calls_of(**bounds: Any) -> int:
        return sum(line.calls for line in billed.usage(owner="ann", **bounds))

    assert calls_of(since=date(2026, 1, 31)) == 4
    assert calls_of(since=datetime(2026, 1, 31, 23, tzinfo=UTC)) == 4
    # In UTC it is still the day before.
    assert calls_of(since=datetime(2026, 1, 31, 1, tzinfo=timezone(timedelta(hours=2)))) == 7
    assert calls_of(until=date(2026, 1, 30)) == 3
    assert calls_of(until=datetime(2026, 1, 30, 0, tzinfo=UTC)) == 3
    assert calls_of(since=date(2026, 1, 30), until=date(2026, 1, 31)) == 7
    assert calls_of(since=date(2026, 2, 1)) == calls_of(until=date(2026, 1, 29)) == 0
    assert calls_of(since=date(2026, 1, 31), until=date(2026, 1, 30)) == 0
    assert calls_of(since=date.min, until=date.max) == 7
    assert calls_of(since=datetime.min.replace(tzinfo=UTC), until=datetime.max.replace(tzinfo=UTC)) == 7


REMOVALS: dict[str, Callable[[Store], Any]] = {
    "one": lambda store: store.delete("a1"),
    "each": lambda store: [store.delete(name) for name in ("a1", "a2", "b", "n")],
    "idle": lambda store: store.purge(idle_for=DAY),
    "all old": lambda store: store.purge(older_than=DAY),
    "of an owner": lambda store: store.for_owner("ann").purge(idle_for=DAY),
    "of another": lambda store: store.purge(older_than=DAY, by="created", owner="bob"),
}


@pytest.mark.parametrize("name", REMOVALS)
def test_a_removal_resets_no_quota(billed: Store, sql: Direct, name: str) -> None:
    sql.age(3)
    sql.run("UPDATE {conversations} SET recent_at = updated_at")
    sql.age(3, table="conversations")
    before = answers(billed)
    REMOVALS[name](billed)
    assert answers(billed) == before
    assert sql.value("SELECT count(*) FROM {conversations}") < 4
    assert billed.verify() == []


def test_what_is_kept_has_no_text_and_adds_up(billed: Store, sql: Direct) -> None:
    for _ in range(2):
        billed.delete("a2")
        billed.append("a2", texts(5), owner="ann")
        sql.call("a2", 1, **BILL, **at("2026-01-30"))
    billed.delete("a2")
    rows = sql.rows("SELECT * FROM {usage_kept} ORDER BY day, model")
    assert rows == [
        ("ann", "2026-01-30", "m", 4, 1, 1, 300, 120, 21, 60, 15),
        ("ann", "2026-01-31", "big", 1, 0, 0, 100, 40, 7, 20, 5),
    ]


def test_a_chat_writes_nothing_to_it_and_a_dry_run_neither(billed: Store, sql: Direct) -> None:
    billed.append("a1", texts(7))
    billed.truncate("b", after=1)
    billed.delete_message("b", 1)
    billed.purge(idle_for=timedelta(0), dry_run=True)
    billed.purge(older_than=timedelta(0), dry_run=True)
    assert sql.value("SELECT count(*) FROM {usage_kept}") == 0


def test_it_is_erased_with_its_owner(billed: Store, sql: Direct) -> None:
    billed.delete("a1")
    assert billed.usage(owner="ann")
    assert billed.delete_owner("ann") == 1
    assert billed.usage(owner="ann") == []
    assert [line.owner for line in billed.usage(by="owner")] == [None, "bob"]
    billed.delete("b")
    assert billed.delete_owner("bob") == 0
    assert sql.value("SELECT count(*) FROM {usage_kept}") == 0


def test_it_goes_under_the_pseudonym_with_its_owner(billed: Store) -> None:
    before = billed.usage(owner="ann")
    billed.delete("a1")
    assert billed.anonymize_owner("ann") == 1
    (pseudonym,) = [line.owner for line in billed.usage(by="owner") if line.owner not in (None, "bob")]
    assert billed.usage(owner="ann") == []
    kept = billed.usage(owner=pseudonym)
    assert kept == before
    billed.delete_owner(str(pseudonym))
    assert [line.owner for line in billed.usage(by="owner")] == [None, "bob"]


STATES = {
    "made": "recent_at = NULL",
    "changed": "recent_at = updated_at",
    "archived": "recent_at = updated_at, archived_at = updated_at",
    "archived long before": "recent_at = updated_at, archived_at = '2020-01-01T00:00:00.000Z'",
    "archived as it was made": "recent_at = NULL, archived_at = updated_at",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("owner", [None, "ann"])
def test_conversations_in_every_state_are_found(
    store: Store, sql: Direct, state: str, owner: str | None
) -> None:
    for name, day in (("old", "2026-03-01"), ("young", "2026-03-03")):
        store.append(name, texts(1), owner="ann", counter=Unit())
        moment = f"'{day}T00:00:00.000Z'"
        sql.run(
            f"UPDATE {{conversations}} SET created_at = {moment}, updated_at = {moment} WHERE id = '{name}'"
        )
        sql.call(name, 1, **at(day, "00:00:00.000"))
    sql.run(f"UPDATE {{conversations}} SET {STATES[state]}")
    for since, count in (
        (date(2026, 3, 1), 2),
        (date(2026, 3, 2), 1),
        (date(2026, 3, 3), 1),
        (date(2026, 3, 4), 0),
    ):
        assert sum(line.calls for line in store.usage(owner=owner, since=since)) == count, since


def test_a_time_up_to_which_the_list_is_late(store: Store, sql: Direct) -> None:
    """A conversation stands in the lists by a time that may lie half a minute back, on the day before."""
    store.append("c", texts(1), owner="ann", counter=Unit())
    sql.run(
        "UPDATE {conversations} SET created_at = '2026-03-02T00:00:00.000Z',"
        " recent_at = '2026-03-02T23:59:30.001Z', updated_at = '2026-03-03T00:00:00.000Z'"
    )
    sql.call("c", 1, **at("2026-03-03", "00:00:00.000"))
    assert [line.calls for line in store.usage(owner="ann", since=date(2026, 3, 3))] == [1]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"by": "week"}, "by is 'week'; use one of day, model, owner"),
        ({"by": None}, "by is None"),
        ({"since": datetime(2026, 1, 1)}, "since is 2026-01-01T00:00:00, without a time zone"),
        ({"until": "2026-01-01"}, "until is a str; pass a date or a datetime"),
        ({"owner": ""}, "owner has 0 characters"),
    ],
)
def test_what_cannot_be_asked(store: Store, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=match):
        store.usage(**arguments)
    with pytest.raises(errors.InvalidArgument, match=r"'ann'.*'bob'"):
        store.for_owner("ann").usage(owner="bob")


def test_verify_finds_counts_below_zero(store: Store, sql: Direct) -> None:
    for owner, model, count in (("ann", "m", -3), ("", "n", -1), ("bob", "m", 5)):
        sql.run(
            f"INSERT INTO {{usage_kept}} (owner, day, model, calls, output_tokens)"
            f" VALUES ('{owner}', '2026-01-01', '{model}', 1, {count})"
        )
    assert [problem.detail for problem in store.verify()] == [
        "usage kept of owner '', 2026-01-01, 'n': output_tokens is -1",
        "usage kept of owner 'ann', 2026-01-01, 'm': output_tokens is -3",
    ]
    (problem,) = store.for_owner("ann").verify()
    assert (problem.conversation_id, problem.position) == ("", None)
    assert store.for_owner("bob").verify() == []


def test_verify_finds_versions_without_a_message(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    store.append("c", texts(1, 2), owner="ann")
    for position in (1, 2, 3):
        stores.sql.version("c", position)
    (problem,) = store.verify()
    assert (problem.conversation_id, problem.position) == ("c", 3)
    assert "versions without a message" in problem.detail
    assert store.for_owner("ann").verify() == [problem]
    assert store.for_owner("bob").verify() == []


def test_deletions_at_once_lose_no_call_and_count_none_twice(ready_url: str) -> None:
    """Deletions from both ends and a purge, and one that looks, all the while."""
    sql = Direct(ready_url)
    names = [f"c{number:03}" for number in range(80)]
    with Store(ready_url, counter=Unit()) as store:
        for number, name in enumerate(names):
            store.append(name, texts(1), owner=("ann", "bob")[number % 2])
            for call in range(1, 5):
                sql.call(name, call, **BILL, **at(f"2026-01-0{call}"), model=f"'m{(call + number) % 3}'")
        before = answers(store)
        total = sum(line.calls for line in store.usage())

        def remove(order: list[str]) -> None:
            with Store(ready_url, counter=Unit()) as mine:
                for name in order:
                    try:
                        mine.delete(name)
                    except errors.ConversationNotFound:
                        continue

        def purge(_: object) -> None:
            with Store(ready_url, counter=Unit()) as mine:
                mine.purge(idle_for=timedelta(0))

        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(remove, order) for order in (names[:60], names[59::-1], names[20:])]
            waiting.append(pool.submit(purge, None))
            while not all(each.done() for each in waiting):
                assert sum(line.calls for line in store.usage(since=date(2026, 1, 1))) == total
            for each in waiting:
                each.result()
        assert store.conversations() == []
        assert answers(store) == before
        assert store.verify() == []
    sql.close()
