"""Conversations as plain lists: what a store must be equal to, written without a thought for databases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokenmem import Message, TokenCounter


@dataclass
class Kept:
    """One message, and what stood at its position before; `before` is None where that is not known."""

    message: Message
    before: list[str | None] | None = field(default_factory=list)

    @property
    def position(self) -> int:
        return self.message.position


@dataclass
class PlainConversation:
    """One conversation."""

    counter: TokenCounter
    owner: str | None = None
    title: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    keep: bool = False
    archived: bool = False
    parent: str | None = None
    last_position: int = 0
    kept: list[Kept] = field(default_factory=list)
    keys: dict[str, tuple[int, int, tuple[Message, ...]]] = field(default_factory=dict)
    costs: list[int] = field(default_factory=list)

    def append(self, messages: Sequence[Message], key: str | None = None) -> tuple[int, int]:
        """Store these, or tell where they are."""
        if key is not None and key in self.keys:
            first, last, _ = self.keys[key]
            return first, last
        for message in messages:
            self.last_position += 1
            counted = replace(message, position=self.last_position, token_count=self.counter.count(message))
            self.kept.append(Kept(counted))
        places = (self.last_position - len(messages) + 1, self.last_position)
        if key is not None:
            self.keys[key] = (*places, tuple(messages))
        return places

    def find(self, position: int) -> Kept | None:
        return next((each for each in self.kept if each.position == position), None)

    def remove(self, after: int, before: int | None = None, limit: int | None = None) -> list[Message]:
        """Take out what stands between two positions."""
        gone = [each for each in self.kept if after < each.position < (before or self.last_position + 1)]
        gone = gone if limit is None else gone[:limit]
        self.kept = [each for each in self.kept if each not in gone]
        return [each.message for each in gone]

    def edit(self, position: int, message: Message, pinned: bool | None) -> None:
        kept = self.find(position)
        assert kept is not None
        old = kept.message
        if kept.before is not None and old.to_openai() != message.to_openai():
            kept.before.append(old.content)
        kept.message = replace(
            message,
            position=position,
            token_count=self.counter.count(message),
            pinned=old.pinned if pinned is None else pinned,
            metadata=old.metadata if message.metadata is None else message.metadata,
        )

    def set_metadata(self, kept: Kept, metadata: dict[str, Any], merge: bool) -> None:
        metadata = (kept.message.metadata or {}) | metadata if merge else metadata
        kept.message = replace(kept.message, metadata=metadata)

    def anonymize(self, owner: str | None) -> None:
        """Nothing is left that anybody said; the counts stay."""
        self.owner, self.title, self.metadata, self.keys, self.archived = owner, None, {}, {}, True
        for each in self.kept:
            role = "assistant" if each.message.role == "tool" else each.message.role
            each.message = replace(
                each.message, role=role, content="", payload=None, metadata=None, kind="message"
            )
            each.before = None

    def recount(self, counter: TokenCounter) -> None:
        self.counter = counter
        for each in self.kept:
            each.message = replace(each.message, token_count=counter.count(each.message))

    def fork(self, at: int, name: str) -> PlainConversation:
        """A copy up to a position, without keys and calls."""
        copied = [Kept(each.message, None) for each in self.kept if each.position <= at]
        return replace(
            self,
            kept=copied,
            keys={},
            costs=[],
            last_position=at,
            parent=name,
            archived=False,
            keep=False,
            metadata=dict(self.metadata),
        )

    @property
    def messages(self) -> list[Message]:
        return [each.message for each in self.kept]

    @property
    def open_calls(self) -> list[str]:
        """The ids of tool calls without a result behind them."""
        found: list[str] = []
        for message in self.messages:
            payload = message.payload or {}
            found += [call["id"] for call in payload.get("tool_calls", ())]
            if payload.get("tool_call_id") in found:
                found.remove(payload["tool_call_id"])
        return found
