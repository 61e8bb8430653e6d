"""Media in texts: pictures and sound written into a text as `data:` URLs, which no model can read."""

from __future__ import annotations

import re

# RFC 2397. What is shorter is an icon, or an example that somebody asks about.
_MEDIA = re.compile(
    r"data:((?:image|audio|video)/[\w.+-]+|application/(?:pdf|octet-stream|zip))(?:;[\w.+=-]+)*;base64,"
    r"([A-Za-z0-9+/_=-]{2000,})"
)


def holds_media(text: str) -> bool:
    """Whether a text may hold media: a quick look."""
    return len(text) > 2000 and ";base64," in text and _MEDIA.search(text) is not None


def without_media(text: str) -> str:
    """The text as it is sent and counted: each of its media named, with its size, in its place."""
    return _MEDIA.sub(lambda found: f"data:{found[1]} [{len(found[2]):,} characters left out]", text)
