"""The cost of one window at 100 and at 1,000,000 messages: the same limit, one run, both engines.

    python -m benchmarks.window_length                     # SQLite in a temporary file
    python -m tests.postgres python -m benchmarks.window_length   # PostgreSQL on a server of the run's own

Prints a row an engine: median times in milliseconds, their spread, and the ratio. The measurements are
interleaved: short, long, short, long, so that a noisy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

from tokenmem import Store

TOKENS = 62  # about 250 characters of English text
CONTENT = "It was a bright cold day, and the clocks were set. " * 5
OTHERS = 1_000


def fill(store: Store, conversation_id: str, messages: int) -> None:
    """Rows made by the database itself: what is measured is the window, not the import."""
    store.append(conversation_id, [{"role": "user", "content": CONTENT}])
    postgresql = store.engine.dialect.name == "postgresql"
    schema = "tokenmem." if postgresql else ""
    recursive = f"VALUES (2) UNION ALL SELECT n + 1 FROM s WHERE n < {messages}"
    series = (
        f"generate_series(2, {messages}) AS s(n)"
        if postgresql
        else f"(WITH RECURSIVE s(n) AS ({recursive}) SELECT n FROM s)"
    )
    statements = [
        f"""INSERT INTO {schema}messages
            (conversation_id, position, role, kind, content, token_count, tokens_before)
        SELECT :id, n, CASE n % 2 WHEN 1 THEN 'user' ELSE 'assistant' END, 'message', :content,
            {TOKENS}, (n - 1) * {TOKENS} FROM {series}""",
        f"UPDATE {schema}messages SET token_count = {TOKENS} WHERE conversation_id = :id AND position = 1",
        f"""UPDATE {schema}conversations SET last_position = :count, message_count = :count,
            total_tokens = :count * {TOKENS} WHERE id = :id""",
    ]
    parameters = {"id": conversation_id, "content": CONTENT, "count": messages}
    with store.engine.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement), parameters)


def measure(store: Store, conversation_id: str, token_limit: int) -> float:
    started = time.perf_counter()
    store.window(conversation_id, token_limit)
    return (time.perf_counter() - started) * 1000


def compare(store: Store, token_limit: int, repetitions: int, short: int, long: int) -> str:
    times: dict[int, list[float]] = {short: [], long: []}
    for round_number in range(repetitions + 50):
        for length in (short, long):
            taken = measure(store, f"messages-{length}", token_limit)
            if round_number >= 50:
                times[length].append(taken)
    medians = {length: statistics.median(taken) for length, taken in times.items()}
    spread = {length: statistics.quantiles(taken, n=10) for length, taken in times.items()}
    cells = [
        f"{medians[length]:.3f} ms (10 % to 90 %: {spread[length][0]:.3f} to {spread[length][-1]:.3f})"
        for length in (short, long)
    ]
    ratio = medians[long] / medians[short]
    return f"| {store.engine.dialect.name} | {token_limit} | {cells[0]} | {cells[1]} | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--short", type=int, default=100)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--token-limit", type=int, default=4000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        url = os.environ.get("TOKENMEM_URL") or f"sqlite:///{Path(directory) / 'benchmark.db'}"
        with Store(url) as store:
            store.upgrade()
            for length in (arguments.short, arguments.long):
                fill(store, f"messages-{length}", length)
            for other in range(OTHERS):
                fill(store, f"other-{other}", 50)
            lengths = arguments.short, arguments.long
            print(f"| engine | token limit | {lengths[0]:,} messages | {lengths[1]:,} messages | ratio |")
            print("|---|---|---|---|---|")
            print(compare(store, arguments.token_limit, arguments.repetitions, *lengths))


if __name__ == "__main__":
    main()
