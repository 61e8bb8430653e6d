"""The rules of the model test for conversations as a whole, and for their owners."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.torture.support.machine import METADATA, NUMBERS, OWNERS, SLOTS, UNIT, BaseMachine
from tests.torture.support.plain import PlainConversation
from tokenmem import errors
from tokenmem.messages import parse_line


class ConversationRules(BaseMachine):
    """What is done with conversations, and with all of an owner's."""

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
    def delete_conversation(self, slot: int) -> None:
        self.delete(slot)

    @rule(slot=SLOTS, tokens=NUMBERS)
    def record_call(self, slot: int, tokens: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        call = self.store.record_call(self.name(slot), model="m", input_tokens=tokens, output_tokens=0)
        plain.costs.append(tokens)
        assert call.number >= len(plain.costs)
        assert len(self.store.calls(self.name(slot), limit=None)) == len(plain.costs)

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
