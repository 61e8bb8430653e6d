"""Random conversations with a chain: how it is made and called, what the model answers, what goes wrong."""

from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser

from tests.langchain.beside import Action, Plan, Setup
from tests.langchain.scripted_models import GIVEN_RUN_IDS, MODELS, Overloaded

LONGEST = 25
LIMITS = (0, 1, 4, 7, 10, 15, 25, 40, 80, 200, 1000, 2000)

TEXTS = (
    "hi",
    "",
    " ",
    "\n",
    "What's the weather in Oslo?",
    " whats up ",
    "你好，今天天气怎么样？",
    "مرحبا، كيف حالك؟",
    "Привет, как дела?",
    "आप कैसे हैं?",
    "안녕하세요",
    "👩‍👩‍👧‍👦 and e\u0301",
    "{input} {history}",
    "{",
    "}} {{ {0} %s",
    "line one\nline two\r\n\n\tline four",
    "Human: is this you?\nAI: no",
    "<|endoftext|>",
    '{"role": "user", "content": []}',
    "I" * 40,
    "0123456789" * 12,
    "word " * 60,
    "a longer story, told at length. " * 30,
)


class Stripping(StrOutputParser):
    """A parser that takes off what is blank at both ends."""

    def parse(self, text: str) -> str:
        return text.strip()


