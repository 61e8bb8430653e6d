"""A server that speaks OpenAI's protocol on loopback and answers from a script, for tests without a network.

    with ModelServer([Answer("Hello!"), Failure(429)]) as server:
        client = OpenAI(base_url=server.base_url, api_key="test")

It checks every prompt against the provider's rules, as the provider does (`problems_in`).
"""

from tokenmem.testing.profiles import PROFILES, Profile
from tokenmem.testing.replies import (
    Answer,
    Cut,
    Failure,
    RawReply,
    Reply,
    Request,
    Script,
    Stall,
    StreamError,
    ToolCallSpec,
)
from tokenmem.testing.rules import problems_in
from tokenmem.testing.server import ModelServer

__all__ = [
    "PROFILES",
    "Answer",
    "Cut",
    "Failure",
    "ModelServer",
    "Profile",
    "RawReply",
    "Reply",
    "Request",
    "Script",
    "Stall",
    "StreamError",
    "ToolCallSpec",
    "problems_in",
]
