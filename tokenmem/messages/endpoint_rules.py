"""What an endpoint takes of a prompt: what OpenAI documents, and what other servers are found to want."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

DOCUMENTED_KEYS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset({"role", "content", "refusal", "name", "audio", "tool_calls", "function_call"}),
    "tool": frozenset({"role", "content", "tool_call_id"}),
    "function": frozenset({"role", "content", "name"}),
}
"""The keys of a message by its role (OpenAI, API reference, "Create chat completion", messages)."""

LONGEST_CHAT_ID = 40
"""Characters of a call's id in Chat Completions, as the provider's error message says."""

LONGEST_ITEM_ID = 64
"""Characters of a call's id in the Responses API, as the provider's error message says."""

LONGEST_NAME = 64
"""Characters of a speaker's or a function's name (OpenAI, API reference)."""


@dataclass(frozen=True, slots=True)
class EndpointRules:
    """What one endpoint takes.

    Attributes:
        only_documented: it refuses keys and parts that OpenAI does not document.
        without: keys, and types of parts, that it has refused.
        tool_names: the tools of the chat, whose names it takes as they are.
        has_instructions: whether the chat's instructions stand before the messages.
        longest_call_id: characters of a call's id.
        nine_character_ids: ids of calls are nine letters and digits, as Mistral's are.
        developer_is_system: it knows no role developer.
        plain_text: content that is nothing but text is one string.
        no_null: a reply that says nothing has the content "".
        wants_reasoning: it refuses replies of the model without their `reasoning_content`.
        wants_signatures: it refuses calls without a thought signature.
        alternates: two messages of one role may not follow each other.
        begins_with_user: the first message, but for the system's, is the user's.
        system_only_first: only the first messages may be the system's.
        answers_after_tools: behind a tool's result the model speaks.
    """

    only_documented: bool = False
    without: frozenset[str] = frozenset()
    tool_names: frozenset[str] = frozenset()
    has_instructions: bool = False
    longest_call_id: int = LONGEST_CHAT_ID
    nine_character_ids: bool = False
    developer_is_system: bool = False
    plain_text: bool = False
    no_null: bool = False
    wants_reasoning: bool = False
    wants_signatures: bool = False
    alternates: bool = False
    begins_with_user: bool = False
    system_only_first: bool = False
    answers_after_tools: bool = False

    @property
    def takes_any_order(self) -> bool:
        """Whether messages that are a role and a text are sent as they are stored."""
        return not (
            self.developer_is_system or self.alternates or self.begins_with_user or self.system_only_first
        )


# Replies of models that reason hold it as text, which no server needs but beside a call. `reasoning` says the
# same once more where `reasoning_details` or `reasoning_content` are there.
_REASONING_TEXT = frozenset({"reasoning", "reasoning_content", "reasoning_text", "thinking", "thought"})
# Words of what servers want back: DeepSeek's and Moonshot's reasoning_content (beside calls), OpenRouter's
# reasoning_details, LiteLLM's thinking_blocks and provider_specific_fields, Gemini's extra_content with its
# thought_signature, Copilot's reasoning_opaque; and what the application writes for its server.
_WANTED_BACK = (
    *("reasoning", "thinking", "thought", "signature", "encrypted", "extra_content", "provider_specific"),
    *("cache_control", "prefix"),
)


def is_wanted_back(key: str, reply: Mapping[str, object]) -> bool:
    """Whether a server may want this key of a reply back, which OpenAI does not document.

    Args:
        key: the key.
        reply: the reply's keys.
    """
    if key not in _REASONING_TEXT:
        return any(word in key for word in _WANTED_BACK)
    if not (reply.get("tool_calls") or reply.get("function_call")):
        return False
    return key != "reasoning" or not (reply.get("reasoning_details") or reply.get("reasoning_content"))


def is_sent_of_reply(key: str, reply: Mapping[str, object]) -> bool:
    """Whether a key of a reply is sent again to a server of which nothing is known."""
    return key in DOCUMENTED_KEYS["assistant"] or is_wanted_back(key, reply)
