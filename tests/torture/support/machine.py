"""What the rules of the model test share: a store, the plain lists beside it, and how both are compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from tests.support.stores import Unit
from tests.torture.support.plain import PlainConversation
from tokenmem import Message, Store, TiktokenCounter, errors

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


class BaseMachine(RuleBasedStateMachine):
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

    def delete(self, slot: int) -> None:
        if (plain := self.known(slot)) is None:
            return
        self.store.delete(self.name(slot))
        self.forget(self.name(slot), plain)

    def forget(self, name: str, plain: PlainConversation) -> None:
        del self.all[name]
        if plain.owner:
            self.gone_costs[plain.owner] = self.gone_costs.get(plain.owner, 0) + sum(plain.costs)

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
