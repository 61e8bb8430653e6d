"""Real processes that change what others append to: merges, archives, moves, pops and replaces."""

import os
from multiprocessing.synchronize import Barrier

from tests.conformance.test_concurrency import in_processes, opened
from tokenmem import Message, errors

PROCESSES = int(os.environ.get("TOKENMEM_TEST_PROCESSES", "4"))  # 8 is what the project promises
KEYS = int(os.environ.get("TOKENMEM_TEST_KEYS", "15"))  # of each process; 125 likewise: 1,000 in all


def work_and_merge(number: int, barrier: Barrier, url: str) -> dict[str, int]:
    """Each turn merges keys in three ways beside appends, and archives, moves, pops and replaces."""
    done = {"appended": 0, "popped": 0}
    with opened(url) as store:
        barrier.wait(60)
        for turn in range(KEYS):
            name = f"{number}/{turn}"
            store.append("busy", [Message.user(f"says {name}")], merge_metadata={f"append {name}": turn})
            store.update("busy", metadata={f"update {name}": turn}, merge=True)
            store.update_message("busy", 1, metadata={name: turn}, merge=True)
            (store.archive if turn % 2 else store.restore)("busy")
            store.move("busy", owner=f"owner {number}")
            store.append("popped", [Message.user(f"pops {name}")])
            done["appended"] += 1
            try:
                store.pop("popped")
                done["popped"] += 1
            except errors.MessageNotFound:
                pass
            store.replace("replaced", [Message.user(f"first {name}"), Message.assistant(f"second {name}")])
            store.append("replaced", [Message.user(f"behind {name}")])
    return done


def test_changes_beside_appends_lose_nothing(ready_url: str) -> None:
    with opened(ready_url) as store:
        store.upgrade()
        for conversation_id in ("busy", "popped", "replaced"):
            store.create(conversation_id)
        store.append("busy", [Message.system("first")])
    done = in_processes(PROCESSES, work_and_merge, ready_url)
    names = {f"{number}/{turn}" for number in range(PROCESSES) for turn in range(KEYS)}
    with opened(ready_url) as store:
        busy, messages = store.read("busy")
        assert busy.metadata.keys() == {f"{way} {name}" for way in ("append", "update") for name in names}
        assert store.message("busy", 1).metadata == {name: int(name.partition("/")[2]) for name in names}, (
            "no rating is lost"
        )
        assert [message.position for message in messages] == list(range(1, len(names) + 2))
        assert {message.content for message in messages[1:]} == {f"says {name}" for name in names}
        assert busy.owner in {f"owner {number}" for number in range(PROCESSES)}
        popped = store.conversation("popped")
        assert popped.last_position == sum(each["appended"] for each in done)
        assert popped.message_count == popped.last_position - sum(each["popped"] for each in done)
        first, second, *behind = store.messages("replaced", limit=None)
        assert str(first.content).removeprefix("first ") == str(second.content).removeprefix("second ")
        assert all(str(message.content).startswith("behind ") for message in behind)
        assert store.conversation("replaced").last_position == 3 * len(names)
        assert store.verify() == []


def pop_all(number: int, barrier: Barrier, url: str) -> list[int]:
    popped = []
    with opened(url) as store:
        barrier.wait(60)
        while True:
            try:
                popped.append(store.pop("c1").position)
            except errors.MessageNotFound:
                return popped


def test_each_message_is_popped_once(ready_url: str) -> None:
    with opened(ready_url) as store:
        store.upgrade()
        store.append("c1", [Message.user(f"{number} says") for number in range(100)])
    popped = in_processes(PROCESSES, pop_all, ready_url)
    assert sorted(position for each in popped for position in each) == list(range(1, 101))
    with opened(ready_url) as store:
        assert store.verify() == []
