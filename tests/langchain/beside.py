"""One conversation held twice, by LangChain's chain and by tokenmem's, and compared after every action."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import isasyncgen, iscoroutine, isgenerator
from typing import Any

from langchain_classic.chains import ConversationChain as LangChainsChain
from langchain_classic.memory import ConversationTokenBufferMemory as LangChainsMemory
from langchain_core.messages import BaseMessage
from langchain_core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from tests.langchain.differences import difference, family
from tests.langchain.scripted_models import (
    AwaitedRecorder,
    Events,
    Recorder,
    Script,
    scripted_model,
    snapshot,
)
from tokenmem import Message, TranscriptCounter


class ReferenceMemory(LangChainsMemory):
    """LangChain's memory as its documentation has it, where the class falls short of it.

    It prunes behind `save_context` alone: neither behind `asave_context` nor what is added to `chat_memory`.
    And it returns the very list that goes on to grow, so that an answer's history has the exchange itself.
    """

    async def asave_context(self, inputs: dict[str, Any], outputs: dict[str, str]) -> None:
        await super().asave_context(inputs, outputs)
        self.prune()

    def prune(self) -> None:
        messages = self.chat_memory.messages
        while self.llm.get_num_tokens_from_messages(messages) > self.max_token_limit:
            del messages[0]

    @property
    def buffer_as_messages(self) -> list[BaseMessage]:
        return list(super().buffer_as_messages)


class DefaultLines:
    """Counts a message as a line of a Human or an AI, as LangChain does whatever a memory's prefixes are."""

    name = "lines of Human and AI"

    def __init__(self) -> None:
        self._counter = TranscriptCounter("cl100k_base", "Human", "AI")

    def count(self, message: Message) -> int:
        return self._counter.count(message)


Wait = Callable[[Any], Any]
"""Runs a coroutine to its end."""


@dataclass(frozen=True)
class Setup:
    """How a memory and its two chains are made."""

    model: str
    prompt: str  # "default", "text", "chat" or "chat of texts"
    other_prompt: str = "text"
    memory: Mapping[str, Any] = field(default_factory=dict)
    chain: Mapping[str, Any] = field(default_factory=dict)
    has_callbacks: bool = False
    """The chain has a handler of its own."""
    is_bound: bool = False
    """The chain's model is bound to an option, and so is not the memory's."""

    @property
    def memory_key(self) -> str:
        return str(self.memory.get("memory_key", "history"))

    @property
    def input_key(self) -> str:
        return str(self.chain.get("input_key", "input"))

    @property
    def output_key(self) -> str:
        return str(self.chain.get("output_key", "response"))

    @property
    def counting(self) -> dict[str, Any]:
        """What makes tokenmem's memory count as LangChain's: by itself it counts the prefixes it writes."""
        return {"counter": DefaultLines()} if "human_prefix" in self.memory else {}

    def prompt_of(self, kind: str) -> BasePromptTemplate:
        past, said = self.memory_key, self.input_key
        if kind == "text":
            return PromptTemplate.from_template(f"{{{{so far}}}}\n{{{past}}}\nNow: {{{said}}}\n")
        if kind == "chat":
            return ChatPromptTemplate.from_messages(
                [("system", "Be {{kind}}."), MessagesPlaceholder(past), ("human", f"{{{said}}}")]
            )
        return ChatPromptTemplate.from_messages([("system", f"So far: {{{past}}}"), ("human", f"{{{said}}}")])


@dataclass(frozen=True)
class Action:
    """A call on one of the objects of a conversation, or a look at a property."""

    target: str
    method: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    watched: str = ""
    """The option that hands over a handler: "callbacks", "config", or none."""
    awaited_handler: bool = False
    replies: tuple[Any, ...] = ()
    is_refused: bool = False
    """LangChain's chain fails behind the model's answer, ours before it asks: that answer would be lost."""

    def __str__(self) -> str:
        given = [*map(repr, self.arguments), *(f"{key}={value!r}" for key, value in self.options.items())]
        if self.watched:
            given.append(f"{self.watched}: {'awaited handler' if self.awaited_handler else 'handler'}")
        answers = f"  # the model: {', '.join(map(repr, self.replies))}" if self.replies else ""
        return f"{self.target}.{self.method}({', '.join(given)}){answers}"


