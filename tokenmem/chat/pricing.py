"""What is sent of a window, and what it costs by the model's bill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tokenmem.chat.apis.interface import Sent
from tokenmem.chat.prompt import no_result_for, with_answers
from tokenmem.chat.settings import Settings
from tokenmem.counting.model_rules import difference, saved_by_instructions
from tokenmem.errors import InvalidArgument
from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.messages.media_text import hold_media
from tokenmem.messages.message import Message
from tokenmem.messages.values import load_json
from tokenmem.models import Window


@dataclass(frozen=True, slots=True)
class PromptForm:
    """How a window becomes a prompt.

    Attributes:
        rules: what the endpoint takes.
        left_out: the positions of messages that it has refused.
    """

    rules: EndpointRules = field(default_factory=EndpointRules)
    left_out: frozenset[int] = frozenset()

    @property
    def takes_plain(self) -> bool:
        """Whether messages that are a role and a text are sent as they are stored."""
        return not self.left_out and self.rules.takes_any_order

    def kept(self, messages: Sequence[Message]) -> tuple[Sequence[Message], frozenset[int]]:
        """The messages without what is left out, and the positions of what that is."""
        if not self.left_out:
            return messages, frozenset()
        out = with_answers(messages, self.left_out)
        return [message for message in messages if message.position not in out], out


_A_REPLY = Message("assistant", "")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent of a window.

    Attributes:
        sent: the messages, as the model's API takes them.
        token_count: what they cost by the model's bill, in tokens.
        prepared: the messages of which `sent` was made; None where those of the window are sent as they are.
        left_out: the positions of messages that were left out because they were refused, and of what
            answers them.
    """

    sent: Sequence[Sent]
    token_count: int
    prepared: Sequence[Message] | None = None
    left_out: frozenset[int] = frozenset()


def prompt_of(settings: Settings, window: Window, counter: str, form: PromptForm | None = None) -> Prompt:
    """What is sent of a window whose messages the counter of this name has counted, and what it costs.

    Args:
        settings: the chat's.
        window: the window.
        counter: the counter's name.
        form: what the endpoint takes; None for what is known of it, with nothing left out.

    Raises:
        InvalidArgument: nothing in it can be sent.
    """
    prompt = _whole(settings, window, counter, form or PromptForm(settings.endpoint.rules))
    if not prompt.sent:  # no provider takes an empty prompt
        raise InvalidArgument("the conversation holds nothing that can be sent; pass a message")
    if settings.instructions is None and settings.tools_json is not None:
        return replace(prompt, token_count=prompt.token_count - _saved(settings, prompt.sent[0]))
    return prompt


def counts_apply(settings: Settings, counter: str) -> bool:
    """Whether the counts of the counter of this name are what the model bills, so that none is made anew."""
    return counter == settings.counter.name or not settings.by_bill


def _whole(settings: Settings, window: Window, counter: str, form: PromptForm) -> Prompt:
    api, model = settings.api, settings.model
    own = counts_apply(settings, counter)
    plain = window.plain() if own and api.takes_plain and form.takes_plain else None
    if plain and not hold_media([message["content"] for message in plain]):
        # most conversations: no Message need be made
        replies = sum(1 for message in plain if message["role"] == "assistant")
        return Prompt(plain, window.token_count + replies * difference(model, _A_REPLY))
    given, left_out = form.kept(window.messages)
    prepared = api.prepare(given, no_result_for(settings.no_result_tokens))
    messages = api.fit(prepared, form.rules)
    stored = {id(message) for message in prepared} if own else set()
    tokens = sum(
        message.token_count if id(message) in stored else settings.counter.count(message)
        for message in messages
    )
    if not settings.as_counted:
        tokens += sum(difference(model, message) for message in messages)
    return Prompt(api.order(api.render(messages), form.rules), tokens, messages, left_out)


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
