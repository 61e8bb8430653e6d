"""What is sent of a window, and what it costs by the model's bill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tokenmem.chat.apis.interface import Sent
from tokenmem.chat.prompt import no_result_for
from tokenmem.chat.settings import Settings
from tokenmem.counting.model_rules import difference, saved_by_instructions
from tokenmem.errors import InvalidArgument
from tokenmem.messages.message import Message
from tokenmem.messages.values import load_json
from tokenmem.models import Window

_A_REPLY = Message("assistant", "")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent of a window.

    Attributes:
        sent: the messages, as the model's API takes them.
        token_count: what they cost by the model's bill, in tokens.
        prepared: the messages of which `sent` was made; None where those of the window are sent as they are.
    """

    sent: Sequence[Sent]
    token_count: int
    prepared: Sequence[Message] | None = None


def _stored(message: Message) -> int:
    return message.token_count


def prompt_of(settings: Settings, window: Window, counter: str) -> Prompt:
    """What is sent of a window whose messages the counter of this name has counted, and what it costs.

    Raises:
        InvalidArgument: nothing in it can be sent.
    """
    prompt = _whole(settings, window, counter)
    if not prompt.sent:  # no provider takes an empty prompt
        raise InvalidArgument("the conversation holds nothing that can be sent; pass a message")
    if settings.instructions is None and settings.tools_json is not None:
        return replace(prompt, token_count=prompt.token_count - _saved(settings, prompt.sent[0]))
    return prompt


def counts_apply(settings: Settings, counter: str) -> bool:
    """Whether the counts of the counter of this name are what the model bills, so that none is made anew."""
    return counter == settings.counter.name or not settings.by_bill


def _whole(settings: Settings, window: Window, counter: str) -> Prompt:
    api, model = settings.api, settings.model
    own = counts_apply(settings, counter)
    plain = window.plain() if own and api.takes_plain else None
    if plain:  # most conversations: no Message need be made
        replies = sum(1 for message in plain if message["role"] == "assistant")
        return Prompt(plain, window.token_count + replies * difference(model, _A_REPLY))
    messages = api.prepare(window.messages, no_result_for(settings.no_result_tokens))
    count = _stored if own else settings.counter.count
    tokens = sum(map(count, messages))
    if not settings.as_counted:
        tokens += sum(difference(model, message) for message in messages)
    return Prompt(api.render(messages), tokens, messages)


def _saved(settings: Settings, first: object) -> int:
    """What tools cost less because the window itself begins with instructions, in tokens."""
    if not isinstance(first, dict) or not isinstance(first.get("content"), str):
        return 0
    if first.get("role") not in ("system", "developer"):
        return 0
    return _saved_by(settings.model, str(settings.tools_json), first["role"], first["content"])


@lru_cache(maxsize=256)
def _saved_by(model: str, tools_json: str, role: str, content: str) -> int:
    return saved_by_instructions(model, load_json(tools_json), Message(role, content))
