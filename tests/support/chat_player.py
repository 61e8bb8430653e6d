"""Plays one random conversation and keeps its ledger; for sync and async and both APIs."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from openai import Timeout

from tests.support.chat_histories import some_history
from tests.support.chat_ledger import Attempt, Ledger, Round
from tests.support.chat_plans import (
    Plans,
    Told,
    close_stream,
    pieces_of,
    read_turn,
    settled,
    some_answer,
    some_calls,
    some_text,
    some_trouble,
    told,
    told_by,
)
from tokenmem import AsyncChat, Chat, Message, Reply, errors
from tokenmem.chat.apis.replies import tool_calls_of
from tokenmem.messages.parsing import parse_messages
from tokenmem.testing import Answer, Cut, Failure, Stall
from tokenmem.testing.replies import Reply as ScriptedReply

IMPATIENT = Timeout(60, read=0.1)
"""Only for replies that stall for longer than any test runs: a slow machine changes nothing."""

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
    for name in ("weather", "broken")
]


def weather(city: str) -> dict[str, str]:
    return {"city": city, "sky": "clear"}


async def weather_async(city: str) -> dict[str, str]:
    await asyncio.sleep(0)
    return weather(city)


def broken(why: str) -> None:
    raise RuntimeError(f"because of {why}")


def result_of(name: str, arguments: str) -> str:
    """How the text begins that the model reads as a call's result."""
    if name == "unheard_of":
        return "error: there is no function"
    try:
        given = json.loads(arguments)
    except ValueError:
        return "error: the arguments are not a JSON object"
    if name == "broken":
        return f"error: RuntimeError: because of {given['why']}"
    return json.dumps(weather(given["city"])) if "city" in given else "error: TypeError: "


@dataclass
class Table:
    """What the conversations of one test share.

    Attributes:
        store: sync or async, as are the clients.
        clients: by how often they try again.
        plans: the server's script.
        api: the API that most turns use.
        seen: how often each thing has happened.
    """

    store: Any
    clients: dict[int, Any]
    plans: Plans
    api: str
    is_async: bool
    seen: Counter[str] = field(default_factory=Counter)


@dataclass
class Sent:
    """A turn with an idempotency key, to be repeated; with the reply's text once that is there."""

    method: str
    said: Any
    key: str
    text: str | None
    messages: tuple[int, ...]
    """Where its messages are."""
    replies: tuple[int, ...]
    """Where its reply is."""
    ends_at: int
    """The last position of its messages, its reply, and the parts that its failed calls have left."""