@dataclass(frozen=True)
class Plan:
    """A conversation from its beginning to its end."""

    setup: Setup
    actions: tuple[Action, ...]

    def __str__(self) -> str:
        return "\n".join([str(self.setup), *(f"{n}. {action}" for n, action in enumerate(self.actions, 1))])

    def without(self, number: int) -> "Plan":
        return replace(self, actions=self.actions[:number] + self.actions[number + 1 :])


class Side:
    """One library's half: a model, a memory, two chains on it, and what their callbacks told.

    Args:
        setup: how they are made.
        memory_class: the library's memory.
        chain_class: the library's chain.
        places: further arguments of the memory; each time the conversation is reopened, the next of them.
        wait: runs a coroutine to its end.
        is_async: only what can be awaited is called.
    """

    def __init__(
        self,
        setup: Setup,
        memory_class: type[Any],
        chain_class: type[Any],
        places: Sequence[Mapping[str, Any]],
        wait: Wait,
        is_async: bool = False,
    ) -> None:
        self.setup = setup
        self.script = Script()
        self.events = Events()
        self.model = scripted_model(setup.model, self.script)
        self.wait = wait
        self.is_async = is_async
        self.asks_in_vain = chain_class is LangChainsChain
        self._memory_class = memory_class
        self._chain_class = chain_class
        self._places = places
        self._opened = 0
        self.seen: set[tuple[str, str]] = set()
        """What was called, and what came of it."""
        self.open()

    def open(self) -> None:
        """Make the memory and the chains, where the conversation is kept anew."""
        place = self._places[self._opened % len(self._places)]
        self._opened += 1
        self.memory = self._memory_class(llm=self.model, **self.setup.memory, **place)
        options = dict(self.setup.chain)
        if self.setup.has_callbacks:
            options["callbacks"] = [Recorder(self.events)]
        self.chain = self._chain(self.setup.prompt, options)
        self.other_chain = self._chain(self.setup.other_prompt, dict(self.setup.chain))

    def _chain(self, prompt: str, options: dict[str, Any]) -> Any:
        if prompt != "default":
            options["prompt"] = self.setup.prompt_of(prompt)
        llm = self.model.bind(mood="calm") if self.setup.is_bound else self.model
        return self._chain_class(llm=llm, memory=self.memory, **options)

    def target(self, name: str) -> Any:
        """What an action calls."""
        chain, key = self.chain, self.setup.output_key
        return {
            "side": lambda: self,
            "chain": lambda: chain,
            "other chain": lambda: self.other_chain,
            "memory": lambda: self.memory,
            "chat memory": lambda: self.memory.chat_memory,
            "chain | length": lambda: chain | RunnableLambda(lambda answer: len(answer[key])),
            "strip | chain": lambda: RunnableLambda(_stripped) | chain,
            "{said: chain}": lambda: {"said": chain} | RunnablePassthrough(),
            "chain with tags": lambda: chain.with_config(tags=["bound"], metadata={"bound": 1}),
            "chain with fallback": lambda: chain.with_fallbacks([self.other_chain]),
            "chain of chains": lambda: chain | RunnableLambda(lambda answer: answer[key]) | self.other_chain,
        }[name]()

    def reopen(self) -> None:
        """Go on with the conversation as another process would; LangChain's is nowhere else."""
        if len(self._places) > 1:
            self.open()

    def perform(self, action: Action) -> Any:
        """What the action returns or raises, with the model's replies of this action."""
        self.script.replies.extend(action.replies)
        try:
            result = self.wait(self._called(action)) if self.is_async else self._performed(action)
        except Exception as error:
            result = error
        self.script.replies.clear()
        self._after()
        outcome = family(result) if isinstance(result, Exception) else "ok"
        self.seen.add((f"{action.target}.{action.method}", outcome))
        return result

    async def _called(self, action: Action) -> Any:
        result = self._result(action)
        if isasyncgen(result):
            return await _all_of(result)
        return await result if iscoroutine(result) else result

    def _performed(self, action: Action) -> Any:
        result = self._result(action)
        if iscoroutine(result):
            return self.wait(result)
        if isasyncgen(result):
            return self.wait(_all_of(result))
        return list(result) if isgenerator(result) else result

    def _result(self, action: Action) -> Any:
        options = snapshot(dict(action.options))
        if action.watched:
            handler = (AwaitedRecorder if action.awaited_handler else Recorder)(self.events)
            if action.watched == "config":
                options["config"] = {**options.get("config", {}), "callbacks": [handler]}
            else:
                options["callbacks"] = [handler]
        attribute = getattr(self.target(action.target), action.method)
        return attribute(*snapshot(list(action.arguments)), **options) if callable(attribute) else attribute

    def _after(self) -> None:
        """What is done behind every action."""
        if isinstance(self.memory, ReferenceMemory):
            self.memory.prune()

    def history(self) -> Any:
        """What the memory loads now."""
        if self.is_async:
            return self.wait(self.memory.aload_memory_variables({}))
        return self.memory.load_memory_variables({})


