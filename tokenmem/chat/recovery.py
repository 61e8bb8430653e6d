"""What is sent in place of a request that was refused: pure work, one opening after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tokenmem.chat.learning import learned_rules, strictest
from tokenmem.chat.opening import NothingFits, Opening, find, least_limit
from tokenmem.chat.pricing import PromptForm, prompt_of
from tokenmem.chat.refusals import Refusal
from tokenmem.chat.settings import Settings
from tokenmem.errors import InvalidArgument, WindowTooSmall
from tokenmem.messages.message import Message, is_role_and_content, is_text_alone, provider_fields
from tokenmem.messages.sequences import neighbours

_SHORTER = (0.75, 0.5, 0.25, 0.125)
"""What parts of a prompt that is too long are tried, the newest of it."""

_PARTS = 8
"""In how many parts what nobody suspects is left out, one after the other: a refused request costs little."""

_MOST = 24
"""How often a turn asks again at most."""

_MOST_NAMED = 64
"""How many messages a turn leaves out at most that refusals name one after the other."""


class Recovery:
    """The further tries of one turn whose request was refused.

    A refusal that teaches something of the endpoint is followed by a request that heeds it. Where the
    conversation's call before was refused, too, so that it would be blocked, one without what may be why.

    Args:
        settings: the chat's.
        opening: what was sent first.
        counter: the name of the conversation's counter.
    """

    def __init__(self, settings: Settings, opening: Opening, counter: str) -> None:
        self._settings = settings
        self._counter = counter
        self._opening = opening
        self._first = opening
        self._form = opening.form
        self._was_refused = opening.known.may_be_blocked
        self._sent = [opening.prompt.sent]
        self._named = 0
        self._steps: Iterator[Opening | None] | None = None

    @property
    def is_strict(self) -> bool:
        """Whether what was sent last is in the strictest form, of which no refusal has taught."""
        return self._opening.form.rules == strictest(self._form.rules) != self._form.rules

    def next(self, refusal: Refusal) -> Opening | None:
        """What to send now; None where there is nothing left to try.

        Args:
            refusal: of what was sent last.
        """
        if len(self._sent) - self._named > _MOST:
            return None
        learned = self._learned(refusal)
        if learned is not None or refusal.is_sure:
            return learned
        if not self._was_refused:
            maybe = self._settings.endpoint.may_be_strict
            return self._made(self._strict()) if maybe and refusal.kind == "unknown" else None
        named = self._without_named(refusal)
        if named is not None:
            return named
        if self._steps is None:
            self._steps = self._without_suspects(refusal)
        return next(filter(None, self._steps), None)

    def _learned(self, refusal: Refusal) -> Opening | None:
        """The same messages by what the refusal teaches."""
        sent, form = self._opening.prompt.sent, self._opening.form
        rules = learned_rules(refusal.told, sent, form.rules)
        made = None if rules is None else self._made(replace(form, rules=rules))
        if made is not None:  # and so whatever is left out from now on
            known = learned_rules(refusal.told, sent, self._form.rules)
            self._form = self._form if known is None else replace(self._form, rules=known)
        return made

    def _strict(self) -> PromptForm:
        return replace(self._form, rules=strictest(self._form.rules))

    def _without_named(self, refusal: Refusal) -> Opening | None:
        """The messages without the one that the refusal names."""
        form, asked = self._opening.form, self._opening.asked
        message = message_named(self._settings, self._opening, refusal)
        if message is None or message.position in asked or self._named == _MOST_NAMED:
            return None
        made = self._made(replace(form, left_out=form.left_out | {message.position}))
        self._named += made is not None
        return made

    def _without_suspects(self, refusal: Refusal) -> Iterator[Opening | None]:
        """Openings that leave out more and more, what is asked never."""
        opening, asked = self._first, self._first.asked
        others = [each for each in opening.window.messages if each.position not in asked]
        suspects = [each for each in others if each.position in opening.known.perhaps]
        odd = [each for each in others if not is_text_alone(each)]
        odd_suspects = [each for each in suspects if each in odd]
        if refusal.kind == "too_long":
            yield self._without(odd_suspects if refusal.is_large else ())
            for part in _SHORTER:
                yield self._shorter(int(opening.prompt.token_count * part))
            yield self._shorter(least_limit(opening.candidates))
            yield self._without(odd)
        else:
            yield self._made(self._strict())
            yield self._without(odd_suspects)
            yield self._without(suspects)
            yield self._without(odd)
            for eighth in _parts(others, _PARTS) if refusal.kind != "request" else ():
                yield self._without(eighth)
        yield self._without(others)
        everything = frozenset(each.position for each in others)
        yield self._made(replace(self._strict(), left_out=opening.form.left_out | everything))

    def _without(self, messages: Iterable[Message]) -> Opening | None:
        form = self._form
        left_out = form.left_out | {each.position for each in messages}
        return self._made(replace(form, left_out=left_out))

    def _shorter(self, limit: int) -> Opening | None:
        """The newest messages that cost no more than this, in tokens."""
        first = self._first
        try:
            window, prompt = find(first.candidates, limit, self._counter, self._form)
        except (NothingFits, WindowTooSmall, InvalidArgument):
            return None
        known = replace(first.known, token_limit=limit)
        return self._if_new(replace(first, window=window, prompt=prompt, form=self._form, known=known))

    def _made(self, form: PromptForm) -> Opening | None:
        """An opening of this form; None where it would be what was sent before, or nothing."""
        opening = self._first
        try:
            prompt = prompt_of(self._settings, opening.window, self._counter, form)
        except InvalidArgument:
            return None
        if prompt.token_count > opening.token_limit:
            return None
        return self._if_new(replace(opening, prompt=prompt, form=form))

    def _if_new(self, opening: Opening) -> Opening | None:
        """The opening, to be sent now; None where the same was sent before."""
        if opening.prompt.sent in self._sent:
            return None
        self._sent.append(opening.prompt.sent)
        self._opening = opening
        return opening


def _parts(messages: Sequence[Message], count: int) -> list[Sequence[Message]]:
    """The messages in so many parts, the newest first; one message each where they are few."""
    size = max(-(-len(messages) // count), 1)
    return [messages[max(end - size, 0) : end] for end in range(len(messages), 0, -size)]


def message_named(settings: Settings, opening: Opening, refusal: Refusal) -> Message | None:
    """The stored message that a refusal names, by its place in the request or by its id; None where none.

    Some endpoints do not count the instructions: where the message at a place is plain text, and the one that
    stands there without them is not, that one is meant.

    Args:
        settings: the chat's.
        opening: what was sent.
        refusal: of it.
    """
    if refusal.index is None:
        return next((each for each in opening.window.messages if _has_id(each, refusal.items)), None)
    instructions = len(settings.head.get("messages", ()))
    counted = _message_at(settings, opening, refusal.index - instructions)
    other = _message_at(settings, opening, refusal.index) if instructions else None
    is_other = other is not None and not is_text_alone(other)
    return other if is_other and (counted is None or is_text_alone(counted)) else counted


def _has_id(message: Message, ids: Sequence[str]) -> bool:
    item_id = None if is_role_and_content(message) else provider_fields(message).get("id")
    return isinstance(item_id, str) and item_id.lower() in ids


def _message_at(settings: Settings, opening: Opening, place: int) -> Message | None:
    """The stored message at a place behind the instructions."""
    prompt = opening.prompt
    if not 0 <= place < len(prompt.sent):
        return None
    if prompt.prepared is None:
        return opening.window.messages[place]
    rendered = settings.api.render(prompt.prepared)
    if opening.form.rules.alternates and len(rendered) != len(prompt.sent):
        place = neighbours([message["role"] for message in rendered])[place].stop - 1
    try:
        message = _of_place(settings, prompt.prepared, place)
    except Exception:  # an API of the caller's renders whole prompts only
        return None
    return message if message.position else None


def _of_place(settings: Settings, prepared: Sequence[Message], place: int) -> Message:
    """The message that ends what is sent up to a place: some are sent as several, some in the one before."""
    low, high = 0, len(prepared) - 1
    while low < high:
        middle = (low + high) // 2
        if len(settings.api.render(prepared[: middle + 1])) > place:
            high = middle
        else:
            low = middle + 1
    return prepared[low]
