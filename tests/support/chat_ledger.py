"""The ledger of one conversation: a plain list of what must be stored, compared with what is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.chat_plans import Told, answer_of, settled, text_of, told, told_by
from tokenmem import Message, Reply, errors
from tokenmem.models import LLMCall
from tokenmem.testing import Answer, Failure
from tokenmem.testing.replies import Reply as ScriptedReply


@dataclass
class Round:
    """One call of the model: what is stored before it, and what it is answered.

    Attributes:
        incoming: what is stored first.
        reply: what the server does.
        api: by which API it is asked.
        loose: whether a stored text may be longer or, with a mark, shorter than the one here.
    """

    incoming: list[Told]
    reply: ScriptedReply
    api: str
    loose: bool = False


@dataclass
class Attempt:
    """What a turn came to for the caller.

    Attributes:
        reply: what was returned.
        raised: what was raised instead.
        delivered: the text that a stream gave.
        left: whether the caller stopped reading.
    """

    reply: Reply | None = None
    raised: BaseException | None = None
    delivered: str = ""
    left: bool = False

    @property
    def cancelled(self) -> bool:
        return self.left or (self.raised is not None and not isinstance(self.raised, Exception))


@dataclass
class Ledger:
    """What is stored of one conversation, by all that was told about it."""

    store: Any
    id: str
    token_limit: int
    rows: dict[int, Told] = field(default_factory=dict)
    last_position: int = 0
    statuses: list[str] = field(default_factory=list)

    async def news(self) -> tuple[list[Message], list[LLMCall]]:
        """What was stored since the last look."""
        try:
            messages = await settled(self.store.messages(self.id, after=self.last_position, limit=None))
            calls = await settled(self.store.calls(self.id, after=len(self.statuses), limit=None))
        except errors.ConversationNotFound:
            assert not self.last_position
            return [], []
        positions = [message.position for message in messages]
        assert positions == list(range(self.last_position + 1, self.last_position + 1 + len(messages)))
        numbers = [call.number for call in calls]
        assert numbers == list(range(len(self.statuses) + 1, len(self.statuses) + 1 + len(calls)))
        return messages, calls

    def enter(self, messages: Sequence[Message], calls: Sequence[LLMCall]) -> None:
        """Take news for granted from now on."""
        self.rows |= {message.position: told(message) for message in messages}
        self.last_position += len(messages)
        self.statuses += [call.status for call in calls]

    async def check_all(self) -> None:
        """All is stored, nothing twice, as it was when it was stored."""
        if not self.last_position:
            return
        messages = await settled(self.store.messages(self.id, limit=None))
        assert {message.position: told(message) for message in messages} == self.rows
        calls = await settled(self.store.calls(self.id, limit=None))
        assert [call.status for call in calls] == self.statuses
        assert (await settled(self.store.conversation(self.id))).last_position == self.last_position

    async def settle(
        self, rounds: Sequence[Round], attempt: Attempt, stops: tuple[type[Exception], ...] = ()
    ) -> list[Message]:
        """Compare what a turn has stored with its rounds, and enter it.

        Args:
            rounds: the turn's calls, one after the other.
            attempt: what it came to.
            stops: errors besides WindowTooSmall that may end it between two rounds.

        Returns:
            What it stored.
        """
        messages, calls = await self.news()
        self.enter(messages, calls)
        rest = list(messages)
        assert len(calls) <= len(rounds), "more calls than planned"
        whole = True
        for call, each in zip(calls, rounds, strict=False):
            assert whole, "the model was asked again after an error"
            rest = _without(rest, each.incoming, each.loose)
            stored = rest if call is calls[-1] else rest[: call.reply_messages or 0]
            whole = _check_call(call, each, stored, attempt, self.token_limit)
            rest = rest[len(stored) :]
        assert not rest, f"stored besides: {list(map(told, rest))}"
        finished = whole and len(calls) == len(rounds)
        if finished and attempt.reply is not None:
            _check_reply(attempt, rounds[-1], calls[-1], messages)
        elif finished:
            assert attempt.cancelled or isinstance(attempt.raised, stops), repr(attempt.raised)
        else:
            assert attempt.reply is None
            if whole and not attempt.cancelled:
                assert isinstance(attempt.raised, (errors.WindowTooSmall, *stops)), repr(attempt.raised)
        return messages


def _without(messages: list[Message], incoming: Sequence[Told], loose: bool) -> list[Message]:
    """The messages behind those that came in."""
    found = list(map(told, messages[: len(incoming)]))
    if loose:
        assert len(found) == len(incoming)
        assert all(map(_resembles, found, incoming)), f"{found} is not {incoming}"
    else:
        assert found == incoming
    return messages[len(incoming) :]


def _resembles(stored: Told, expected: Told) -> bool:
    """Equal but for the end of the text."""
    begins = stored.text.startswith(expected.text)
    kept, mark, _ = stored.text.partition("\n[cut: ")
    return stored._replace(text="") == expected._replace(text="") and (
        begins or (bool(mark) and expected.text.startswith(kept))
    )


def _check_call(
    call: LLMCall, planned: Round, stored: Sequence[Message], attempt: Attempt, token_limit: int
) -> bool:
    """Check a call's record, and what it stored; returns whether it got its whole reply."""
    assert call.window_tokens is not None
    assert call.window_tokens <= token_limit
    position = stored[0].position if stored else None
    assert (call.reply_position, call.reply_messages) == (position, len(stored) or None)
    if call.status == "ok":
        assert isinstance(planned.reply, Answer), "a broken reply passed for a whole one"
        assert list(map(told, stored)) == told_by(planned.reply, planned.api)
        assert call.error is None
        return True
    is_refused = isinstance(planned.reply, Failure) and planned.reply.status == 400
    failed = "refused" if is_refused else "error"
    assert call.status == ("cancelled" if attempt.cancelled else failed), (call, attempt)
    assert call.error
    assert not call.error.startswith("not ended")
    _check_part(list(map(told, stored)), planned, attempt.delivered)
    return False


def _check_part(stored: list[Told], planned: Round, delivered: str) -> None:
    """What is stored of a broken reply is its beginning, marked, with all that the reader has seen."""
    full = told_by(answer_of(planned.reply), planned.api)
    text = text_of(stored)
    assert text.startswith(delivered)
    assert text_of(full).startswith(text)
    if stored:
        assert stored[-1].partial, f"no mark: {stored}"
        assert stored[:-1] == full[: len(stored) - 1]


def _check_reply(attempt: Attempt, planned: Round, call: LLMCall, messages: Sequence[Message]) -> None:
    reply = attempt.reply
    assert reply is not None
    assert not reply.replayed
    assert reply.call == call
    assert isinstance(planned.reply, Answer)
    assert reply.text == (planned.reply.text or "")
    assert attempt.delivered in ("", reply.text)
    expected = [(each.id, each.name, each.arguments_text) for each in planned.reply.calls]
    assert [(each.id, each.name, each.arguments) for each in reply.tool_calls] == expected
    stored = messages[len(messages) - len(reply.messages) :]
    assert list(map(told, reply.messages)) == list(map(told, stored))
    assert [each.position for each in reply.messages] == [each.position for each in stored]
