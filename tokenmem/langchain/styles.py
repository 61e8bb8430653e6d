"""The styles in which LangChain prints what a chain does."""

from __future__ import annotations

import sys

# What LangChain's StdOutCallbackHandler writes around a heading and a prompt.
BOLD = "\033[1m"
GREEN = "\033[32;1m\033[1;3m"
_PLAIN = "\033[0m"


def styled(text: str, style: str) -> str:
    """The text in the style on a terminal, as it is elsewhere: a log has no use for the codes."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return f"{style}{text}{_PLAIN}" if is_terminal else text


def told_prompt(prompt: str) -> str:
    """What callbacks are told of a prompt, in LangChain's words and its style."""
    return f"Prompt after formatting:\n{GREEN}{prompt}{_PLAIN}"
