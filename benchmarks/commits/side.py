"""One of the two sides: a program that does what it is told, a line of JSON an order, and answers likewise.

The commit on the other side may have its modules elsewhere. So this takes only the public API of the tokenmem
on its path, and nothing of `benchmarks`, which would be that commit's own.
"""

import gc
import itertools
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tokenmem
from tokenmem import Store

MESSAGES = 10_000
"""In the conversation whose windows are loaded."""

OTHERS, OTHERS_MESSAGES = 100, 50
BATCH = 500
LIMIT, LONG_LIMIT = 4_000, 128_000
CHAT_MESSAGES = 200
"""Before the first turn: the window is full from then on."""


def fill(store: Store, messages: list[dict[str, str]]) -> None:
    """Conversations to load, to append to and to chat in, among others."""
    lengths = {"read": MESSAGES, "chat": CHAT_MESSAGES, "appended": BATCH, "keyed": BATCH}
    lengths |= {f"other {number}": OTHERS_MESSAGES for number in range(OTHERS)}
    for id_, length in lengths.items():
        for first in range(0, length, BATCH):
            store.append(id_, messages[: min(BATCH, length - first)])


def works_on(store: Store, messages: list[dict[str, str]]) -> dict[str, Callable[[], Any]]:
    """What is timed, by the name that `benchmarks.commits` has for it."""
    numbers = itertools.count()

    def exchange() -> list[dict[str, str]]:
        first = 2 * next(numbers) % len(messages)
        return messages[first : first + 2]

    question, answer = (message["content"] for message in messages[:2])

    @cache
    def chat() -> Any:
        from tokenmem import Chat  # which old commits do not have

        return Chat(store, lambda _: answer, "gpt-4o", LIMIT)

    return {
        "window": lambda: store.window("read", LIMIT).to_openai(),
        "long window": lambda: store.window("read", LONG_LIMIT).to_openai(),
        "append": lambda: store.append("appended", exchange()),
        "keyed append": lambda: store.append("keyed", exchange(), idempotency_key=f"key {next(numbers)}"),
        "turn": lambda: chat().send("chat", question),
    }


def seconds_of(work: Callable[[], Any], times: int) -> list[float]:
    """How long each of so many runs takes; garbage is collected before, not meanwhile."""
    gc.collect()
    gc.disable()
    try:
        found = []
        for _ in range(times):
            started = time.perf_counter()
            result = work()
            found.append(time.perf_counter() - started)
            del result
        return found
    finally:
        gc.enable()


def main() -> None:
    first = json.loads(sys.stdin.readline())
    with Store(first["url"]) as store:
        store.upgrade()
        fill(store, first["messages"])
        works = works_on(store, first["messages"])
        gc.freeze()
        print(json.dumps({"package": str(Path(tokenmem.__file__).parent)}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer: dict[str, Any] = {"seconds": seconds_of(works[order["work"]], order["times"])}
            except Exception as error:  # what a commit cannot do stands in the table
                answer = {"failed": f"{type(error).__name__}: {str(error)[:80]}"}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