class Player:
    """One conversation.

    Args:
        table: what it shares with others.
        seed: names the conversation and decides all that happens.
    """

    def __init__(self, table: Table, seed: str) -> None:
        self.table = table
        self.random = Random(seed)
        self.id = seed
        self.log: list[str] = []
        self._make_chats()
        self.ledger = Ledger(table.store, seed, self.token_limit)
        self.open_calls: list[str] = []
        self.fresh = False  # whether the open calls are the last that was said
        self.sent: list[Sent] = []
        self._said = 0

    def _make_chats(self) -> None:
        random = self.random
        options: dict[str, Any] = {
            "model": random.choice(["gpt-4o", "gpt-4o", "gpt-5-mini"]),
            "instructions": random.choice([None, "Answer in words of the sea."]),
            "tools": random.choice([None, TOOLS]),
            "stride": random.choice(["eighth", "eighth", None, 10]),
            "start_on": random.choice(["step", "step", "turn"]),
            "oversized_results": random.choice(["refuse", "cut"]),
        }
        self.oversized_cut = options["oversized_results"] == "cut"
        limit = random.choice([random.randint(30, 90), random.randint(90, 400), 6000])
        while True:  # until instructions and tools leave room
            try:
                self.chats = {
                    (api, retries): self._chat(api, client, limit, options)
                    for api in ("chat", "responses")
                    for retries, client in self.table.clients.items()
                }
            except errors.InvalidArgument:
                limit += 35
            else:
                break
        self.token_limit = limit
        self.log.append(f"limit {limit} {options}")

    def _chat(self, api: Any, client: Any, limit: int, options: dict[str, Any]) -> Any:
        kind: Any = AsyncChat if self.table.is_async else Chat
        return kind(self.table.store, client, token_limit=limit, api=api, **options)

    async def play(self) -> None:
        """A few random turns, each compared with what it has stored; then all of it."""
        random = self.random
        if random.random() < 0.35:
            await self.append_history()
        actions: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (30, self.say),
            (10, self.run),
            (5, self.ask_again),
            (10, self.repeat),
            (4, self.append_history),
            (3, self.append_late_result),
            (6, self.delete_one),
            (4, self.answer_wrongly),
            (3, self.send_same_at_once),
            (3, self.say_two_at_once),
        ]
        for _ in range(random.randint(3, 7)):
            if self.open_calls and random.random() < 0.6:
                action: Callable[[], Awaitable[None]] = self.answer_calls
            else:
                (action,) = random.choices(
                    [each for _, each in actions], weights=[weight for weight, _ in actions]
                )
            self.log.append(action.__name__)
            await action()
        await self.ledger.check_all()

    # What a user does

    async def say(self) -> None:
        message = self._message()
        await self._turn("send", message, list(map(told, parse_messages([message]))))

    async def ask_again(self) -> None:
        """Ask with what is there, which may be nothing that can be sent."""
        refusals = (errors.InvalidArgument, errors.ConversationNotFound)
        await self._turn("send", None, [], refusals=refusals)

    async def answer_calls(self) -> None:
        results = {each: some_text(self.random, random_length(self.random)) for each in self.open_calls}
        incoming = [Told("tool", "tool_result", text, (), (each,)) for each, text in results.items()]
        # Calls that were left open for a while may have left the window, or been deleted.
        refusals = () if self.fresh else (errors.InvalidArgument,)
        stored = await self._turn(
            "send_tool_results", results, incoming, refusals=refusals, loose=self.oversized_cut
        )
        if not stored and not self.fresh:
            self.open_calls = []

    async def answer_wrongly(self) -> None:
        """Results of calls that nobody made, and results of some calls only: nothing is stored."""
        results = dict.fromkeys(self.open_calls, "fine")
        is_told = len(results) > 1 and self.fresh
        if is_told and self.random.random() < 0.7:
            del results[self.random.choice(self.open_calls)]
        else:
            results["call_nowhere"] = "fine"
        attempt = await self._attempt(
            lambda: self._some_chat()[1].send_tool_results(
                self.id, results, extra_headers=self.table.plans.plan()
            )
        )
        # A conversation of which nothing fits the limit is refused before its calls are looked at.
        expected = (errors.InvalidArgument, errors.WindowTooSmall)
        assert isinstance(attempt.raised, expected), repr(attempt)
        await self.ledger.settle([], attempt, expected)

    async def run(self) -> None:
        """Tools called by the wrapper, until the model has said all, failed, or called too often."""
        random = self.random
        message = self._message()
        api, chat = self._some_chat()
        incoming, rounds = list(map(told, parse_messages([message]))), list[Round]()
        for _ in range(random.randint(0, 3)):
            calls = tuple(some_calls(random))
            rounds.append(Round(incoming, Answer(tool_calls=calls), api, loose=True))
            incoming = [
                Told("tool", "tool_result", result_of(call.name, call.arguments_text), (), (str(call.id),))
                for call in calls
            ]
        last = some_answer(random, calls=False)
        rounds.append(
            Round(incoming, some_trouble(random, last) if random.random() < 0.2 else last, api, loose=True)
        )
        raising, most = random.random() < 0.3, random.choice([10, 10, 2])
        stops = (errors.TooManyModelCalls,) if most == 2 else ()
        stops += (RuntimeError, TypeError) if raising else ()
        given = {
            "functions": {"weather": weather_async if self.table.is_async else weather, "broken": broken},
            "max_calls": most,
            "on_error": "raise" if raising else "tell",
            "idempotency_key": random.choice([None, f"key {self._said}"]),
        }
        options = given | self._planned([each.reply for each in rounds])
        before = len(self.ledger.statuses)
        attempt = await self._attempt(lambda: chat.run(self.id, message, **options))
        await self._settle(rounds, attempt, stops)
        if given["idempotency_key"] is None:
            return
        made = len(self.ledger.statuses) - before
        if attempt.reply is not None:
            rounds = []
        elif made and self.ledger.statuses[-1] == "error":
            # The model has failed in the last round, whose results are stored.
            rounds = [Round([], some_answer(random, calls=False), api)]
        else:
            return
        options = given | self._planned([each.reply for each in rounds])
        again = await self._attempt(lambda: chat.run(self.id, message, **options))
        await self._settle_again(rounds, again, attempt, stops)

    async def _settle_again(
        self, rounds: list[Round], again: Attempt, before: Attempt, stops: tuple[type[Exception], ...]
    ) -> None:
        """A run is repeated where it has failed, and not at all where it has not."""
        self.table.seen["run again"] += 1
        if rounds:
            await self._settle(rounds, again, stops)
            return
        assert before.reply is not None
        assert again.reply is not None, repr(again.raised)
        assert again.reply.replayed
        assert again.reply.text == before.reply.text
        assert await self.ledger.news() == ([], [])

    async def repeat(self) -> None:
        """The same request again: a known reply comes back, after a failure the model is asked again."""
        if not self.sent:
            return
        again = self.random.choice(self.sent)
        rows = self.ledger.rows.keys()
        is_last = not any(position > again.ends_at for position in rows)
        if again.text is None and rows >= {*again.messages} and is_last:
            await self._turn(again.method, again.said, [], repeated=again)
            return
        _, chat = self._some_chat()
        attempt = await self._read_one(chat, again.method, again.said, again.key, self.table.plans.plan())
        if again.text is None or not rows >= {*again.replies}:
            assert isinstance(attempt.raised, errors.PositionConflict), repr(attempt)
            self.table.seen["moved on"] += 1
        else:
            assert attempt.reply is not None, repr(attempt.raised)
            assert attempt.reply.replayed
            assert attempt.reply.text == again.text
            self.table.seen["replayed"] += 1
        assert await self.ledger.news() == ([], [])

    async def append_history(self) -> None:
        history = some_history(self.random)
        if not history:
            return
        if self.random.random() < 0.2:
            history.append(Message.user(some_text(self.random, 5), pinned=True))  # type: ignore[arg-type]
        await settled(self.table.store.append(self.id, history))
        messages, calls = await self.ledger.news()
        assert list(map(told, messages)) == list(map(told, parse_messages(history)))
        assert not calls
        self.ledger.enter(messages, calls)
        self.fresh = False

    async def append_late_result(self) -> None:
        """Somebody answers a call without telling the model."""
        if not self.open_calls or not self.ledger.last_position:
            return
        call_id = self.open_calls.pop()
        await settled(self.table.store.append(self.id, [Message.tool("late", tool_call_id=call_id)]))
        self.ledger.enter(*(await self.ledger.news()))
        self.fresh = False

    async def delete_one(self) -> None:
        if not self.ledger.rows:
            return
        position = self.random.choice(list(self.ledger.rows))
        await settled(self.table.store.delete_message(self.id, position))
        self.ledger.rows.pop(position)
        self.fresh = False

    async def send_same_at_once(self) -> None:
        """The same request twice at the same time: one call, unless the first fails; then the other asks."""
        random = self.random
        message, key = self._message(), f"key {self._said}"
        fails = random.random() < 0.4
        answer = some_answer(random)
        replies: list[ScriptedReply] = [Failure(500), answer] if fails else [answer]
        api, chat = self._some_chat()
        options = self._planned(replies) | {"idempotency_key": key}
        one, other = await self._both(
            lambda: chat.send(self.id, message, **options), lambda: chat.send(self.id, message, **options)
        )
        incoming = list(map(told, parse_messages([message])))
        rounds = [Round(incoming, replies[0], api)] + ([Round([], answer, api)] if fails else [])
        messages, calls = await self.ledger.news()
        if not calls:
            assert isinstance(one.raised, errors.WindowTooSmall)
            assert isinstance(other.raised, errors.WindowTooSmall)
            assert not messages
            return
        self.ledger.enter(messages, calls)
        expected = incoming + [each for each in told_rounds(rounds) if each not in incoming]
        assert list(map(told, messages)) == expected, (messages, calls, one, other)
        assert [call.status for call in calls] == (["error", "ok"] if fails else ["ok"])
        replies_got = [each.reply for each in (one, other) if each.reply is not None]
        assert len(replies_got) == (1 if fails else 2), (one, other)
        assert {each.text for each in replies_got} == {answer.text or ""}
        assert sum(not each.replayed for each in replies_got) == 1
        self._note_calls(messages)
        self.table.seen["at once"] += 1

    async def say_two_at_once(self) -> None:
        """Two users' turns overlap: both are whole, whatever their order."""
        api, chat = self._some_chat()
        said = [self._message(), self._message()]
        answers = [some_answer(self.random) for _ in said]
        options = [self._planned([each]) for each in answers]
        attempts = await self._both(
            lambda: chat.send(self.id, said[0], **options[0]),
            lambda: chat.send(self.id, said[1], **options[1]),
        )
        messages, calls = await self.ledger.news()
        self.ledger.enter(messages, calls)
        expected: list[Told] = []
        for message, answer, attempt in zip(said, answers, attempts, strict=True):
            if attempt.reply is None:
                assert isinstance(attempt.raised, errors.WindowTooSmall), repr(attempt.raised)
            else:
                expected += told_rounds([Round(list(map(told, parse_messages([message]))), answer, api)])
        assert sorted(map(told, messages)) == sorted(expected)
        assert [call.status for call in calls] == ["ok"] * sum(each.reply is not None for each in attempts)
        self.open_calls, self.fresh = [], False

    # How it is done

    def _message(self) -> Any:
        """Something new to say; each is said once."""
        random = self.random
        self._said += 1
        text = f"{self._said}: {some_text(random)}"
        chance = random.random()
        if chance < 0.05:
            return Message.user(text, pinned=True)
        if chance < 0.1:
            return {"role": "user", "content": [{"type": "text", "text": text}]}
        return Message.user(text if chance < 0.95 else f"{text} {some_text(random, 300)}")

    def _some_chat(self) -> tuple[str, Any]:
        other = "responses" if self.table.api == "chat" else "chat"
        api = self.table.api if self.random.random() < 0.85 else other
        return api, self.chats[api, 0]

    def _planned(self, replies: Sequence[ScriptedReply]) -> dict[str, Any]:
        """The options of a turn that gets these replies."""
        options: dict[str, Any] = {"extra_headers": self.table.plans.plan(*replies)}
        if any(isinstance(each, Stall) for each in replies):
            options["timeout"] = IMPATIENT
        return options

    async def _turn(
        self,
        method: str,
        said: Any,
        incoming: list[Told],
        *,
        repeated: Sent | None = None,
        refusals: tuple[type[Exception], ...] = (),
        loose: bool = False,
    ) -> list[Message]:
        """One call of the model, which may fail, be left or be cancelled."""
        random = self.random
        api, chat = self._some_chat()
        reply: ScriptedReply = some_answer(random)
        manner = random.choice(["send", "send", "stream", "stream", "leave", "cancel"])
        if random.random() < 0.25 and manner != "cancel":
            reply = some_trouble(random, reply)
        replies = [reply]
        if isinstance(reply, Failure) and reply.status != 400 and random.random() < 0.5:
            chat, reply = self.chats[api, 1], some_answer(random)
            replies.append(reply)
        elif manner == "send" and isinstance(reply, (Stall, Cut)) and random.random() < 0.1:
            chat = self.chats[api, 1]  # the openai client waits half a second before it tries again
            replies.append(reply)
        elif manner == "cancel":
            reply = random.choice([reply, Stall(after=random.randint(0, 14), answer=reply)])
            replies = [reply]
        key = repeated.key if repeated else random.choice([None, f"key {self._said} {len(self.log)}"])
        self.log.append(f"  {manner} {method} by {api}, key {key}: {replies}")
        options = self._planned(replies)
        if manner == "cancel":
            options.pop("timeout", None)
        attempt = await self._perform(manner, chat, method, said, key, options)
        self.log.append(f"  {attempt.raised!r}, left {attempt.left}, delivered {attempt.delivered!r}")
        stored = await self._settle([Round(incoming, reply, api, loose)], attempt, refusals)
        if key is not None and (attempt.reply is not None or self.begun):
            self.sent = [each for each in self.sent if each.key != key]
            text = attempt.reply.text if attempt.reply is not None else None
            if text is None and self.ledger.statuses[-1] == "ok":
                text = next((each.text for each in self._answers(reply)), "")  # stored before it was left
            # Results that were cut on their way are other messages when they are sent again.
            if not loose:
                places = [message.position for message in stored]
                own = repeated.messages if repeated else tuple(places[: len(incoming)])
                replies_at = tuple(places[len(incoming) :]) if text is not None else ()
                ends_at = self.ledger.last_position
                self.sent.append(Sent(method, said, key, text, own, replies_at, ends_at))
        return stored

    def _answers(self, reply: ScriptedReply) -> list[Told]:
        return [Told("assistant", "message", reply.text or "")] if isinstance(reply, Answer) else []

    async def _perform(
        self, manner: str, chat: Any, method: str, said: Any, key: str | None, options: dict[str, Any]
    ) -> Attempt:
        if manner == "cancel" and self.table.is_async:
            return await self._cancelled(chat, method, said, key, options)
        if manner == "send":
            send = getattr(chat, method)
            return await self._attempt(lambda: send(self.id, said, idempotency_key=key, **options))
        most = self.random.randint(1, 6) if manner in ("leave", "cancel") else None
        stream = self._stream(chat, method)(self.id, said, idempotency_key=key, **options)
        attempt = Attempt()
        if manner == "cancel":  # what stalls is left when its first piece is there
            most = 1
            stream = self._stream(chat, method)(
                self.id, said, idempotency_key=key, **options, timeout=IMPATIENT
            )
        await self._read(stream, attempt, most)
        return attempt

    def _stream(self, chat: Any, method: str) -> Any:
        if method == "send" and self.random.random() < 0.5:
            return partial(read_turn, chat.open)
        return getattr(chat, {"send": "stream", "send_tool_results": "stream_tool_results"}[method])

    async def _read_one(self, chat: Any, method: str, said: Any, key: str, header: dict[str, str]) -> Attempt:
        manner = self.random.choice(["send", "stream"])
        return await self._perform(manner, chat, method, said, key, {"extra_headers": header})

    async def _attempt(self, act: Callable[[], Any]) -> Attempt:
        attempt = Attempt()
        try:
            attempt.reply = await settled(act())
        except Exception as error:
            attempt.raised = error
        return attempt

    async def _read(self, stream: Any, attempt: Attempt, most: int | None) -> None:
        """Read a stream, or its first pieces."""
        count = 0
        try:
            async for piece in pieces_of(stream):
                if isinstance(piece, Reply):
                    attempt.reply = piece
                    continue
                attempt.delivered += piece
                count += 1
                if count == most:
                    attempt.left = True
                    await close_stream(stream)
                    return
        except BaseException as error:
            attempt.raised = error
            if isinstance(error, asyncio.CancelledError):
                raise

    async def _cancelled(
        self, chat: Any, method: str, said: Any, key: str | None, options: dict[str, Any]
    ) -> Attempt:
        """A task that is cancelled at some moment: before it begins, on its way, or when it is done."""
        attempt = Attempt()
        if self.random.random() < 0.7:
            stream = self._stream(chat, method)(self.id, said, idempotency_key=key, **options)
            task = asyncio.create_task(self._read(stream, attempt, None))
        else:
            task = asyncio.create_task(getattr(chat, method)(self.id, said, idempotency_key=key, **options))
        asked = self.table.plans.asked(options["extra_headers"])
        wait_for_request, turns = self.random.random() < 0.6, self.random.randint(0, 25)
        while wait_for_request and not asked.is_set() and not task.done():
            await asyncio.sleep(0.001)
        for _ in range(turns):
            await asyncio.sleep(0.0005)
        task.cancel()
        try:
            done = await task
        except BaseException as error:
            attempt.raised = error
        else:
            attempt.reply = attempt.reply or done
        return attempt

    async def _both(self, *acts: Callable[[], Any]) -> list[Attempt]:
        """Two turns at the same time: as tasks, or in threads."""
        if self.table.is_async:
            return list(await asyncio.gather(*map(self._attempt, acts)))

        def in_thread(act: Callable[[], Any]) -> Attempt:
            return asyncio.run(self._attempt(act))

        return list(await asyncio.gather(*(asyncio.to_thread(in_thread, act) for act in acts)))

    async def _settle(
        self, rounds: Sequence[Round], attempt: Attempt, stops: tuple[type[Exception], ...]
    ) -> list[Message]:
        before = len(self.ledger.statuses)
        stored = await self.ledger.settle(rounds, attempt, stops)
        self.begun = len(self.ledger.statuses) > before
        if self.begun:
            self.table.seen[self.ledger.statuses[-1]] += 1
        else:
            self.table.seen[type(attempt.raised).__name__] += 1
        self.table.seen["parts"] += any(message.partial for message in stored)
        if stored:
            self._note_calls(stored)
        return stored

    def _note_calls(self, stored: Sequence[Message]) -> None:
        """The calls that are open now; older ones are left for good."""
        calls = [call.id for call in tool_calls_of(stored)]
        answered = {each for message in stored for each in told(message).answers}
        still_open = [each for each in calls if each not in answered]
        self.fresh = bool(still_open) and stored[-1].kind == "tool_call"
        if still_open:
            self.open_calls = still_open
        else:
            self.open_calls = [each for each in self.open_calls if each not in answered]


def random_length(random: Random) -> int:
    return random.choice([3, 12, 12, 300])


def told_rounds(rounds: Sequence[Round]) -> list[Told]:
    """What rounds must have stored, in order; of those that fail nothing but what came in."""
    stored: list[Told] = []
    for each in rounds:
        stored += each.incoming
        if isinstance(each.reply, Answer):
            stored += told_by(each.reply, each.api)
    return stored
