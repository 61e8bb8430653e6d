"""The rules of the model test: each calls an operation of the store, and does the same to plain lists."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.support.reference import Reference
from tests.support.stores import Unit
from tests.torture.support.plain import PlainConversation
from tokenmem import Message, Store, TiktokenCounter, errors
from tokenmem.messages import parse_line

UNIT, REAL = Unit(), TiktokenCounter()
SLOTS = st.integers(0, 2)
OWNERS = st.sampled_from([None, "ann", "bob"])
NUMBERS = st.integers(0, 40)
POSITIONS = st.integers(1, 12)
PLACES = st.integers(-1, 12)
"""Which of a conversation's messages; -1 for a position where there is none."""
METADATA = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2)


@st.composite
def some_messages(draw: Any) -> list[Message]:
    return [draw(some_message()) for _ in range(draw(st.integers(1, 3)))]


@st.composite
def some_message(draw: Any) -> Message:
    text = f"{draw(NUMBERS)} words"
    kind = draw(st.sampled_from(["user", "user", "assistant", "pinned", "call", "result", "data"]))
    call_id = f"call{draw(st.integers(0, 3))}"
    if kind == "call":
        function = {"name": "f", "arguments": "{}"}
        return Message.assistant(text, tool_calls=[{"id": call_id, "type": "function", "function": function}])
    if kind == "result":
        return Message.tool(text, tool_call_id=call_id)
    if kind == "assistant":
        return Message.assistant(text)
    return Message.user(
        text, pinned=kind == "pinned", metadata=draw(METADATA) or None if kind == "data" else None
    )


