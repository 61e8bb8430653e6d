"""The rules of the model test that store, change and read messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.support.reference import Reference
from tests.torture.support.machine import (
    METADATA,
    PLACES,
    POSITIONS,
    REAL,
    SLOTS,
    UNIT,
    BaseMachine,
    shown,
    some_message,
    some_messages,
)
from tests.torture.support.plain import PlainConversation
from tokenmem import Message, Store, errors


def request_of(messages: Sequence[Message]) -> list[Message]:
    """What of messages an idempotency key stands for: all but their metadata (docs/guide.md)."""
    return [replace(message, metadata=None) for message in messages]


class MessageRules(BaseMachine):
    """What is done with the messages of a conversation."""

    @rule(
        slot=SLOTS,
        messages=some_messages(),
        key=st.sampled_from([None, None, "k1", "k2"]),
        wrong=st.booleans(),
    )
    def append(self, slot: int, messages: list[Message], key: str | None, wrong: bool) -> None:
        type(self).steps += 1
        name = self.name(slot)
        plain = self.all.get(name) or PlainConversation(UNIT)
        known = plain.keys.get(key or "")
        options: dict[str, Any] = {"idempotency_key": key}
        if known and request_of(known[2]) != request_of(messages):
            call = lambda: self.store.append(name, messages, **options)  # noqa: E731
            self.refused(errors.IdempotencyConflict, call, slot)
            return
        if not known:
            options["expected_position"] = plain.last_position + wrong
            if wrong:
                call = lambda: self.store.append(name, messages, **options)  # noqa: E731
                self.refused(
                    errors.PositionConflict if name in self.all else errors.TokenmemError, call, slot
                )
                return
        self.all[name] = plain
        places = plain.append(messages, key)
        stored = self.store.append(name, messages, **options)
        assert (stored.first_position, stored.last_position, stored.replayed) == (*places, known is not None)
        self.check(slot)

    @rule(slot=SLOTS, messages=some_messages(), after=st.integers(0, 8))
    def replace(self, slot: int, messages: list[Message], after: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        call = lambda: self.store.replace(self.name(slot), messages, after=after)  # noqa: E731
        if after > plain.last_position:
            self.refused(errors.InvalidArgument, call, slot)
            return
        call()
        plain.remove(after)
        plain.append(messages)
        self.check(slot)

    @rule(
        slot=SLOTS,
        place=PLACES,
        message=some_message(),
        pinned=st.sampled_from([None, None, True, False]),
    )
    def edit(self, slot: int, place: int, message: Message, pinned: bool | None) -> None:
        if (plain := self.known(slot)) is None:
            return
        position = self.position(slot, place)
        call = lambda: self.store.edit(self.name(slot), position, message, pinned=pinned)  # noqa: E731
        kept = plain.find(position)
        if kept is None:
            self.refused(errors.MessageNotFound, call, slot)
            return
        will_be = (kept.message.pinned or message.pinned) if pinned is None else pinned
        if will_be and message.kind != "message":
            self.refused(errors.InvalidMessage, call, slot)
            return
        call()
        plain.edit(position, message, will_be)
        self.check(slot)
        if kept.before is not None:
            versions = self.store.versions(self.name(slot), position)
            assert [each.messages[0].content for each in versions] == kept.before

    @rule(slot=SLOTS, place=PLACES, metadata=METADATA, merge=st.booleans())
    def update_message(self, slot: int, place: int, metadata: dict[str, Any], merge: bool) -> None:
        if (plain := self.known(slot)) is None:
            return
        position = self.position(slot, place)
        call = lambda: self.store.update_message(  # noqa: E731
            self.name(slot), position, metadata=metadata, merge=merge
        )
        if (kept := plain.find(position)) is None:
            self.refused(errors.MessageNotFound, call, slot)
            return
        call()
        plain.set_metadata(kept, metadata, merge)
        self.check(slot)

    @rule(slot=SLOTS, place=PLACES)
    def delete_message(self, slot: int, place: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        position = self.position(slot, place)
        call = lambda: self.store.delete_message(self.name(slot), position)  # noqa: E731
        if plain.find(position) is None:
            self.refused(errors.MessageNotFound, call, slot)
            return
        call()
        plain.remove(position - 1, position + 1)
        self.check(slot)

    @rule(
        slot=SLOTS,
        after=st.integers(0, 12),
        before=st.none() | POSITIONS,
        limit=st.none() | st.integers(0, 4),
    )
    def delete_messages(self, slot: int, after: int, before: int | None, limit: int | None) -> None:
        if (plain := self.known(slot)) is None:
            return
        gone = self.store.delete_messages(self.name(slot), after=after, before=before, limit=limit)
        assert list(map(shown, gone)) == list(map(shown, plain.remove(after, before, limit)))
        self.check(slot)

    @rule(slot=SLOTS, after=st.integers(0, 12))
    def truncate(self, slot: int, after: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        assert self.store.truncate(self.name(slot), after=after) == len(plain.remove(after))
        self.check(slot)

    @rule(slot=SLOTS)
    def pop(self, slot: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        if not plain.kept:
            self.refused(errors.MessageNotFound, lambda: self.store.pop(self.name(slot)), slot)
            return
        gone = plain.remove(plain.kept[-1].position - 1)
        assert shown(self.store.pop(self.name(slot))) == shown(gone[0])
        self.check(slot)

    @rule(slot=SLOTS, counter=st.sampled_from([UNIT, REAL]))
    def recount(self, slot: int, counter: Any) -> None:
        if (plain := self.known(slot)) is None:
            return
        self.store.recount(self.name(slot), counter)
        plain.recount(counter)
        self.check(slot)

    @rule(slot=SLOTS, messages=some_messages(), fails=st.booleans(), bound=st.booleans())
    def transaction(self, slot: int, messages: list[Message], fails: bool, bound: bool) -> None:
        if (plain := self.known(slot)) is None:
            return
        try:
            if bound:
                with self.store.engine.begin() as connection:
                    self.write_twice(self.store.bind(connection), slot, messages, fails)
            else:
                with self.store.transaction() as inner:
                    self.write_twice(inner, slot, messages, fails)
        except ZeroDivisionError:
            pass
        else:
            plain.append(messages)
            plain.title = "within"
        self.check(slot)

    def write_twice(self, store: Store, slot: int, messages: list[Message], fails: bool) -> None:
        store.append(self.name(slot), messages)
        store.update(self.name(slot), title="within")
        if fails:
            raise ZeroDivisionError

    @rule(
        slot=SLOTS,
        limit=st.integers(0, 120),
        start_on=st.sampled_from(["message", "step", "turn"]),
        stride=st.sampled_from([None, 7]),
    )
    def window(self, slot: int, limit: int, start_on: Any, stride: int | None) -> None:
        if (plain := self.known(slot)) is None:
            return
        total = self.store.conversation(self.name(slot)).total_tokens
        purged = total - sum(message.token_count for message in plain.messages)
        expected = Reference(plain.messages, purged).window(limit, start_on, stride)
        if expected is None:
            with pytest.raises(errors.WindowTooSmall):
                self.store.window(self.name(slot), limit, start_on, stride)
        else:
            window = self.store.window(self.name(slot), limit, start_on, stride)
            assert list(map(shown, window.messages)) == list(map(shown, expected))
            assert window.token_count == sum(message.token_count for message in expected) <= limit

    @rule(
        slot=SLOTS,
        after=st.none() | st.integers(0, 9),
        before=st.none() | POSITIONS,
        limit=st.integers(0, 5),
        newest_first=st.booleans(),
    )
    def read_a_page(
        self, slot: int, after: int | None, before: int | None, limit: int, newest_first: bool
    ) -> None:
        if (plain := self.known(slot)) is None:
            return
        page = self.store.messages(
            self.name(slot), after=after, before=before, limit=limit, newest_first=newest_first
        )
        expected = [
            each
            for each in plain.messages
            if each.position > (after or 0) and (before is None or each.position < before)
        ]
        expected = (expected[::-1] if newest_first else expected)[:limit]
        assert list(map(shown, page)) == list(map(shown, expected))
        assert [each.id for each in self.store.open_tool_calls(self.name(slot))] == plain.open_calls
