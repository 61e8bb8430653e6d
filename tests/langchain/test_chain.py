"""ConversationChain: LangChain's documented behaviour, with the conversation in the database."""

import asyncio
import io
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.stores import pools_of
from tokenmem import AsyncStore, ConversationChain, ConversationTokenBufferMemory, Message, Store
from tokenmem.errors import InvalidArgument, InvalidMessage

# LangChain's documentation, "Conversation Token Buffer" (docs/docs/modules/memory/types/token_buffer.ipynb):
# what was said, what the model answered, and which lines of the history each prompt showed.
CONVERSATION = [
    ("Hi, what's up?", " Hi there! I'm doing great, just enjoying the day. How about you?"),
    (
        "Just working on writing some documentation!",
        " Sounds like a productive day! What kind of documentation are you writing?",
    ),
    (
        "For LangChain! Have you heard of it?",
        " Yes, I have heard of LangChain! It is a decentralized language-learning platform that connects "
        "native speakers and learners in real time. Is that the documentation you're writing about?",
    ),
    (
        "Haha nope, although a lot of people confuse it for that",
        " Oh, I see. Is there another language learning platform you're referring to?",
    ),
]
LINES = [line for said, answered in CONVERSATION for line in (f"Human: {said}", f"AI: {answered}")]
SHOWN = [[], LINES[:2], LINES[:4], LINES[4:6]]
INSTRUCTIONS = (
    "The following is a friendly conversation between a human and an AI. The AI is talkative and provides "
    "lots of specific details from its context. If the AI does not know the answer to a question, it "
    "truthfully says it does not know."
)


def documented_prompt(history: list[str], said: str) -> str:
    lines = "\n".join(history)
    return f"{INSTRUCTIONS}\n\nCurrent conversation:\n{lines}\nHuman: {said}\nAI:"


PROMPTS = [documented_prompt(history, said) for history, (said, _) in zip(SHOWN, CONVERSATION, strict=True)]
PRINTED = "\n\n> Entering new ConversationChain chain...\nPrompt after formatting:\n{}\n\n> Finished chain.\n"


