"""What the end of a call puts on record, with a reply, a part of one, or none."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.stores import Unit, engines_of, texts
from tokenmem import LLMCall, Message, Store
from tokenmem.database.statements import Scope
from tokenmem.operations import end_call, start_call
from tokenmem.operations.append import PendingAppend
from tokenmem.operations.end_call import EndedCall, Outcome
from tokenmem.operations.start_call import PendingCall

BEGUN: list[Any] = [None, [{"position": 2, "change": "left_out"}]]
ENDED: list[Any] = [
    None,
    [],
    [{"position": 1, "change": "perhaps_refused"}, {"position": 2, "change": "refused", "digest": "0f"}],
    [{"change": "too_long", "token_limit": 900}, {"position": 1, "change": "\u2028 'quoted' \"é\" 🙂"}],
]


@pytest.fixture
def store(ready_url: str) -> Iterator[Store]:
    with Store(ready_url, counter=Unit()) as opened:
        yield opened


def as_text(changes: Any) -> str | None:
    return None if changes is None else json.dumps(changes)


class Call:
    """A call that has begun, by the operations that a turn is made of."""

    def __init__(self, store: Store, begun_with: Any) -> None:
        self.store = store
        self.engine: sa.Engine = engines_of(store).writing
        self.scope = Scope(None if self.engine.dialect.name == "sqlite" else "tokenmem", None)
        store.append("c", texts(1, 2), idempotency_key="k")
        with self.engine.begin() as connection:
            started = start_call.start(
                connection,
                self.scope,
                PendingAppend("c", texts(3), [3], "unit", key="k2", digest="d"),
                PendingCall("m", 1, 3, 6, changes=as_text(begun_with), anyway=True),
                is_new=False,
            )
        assert started is not None
        self.started = started

    def end(self, outcome: Outcome, reply: list[Message], part_of: str | None = None) -> LLMCall:
        pending = PendingAppend("c", reply, [4] * len(reply), "unit", must_exist=True)
        with self.engine.begin() as connection:
            ended = end_call.end(connection, self.scope, self.started, pending, outcome, part_of)
        assert isinstance(ended, EndedCall)
        return ended.call


@pytest.mark.parametrize("reply", [0, 1, 2])
@pytest.mark.parametrize("ended", range(len(ENDED)))
@pytest.mark.parametrize("begun", range(len(BEGUN)))
def test_changes_at_the_end_stand_in_place_of_those_at_the_beginning(
    store: Store, begun: int, ended: int, reply: int
) -> None:
    call = Call(store, BEGUN[begun])
    assert store.calls("c")[0].changes == BEGUN[begun]
    outcome = Outcome("refused", "BadRequestError 400", latency_ms=5, changes=as_text(ENDED[ended]))
    messages = [Message.assistant("4 tokens")] * reply
    told = call.end(outcome, messages, part_of="k2" if reply else None)
    changed = BEGUN[begun] if ENDED[ended] is None else ENDED[ended]
    assert told.changes == (changed or None), "nothing is told as None"
    assert (told.status, told.error, told.latency_ms) == ("refused", "BadRequestError 400", 5)
    assert told.reply_position == (4 if reply else None)
    assert store.calls("c") == [told]
    assert store.verify() == []


def test_only_the_call_that_ends_is_changed(store: Store) -> None:
    other = [{"position": 1, "change": "accepted"}]
    store.append("c", texts(9))
    before = store.record_call("c", model="m", changes=other)
    store.append("d", texts(9))
    beside = store.record_call("d", model="m", changes=other)
    call = Call(store, None)
    behind = store.record_call("c", model="m", changes=other)
    told = call.end(Outcome("ok", changes=as_text(ENDED[2])), texts(4))
    assert store.calls("c") == [before, told, behind]
    assert store.calls("d") == [beside]
    assert replace(told, changes=None) != told


def test_who_comes_too_late_changes_nothing(store: Store) -> None:
    call = Call(store, BEGUN[1])
    told = call.end(Outcome("error"), [])
    for reply in ([], texts(4)):
        with pytest.raises(end_call.AlreadyEnded):
            call.end(Outcome("refused", changes=as_text(ENDED[2])), reply)
    assert store.calls("c") == [told]
