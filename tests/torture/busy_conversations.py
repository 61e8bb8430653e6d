"""Sixteen writers on one conversation and on fifty, and readers who must never see half of an append."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.torture.killed_writers import append, in_two_transactions
from tests.torture.support.ledger import Ledger, read_ledgers, settle
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.processes import at_once
from tokenmem import Message, Store

WRITERS = 16
READERS = 2


def run(case: Case) -> Outcome:
    """So many appends in all, on as many conversations as the mode says."""
    answers = at_once(WRITERS + READERS, work, case, patience=1000)
    with case.store() as store:
        paths = [ledger_of(case, number) for number in range(WRITERS)]
        found = settle(store, read_ledgers(paths))
    seen = [problem for problems, _ in answers for problem in problems]
    reads = sum(count for _, count in answers)
    return Outcome(
        operations=found.acknowledged + reads,
        acknowledged=found.acknowledged,
        lost=found.lost,
        doubled=found.doubled,
        problems=found.problems,
        figures={"reads beside them": reads},
        failures=(*found.failures, *seen[:5]),
    )


def ledger_of(case: Case, number: int) -> Path:
    return case.directory / f"{number}.ledger"


def work(number: int, case: Case) -> tuple[list[str], int]:
    """Write, or read for as long as others write."""
    with case.breaking(), case.store() as store:
        if number >= WRITERS:
            return read(store, case)
        random, ledger = Random(number), Ledger(ledger_of(case, number))
        conversations = 1 if case.mode == "one" else 50
        for turn in range(case.size // WRITERS):
            append(store, ledger, f"c{random.randrange(conversations)}", f"{number}-{turn}")
        ledger.close()
        ledger_of(case, number).with_suffix(".done").touch()
    return [], 0


def read(store: Store, case: Case) -> tuple[list[str], int]:
    """Newest pages, whole conversations and windows, each looked at."""
    problems: list[str] = []
    latest: dict[str, int] = {}
    count, random = 0, Random(0)
    while not all(ledger_of(case, number).with_suffix(".done").exists() for number in range(WRITERS)):
        name = f"c{0 if case.mode == 'one' else random.randrange(50)}"
        page = store.messages(name, limit=40, newest_first=True, missing="empty")[::-1]
        window = store.window(name, 300, start_on="message", missing="empty").messages
        conversation, whole = store.read(name, limit=30, missing="empty")
        for kind, messages in (("page", page), ("window", window), ("whole", whole)):
            problems += wrong(kind, messages, latest.get(name, 0))
            latest[name] = max(latest.get(name, 0), *(each.position for each in messages), 0)
        if conversation is not None and whole and whole[-1].position != conversation.last_position:
            problems.append("a conversation and its messages are of two moments")
        count += 3
        if len(problems) > 10:
            break
    return problems, count


def wrong(kind: str, messages: Sequence[Message], latest: int) -> list[str]:
    """What a reader must not see: gaps, half an append at the end, or less than before."""
    positions = [each.position for each in messages]
    found = []
    if positions and positions != list(range(positions[0], positions[-1] + 1)):
        found.append(f"{kind}: a gap in the positions")
    if positions and positions[-1] % 2:
        found.append(f"{kind}: half of an append")
    if (positions[-1] if positions else 0) < latest:
        found.append(f"{kind}: older than what the same reader saw before")
    return found


CLASS = FaultClass(
    name="busy_conversations",
    claim="Sixteen processes append pairs of messages to one conversation, or to fifty, while two read "
    "pages, windows and whole conversations all the time. Readers see contiguous suffixes alone, "
    "never half of an append, and never less than before; positions are dense, and nothing is lost.",
    counts="appends",
    run=run,
    cases=(("sqlite", "one"), ("sqlite", "fifty"), ("postgresql", "one"), ("postgresql", "fifty")),
    short=32,
    long=16_000,
    planted=(PlantedFault("an append in two transactions", in_two_transactions, "postgresql", "one", 320),),
)