async def _all_of(parts: Any) -> list[Any]:
    return [part async for part in parts]


def _stripped(said: Any) -> Any:
    return said.strip() if isinstance(said, str) else said


def play(plan: Plan, theirs: Side, ours: Side) -> str:
    """Hold the conversation on both sides; the first difference, or an empty text where there is none."""
    for number, action in enumerate(plan.actions, 1):
        found = _compare(action, theirs, ours)
        if found:
            return f"{number}. {action}\n{found}"
    return ""


def _compare(action: Action, theirs: Side, ours: Side) -> str:
    results = theirs.perform(action), ours.perform(action)
    if action.method in ("stream", "astream"):
        key = ours.setup.output_key
        joined = results[1] if ours.asks_in_vain else _joined(results[1], ours.setup)
        results = _response_of(results[0], key), _response_of(joined, key)
    is_refused = action.is_refused and not ours.asks_in_vain
    asked = ([] if is_refused else theirs.script.asked), ours.script.asked
    pairs = {
        "what the model got": asked,
        "what it returned": results,
        "what callbacks were told": tuple(_told(action, side, is_refused) for side in (theirs, ours)),
        "the history": (theirs.history(), ours.history()),
    }
    found = [f"{what}: {told}" for what, both in pairs.items() if (told := difference(*both))]
    for side in (theirs, ours):
        side.script.asked.clear()
        side.events.clear()
    return "\n".join(found)


def _told(action: Action, side: Side, is_refused: bool) -> list[Any]:
    """What can be compared of what callbacks were told."""
    left_out: set[str] = set()
    if action.method in ("stream", "astream"):
        left_out = {"llm_new_token"}  # LangChain's chain asks for no stream
    if is_refused:
        left_out = {"text", "llm_start", "chat_model_start", "llm_new_token", "llm_end"}
    return [told for told in side.events.told if told[0] not in left_out]


def _response_of(parts: Any, key: str) -> Any:
    return parts[0][key] if isinstance(parts, list) else parts


def _joined(parts: Any, setup: Setup) -> Any:
    """Our pieces as LangChain's one part; they are the model's text, which a parser reads as a whole."""
    if not isinstance(parts, list):
        return parts
    assert all(isinstance(part, str) and part[setup.output_key] == part for part in parts), parts
    text = "".join(parts)
    parser = setup.chain.get("output_parser")
    return [{setup.output_key: text if parser is None else parser.parse(text)}]


def smallest(plan: Plan, found: str, fails: Callable[[Plan], str]) -> tuple[Plan, str]:
    """The plan without all actions that its failure does not need, and how that fails."""
    number = len(plan.actions) - 1
    while number >= 0:
        shorter = plan.without(number)
        if told := fails(shorter):
            plan, found = shorter, told
        number -= 1
    return plan, found