class Machine(RuleBasedStateMachine):
    """One example: a few conversations of two owners and of nobody's, in a database that others use too."""

    steps = 0
    problems = 0

    def __init__(self, store: Store, prefix: str) -> None:
        super().__init__()
        self.store = store
        self.prefix = prefix
        self.all: dict[str, PlainConversation] = {}
        self.gone_costs: dict[str, int] = {}
        self.fill(0)
        self.fill(1)

    # --- what rules share

    def name(self, slot: int) -> str:
        return f"{self.prefix}-{slot}"

    def owner(self, owner: str | None) -> str | None:
        return owner and f"{self.prefix}-{owner}"

    def known(self, slot: int) -> PlainConversation | None:
        """The conversation of a slot; where there is none that is said, and one is made for the next."""
        type(self).steps += 1
        found = self.all.get(self.name(slot))
        if found is None:
            with pytest.raises(errors.ConversationNotFound):
                self.store.conversation(self.name(slot))
            self.fill(slot)
        return found

    def fill(self, slot: int) -> None:
        messages = [Message.user("5 pinned", pinned=True), *(Message.user(f"{n} words") for n in range(4))]
        self.store.append(self.name(slot), messages, owner=self.owner("ann"))
        self.all[self.name(slot)] = PlainConversation(UNIT, owner=self.owner("ann"))
        self.all[self.name(slot)].append(messages)

    def position(self, slot: int, place: int) -> int:
        kept = self.all[self.name(slot)].kept
        return kept[place % len(kept)].position if kept and place >= 0 else 99

    def check(self, slot: int) -> None:
        """All that is stored of a conversation is what the list has."""
        plain = self.all[self.name(slot)]
        conversation, messages = self.store.read(self.name(slot))
        assert conversation is not None
        differing = [
            (shown(stored), shown(expected))
            for stored, expected in itertools.zip_longest(messages, plain.messages)
            if stored is None or expected is None or shown(stored) != shown(expected)
        ]
        assert not differing, f"stored, and as it should be: {differing[:2]}"
        assert (conversation.last_position, conversation.message_count) == (
            plain.last_position,
            len(plain.kept),
        )
        assert (conversation.title, conversation.metadata, conversation.keep) == (
            plain.title,
            plain.metadata,
            plain.keep,
        )
        assert (conversation.owner, conversation.archived_at is not None) == (plain.owner, plain.archived)
        assert conversation.token_counter == plain.counter.name

    def refused(self, kind: type[Exception], call: Callable[[], Any], slot: int) -> None:
        with pytest.raises(kind):
            call()
        if self.name(slot) in self.all:
            self.check(slot)

    # --- what makes and fills conversations

    @rule(slot=SLOTS, owner=OWNERS, metadata=METADATA, keep=st.booleans())
    def create(self, slot: int, owner: str | None, metadata: dict[str, Any], keep: bool) -> None:
        type(self).steps += 1
        name, options = self.name(slot), {"owner": self.owner(owner), "metadata": metadata, "keep": keep}
        if name in self.all:
            self.refused(errors.ConversationExists, lambda: self.store.create(name, **options), slot)
            return
        self.store.create(name, **options)
        self.all[name] = PlainConversation(UNIT, **options)
        self.check(slot)

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
        if known and known[2] != tuple(messages):
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

    @rule(slot=SLOTS, to=SLOTS, at=st.none() | st.integers(0, 12))
    def fork(self, slot: int, to: int, at: int | None) -> None:
        if (plain := self.known(slot)) is None:
            return
        call = lambda: self.store.fork(self.name(slot), self.name(to), at=at)  # noqa: E731
        if at is not None and at > plain.last_position:
            self.refused(errors.InvalidArgument, call, slot)
        elif self.name(to) in self.all:
            self.refused(errors.ConversationExists, call, slot)
        else:
            call()
            end = plain.last_position if at is None else at
            self.all[self.name(to)] = plain.fork(end, self.name(slot))
            self.check(to)

    @rule(slot=SLOTS)
    def go_out_and_come_in(self, slot: int) -> None:
        """Exported, removed and imported again it is what it was; its keys are gone."""
        if (plain := self.known(slot)) is None or plain.counter is not UNIT:
            return
        (line,) = self.store.export(ids=[self.name(slot)])
        self.delete(slot)
        self.store.import_conversations([parse_line(line)])
        plain.keys = {}
        plain.recount(UNIT)  # what was anonymized has kept its counts until now
        for each in plain.kept:
            each.before = None
        self.all[self.name(slot)] = plain
        self.check(slot)

    # --- what changes and removes messages

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

    # --- what changes conversations as a whole

    @rule(
        slot=SLOTS,
        title=st.sampled_from([None, "T"]),
        metadata=METADATA,
        merge=st.booleans(),
        keep=st.booleans(),
    )
    def update(self, slot: int, title: str | None, metadata: Any, merge: bool, keep: bool) -> None:
        if (plain := self.known(slot)) is None:
            return
        self.store.update(self.name(slot), title=title, metadata=metadata, merge=merge, keep=keep)
        plain.title, plain.keep = title, keep
        plain.metadata = plain.metadata | metadata if merge else metadata
        self.check(slot)

    @rule(slot=SLOTS, archived=st.booleans())
    def archive_or_restore(self, slot: int, archived: bool) -> None:
        if (plain := self.known(slot)) is None:
            return
        (self.store.archive if archived else self.store.restore)(self.name(slot))
        plain.archived = archived
        self.check(slot)

    @rule(slot=SLOTS, owner=OWNERS)
    def move(self, slot: int, owner: str | None) -> None:
        if (plain := self.known(slot)) is None:
            return
        self.store.move(self.name(slot), owner=self.owner(owner))
        plain.owner = self.owner(owner)
        self.check(slot)

    @rule(slot=SLOTS)
    def delete(self, slot: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        self.store.delete(self.name(slot))
        self.forget(self.name(slot), plain)

    def forget(self, name: str, plain: PlainConversation) -> None:
        del self.all[name]
        if plain.owner:
            self.gone_costs[plain.owner] = self.gone_costs.get(plain.owner, 0) + sum(plain.costs)

    @rule(slot=SLOTS, tokens=NUMBERS)
    def record_call(self, slot: int, tokens: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        call = self.store.record_call(self.name(slot), model="m", input_tokens=tokens, output_tokens=0)
        plain.costs.append(tokens)
        assert call.number >= len(plain.costs)
        assert len(self.store.calls(self.name(slot), limit=None)) == len(plain.costs)

    # --- owners

    @rule(owner=st.sampled_from(["ann", "bob"]))
    @precondition(lambda self: self.all)
    def delete_owner(self, owner: str) -> None:
        type(self).steps += 1
        mine = [name for name, plain in self.all.items() if plain.owner == self.owner(owner)]
        assert self.store.delete_owner(str(self.owner(owner))) == len(mine)
        for name in mine:
            del self.all[name]
        self.gone_costs.pop(str(self.owner(owner)), None)

    @rule()
    def move_owner(self) -> None:
        type(self).steps += 1
        old, new = str(self.owner("ann")), str(self.owner("bob"))
        mine = [plain for plain in self.all.values() if plain.owner == old]
        assert self.store.move_owner(old, new) == len(mine)
        for plain in mine:
            plain.owner = new
        self.gone_costs[new] = self.gone_costs.get(new, 0) + self.gone_costs.pop(old, 0)

    @rule()
    def anonymize_owner(self) -> None:
        type(self).steps += 1
        owner = str(self.owner("ann"))
        mine = [slot for slot in range(3) if self.owner_of(slot) == owner]
        assert self.store.anonymize_owner(owner) == len(mine)
        for slot in mine:
            plain = self.all[self.name(slot)]
            plain.anonymize(self.store.conversation(self.name(slot)).owner)
            self.check(slot)
        self.gone_costs.pop(owner, None)

    def owner_of(self, slot: int) -> str | None:
        plain = self.all.get(self.name(slot))
        return plain and plain.owner

    @rule(owner=st.sampled_from(["ann", "bob"]), idle=st.booleans(), dry_run=st.booleans())
    def purge(self, owner: str, idle: bool, dry_run: bool) -> None:
        type(self).steps += 1
        age: dict[str, Any] = {("idle_for" if idle else "older_than"): timedelta(milliseconds=1)}
        time.sleep(0.003)  # SQLite's clock shows milliseconds
        mine = {
            name: plain
            for name, plain in self.all.items()
            if plain.owner == self.owner(owner) and not plain.keep
        }
        purged = self.store.purge(**age, owner=self.owner(owner), dry_run=dry_run)
        assert (purged.conversations, purged.messages) == (
            len(mine),
            sum(len(plain.kept) for plain in mine.values()),
        )
        if not dry_run:
            for name, plain in mine.items():
                self.forget(name, plain)

    # --- transactions

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

    # --- what only reads

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

    @rule(owner=st.sampled_from(["ann", "bob"]), archived=st.booleans())
    def read_lists(self, owner: str, archived: bool) -> None:
        type(self).steps += 1
        name = str(self.owner(owner))
        expected = sorted(
            each for each, plain in self.all.items() if (plain.owner, plain.archived) == (name, archived)
        )
        scoped = self.store.for_owner(name)
        assert [each.id for each in scoped.conversations(archived=archived)] == expected
        recent = scoped.conversations(order="recent", archived=archived, limit=None)
        assert sorted(each.id for each in recent) == expected
        stored = {each.owner: each.input_tokens for each in self.store.usage(by="owner", owner=name)}
        costs = sum(sum(plain.costs) for plain in self.all.values() if plain.owner == name)
        assert stored.get(name, 0) == costs + self.gone_costs.get(name, 0)

    def teardown(self) -> None:
        problems = self.store.verify()
        type(self).problems += len(problems)
        for name in list(self.all):
            self.store.delete(name)
        assert self.store.conversations(prefix=self.prefix + "-", archived=None) == []


def shown(message: Message | None) -> tuple[Any, ...]:
    """All that must be equal of a message."""
    return (
        ()
        if message is None
        else (
            message.position,
            message.role,
            message.kind,
            message.content,
            message.to_openai(),
            message.pinned,
            message.token_count,
            message.metadata,
        )
    )