class Plans:
    """Plans from one seed; of an AsyncStore's side, only what can be awaited."""

    def __init__(self, seed: str, only_awaited: bool) -> None:
        self.random = Random(seed)
        self.only_awaited = only_awaited
        self.setup = self._setup()

    def plan(self) -> Plan:
        actions: list[Action] = []
        for _ in range(self.random.randint(1, LONGEST)):
            actions.append(self._action())
            failed = any(isinstance(reply, Exception) for reply in actions[-1].replies)
            if failed and self.chance(0.5):  # the caller tries again
                replies = tuple(self._reply() for _ in actions[-1].replies)
                actions.append(replace(actions[-1], replies=replies))
        return Plan(self.setup, tuple(actions[:LONGEST]))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def _setup(self) -> Setup:
        memory: dict[str, Any] = {"max_token_limit": self.random.choice(LIMITS)}
        chain: dict[str, Any] = {}
        if self.chance(0.2):
            memory["memory_key"] = "past"
        if self.chance(0.2):
            chain["input_key"] = "said"
        if self.chance(0.2):
            chain["output_key"] = "answer"
        if self.chance(0.2):
            memory |= {"human_prefix": "Guest", "ai_prefix": self.random.choice(("Host", "机器", ""))}
        if self.chance(0.3):
            memory["input_key"] = chain.get("input_key", "input")
        if self.chance(0.2):
            memory["output_key"] = chain.get("output_key", "response")
        if self.chance(0.3):
            chain |= {"tags": ["ours"], "metadata": {"kept": [1, {"a": None}]}}
        if self.chance(0.1):
            chain["llm_kwargs"] = {"temper": "even"}
        if self.chance(0.1):
            chain["output_parser"] = Stripping()
        if self.chance(0.5):
            chain["verbose"] = False
        memory["return_messages"] = returns_messages = self.chance(0.4)
        prompts = ["chat"] if returns_messages else ["text", "chat of texts"]
        if not returns_messages and "memory_key" not in memory and "input_key" not in chain:
            prompts.append("default")
        return Setup(
            model=self.random.choice(tuple(MODELS)),
            prompt=self.random.choice(prompts),
            other_prompt=self.random.choice(prompts),
            memory=memory,
            chain=chain,
            has_callbacks=self.chance(0.3),
            is_bound=self.chance(0.1),
        )

    def _action(self) -> Action:
        kinds = {
            self._call: 10,
            self._many: 2,
            self._without_memory: 2,
            self._composed: 2,
            self._bad_call: 3,
            self._on_memory: 3,
            self._on_chat_memory: 2,
            self._reopened: 1,
        }
        return self.random.choices(tuple(kinds), tuple(kinds.values()))[0]()

    def _either(self, sync: str, awaited: str) -> str:
        return awaited if self.only_awaited or self.chance(0.4) else sync

    def _text(self) -> str:
        count = 1 if self.chance(0.8) else 2
        return "".join(self.random.choice(TEXTS) for _ in range(count))

    def _reply(self) -> Any:
        text = self._text()
        if self.setup.model == "messages" and text and self.chance(0.1):
            return [{"type": "text", "text": text}, {"type": "text", "text": " and so on"}]
        return text

    def _replies(self, count: int = 1, failing: float = 0.15) -> tuple[Any, ...]:
        failure = Overloaded("try again later")
        return tuple(failure if self.chance(failing) else self._reply() for _ in range(count))

    def _inputs(self) -> dict[str, Any]:
        inputs: dict[str, Any] = {self.setup.input_key: self._text()}
        if self.chance(0.15):
            inputs["stop"] = ["\nHuman:", "END"][: self.random.randint(1, 2)]
        if self.chance(0.05):
            inputs[self.setup.memory_key] = "is the memory's to tell"
        if "input_key" in self.setup.memory and self.chance(0.2):
            inputs["topic"] = self.random.choice(("weather", 7, None))
        return inputs

    def _watched(self, action: Action, option: str) -> Action:
        if not self.chance(0.5):
            return action
        is_awaited = action.method.startswith("a") and action.method != "apply"
        return replace(action, watched=option, awaited_handler=is_awaited and self.chance(0.5))

    def _tagged(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self.chance(0.3):
            options["tags"] = ["now", "here"][: self.random.randint(1, 2)]
        if self.chance(0.2):
            options["metadata"] = {"user": self.random.randint(1, 3)}
        return options

    def _flags(self) -> dict[str, bool]:
        names = ("return_only_outputs", "include_run_info")
        return {name: self.chance(0.7) for name in names if self.chance(0.3)}

    def _config(self) -> dict[str, Any]:
        config = self._tagged()
        if self.chance(0.1):
            config["run_name"] = "a talk"
        if self.chance(0.2):
            config["run_id"] = UUID(int=self.random.randrange(1, GIVEN_RUN_IDS))
        return {"config": config} if config or self.chance(0.2) else {}

    def _call(self) -> Action:
        """One turn, called in one of the ways there are."""
        target = "chain" if self.chance(0.8) else "other chain"
        methods = {
            "predict": ("predict", "apredict"),
            "run": ("run", "arun"),
            "call": ("__call__", "acall"),
            "invoke": ("invoke", "ainvoke"),
            "stream": ("stream", "astream"),
        }
        way = self.random.choice(tuple(methods))
        method = self._either(*methods[way])
        replies = self._replies()
        inputs = self._inputs()
        only_text = len(inputs) == 1 and self.chance(0.5)
        given: Any = inputs[self.setup.input_key] if only_text else inputs
        if way == "predict":
            return self._watched(Action(target, method, (), inputs, replies=replies), "callbacks")
        if way == "run":
            arguments, named = ((given,), {}) if self.chance(0.6) else ((), inputs)
            options = {**named, **self._tagged()}
            return self._watched(Action(target, method, arguments, options, replies=replies), "callbacks")
        if way == "call":
            options = {**self._tagged(), **self._flags()}
            if self.chance(0.1):
                options["run_name"] = "a call"
            return self._watched(Action(target, method, (given,), options, replies=replies), "callbacks")
        options = self._config() | (self._flags() if way == "invoke" else {})
        return self._watched(Action(target, method, (given,), options, replies=replies), "config")

    def _many(self) -> Action:
        """Several turns, one after the other: side by side, which comes first is chance."""
        count = self.random.randint(1, 3)
        given = [self._inputs() for _ in range(count)]
        config = {**self._tagged(), "max_concurrency": 1}
        options = {"config": config, "return_exceptions": True, **self._flags()}
        method = self._either("batch", "abatch")
        return self._watched(
            Action("chain", method, (given,), options, replies=self._replies(count)), "config"
        )

    def _without_memory(self) -> Action:
        """What neither loads nor stores anything: the caller brings the history along."""
        method = self._either(*self.random.choice((("generate", "agenerate"), ("apply", "aapply"))))
        at_once = method in ("agenerate", "aapply") or self.setup.is_bound
        count = self.random.randint(0, 1 if at_once else 3)  # several at once come back as chance has it
        past: Any = [HumanMessage(content="hi")] if self.setup.memory["return_messages"] else "Human: hi"
        given = [{self.setup.input_key: self._text(), self.setup.memory_key: past} for _ in range(count)]
        if given and self.chance(0.2):
            given[0]["stop"] = ["END"]  # an error where there are others
        if given and self.chance(0.2):
            del given[-1][self.setup.memory_key]
        replies = self._replies(count, failing=0.1)
        action = Action("chain", method, (given,), replies=replies)
        return self._watched(action, "callbacks") if "apply" in method else action

    def _composed(self) -> Action:
        """The chain as a part of something."""
        targets = (
            "chain | length",
            "strip | chain",
            "{said: chain}",
            "chain with tags",
            "chain with fallback",
            "chain of chains",
        )
        target = self.random.choice(targets)
        inputs = self._inputs()
        given = inputs if self.chance(0.5) else inputs[self.setup.input_key]
        method = self._either("invoke", "ainvoke")
        action = Action(target, method, (given,), self._config(), replies=self._replies(2))
        return self._watched(action, "config")

    def _bad_call(self) -> Action:
        """A call that fails, some before the model is asked and some behind it."""
        said = self._text()
        inputs = {self.setup.input_key: said}
        run = self._either("run", "arun")
        invoke = self._either("invoke", "ainvoke")
        predict = self._either("predict", "apredict")
        more: Action = Action("chain", predict, (), {**inputs, "topic": "weather", "wrong": 1})
        actions = (
            Action("chain", run),
            Action("chain", run, (said, "and more")),
            Action("chain", run, (said,), inputs),
            Action("chain", run, ({},)),
            Action("chain", predict),
            Action("chain", predict, (), {"wrong": said}),
            more if "input_key" in self.setup.memory else replace(more, is_refused=True),
            Action("chain", invoke, ({},)),
            Action("chain", invoke, ({self.setup.memory_key: said},)),
            Action("chain", invoke, ({"wrong": said},)),
            Action("chain", invoke, (7,), is_refused=True),
            Action("chain", invoke, (None,), is_refused=True),
            Action("chain", invoke, ({self.setup.input_key: None},), is_refused=True),
            Action("chain", invoke),
            Action("chain", self._either("stream", "astream"), ({"wrong": said},)),
            Action("chain", self._either("__call__", "acall"), ({"wrong": said},)),
        )
        action = replace(self.random.choice(actions), replies=(self._reply(),))
        is_config = action.method in ("invoke", "ainvoke", "stream", "astream")
        return self._watched(action, "config" if is_config else "callbacks")

    def _on_memory(self) -> Action:
        """What the memory is asked directly."""
        said, answered = self._text(), self._text()
        key = self.setup.input_key
        output_key = self.random.choice((self.setup.output_key, "output"))
        exchanges = (
            ({key: said}, {output_key: answered}),
            ({key: said, "stop": ["."], self.setup.memory_key: "x"}, {output_key: answered}),
            ({key: said, "topic": "weather"}, {output_key: answered}),
            ({key: said}, {output_key: answered, "sources": "none"}),
            ({key: said}, {"one": answered, "two": answered}),
            ({key: said}, {}),
            ({}, {output_key: answered}),
            ({self.setup.memory_key: said}, {output_key: answered}),
            ({key: 7}, {output_key: answered}),
            ({key: said}, {output_key: None}),
        )
        weights = (10, 2, 1, 1, 1, 1, 1, 1, 1, 1)
        exchange = self.random.choices(exchanges, weights)[0]
        actions = [
            (8, Action("memory", self._either("save_context", "asave_context"), exchange)),
            (1, Action("memory", self._either("clear", "aclear"))),
            (2, Action("memory", self._either("load_memory_variables", "aload_memory_variables"), ({},))),
            (1, Action("memory", "memory_variables")),
        ]
        if not self.only_awaited:
            looks = ("buffer", "buffer_as_str", "buffer_as_messages")
            actions += [(1, Action("memory", look)) for look in looks]
        return self._weighted(actions)

    def _on_chat_memory(self) -> Action:
        """What is behind the memory, asked directly."""
        human = self.random.choice((self._text(), HumanMessage(content=self._text())))
        ai = self.random.choice((self._text(), AIMessage(content=self._text())))
        several: list[BaseMessage] = [HumanMessage(content=self._text()), AIMessage(content=self._text())]
        if self.chance(0.3):
            several.insert(0, SystemMessage(content="Be kind."))
        actions = [
            (2, Action("chat memory", self._either("add_messages", "aadd_messages"), (several,))),
            (1, Action("chat memory", self._either("clear", "aclear"))),
        ]
        if self.only_awaited:
            actions.append((2, Action("chat memory", "aget_messages")))
        else:
            actions += [
                (2, Action("chat memory", "add_user_message", (human,))),
                (2, Action("chat memory", "add_ai_message", (ai,))),
                (1, Action("chat memory", "add_message", (several[-1],))),
                (2, Action("chat memory", "messages")),
                (1, Action("chat memory", "__str__")),
            ]
        return self._weighted(actions)

    def _reopened(self) -> Action:
        return Action("side", "reopen")

    def _weighted(self, actions: list[tuple[int, Action]]) -> Action:
        weights, choices = zip(*actions, strict=True)
        chosen: Action = self.random.choices(choices, weights)[0]
        return chosen
