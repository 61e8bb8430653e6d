"""Five owners, and every method of a store called on each other's conversations, and on one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.conformance.test_owner import METHODS
from tests.support.stores import TABLES, Direct, texts
from tests.torture.support.outcome import SYNC_AND_ASYNC, Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import Store, errors
from tokenmem.database import statements

OWNERS = ("ann", "bob", "eve", "dan", "joe")


def run(case: Case) -> Outcome:
    """So many calls, each with a look at all that is not the caller's."""
    operations = acknowledged = refused = 0
    failures: list[str] = []
    sql = Direct(case.url)
    with case.store() as store:
        for owner in OWNERS:
            make(store, owner)
        with case.breaking():
            for method, acting, subject in calls(case):
                call, before = METHODS[method], all_but(sql, acting)
                operations += 1
                try:
                    call(store.for_owner(acting), f"{subject}s")
                except errors.ConversationNotFound:
                    refused += 1
                    if acting == subject:
                        failures.append(f"{method}: {acting} does not find her own conversation")
                except errors.TokenmemError:
                    acknowledged += 1
                    if acting != subject:
                        failures.append(f"{method}: {acting} learns of {subject}'s conversation")
                else:
                    acknowledged += 1
                    if acting != subject:
                        failures.append(f"{method}: {acting} reaches {subject}'s conversation")
                if all_but(sql, acting) != before:
                    failures.append(
                        f"{method}: by {acting} on {subject}'s, something of another's has changed"
                    )
                if acting == subject:
                    store.delete_owner(acting)
                    make(store, acting)
        problems = len(store.verify())
    sql.close()
    return Outcome(
        operations=operations,
        faults=refused,
        acknowledged=acknowledged,
        problems=problems,
        figures={"methods and their variants": len(METHODS)},
        failures=tuple(failures[:5]),
    )


def make(store: Store, owner: str) -> None:
    store.append(f"{owner}s", texts(1, 2), owner=owner, idempotency_key="k", title=f"{owner}'s own")


def calls(case: Case) -> Iterator[tuple[str, str, str]]:
    """Every method by some owner on some owner's conversation; on her own one time in five."""
    random, methods = case.random, list(METHODS)
    for number in range(case.size):
        acting, subject = random.choice(OWNERS), random.choice(OWNERS)
        method = methods[number % len(methods)]
        yield method, "ann" if method == "move" else acting, subject  # the table moves to ann


def all_but(sql: Direct, owner: str) -> str:
    """A digest of all rows that are not this owner's."""
    mine = f"SELECT id FROM {{conversations}} WHERE owner = '{owner}'"
    found: list[Any] = []
    for table in TABLES:
        key = "id" if table == "conversations" else "conversation_id"
        found.append(sql.rows(f"SELECT * FROM {{{table}}} WHERE {key} NOT IN ({mine}) ORDER BY 1, 2"))
    return hashlib.sha256(repr(found).encode()).hexdigest()


@contextmanager
def owner_not_asked_for() -> Iterator[None]:
    """Statements do not ask for the owner: what tests it is always true."""
    always = statements._SHARED | {"owned": "1 = 1"}
    with patched(statements, "_SHARED", always):
        statements.render.cache_clear()
        yield
    statements.render.cache_clear()


CLASS = FaultClass(
    name="isolation",
    claim="Stores of five owners call every method of a store, in all variants of the table that a test "
    "keeps complete, on conversations of each other and on their own. Another's conversation is not "
    "found, and after no call has a row of another's changed.",
    counts="calls",
    run=run,
    cases=SYNC_AND_ASYNC,
    short=40,
    long=1000,
    planted=(
        PlantedFault(
            "a statement that does not ask for the owner", owner_not_asked_for, "sqlite", "sync", 60, True
        ),
    ),
)
