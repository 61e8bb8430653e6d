"""Real processes on one database: order, all or nothing, once only; and stores that survive a fork."""

import os
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from typing import Any

import pytest

from tests.support.postgres import PostgresServer
from tests.support.processes import NEW
from tests.support.stores import Direct
from tokenmem import Message, Store, errors
from tokenmem.database import migrate

EXCHANGES = int(os.environ.get("TOKENMEM_TEST_EXCHANGES", "12"))  # 200 is what the project promises
PROCESSES = int(os.environ.get("TOKENMEM_TEST_PROCESSES", "4"))  # 8 likewise


class Words:
    """A counter that every process has at once: loading an encoding takes longer than these tests."""

    name = "words"

    def count(self, message: Message) -> int:
        return len(str(message.content).split())


def opened(url: str) -> Store:
    return Store(url, counter=Words())


def exchange(number: int, turn: int) -> list[Message]:
    return [Message.user(f"{number}/{turn} asks"), Message.assistant(f"{number}/{turn} answers")]


def in_processes(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(number, barrier, *arguments)` returns in each of several new processes."""
    results: Any = NEW.Queue()
    barrier = NEW.Barrier(count)
    processes = [
        NEW.Process(target=_run, args=(results, work, number, barrier, *arguments)) for number in range(count)
    ]
    for process in processes:
        process.start()
    answers = [results.get(timeout=240) for _ in processes]
    for process in processes:
        process.join()
    results.close()
    results.join_thread()
    failures = [answer for _, failed, answer in answers if failed]
    assert not failures, failures[0]
    return [answer for _, _, answer in sorted(answers, key=lambda each: each[0])]


def _run(results: Any, work: Callable[..., Any], number: int, barrier: Barrier, *arguments: Any) -> None:
    try:
        results.put((number, False, work(number, barrier, *arguments)))
    except BaseException:
        results.put((number, True, traceback.format_exc()))


def check_exchanges(url: str, expected: set[str]) -> None:
    """Dense positions, no exchange split, each there once, and the books in order."""
    with opened(url) as store:
        messages = store.messages("c1", limit=None)
        assert [message.position for message in messages] == list(range(1, len(messages) + 1))
        pairs = list(zip(messages[::2], messages[1::2], strict=True))
        said = [str(question.content).removesuffix(" asks") for question, _ in pairs]
        assert said == [str(answer.content).removesuffix(" answers") for _, answer in pairs]
        assert len(said) == len(set(said))
        assert set(said) == expected
        assert store.conversation("c1").last_position == len(messages)
        assert store.verify() == []


def everything() -> set[str]:
    return {f"{number}/{turn}" for number in range(PROCESSES) for turn in range(EXCHANGES)}


def append_exchanges(number: int, barrier: Barrier, url: str) -> list[int]:
    with opened(url) as store:
        barrier.wait()
        return [store.append("c1", exchange(number, turn)).first_position for turn in range(EXCHANGES)]


def test_processes_append_to_one_conversation(ready_url: str) -> None:
    found = in_processes(PROCESSES, append_exchanges, ready_url)
    assert all(positions == sorted(positions) for positions in found)
    assert sorted(position for positions in found for position in positions) == list(
        range(1, 2 * PROCESSES * EXCHANGES, 2)
    )
    check_exchanges(ready_url, everything())


def append_twice(number: int, barrier: Barrier, url: str) -> list[tuple[int, bool]]:
    """Every append is sent by two processes at the same time."""
    with opened(url) as store:
        found = []
        for turn in range(EXCHANGES):
            barrier.wait()
            pair = number // 2
            appended = store.append("c1", exchange(pair, turn), idempotency_key=f"{pair}/{turn}")
            found.append((appended.first_position, appended.replayed))
        return found


def test_what_two_processes_send_at_once_is_stored_once(ready_url: str) -> None:
    found = in_processes(2 * PROCESSES, append_twice, ready_url)
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert [position for position, _ in first] == [position for position, _ in second]
        assert all(one != other for (_, one), (_, other) in zip(first, second, strict=True))
    check_exchanges(ready_url, everything())


def append_expecting(number: int, barrier: Barrier, url: str) -> int:
    """How often this process won the race to the next position."""
    won = 0
    with opened(url) as store:
        for turn in range(EXCHANGES):
            barrier.wait()
            try:
                store.append("c1", exchange(number, turn), expected_position=2 * turn)
                won += 1
            except errors.PositionConflict as conflict:
                if conflict.last_position != 2 * turn + 2:
                    raise
    return won


def test_of_those_who_expect_the_same_position_one_wins(ready_url: str) -> None:
    assert sum(in_processes(PROCESSES, append_expecting, ready_url)) == EXCHANGES
    with opened(ready_url) as store:
        turns = [str(m.content).split()[0].split("/")[1] for m in store.messages("c1", limit=None)]
        assert turns == [str(turn) for turn in range(EXCHANGES) for _ in range(2)]
        assert store.verify() == []


def upgrade(number: int, barrier: Barrier, url: str) -> int:
    with opened(url) as store:
        barrier.wait()
        store.upgrade()
        store.append(f"c{number}", exchange(number, 0))
        return len(store.messages(f"c{number}"))


def test_processes_migrate_an_empty_database_at_once(database_url: str) -> None:
    assert in_processes(4, upgrade, database_url) == [2] * 4
    with opened(database_url) as store:
        assert len(store.conversations()) == 4
        assert store.verify() == []


def change_everything(number: int, barrier: Barrier, url: str) -> None:
    with Store(url) as store:
        barrier.wait()
        for turn in range(EXCHANGES):
            last = store.append("c1", exchange(number, turn)).last_position
            store.edit("c1", last, Message.assistant(f"{number}/{turn} answers at length " * number))
            if turn % 5 == number:
                store.recount("c1", ("o200k_base", "cl100k_base")[turn % 2])
            if turn % 4 == 0:
                store.fork("c1", f"{number}/{turn}")
            if turn % 3 == 0:
                store.delete_message("c1", last)


def test_processes_append_edit_delete_fork_and_recount_at_once(ready_url: str) -> None:
    in_processes(3, change_everything, ready_url)
    with opened(ready_url) as store:
        conversation = store.conversation("c1")
        deleted = len(range(0, EXCHANGES, 3)) * 3
        assert conversation.last_position == 2 * 3 * EXCHANGES
        assert conversation.message_count == 2 * 3 * EXCHANGES - deleted
        assert store.verify() == []


def fork_and_work(number: int, barrier: Barrier, url: str) -> tuple[int, int]:
    """Use a store, fork, and use it in the parent and in the child at the same time."""
    store = opened(url)
    store.append("parent", exchange(0, 0))
    mine = connection_of(store)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            for turn in range(20):
                store.append("child", exchange(1, turn))
                assert len(store.messages("child")) == 2 * turn + 2
                assert store.conversation("parent").last_position >= 2
            os.write(writer, str(connection_of(store)).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    for turn in range(1, 20):
        store.append("parent", exchange(0, turn))
        assert len(store.messages("parent")) == 2 * turn + 2
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        theirs = int(pipe.read())  # nothing was written where the child has failed
    store.close()
    return mine, theirs


@pytest.mark.direct
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_store_survives_a_fork(ready_url: str) -> None:
    # In a new process: forking one with threads, as a test worker has, is not what is tested here.
    ((parent, child),) = in_processes(1, fork_and_work, ready_url)
    assert parent != child or ready_url.startswith("sqlite")
    with opened(ready_url) as store:
        assert [str(m.content)[:2] for m in store.messages("parent")] == ["0/"] * 40
        assert [str(m.content)[:2] for m in store.messages("child")] == ["1/"] * 40
        assert store.verify() == []


def connection_of(store: Store) -> int:
    """Which of the server's processes serves the store; 0 for SQLite."""
    engine = store._connections.engines.reading
    if engine.dialect.name == "sqlite":
        return 0
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def test_a_conversation_that_goes_away_does_not_stop_a_purge(postgres_server: PostgresServer) -> None:
    """Another process deletes it between the purge's list and its lock."""
    with postgres_server.database() as url, opened(url) as store, ThreadPoolExecutor(1) as pool:
        store.upgrade()
        for name in ("a", "b", "c"):
            store.append(name, exchange(0, 0), owner="ann")
        sql = Direct(url)
        sql.age(3)
        sql.age(3, table="conversations")
        for operation in (
            lambda: store.purge(older_than=timedelta(days=1)).conversations,
            lambda: store.delete_owner("ann"),
        ):
            with sql.engine.connect() as other:
                store.bind(other).delete("b")
                waiting = pool.submit(operation)
                wait_until_blocked(sql)
                other.commit()
            assert waiting.result() == 2
            for name in ("a", "b", "c"):
                store.append(name, exchange(0, 0), owner="ann")
        sql.close()


def test_delete_owner_spares_what_another_owner_made_meanwhile(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url, opened(url) as store, ThreadPoolExecutor(1) as pool:
        store.upgrade()
        for name in ("a", "b"):
            store.append(name, exchange(0, 0), owner="ann")
        sql = Direct(url)
        with sql.engine.connect() as other:
            store.bind(other).update("a", title="locked")
            waiting = pool.submit(store.delete_owner, "ann")
            wait_until_blocked(sql)
            store.delete("b")
            store.append("b", exchange(1, 1), owner="bob")
            other.commit()
        assert waiting.result() == 1
        assert store.for_owner("bob").conversation("b").message_count == 2
        sql.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_forked_during_a_migration_can_migrate() -> None:
    with migrate._alone():
        child = os.fork()
        if not child:
            os._exit(0 if migrate._alembic.acquire(blocking=False) else 1)
        assert os.waitpid(child, 0)[1] == 0


def wait_until_blocked(sql: Direct) -> None:
    """Until some connection waits for a lock of another's."""
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(100_000):
        if sql.value(query):
            return
    raise AssertionError("nobody waits")