class Scripted:
    """A model that answers from a script; `prompts` has what it was asked. An error in it is raised."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Awaited(Scripted):
    """The same as a LangChain model is, awaited only."""

    async def ainvoke(self, prompt: str) -> Any:
        return SimpleNamespace(content=Scripted.__call__(self, prompt))


@pytest.fixture
def store(ready_url: str) -> Iterator[Store]:
    with Store(ready_url) as store:
        yield store


def chain_on(
    store: Store | AsyncStore, llm: Any, memory: dict[str, Any] | None = None, **options: Any
) -> Any:
    kept = ConversationTokenBufferMemory(llm=llm, store=store, conversation_id="c", **(memory or {}))
    return ConversationChain(llm=llm, memory=kept, **options)


def test_the_documented_conversation(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    llm = Scripted(*(answered for _, answered in CONVERSATION))
    chain = chain_on(store, llm, {"max_token_limit": 60}, verbose=True)
    for (said, answered), prompt in zip(CONVERSATION, PROMPTS, strict=True):
        assert chain.predict(input=said) == answered
        assert capsys.readouterr().out == PRINTED.format(prompt)
    assert llm.prompts == PROMPTS
    assert [message.content for message in store.messages("c")] == [
        text for pair in CONVERSATION for text in pair
    ]


@pytest.mark.parametrize("model", [Scripted, Awaited])
def test_the_documented_conversation_awaited(
    model: type[Scripted], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = model(*(answered for _, answered in CONVERSATION))
    asyncio.run(converse(chain_on(store, llm, {"max_token_limit": 60}, verbose=True)))
    assert llm.prompts == PROMPTS
    assert capsys.readouterr().out == "".join(map(PRINTED.format, PROMPTS))


@pytest.mark.parametrize("model", [Scripted, Awaited])
def test_the_documented_conversation_on_an_async_store(model: type[Scripted], ready_url: str) -> None:
    llm = model(*(answered for _, answered in CONVERSATION))

    async def run() -> None:
        async with AsyncStore(ready_url) as store:
            await converse(chain_on(store, llm, {"max_token_limit": 60}))

    asyncio.run(run())
    assert llm.prompts == PROMPTS


async def converse(chain: ConversationChain) -> None:
    for said, answered in CONVERSATION:
        assert await chain.apredict(input=said) == answered


@pytest.mark.parametrize("awaited", [False, True])
def test_invoke_tells_the_input_the_history_and_the_response(store: Store, awaited: bool) -> None:
    chain = chain_on(store, Scripted(" whats up ", "not much"))

    def invoke(given: Any) -> Any:
        return asyncio.run(chain.ainvoke(given)) if awaited else chain.invoke(given)

    assert invoke("hi") == {"input": "hi", "history": "", "response": " whats up "}
    chain.memory.return_messages = True
    answer = invoke({"input": "not much you", "history": "is not the caller's to tell"})
    history = answer.pop("history")
    assert [(message.role, message.content) for message in history] == [
        ("user", "hi"),
        ("assistant", " whats up "),
    ]
    assert [dict(message) for message in history] == [
        each.to_openai() for each in store.messages("c", before=3)
    ]
    assert answer == {"input": "not much you", "response": "not much"}
    # The prompt is text in any case.
    assert chain.llm.prompts[1] == documented_prompt(["Human: hi", "AI:  whats up "], "not much you")


@pytest.mark.parametrize("awaited", [False, True])
def test_when_the_model_raises_the_input_and_the_call_are_kept(
    store: Store, awaited: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    error = RuntimeError("overloaded")
    chain = chain_on(store, Scripted(error, "hello"), verbose=True)
    with pytest.raises(RuntimeError) as raised:
        asyncio.run(chain.apredict(input="hi")) if awaited else chain.predict(input="hi")
    assert raised.value is error
    assert [message.content for message in store.messages("c")] == ["hi"]
    (call,) = store.calls("c")
    assert (call.status, call.error, call.model) == ("error", "RuntimeError", "Scripted")
    assert capsys.readouterr().out == PRINTED.format(documented_prompt([], "hi")).removesuffix(
        "\n> Finished chain.\n"
    )
    assert chain.predict(input="hi again") == "hello"
    assert [message.content for message in store.messages("c")] == ["hi", "hi again", "hello"]
    assert [call.status for call in store.calls("c")] == ["error", "ok"]


def test_where_pinned_messages_alone_do_not_fit_the_history_is_empty(store: Store) -> None:
    store.append("c", [Message.system("word " * 50, pinned=True)])
    chain = chain_on(store, Scripted("hello"), {"max_token_limit": 10})
    assert chain.predict(input="hi") == "hello"
    assert chain.llm.prompts == [documented_prompt([], "hi")]


@pytest.mark.parametrize("answer", [None, b"a", object(), "a\0b"])
def test_an_answer_that_cannot_be_stored(store: Store, answer: Any) -> None:
    chain = chain_on(store, lambda _: answer)
    with pytest.raises(InvalidMessage):
        chain.predict(input="hi")
    with pytest.raises(InvalidMessage):
        asyncio.run(chain.apredict(input="hi"))
    assert [message.role for message in store.messages("c")] == ["user"]  # asked twice
    assert [call.status for call in store.calls("c")] == ["error", "error"]


@pytest.mark.parametrize(
    ("given", "error", "named"),
    [
        ({}, InvalidArgument, "no input 'input' among none"),
        ({"text": "a"}, InvalidArgument, "no input 'input' among 'text'"),
        ({"input": "a", "other": "b"}, InvalidArgument, r"One input key expected got \['input', 'other'\]"),
        ({"input": None}, InvalidMessage, "the input 'input' is a NoneType"),
        (7, InvalidMessage, "the input 'input' is a int"),
        ("a\0", InvalidMessage, "the input 'input' has a NUL character at position 1"),
    ],
)
def test_inputs_are_checked_before_the_model_is_asked(
    store: Store, given: Any, error: type[Exception], named: str
) -> None:
    chain = chain_on(store, Scripted())
    with pytest.raises(error, match=named):
        chain.invoke(given)
    with pytest.raises(error, match=named):
        asyncio.run(chain.ainvoke(given))
    assert chain.llm.prompts == []


def test_stop_is_for_the_model_alone(store: Store) -> None:
    chain = chain_on(store, lambda _, stop=None: f"stop at {stop}")
    assert chain.predict(input="hi", stop=["."]) == "stop at ['.']"
    assert chain.invoke({"input": "hi", "stop": ["!"]})["stop"] == ["!"]
    assert chain.predict(input="hi") == "stop at None"
    assert store.messages("c")[0].content == "hi"


def test_what_people_say_is_no_template(store: Store) -> None:
    llm = Scripted("{history} {} %s {0}", "fine")
    chain = chain_on(store, llm)
    chain.predict(input="{input} {history} } {")
    chain.predict(input="{x!r:{y}}")
    lines = ["Human: {input} {history} } {", "AI: {history} {} %s {0}"]
    assert llm.prompts == [
        documented_prompt([], "{input} {history} } {"),
        documented_prompt(lines, "{x!r:{y}}"),
    ]


def test_own_keys_prefixes_and_prompt(store: Store) -> None:
    chain = chain_on(
        store,
        Scripted("您好", "再见"),
        {"memory_key": "past", "human_prefix": "人类", "ai_prefix": "机器"},
        prompt="{{JSON}}\n{past}\n人类: {said}\n机器:",
        input_key="said",
        output_key="answer",
    )
    assert chain.predict(said="你好") == "您好"
    assert chain.invoke("再见") == {"said": "再见", "past": "人类: 你好\n机器: 您好", "answer": "再见"}
    assert chain.llm.prompts[1] == "{JSON}\n人类: 你好\n机器: 您好\n人类: 再见\n机器:"


def test_further_inputs_where_the_memory_knows_its_own(store: Store) -> None:
    chain = chain_on(store, Scripted("b"), {"input_key": "input"})
    assert chain.invoke({"input": "a", "other": 1}) == {
        "input": "a",
        "other": 1,
        "history": "",
        "response": "b",
    }


class Template:
    """A prompt as LangChain's PromptTemplate is."""

    input_variables = ("input", "history")

    def format(self, **values: Any) -> str:
        return f"<{values['history']}|{values['input']}>"


