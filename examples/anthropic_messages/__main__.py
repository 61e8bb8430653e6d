"""Ask one question: python -m examples.anthropic_messages "…"."""

from __future__ import annotations

import os
import sys

from examples.anthropic_messages import AnthropicMessages, Client
from tokenmem import Chat, Store


def main(question: str) -> None:
    """Ask one question in a conversation of its own, and print the answer as it comes."""
    with Store() as store:
        store.upgrade()
        chat = Chat(
            store,
            Client(),
            model=os.environ.get("ANTHROPIC_MODEL", "claude-sonnet-4-5"),
            token_limit=16_000,
            reserve=1024,
            instructions="You know every timetable.",
            api=AnthropicMessages(max_tokens=1024),
        )
        for part in chat.stream("anthropic-example", question):
            if isinstance(part, str):
                print(part, end="", flush=True)
            else:
                print(f"\n{part.call.input_tokens} tokens read, {part.call.cached_tokens} from the cache")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "When does the night train leave?")
