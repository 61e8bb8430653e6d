"""What a turn's one read tells of earlier calls: those that providers have refused, or that tell of such."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.stores import Direct, Unit, engines_of, texts
from tokenmem import Store, errors
from tokenmem.database.driver_errors import translated_errors
from tokenmem.database.statements import Scope
from tokenmem.models import Appended
from tokenmem.operations import snapshot
from tokenmem.operations.snapshot import CallNote, Snapshot

STATUSES = ("ok", "error", "refused", "cancelled")
CHANGES: tuple[Any, ...] = (
    None,
    None,
    [],
    [{"position": 1, "change": "left_out"}, {"position": 2, "change": "moved"}],
    [{"position": 1, "change": "refused", "digest": "0f"}],
    [{"position": 1, "change": "left_out"}, {"position": 3, "change": "perhaps_refused"}],
    [{"position": 2, "change": "accepted"}],
    [{"change": "too_long", "token_limit": 900}],
    [{"position": 2, "change": "over_half"}],
    [{"position": 2, "change": "cut"}] * 300 + [{"position": 3, "change": "refused"}],  # stored out of line
)
WORDS = ("refused", "too_long", "accepted")


class Conversations:
    """Conversations with calls, read as a turn reads them."""

    def __init__(self, url: str) -> None:
        self.store = Store(url, counter=Unit())
        self.sql = Direct(url)
        self.is_postgresql = self.sql.engine.dialect.name == "postgresql"
        self.scope = Scope("tokenmem" if self.is_postgresql else None, None)

    def add(self, name: str, calls: list[dict[str, Any]], last_call: int) -> None:
        """A conversation of three messages, with these calls, and a key of the first message."""
        self.store.append(name, texts(1, 2, 3), idempotency_key="k")
        for call in calls:
            self.sql.run(
                "INSERT INTO {llm_calls}"
                " (conversation_id, number, model, status, reply_position, last_position, changes)"
                f" VALUES (:name, :number, :model, :status, :reply, :last, {self.json})",
                name=name,
                **call | {"changes": None if call["changes"] is None else json.dumps(call["changes"])},
            )
        self.sql.run(
            "UPDATE {conversations} SET last_call = :last WHERE id = :name", name=name, last=last_call
        )

    @property
    def json(self) -> str:
        return "CAST(CAST(:changes AS text) AS json)" if self.is_postgresql else ":changes"

    def take(
        self, name: str, key: str | None = None, stored: Appended | None = None, *, newest_reply: bool = False
    ) -> Snapshot:
        engine: sa.Engine = engines_of(self.store).reading
        with translated_errors(engine.url), engine.connect() as connection:
            found = snapshot.take(connection, self.scope, name, 100, key, stored, (), newest_reply)
        assert found is not None
        return found

    def takes(self, name: str, *, newest_reply: bool) -> list[Snapshot]:
        """In every way in which a turn may look at it."""
        ways: list[tuple[str | None, Appended | None]] = [
            *((None, None), ("k", None), ("other", None)),
            (None, Appended(3, 3, 3, 6)),
        ]
        return [self.take(name, *way, newest_reply=newest_reply) for way in ways]

    def close(self) -> None:
        self.store.close()
        self.sql.close()


@pytest.fixture
def conversations(ready_url: str) -> Iterator[Conversations]:
    opened = Conversations(ready_url)
    yield opened
    opened.close()


def call(number: int, status: str = "ok", changes: Any = None, **others: Any) -> dict[str, Any]:
    told = {"model": "m", "reply": None, "last": None} | others
    return {"number": number, "status": status, "changes": changes, **told}


def notes_of(calls: list[dict[str, Any]], last_call: int) -> tuple[CallNote, ...]:
    """What is expected, in plain words."""
    newest = sorted(calls, key=lambda each: each["number"])[-8:]
    return tuple(
        CallNote(each["number"], each["status"], each["model"], each["last"], each["changes"] or [])
        for each in newest
        if any(word in json.dumps(each["changes"]) for word in WORDS)
        or (each["status"] == "refused" and each["number"] == last_call)
    )


def drawn(dice: random.Random) -> tuple[list[dict[str, Any]], int]:
    """Calls, some of them purged, the newest perhaps too; and the highest number ever given."""
    count = dice.choice((0, 1, 2, 7, 8, 9, 20))
    numbers = sorted(dice.sample(range(1, count + 4), count))
    calls = [
        call(
            number,
            dice.choice(STATUSES),
            dice.choice(CHANGES),
            model=dice.choice(("gpt-4o", 'a "model"', "модель")),
            reply=dice.choice((None, 1, 2, 3)),
            last=dice.choice((None, 1, 2**40)),
        )
        for number in numbers
    ]
    dice.shuffle(calls)
    return calls, dice.choice((max(numbers, default=0), count + 4))


@pytest.mark.parametrize("seed", range(12))
def test_notes_are_those_of_the_eight_newest_calls_that_tell_of_refusals(
    conversations: Conversations, seed: int
) -> None:
    dice = random.Random(seed)
    plans = {f"c{number}": drawn(dice) for number in range(4)}
    for name, (calls, last_call) in plans.items():
        conversations.add(name, calls, last_call)
    for name, (calls, last_call) in plans.items():
        newest = sorted(calls, key=lambda each: each["number"])[-8:]
        reply = max((each["reply"] or 0 for each in newest), default=0)
        for newest_reply in (False, True):
            for found in conversations.takes(name, newest_reply=newest_reply):
                assert found.notes == notes_of(calls, last_call)
                assert found.last_call == last_call
                assert found.newest_reply == (reply if newest_reply else 0)


def test_a_refused_call_that_tells_nothing_is_a_note_while_it_is_the_newest(
    conversations: Conversations,
) -> None:
    conversations.add("c", [call(1, "refused")], 1)
    assert conversations.take("c").notes == (CallNote(1, "refused", "m", None, []),)
    conversations.store.record_call("c", model="m")
    assert conversations.take("c").notes == ()


def test_a_conversation_without_calls_has_none(conversations: Conversations) -> None:
    conversations.add("c", [], 0)
    conversations.add("beside", [call(1, "refused", [{"position": 1, "change": "refused"}])], 1)
    assert [found.notes for found in conversations.takes("c", newest_reply=True)] == [()] * 4


SECRET = "marker-7f3a9"
DAMAGED_ON_BOTH = ['{{"refused"\\: 1}}', '"refused"', "5"]
DAMAGED_ON_SQLITE = [SECRET, f"refused {SECRET}", "[" * 100_000 + "refused", '[{{"refused"']


@pytest.mark.parametrize("status", ["ok", "refused"])
def test_damaged_changes_are_an_error_of_ours_or_no_note(conversations: Conversations, status: str) -> None:
    """Which rows are looked at does not depend on what stands in them being JSON."""
    values = DAMAGED_ON_BOTH + ([] if conversations.is_postgresql else DAMAGED_ON_SQLITE)
    conversations.add("c", [call(1, status)], 1)
    for value in values:
        conversations.sql.run(f"UPDATE {{llm_calls}} SET changes = '{value}'")
        if "refused" not in value + status:
            assert conversations.take("c").notes == ()
            continue
        with pytest.raises(
            errors.DatabaseError, match="'c', call 1: the column changes is damaged"
        ) as raised:
            conversations.take("c")
        assert SECRET not in repr(raised.value)
        assert raised.value.__cause__ is None
        if len(value) < 1000:  # SQLite takes what nests so deep for no JSON either, but slowly
            assert any("changes" in problem.detail for problem in conversations.store.verify())


NO_JSON = "JSON cannot hold BLOB values; run `tokenmem verify`"


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("changes", f"CAST('{SECRET} refused' AS blob)", "the column changes is damaged"),
        ("changes", "x'ff'", "Could not decode"),
        ("changes", "1.5", "the column changes is damaged"),
        ("status", f"CAST('{SECRET}' AS blob)", NO_JSON),
        ("model", f"CAST('{SECRET}' AS blob)", NO_JSON),
        ("last_position", "x'ff'", NO_JSON),
        ("last_position", "1.5", "the column last_position is damaged"),
        ("last_position", f"'{SECRET}'", "the column last_position is damaged"),
        ("number", f"'{SECRET}'", "a call: the column number is damaged"),
    ],
)
def test_what_only_sqlites_columns_take(sqlite_url: str, column: str, value: str, told: str) -> None:
    conversations = Conversations(sqlite_url)
    conversations.store.upgrade()
    conversations.add("c", [call(1, "refused", CHANGES[4])], 1)
    conversations.sql.run(f"UPDATE {{llm_calls}} SET {column} = {value}")
    with pytest.raises(errors.DatabaseError, match=told) as raised:
        conversations.take("c")
    assert SECRET not in repr(raised.value)
    assert not isinstance(raised.value, errors.DatabaseUnavailable)
    conversations.close()


def test_what_is_no_change_is_no_part_of_a_note(conversations: Conversations) -> None:
    conversations.add("c", [call(1, "ok", [1, "refused", None, {"position": 1, "change": "refused"}])], 1)
    (note,) = conversations.take("c").notes
    assert note.changes == [{"position": 1, "change": "refused"}]
