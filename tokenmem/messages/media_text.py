"""Media in texts: pictures and sound written into a text as `data:` URLs, which no model can read."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHORTEST = 2000
"""Characters of media as base64, at least."""

# RFC 2397. What is shorter is an icon, or an example that somebody asks about.
_MEDIA = re.compile(
    r"data:((?:image|audio|video)/[\w.+-]+|application/(?:pdf|octet-stream|zip))(?:;[\w.+=-]+)*;base64,"
    r"([A-Za-z0-9+/_=-]{2000,})"
)


def holds_media(text: str) -> bool:
    """Whether a text may hold media: a quick look."""
    return len(text) > _SHORTEST and ";base64," in text and _MEDIA.search(text) is not None


def hold_media(texts: Sequence[str]) -> bool:
    """Whether any of the texts may hold media; for a window's, of which hardly one is long enough."""
    return max(map(len, texts), default=0) > _SHORTEST and any(map(holds_media, texts))


def without_media(text: str) -> str:
    """The text as it is sent and counted: each of its media named, with its size, in its place."""
    return _MEDIA.sub(lambda found: f"data:{found[1]} [{len(found[2]):,} characters left out]", text)
