"""Logs of conversations as sessions of model calls: each conversation alone, or chained into long ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from tokenmem import TiktokenCounter
from tokenmem.messages.parsing import parse_message, parse_messages

JSONObject = dict[str, Any]

COUNTER = TiktokenCounter("o200k_base")


@dataclass(frozen=True)
class Session:
    """What one store sees of a conversation.

    Attributes:
        source: where the log comes from.
        instructions: tokens of the system message that stands before every window; not in `messages`.
        messages: OpenAI's chat messages, in order.
    """

    source: str
    instructions: int
    messages: list[JSONObject]

    def calls(self) -> Iterator[list[JSONObject]]:
        """What is new before each call, the last one's reply first; a call gives an assistant's message."""
        new: list[JSONObject] = []
        for message in self.messages:
            if message["role"] == "assistant" and new:
                yield new
                new = []
            new.append(message)

    @cached_property
    def costs(self) -> list[int]:
        """What each message costs, in tokens."""
        return list(map(COUNTER.count, parse_messages(self.messages)))

    @property
    def tokens(self) -> int:
        """What the messages cost together, in tokens."""
        return sum(self.costs)

    @property
    def has_tools(self) -> bool:
        """Tools' results are among the messages."""
        return any(message["role"] == "tool" for message in self.messages)


def read_sessions(directory: Path) -> dict[str, list[Session]]:
    """Each source's conversations as they are, from all of the directory's JSON Lines files."""
    found: dict[str, list[list[JSONObject]]] = {}
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "messages" in record:  # other files beside them hold other things
                found.setdefault(record.get("source") or path.stem, []).append(record["messages"])
    return {source: list(_sessions(source, conversations)) for source, conversations in found.items()}


def _sessions(source: str, conversations: list[list[JSONObject]]) -> Iterator[Session]:
    """Take out the system message with which all conversations of the source begin, if there is one."""
    first = conversations[0][0]
    common = first["role"] == "system" and all(messages[0] == first for messages in conversations)
    instructions = COUNTER.count(parse_message(first)) if common else 0
    for messages in conversations:
        yield Session(source, instructions, messages[1:] if common else messages)


def chained(sessions: Iterable[Session]) -> Session:
    """One long session: conversations of the same source, one behind the other."""
    sessions = list(sessions)
    messages = list(chain.from_iterable(session.messages for session in sessions))
    return Session(sessions[0].source, sessions[0].instructions, messages)
