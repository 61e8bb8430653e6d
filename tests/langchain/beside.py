"""One conversation held twice, by LangChain's chain and by tokenmem's, and compared after every action."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import isasyncgen, iscoroutine, isgenerator
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult, RunInfo
from langchain_core.prompts import (
    BasePromptTemplate,
    ChatPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from tests.langchain.scripted_models import (
    AwaitedRecorder,
    Events,
    Overloaded,
    Recorder,
    Script,
    scripted_model,
    snapshot,
)

Wait = Callable[[Any], Any]
"""Runs a coroutine to its end."""

FAMILIES = (KeyError, ValueError, TypeError, AttributeError, NotImplementedError)


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

    @property
    def memory_key(self) -> str:
        return str(self.memory.get("memory_key", "history"))

    @property
    def input_key(self) -> str:
        return str(self.chain.get("input_key", "input"))

    @property
    def output_key(self) -> str:
        return str(self.chain.get("output_key", "response"))

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
        return self._chain_class(llm=self.model, memory=self.memory, **options)

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
    is_stream = action.method in ("stream", "astream")
    if is_stream:
        results = results[0], _one_dict(results[1], ours.setup.output_key)
        results = _response_of(results[0], ours.setup.output_key), results[1]
    pairs = {
        "what the model got": (theirs.script.asked, ours.script.asked),
        "what it returned": results,
        "what callbacks were told": (_told(theirs, is_stream), _told(ours, is_stream)),
        "the history": (theirs.history(), ours.history()),
    }
    found = [f"{what}: {told}" for what, both in pairs.items() if (told := difference(*both))]
    for side in (theirs, ours):
        side.script.asked.clear()
        side.events.clear()
    return "\n".join(found)


def _told(side: Side, is_stream: bool) -> list[Any]:
    """LangChain's chain writes no stream; that the model behind ours does is no difference."""
    return [told for told in side.events.told if not (is_stream and told[0] == "llm_new_token")]


def _response_of(parts: Any, key: str) -> Any:
    return parts[0][key] if isinstance(parts, list) else parts


def _one_dict(parts: Any, key: str) -> Any:
    """The pieces' text, which each of them also has under the output key."""
    if not isinstance(parts, list):
        return parts
    assert all(isinstance(part, str) for part in parts), f"pieces that are no text: {parts}"
    assert [part[key] for part in parts] == parts
    return "".join(parts)


def difference(theirs: Any, ours: Any, where: str = "") -> str:
    """Where ours is not what theirs is, for a program that knows LangChain's types; else an empty text."""
    kind = next((kind for kind in COMPARED if isinstance(theirs, kind)), None)
    if kind is None:
        same = theirs == ours and isinstance(ours, type(theirs))
    else:
        if not isinstance(ours, kind):
            return _told_apart(theirs, ours, where)
        same = COMPARED[kind](theirs, ours, where)
        if isinstance(same, str):
            return same
    return "" if same else _told_apart(theirs, ours, where)


def _told_apart(theirs: Any, ours: Any, where: str) -> str:
    return f"at {where or 'the top'}\n  theirs: {theirs!r}\n  ours:   {ours!r}"


def _dicts(theirs: dict[Any, Any], ours: dict[Any, Any], where: str) -> str | bool:
    if list(theirs) != list(ours):
        return _told_apart(list(theirs), list(ours), f"{where}, keys")
    return _first(difference(theirs[key], ours[key], f"{where}[{key!r}]") for key in theirs)


def _sequences(theirs: Sequence[Any], ours: Sequence[Any], where: str) -> str | bool:
    for number, (first, second) in enumerate(zip(theirs, ours, strict=False)):
        if found := difference(first, second, f"{where}[{number}]"):
            return found
    return len(theirs) == len(ours)


def _first(found: Any) -> str:
    return next((each for each in found if each), "")


def _messages(theirs: BaseMessage, ours: BaseMessage, where: str) -> bool:
    return isinstance(ours, type(theirs)) and theirs == ours and ours == theirs


def _results(theirs: LLMResult, ours: LLMResult, where: str) -> str:
    """Ids of messages are chance."""
    both = [
        [[(each.text, isinstance(each, ChatGeneration)) for each in row] for row in result.generations]
        for result in (theirs, ours)
    ]
    return difference(*both, f"{where}.generations")


def _runs(theirs: RunInfo, ours: RunInfo, where: str) -> bool:
    """Which is which run is in what callbacks are told."""
    return True


def _errors(theirs: BaseException, ours: BaseException, where: str) -> bool:
    if isinstance(theirs, Overloaded):
        return type(ours) is Overloaded and str(theirs) == str(ours)
    return family(theirs) == family(ours)


def family(error: BaseException) -> str:
    """What of an error a caller may rely on."""
    return next((each.__name__ for each in FAMILIES if isinstance(error, each)), type(error).__name__)


COMPARED: dict[type[Any], Callable[..., str | bool]] = {
    dict: _dicts,
    list: _sequences,
    tuple: _sequences,
    BaseMessage: _messages,
    LLMResult: _results,
    RunInfo: _runs,
    BaseException: _errors,
}


def smallest(plan: Plan, fails: Callable[[Plan], str]) -> tuple[Plan, str]:
    """The plan without all actions that its failure does not need, and how that fails."""
    found = fails(plan)
    number = len(plan.actions) - 1
    while number >= 0:
        shorter = plan.without(number)
        if told := fails(shorter):
            plan, found = shorter, told
        number -= 1
    return plan, found
