"""Plays one random conversation with a server of some profile, and holds it against what is promised."""

import base64
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import openai

from tests.support.chat_plans import pieces_of, settled
from tokenmem import AsyncChat, Chat, Message, errors
from tokenmem.testing import Answer, Profile
from tokenmem.testing.profile_refusals import FORBIDDEN
from tokenmem.testing.replies import Request

WORDS = ("amber", "basin", "copper", "délta", "ember", "🚆", "grove", "harbour 🌊", "inlet", "七", "kelp")
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0").decode()
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
]
ERRORS = (openai.OpenAIError, errors.ModelError)


def said(random: Random, most: int = 12) -> str:
    return " ".join(random.choices(WORDS, k=random.randint(1, most)))


class ProfilePlayer:
    """One conversation.

    Args:
        store: sync or async.
        client: likewise.
        profile: what kind of server is asked.
        seed: names the conversation and decides all that happens.
        api: the API.
        is_async: whether they are async.
    """

    def __init__(
        self, store: Any, client: Any, profile: Profile, seed: str, api: Any, *, is_async: bool
    ) -> None:
        self.random = Random(seed)
        self.store, self.id, self.profile = store, seed, profile
        kind: Any = AsyncChat if is_async else Chat
        options: dict[str, Any] = {"tools": TOOLS} if self.random.random() < 0.5 else {}
        if self.random.random() < 0.5:
            options["instructions"] = "Be brief."
        self.chat = kind(store, client, "my-model", self.random.choice([900, 4000]), api=api, **options)
        self.uses_tools = bool(options.get("tools"))
        self.refused = False
        self.steps: list[str] = []
        self.seen: Counter[str] = Counter(conversations=1)

    async def play(self) -> None:
        """A few turns; after each that was refused, a plain one, which must be answered."""
        for _ in range(self.random.randint(2, 4)):
            if self.random.random() < 0.25:
                await self._history()
            await self._turn(self._message())
            if self.refused:
                await self._turn(said(self.random), must_be_answered=True)

    def answer(self, request: Request) -> Answer:
        """What the model says to a request of this conversation."""
        seed = f"{self.id}{len(self.steps)}{request.number}"
        random = Random(seed)
        if self.uses_tools and request.body.get("tools") and random.random() < 0.4:
            calls = [("weather", {"city": said(random, 1)}, f"call_{random.getrandbits(64):x}")]
            return Answer(said(random, 3) if random.random() < 0.5 else None, tool_calls=calls)
        return Answer(said(random, 30))

    def _message(self) -> Any:
        random, text = self.random, said(self.random)
        forbidden = f"{FORBIDDEN} {text}"
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
        return random.choice(
            [
                text,
                text,
                [{"type": "text", "text": text}],
                [{"type": "text", "text": text}, {"type": "text", "text": "and more"}],
                [{"type": "text", "text": text}, image],
                {"role": "user", "name": "Ann Lee <ann@example.org>", "content": text},
                forbidden,
                [{"type": "text", "text": forbidden}, image],
                f"data:image/png;base64,{'A' * 9000}",
            ]
        )

    async def _history(self) -> None:
        """Messages that come from elsewhere, in whatever order."""
        call = {"id": "x" * 70, "type": "function", "function": {"name": "get weather", "arguments": '{"a'}}
        choices: list[Any] = [
            [Message.user(said(self.random)), Message.user(said(self.random))],
            [Message.assistant(said(self.random))],
            [{"role": "developer", "content": "Be kind."}],
            [Message.system("Be very brief.")],
            [{"role": "assistant", "content": "So.", "reasoning": "Hm.", "images": [], "odd": {"a": 1}}],
            [Message.user("And?"), {"role": "assistant", "content": None, "tool_calls": [call]}],
            [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                Message.tool("sun", tool_call_id="x" * 70),
            ],
            [Message.user("long " * 1200)],
        ]
        await settled(self.store.append(self.id, self.random.choice(choices)))

    async def _turn(self, message: Any, *, must_be_answered: bool = False) -> None:
        self.steps.append(f"{message!r:.60}")
        before = await self._last_position()
        delivered, reply, error = await self._asked(message)
        self.refused = error is not None
        self.seen["turns"] += 1
        if isinstance(error, errors.WindowTooSmall):
            self.refused = False
            return
        stored = await settled(self.store.messages(self.id, after=before, limit=None))
        if reply is None:
            assert not must_be_answered or self.profile.name == "errors in answers", repr(error)
            assert stored, "the user's message is not stored"
            self.seen["refused"] += 1
            return
        assert [each.position for each in reply.messages] == [
            each.position for each in stored[len(stored) - len(reply.messages) :]
        ]
        assert reply.text == "".join(
            each.content or "" for each in reply.messages if each.kind != "reasoning"
        )
        assert delivered in (None, reply.text), (delivered, reply.text)
        while reply.tool_calls and self.random.random() < 0.7:
            results = {call.id: "sunny" for call in reply.tool_calls}
            try:
                reply = await settled(self.chat.send_tool_results(self.id, results))
            except ERRORS as failure:
                self.refused = True
                self.steps.append(repr(failure))
                return

    async def _asked(self, message: Any) -> tuple[str | None, Any, Exception | None]:
        """A turn, whole or streamed: what was delivered, the reply, or what was raised."""
        pieces: list[str] = []
        try:
            how = self.random.choice(["send", "stream", "open"])
            if how == "send":
                return None, await settled(self.chat.send(self.id, message)), None
            source = self.chat.stream(self.id, message)
            if how == "open":
                source = await settled(self.chat.open(self.id, message))
            reply = None
            async for piece in pieces_of(source):
                if isinstance(piece, str):
                    piece.encode()
                    pieces.append(piece)
                else:
                    reply = piece
            return "".join(pieces), reply if how == "stream" else source.reply, None
        except (*ERRORS, errors.WindowTooSmall) as error:
            self.steps.append(repr(error))
            return "".join(pieces), None, error

    async def _last_position(self) -> int:
        try:
            return (await settled(self.store.conversation(self.id))).last_position
        except errors.ConversationNotFound:
            return 0


def apis_of(profile: Profile) -> Iterator[str]:
    """Which APIs a profile is for."""
    yield "chat"
    if "/v1/responses" in profile.paths:
        yield "responses"
