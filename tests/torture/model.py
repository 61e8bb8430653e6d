"""Every public operation, in any order that Hypothesis thinks of, beside conversations as plain lists."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.torture.support.conversation_rules import ConversationRules
from tests.torture.support.message_rules import MessageRules
from tests.torture.support.outcome import EACH_ENGINE, Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import Store
from tokenmem.operations import removal

STEPS = 50
"""Of one example, at most."""


def run(case: Case) -> Outcome:
    """Some steps, in examples that each begin without conversations."""
    numbers, failures = itertools.count(), []
    with case.breaking(), case.store() as store:

        class Machine(MessageRules, ConversationRules):
            def __init__(self) -> None:
                super().__init__(store, f"e{next(numbers)}")

        Machine.steps = Machine.problems = 0
        while Machine.steps < case.size and not failures:
            try:
                run_state_machine_as_test(Machine, settings=of_size(case, Machine.steps))
            except (Exception, pytest.fail.Exception):
                failures.append(traceback.format_exc(limit=-3))
    return Outcome(
        operations=Machine.steps,
        problems=Machine.problems,
        figures={"examples": next(numbers)},
        failures=tuple(failures),
    )


def of_size(case: Case, done: int) -> Any:
    """How many examples it may take; what is found is told as it is, not made small."""
    return settings(
        max_examples=max(2, (case.size - done) // STEPS),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


@contextmanager
def totals_not_closed_up() -> Iterator[None]:
    """A message that is removed leaves the running totals behind it as they are."""
    with patched(removal, "shift_behind", lambda *_, **__: None):
        yield


@contextmanager
def pins_forgotten() -> Iterator[None]:
    """An edit without `pinned` unpins."""
    whole = Store.edit

    def unpinning(store: Store, *arguments: Any, pinned: bool | None = None) -> Any:
        return whole(store, *arguments, pinned=bool(pinned))

    with patched(Store, "edit", unpinning):
        yield


CLASS = FaultClass(
    name="model",
    claim="Hypothesis calls every public operation of a store in random orders, valid and not, and compares "
    "what they return and what is stored with conversations that are plain Python lists.",
    counts="steps",
    run=run,
    cases=EACH_ENGINE,
    short=100,
    long=50_000,
    planted=(
        PlantedFault("totals not closed up after a removal", totals_not_closed_up, "sqlite", "sync", 8000),
        PlantedFault("edits that unpin", pins_forgotten, "sqlite", "sync", 2000),
    ),
    seconds=2400,
)