def test_a_prompt_object(store: Store) -> None:
    chain = chain_on(store, Scripted("b", "d"), prompt=Template())
    chain.predict(input="a")
    chain.predict(input="c")
    assert chain.llm.prompts == ["<|a>", "<Human: a\nAI: b|c>"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"prompt": "{input}"}, "variables are 'input'; they must be 'history', the memory's, and 'input'"),
        ({"prompt": "{history} {input} {other}"}, "'history', 'input', 'other'"),
        ({"prompt": "{history} {input} {}"}, "'', 'history', 'input'"),
        ({"prompt": "{history} {input.real}"}, "'history', 'input.real'"),
        ({"prompt": "{history} {input:{width}}"}, "'history', 'input', 'width'"),
        ({"prompt": "{history} {input"}, "no template"),
        ({"prompt": 7}, "prompt is a int"),
        ({"prompt": SimpleNamespace(input_variables=["input"])}, "variables are 'input'"),
        ({"input_key": "history"}, "The input key history was also found in the memory keys"),
        ({"input_key": "text"}, "'text', the input key"),
        ({"llm": "gpt-4o"}, "llm is a str"),
        ({"memory": {}}, "memory is a dict"),
    ],
)
def test_what_no_chain_can_be(ready_sqlite_url: str, options: Any, named: str) -> None:
    with Store(ready_sqlite_url) as store:
        memory = ConversationTokenBufferMemory(store=store)
        with pytest.raises(ValueError, match=named):
            ConversationChain(**{"llm": Scripted(), "memory": memory, **options})


def test_a_model_that_must_be_awaited(store: Store) -> None:
    async def llm(prompt: str) -> str:
        return "awaited"

    chain = chain_on(store, llm)
    with pytest.raises(InvalidArgument, match="must be awaited; use apredict"):
        chain.predict(input="hi")
    assert store.conversations() == []
    assert asyncio.run(chain.apredict(input="hi")) == "awaited"


def test_on_an_async_store_predict_says_so(ready_sqlite_url: str) -> None:
    chain = chain_on(AsyncStore(ready_sqlite_url), Scripted())
    with pytest.raises(InvalidArgument, match="on an AsyncStore"):
        chain.predict(input="hi")


def test_without_a_memory(ready_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENMEM_URL", ready_url)
    llm = Scripted("hello", "fine")
    chain = ConversationChain(llm=llm)
    assert chain.predict(input="hi") == "hello"
    assert chain.predict(input="how are you") == "fine"
    assert llm.prompts[1] == documented_prompt(["Human: hi", "AI: hello"], "how are you")
    assert chain.memory.max_token_limit == 2000


def test_no_connection_is_held_while_the_model_thinks(store: Store) -> None:
    def llm(prompt: str) -> str:
        # Another thread can write meanwhile, and none of the pool's connections is out.
        other = threading.Thread(target=store.append, args=("other", [{"role": "user", "content": "hi"}]))
        other.start()
        other.join()
        return str(sum(pool.checkedout() for pool in pools_of(store)))

    assert chain_on(store, llm).predict(input="hi") == "0"
    assert asyncio.run(chain_on(store, llm).apredict(input="hi")) == "0"


def test_in_colour_on_a_terminal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    chain_on(store, Scripted("hello"), verbose=True).predict(input="hi")
    assert terminal.getvalue() == (
        "\n\n\033[1m> Entering new ConversationChain chain...\033[0m\nPrompt after formatting:\n"
        f"\033[32;1m\033[1;3m{documented_prompt([], 'hi')}\033[0m\n\n\033[1m> Finished chain.\033[0m\n"
    )
