"""Sessions replayed against a store, and what of each prompt the call before had sent already."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache.logs import COUNTER, JSONObject, Session
from tokenmem import Store, Window, errors
from tokenmem.counting.encodings import load_encoding

ENCODING = COUNTER.name


@dataclass(frozen=True)
class Setting:
    """How windows are loaded; both in tokens, and no stride for windows that slide."""

    limit: int
    stride: int | None


@dataclass(frozen=True)
class Call:
    """One prompt, in tokens; instructions are counted apart.

    Attributes:
        total: what the whole conversation costs so far.
        window: what the window costs; None where nothing fits the limit, so that there is no call.
        repeated: with how many tokens of the window the call before began too; None where there was none.
        moved: the window starts at another message than the one before.
    """

    total: int
    window: int | None
    repeated: int | None = None
    moved: bool = False


def replay(session: Session, settings: Sequence[Setting]) -> Iterator[tuple[Setting, Call]]:
    """Append what is new before each call, and load the window in each of the settings."""
    before: dict[Setting, Window] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "session.db")
        with Store(f"sqlite:///{path}", counter=COUNTER) as store:
            store.upgrade()
            for new in session.calls():
                total = store.append("session", new).total_tokens
                for setting in settings:
                    window = _window(store, setting)
                    yield setting, _call(total, before.get(setting), window)
                    if window:
                        before[setting] = window


def _window(store: Store, setting: Setting) -> Window | None:
    try:
        return store.window("session", setting.limit, stride=setting.stride)
    except errors.WindowTooSmall:
        return None


def _call(total: int, before: Window | None, window: Window | None) -> Call:
    if window is None or before is None:
        return Call(total, None if window is None else window.token_count)
    moved = before.first_position != window.first_position
    return Call(total, window.token_count, _repeated(before, window), moved)


def _repeated(before: Window, window: Window) -> int:
    """Tokens of the longest beginning that two windows share."""
    tokens = 0
    for old, new, message in zip(before.to_openai(), window.to_openai(), window.messages, strict=False):
        if old != new:
            return tokens + _begin_alike(old, new)
        tokens += message.token_count
    return tokens


def _begin_alike(old: JSONObject, new: JSONObject) -> int:
    """Tokens with which the texts of two different messages of the same role begin alike."""
    texts = [old.get("content"), new.get("content")]
    if old["role"] != new["role"] or not all(isinstance(text, str) for text in texts):
        return 0
    encoded = [load_encoding(ENCODING).encode_ordinary(text) for text in texts]
    for tokens, (left, right) in enumerate(zip(*encoded, strict=False)):
        if left != right:
            return tokens
    return min(map(len, encoded))
