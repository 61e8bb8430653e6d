"""LangChain models that answer from a script, and a handler that writes down what callbacks tell."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, BaseLanguageModel
from langchain_core.language_models.llms import LLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, GenerationChunk

from tokenmem import TiktokenCounter

COUNTER = TiktokenCounter("cl100k_base")


class Overloaded(Exception):
    """What a model raises where the script says so."""


class Script:
    """What a model answers, reply by reply, and what it was asked; an exception among them is raised."""

    def __init__(self, *replies: str | list[Any] | Exception) -> None:
        self.replies = deque(replies)
        self.asked: list[Any] = []

    def answer(self, prompt: Any, stop: Sequence[str] | None, options: dict[str, Any]) -> str | list[Any]:
        self.asked.append((prompt, stop, options))
        reply = self.replies.popleft()
        if isinstance(reply, Exception):
            raise reply
        return reply

    def pieces(self, prompt: Any, stop: Sequence[str] | None, options: dict[str, Any]) -> Iterator[str]:
        """The reply a piece at a time; one that fails has begun to write."""
        self.asked.append((prompt, stop, options))
        reply = self.replies.popleft()
        if isinstance(reply, Exception):
            yield "What I mean"
            yield " is"
            raise reply
        text = reply if isinstance(reply, str) else "".join(part["text"] for part in reply)
        for start in range(0, len(text) or 1, 5):
            yield text[start : start + 5]


class ScriptedLLM(LLM):
    """A model of texts."""

    script: Any

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **options: Any) -> str:  # noqa: ARG002
        answer = self.script.answer(prompt, stop, options)
        assert isinstance(answer, str)
        return answer

    def get_num_tokens(self, text: str) -> int:
        return COUNTER.count_text(text)


class StreamingLLM(ScriptedLLM):
    """A model of texts that can also write piece by piece."""

    def _stream(
        self, prompt: str, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> Iterator[GenerationChunk]:
        for piece in self.script.pieces(prompt, stop, options):
            chunk = GenerationChunk(text=piece)
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk


class ScriptedChatModel(BaseChatModel):
    """A model of messages."""

    script: Any

    @property
    def _llm_type(self) -> str:
        return "scripted-chat"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: Any = None,
        run_manager: Any = None,  # noqa: ARG002
        **options: Any,
    ) -> ChatResult:
        answer = self.script.answer(_said(messages), stop, options)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=answer))])

    def get_num_tokens(self, text: str) -> int:
        return COUNTER.count_text(text)


class StreamingChatModel(ScriptedChatModel):
    """A model of messages that can also write piece by piece, and does so always where `streaming` is set."""

    streaming: bool = False

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **options: Any
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self.script.pieces(_said(messages), stop, options):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk


def _said(messages: list[BaseMessage]) -> list[BaseMessage]:
    """The messages as they are now: lists of histories go on to grow."""
    return [message.model_copy() for message in messages]


MODELS = {
    "texts": lambda script: ScriptedLLM(script=script),
    "texts in pieces": lambda script: StreamingLLM(script=script),
    "messages": lambda script: ScriptedChatModel(script=script),
    "messages in pieces": lambda script: StreamingChatModel(script=script),
    "messages always in pieces": lambda script: StreamingChatModel(script=script, streaming=True),
}


def scripted_model(kind: str, script: Script) -> BaseLanguageModel:
    """A model of one of the kinds of MODELS."""
    return MODELS[kind](script)


GIVEN_RUN_IDS = 1 << 32
"""Ids of runs below it are those that callers have given."""


class Events:
    """What the callbacks of one side were told, in order, with runs numbered as they begin."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.run_ids: list[UUID] = []

    def add(self, kind: str, what: Any, run_id: UUID, parent_run_id: UUID | None = None, **more: Any) -> None:
        if run_id not in self.run_ids:
            self.run_ids.append(run_id)
        parent: Any = parent_run_id
        if parent_run_id is not None:  # the chain's own handler hears nothing of what the chain is a part of
            parent = self.run_ids.index(parent_run_id) if parent_run_id in self.run_ids else "unheard of"
        kept = {key: more[key] for key in ("name", "tags", "metadata") if key in more}
        if "metadata" in kept:  # LangChain's models add their own, by the method that is called
            kept["metadata"] = {key: each for key, each in kept["metadata"].items() if key[:3] != "ls_"}
        run = run_id if run_id.int < GIVEN_RUN_IDS else self.run_ids.index(run_id)
        self.told.append((kind, run, parent, snapshot(what), snapshot(kept)))

    def clear(self) -> None:
        self.told = []
        self.run_ids = []


def snapshot(value: Any) -> Any:
    """The value as it is now: histories are lists that go on to grow."""
    if isinstance(value, dict):
        return {key: snapshot(each) for key, each in value.items()}
    return [snapshot(each) for each in value] if isinstance(value, list) else value


class Recorder(BaseCallbackHandler):
    """Writes down what callbacks tell."""

    raise_error = True  # else what goes wrong in here is only logged

    def __init__(self, events: Events) -> None:
        self.events = events


class AwaitedRecorder(AsyncCallbackHandler):
    """The same, awaited."""

    raise_error = True

    def __init__(self, events: Events) -> None:
        self.events = events


def _make_recorders() -> None:
    """Give both a method for each event; what matters is the last of the arguments without a name."""
    for name in EVENTS:

        def told(self: Any, *what: Any, _name: str = name, **more: Any) -> None:
            self.events.add(_name, what[-1] if what else more["token"], **more)

        async def told_awaited(self: Any, *what: Any, _name: str = name, **more: Any) -> None:
            self.events.add(_name, what[-1] if what else more["token"], **more)

        setattr(Recorder, f"on_{name}", told)
        setattr(AwaitedRecorder, f"on_{name}", told_awaited)


EVENTS = (
    "chain_start",
    "chain_end",
    "chain_error",
    "llm_start",
    "chat_model_start",
    "llm_new_token",
    "llm_end",
    "llm_error",
    "text",
)
_make_recorders()
