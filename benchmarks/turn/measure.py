"""What Chat takes around a model that answers at once, over the store's own operations that a turn needs.

The same turn twice: `chat.send` with a function as the model, and by hand `append`, `window`, `append`, which
leaves no record of the call.
"""

from __future__ import annotations

from typing import Any

from benchmarks.support.databases import Database, Workshop
from benchmarks.support.results import Results
from benchmarks.support.timing import Effort, Subject, compare
from tokenmem import AsyncChat, AsyncStore, Chat, Store

ANSWER = "The night train leaves at 21:58, from platform 4. " * 5
QUESTION = "When does the night train leave? " * 8
LIMIT = 4_000  # tokens: about 65 messages
MESSAGES = 200  # before the first turn
OVER = {"Chat": "Store", "AsyncChat": "AsyncStore"}


async def run(workshop: Workshop, results: Results, *, effort: Effort) -> None:
    """Sync and async; with the disk's wait for a commit, and on PostgreSQL without it."""
    for name in ("durable", "quick") if workshop.engine == "postgresql" else ("durable",):
        results.progress(f"measuring a turn of Chat, {name}")
        with workshop.database() as database:
            if name == "quick":
                database.forget_commits()
            measured = await _measure(database, effort)
        results.record("chat", name, measured)
        shown = ", ".join(f"{what} {ratio:.2f}" for what, ratio in measured["ratios"].items())
        results.progress(f"a turn over append, window, append, {name}: {shown}")


async def _measure(database: Database, effort: Effort) -> dict[str, Any]:
    with Store(database.url) as store:
        store.upgrade()
        for name in ("chat", "hand", "async chat", "async hand"):
            store.append(name, [{"role": "user", "content": QUESTION}] * MESSAGES)
        async with AsyncStore(database.url) as async_store:
            times = await compare(_subjects(store, async_store), effort)
    ratios = {chat: times[chat]["seconds"] / times[by_hand]["seconds"] for chat, by_hand in OVER.items()}
    return {"times": times, "ratios": ratios}


def _subjects(store: Store, async_store: AsyncStore) -> list[Subject]:
    def model(_: list[Any]) -> str:
        return ANSWER

    async def async_model(_: list[Any]) -> str:
        return ANSWER

    chat = Chat(store, model, "gpt-4o", LIMIT)
    async_chat = AsyncChat(async_store, async_model, "gpt-4o", LIMIT)
    question = {"role": "user", "content": QUESTION}
    answer = {"role": "assistant", "content": ANSWER}

    def by_hand() -> None:
        store.append("hand", [question])
        store.window("hand", LIMIT, stride=LIMIT // 8).to_openai()
        store.append("hand", [answer])

    async def by_hand_async() -> None:
        await async_store.append("async hand", [question])
        (await async_store.window("async hand", LIMIT, stride=LIMIT // 8)).to_openai()
        await async_store.append("async hand", [answer])

    return [
        Subject("Chat", lambda: chat.send("chat", QUESTION)),
        Subject("Store", by_hand),
        Subject("AsyncChat", lambda: async_chat.send("async chat", QUESTION), asynchronous=True),
        Subject("AsyncStore", by_hand_async, asynchronous=True),
    ]
