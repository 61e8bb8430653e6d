"""What stepped windows are for: a prompt begins with the whole prompt before it, so a provider's cache hits.

Made-up conversations; docs/prompt-cache.md tells what real logs gave.
"""

import json
import random
from bisect import bisect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tokenmem import Store, Window

LIMIT = 16_000
STRIDE = LIMIT // 8
STEPS = 120
# Tokens of messages in agents' logs: (share of the messages, size below it).
SIZES = ((0.0, 5), (0.1, 13), (0.25, 20), (0.5, 33), (0.75, 84), (0.9, 251), (0.99, 592), (1.0, 2_428))
WORDS = ("the", "of", "and", "to", "in", "is", "it", "you", "that", "was", "for", "on", "are", "with")


def text(source: random.Random) -> str:
    share = source.random()
    (low_share, low), (high_share, high) = SIZES[bisect(SIZES, (share,)) - 1 :][:2]
    size = low + (high - low) * (share - low_share) / (high_share - low_share)
    return " ".join(source.choices(WORDS, k=max(1, round(size) - 3)))


def step(source: random.Random, number: int) -> list[dict[str, Any]]:
    """A question and its answer, with up to three rounds of tools in between, some of them with two calls."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": text(source)}]
    for turn in range(source.choice([0, 0, 1, 1, 2, 3])):
        ids = [f"call_{number}_{turn}_{call}" for call in range(source.choice([1, 1, 1, 2]))]
        function = {"name": "look_up", "arguments": json.dumps({"words": text(source)[:60], "exact": True})}
        calls = [{"id": id_, "type": "function", "function": function} for id_ in ids]
        messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": id_, "content": text(source)} for id_ in ids]
    return [*messages, {"role": "assistant", "content": text(source)}]


def replay(store: Store, seed: int, *strides: int | None) -> Iterator[tuple[Window, ...]]:
    """The windows at each call that gives an assistant's message, once the conversation exceeds the limit."""
    source = random.Random(seed)
    new: list[dict[str, Any]] = []
    for number in range(STEPS):
        for message in step(source, number):
            if message["role"] == "assistant":
                if store.append("c1", new).total_tokens > LIMIT:
                    yield tuple(store.window("c1", LIMIT, stride=stride) for stride in strides)
                new = []
            new.append(message)


def share_repeated(windows: list[Window]) -> float:
    """Of the prompts' tokens, those of the messages with which the prompt before began too."""
    repeated = 0
    for before, after in pairwise(windows):
        for old, new in zip(before.messages, after.messages, strict=False):
            if old.to_openai() != new.to_openai():
                break
            repeated += new.token_count
    return repeated / sum(window.token_count for window in windows[1:])


@pytest.fixture
def ready_store(ready_url: str) -> Iterator[Store]:
    with Store(ready_url) as store:
        yield store


SEEDS = pytest.mark.parametrize(
    ("ready_url", "seed"), [("sqlite", 1), ("postgresql", 2)], indirect=["ready_url"]
)


@SEEDS
def test_prompts_begin_with_the_prompt_before(ready_store: Store, seed: int) -> None:
    windows = [window for (window,) in replay(ready_store, seed, STRIDE)]
    stays = 0
    for before, after in pairwise(windows):
        assert after.first_position >= before.first_position
        if after.first_position == before.first_position:
            stays += 1
            old, new = before.to_openai(), after.to_openai()
            assert new[: len(old)] == old
            # Not only equal: the same bytes, which is what a provider's cache compares.
            assert json.dumps(new).startswith(json.dumps(old).removesuffix("]") + ", ")
    assert stays / len(windows) >= 0.85


@SEEDS
def test_most_of_a_prompt_is_repeated_and_the_window_stays_full(ready_store: Store, seed: int) -> None:
    sliding, stepped = zip(*replay(ready_store, seed, None, STRIDE), strict=True)
    assert share_repeated(list(stepped)) >= 0.85
    assert sum(window.token_count for window in stepped) / len(stepped) >= 0.9 * LIMIT
    assert all(window.token_count <= LIMIT for window in stepped)
    assert share_repeated(list(sliding)) < 0.6  # what the steps are worth
