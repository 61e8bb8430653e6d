"""What LangChain's own tests ask of a memory and a chain, in our words, of its classes and of ours."""

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import tokenmem
from tokenmem import Store

pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")

from langchain_classic import chains as langchains_chains
from langchain_classic import memory as langchains_memory
from langchain_classic.schema import RUN_KEY
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.tracers.context import collect_runs

from tests.langchain.scripted_models import Events, Overloaded, Recorder, Script, ScriptedLLM
from tests.langchain.test_beside_langchain import LANGCHAINS_WARNINGS
from tests.support.stores import Databases
from tokenmem.adapters.langchain import ConversationTokenBufferMemory as Adapter

pytestmark = pytest.mark.filterwarnings(*LANGCHAINS_WARNINGS)

DOCUMENTED = "The following is a friendly conversation between a human and an AI."


@dataclass(frozen=True)
class Library:
    """Whose memory and whose chain."""

    memory_class: Callable[..., Any]
    chain_class: Callable[..., Any]
    place: dict[str, Any] = field(default_factory=dict)

    def memory(self, **options: Any) -> Any:
        return self.memory_class(**{"llm": ScriptedLLM(script=Script())} | self.place | options)

    def chain(self, *replies: str | Exception, memory: Any = None, **options: Any) -> Any:
        llm = ScriptedLLM(script=Script(*replies))
        kept = self.memory(llm=llm) if memory is None else memory
        return self.chain_class(llm=llm, memory=kept, **options)


@pytest.fixture(params=["theirs", "sqlite", "postgresql", "adapter", "adapter in our chain"])
def library(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Iterator[Library]:
    """LangChain's, ours on each engine, and our memory as one of LangChain's in either chain."""
    if request.param == "theirs":
        yield Library(langchains_memory.ConversationTokenBufferMemory, langchains_chains.ConversationChain)
        return
    with Store(databases.of("postgresql" if request.param == "postgresql" else "sqlite", tmp_path)) as store:
        place = {"store": store}
        is_adapter = request.param.startswith("adapter")
        memory_class = Adapter if is_adapter else tokenmem.ConversationTokenBufferMemory
        is_theirs = request.param == "adapter"
        chain_class = langchains_chains.ConversationChain if is_theirs else tokenmem.ConversationChain
        yield Library(memory_class, chain_class, place)


def asked(chain: Any) -> list[str]:
    """The prompts that the chain's model got."""
    return [prompt for prompt, _, _ in chain.llm.script.asked]


# Memories


def test_the_ai_has_another_name(library: Library) -> None:
    memory = library.memory(memory_key="past", ai_prefix="Butler")
    memory.save_context({"question": "tea?"}, {"answer": "at once"})
    assert memory.load_memory_variables({}) == {"past": "Human: tea?\nButler: at once"}


def test_the_human_has_another_name(library: Library) -> None:
    memory = library.memory(memory_key="past", human_prefix="Guest")
    memory.save_context({"question": "tea?"}, {"answer": "at once"})
    assert memory.load_memory_variables({}) == {"past": "Guest: tea?\nAI: at once"}


def test_a_memory_awaited(library: Library) -> None:
    memory = library.memory(memory_key="past", return_messages=True)

    async def use() -> None:
        await memory.asave_context({"question": "tea?"}, {"answer": "at once"})
        expected = [HumanMessage(content="tea?"), AIMessage(content="at once")]
        assert await memory.aload_memory_variables({}) == {"past": expected}
        await memory.aclear()
        assert await memory.aload_memory_variables({}) == {"past": []}

    asyncio.run(use())


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        ({"one": "a", "two": "b"}, {"answer": "c"}, "One input key expected"),
        ({"past": "a"}, {"answer": "c"}, r"One input key expected got \[\]"),
        ({}, {"answer": "c"}, r"One input key expected got \[\]"),
        ({"one": "a"}, {}, "Got multiple output keys"),
        ({"one": "a"}, {"two": "b", "three": "c"}, "Got multiple output keys"),
    ],
)
def test_what_is_no_exchange(library: Library, inputs: Any, outputs: Any, named: str) -> None:
    memory = library.memory(memory_key="past")
    with pytest.raises(ValueError, match=named):
        memory.save_context(inputs, outputs)
    with pytest.raises(ValueError, match=named):
        asyncio.run(memory.asave_context(inputs, outputs))
    assert memory.buffer == ""


@pytest.mark.parametrize("awaited", [False, True])
def test_a_cleared_memory_is_as_new(library: Library, awaited: bool) -> None:
    memory = library.memory()
    empty = memory.load_memory_variables({})
    memory.save_context({"said": "tea?"}, {"answer": "at once"})
    assert memory.load_memory_variables({}) != empty
    asyncio.run(memory.aclear()) if awaited else memory.clear()
    assert memory.load_memory_variables({}) == empty
    memory.save_context({"said": "and milk"}, {"answer": "of course"})
    assert memory.buffer == "Human: and milk\nAI: of course"


# Conversations


TEA, MILK = "Human: tea?\nAI: at once", "Human: and milk\nAI: here it is"
PAST = {
    "own": [TEA, f"{TEA}\n{MILK}"],
    "buffer": [TEA, f"{TEA}\n{MILK}"],
    "window": [TEA, MILK],
    "summary": ["tea was asked for", "tea came"],
    "summary, awaited": ["", ""],  # LangChain writes none where it is awaited
}


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("kind", ["own", "buffer", "window", "summary"])
def test_a_chain_remembers(library: Library, kind: str, awaited: bool) -> None:
    summaries = ScriptedLLM(script=Script("tea was asked for", "tea came", "milk came"))
    make: dict[str, Callable[..., Any]] = {
        "own": library.memory,
        "buffer": langchains_memory.ConversationBufferMemory,
        "window": partial(langchains_memory.ConversationBufferWindowMemory, k=1),
        "summary": partial(langchains_memory.ConversationSummaryMemory, llm=summaries),
    }
    prompt = PromptTemplate.from_template("<{past}|{said}>")
    memory = make[kind](memory_key="past")
    chain = library.chain("at once", "here it is", "yes", memory=memory, prompt=prompt, input_key="said")
    for said, answered in (("tea?", "at once"), ("and milk", "here it is"), ("sugar", "yes")):
        assert (asyncio.run(chain.arun(said)) if awaited else chain.run(said)) == answered
    first, second = PAST["summary, awaited" if awaited and kind == "summary" else kind]
    assert asked(chain) == ["<|tea?>", f"<{first}|and milk>", f"<{second}|sugar>"]


def test_the_documented_prompt(library: Library) -> None:
    chain = library.chain("hello", "fine")
    chain.predict(input="hi")
    chain.predict(input="how are you?")
    first, second = asked(chain)
    assert first.startswith(DOCUMENTED)
    assert first.endswith("\nCurrent conversation:\n\nHuman: hi\nAI:")
    assert second.endswith("\nCurrent conversation:\nHuman: hi\nAI: hello\nHuman: how are you?\nAI:")


def test_a_prompt_with_other_variables(library: Library) -> None:
    prompt = PromptTemplate.from_template("{past} {said} {weather}")
    with pytest.raises(ValueError, match="Value error, Got unexpected prompt input variables"):
        library.chain(memory=library.memory(memory_key="past"), prompt=prompt, input_key="said")


def test_an_input_with_the_memorys_key(library: Library) -> None:
    prompt = PromptTemplate.from_template("{past}")
    named = r"Value error, The input key past was also found in the memory keys \(\['past'\]\)"
    with pytest.raises(ValueError, match=named):
        library.chain(memory=library.memory(memory_key="past"), prompt=prompt, input_key="past")


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage(content="tea?"),
        HumanMessage(content="tea?", name="ann"),
        HumanMessage(content="tea?", id="m-1"),
        HumanMessage(content=[{"type": "text", "text": "tea?"}]),
        AIMessage(content="at once", id="run-1", response_metadata={"model_name": "m"}),
        AIMessage(content="at once", additional_kwargs={"refusal": None}),
        SystemMessage(content="Be kind."),
    ],
    ids=["text", "name", "id", "parts", "response", "more", "system"],
)
def test_a_message_comes_back_as_it_was_added(library: Library, message: Any) -> None:
    memory = library.memory(return_messages=True)
    memory.chat_memory.add_message(message)
    (found,) = memory.load_memory_variables({})["history"]
    assert isinstance(found, type(message))
    assert found == message


def test_the_keys_of_a_chain(library: Library) -> None:
    chain = library.chain(output_key="answer")
    assert (chain.input_keys, chain.output_keys) == (["input"], ["answer"])
    assert (chain.input_key, chain.output_key) == ("input", "answer")
    assert chain.memory.memory_variables == ["history"]
    assert chain.prompt.input_variables == ["history", "input"]


# Calls


def call_ways(chain: Any) -> dict[str, Callable[..., Any]]:
    """The ways of calling a chain that take a config."""

    async def streamed(*given: Any) -> list[Any]:
        return [part async for part in chain.astream(*given)]

    return {
        "invoke": chain.invoke,
        "stream": lambda *given: list(chain.stream(*given)),
        "ainvoke": lambda *given: asyncio.run(chain.ainvoke(*given)),
        "astream": lambda *given: asyncio.run(streamed(*given)),
    }


WAYS = pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])


@WAYS
def test_a_run_has_the_id_that_was_given(library: Library, way: str) -> None:
    chain = library.chain("hello")
    run_id = uuid4()
    with collect_runs() as collected:
        call_ways(chain)[way]("hi", {"run_id": run_id})
    (run,) = collected.traced_runs
    assert (run.id, run.name, run.run_type) == (run_id, "ConversationChain", "chain")
    assert run.inputs == {"input": "hi", "history": ""}
    assert run.outputs == {"response": "hello"}
    assert [child.run_type for child in run.child_runs] == ["llm"]


@WAYS
def test_what_was_missing_is_told(library: Library, way: str) -> None:
    events = Events()
    chain = library.chain("hello")
    with pytest.raises(ValueError, match="input"):
        call_ways(chain)[way]({"wrong": "hi"}, {"callbacks": [Recorder(events)]})
    assert [told[0] for told in events.told] == ["chain_start", "chain_error"]
    assert asked(chain) == []
    assert chain.memory.buffer == ""


def test_a_handler_hears_of_each_call_once(library: Library) -> None:
    events = Events()
    chain = library.chain("hello", Overloaded("later"), callbacks=[Recorder(events)])
    chain.invoke("hi")
    assert [told[0] for told in events.told if told[0].startswith("chain")] == ["chain_start", "chain_end"]
    events.clear()
    with pytest.raises(Overloaded, match="later"):
        chain.invoke("hi")
    assert [told[0] for told in events.told if told[0].startswith("chain")] == ["chain_start", "chain_error"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "__call__", "acall"])
def test_the_run_on_request(library: Library, way: str) -> None:
    chain = library.chain("hello", "again")
    events = Events()
    call = getattr(chain, way)

    def result(given: str, **options: Any) -> Any:
        answer = call(given, **options)
        return asyncio.run(answer) if asyncio.iscoroutine(answer) else answer

    handler: dict[str, Any] = {"callbacks": [Recorder(events)]}
    if "invoke" in way:
        handler = {"config": handler}
    found = result("hi", include_run_info=True, **handler)
    assert isinstance(found[RUN_KEY].run_id, UUID)
    assert found[RUN_KEY].run_id == events.run_ids[0]
    assert RUN_KEY not in result("hi")


def test_run_takes_one_input(library: Library) -> None:
    chain = library.chain("a", "b", "c")
    assert chain.run("hi") == "a"
    assert chain.run({"input": "hi"}) == "b"
    assert chain.run(input="hi") == "c"


@pytest.mark.parametrize(
    ("given", "named", "error"),
    [
        ((), {}, ValueError),
        (("hi", "there"), {}, ValueError),
        (("hi",), {"input": "hi"}, ValueError),
        ((), {"wrong": "hi"}, ValueError),
        (({},), {}, ValueError),
    ],
)
def test_run_takes_nothing_else(
    library: Library, given: tuple[Any, ...], named: dict[str, Any], error: type[Exception]
) -> None:
    chain = library.chain("hello")
    with pytest.raises(error):
        chain.run(*given, **named)
    with pytest.raises(error):
        asyncio.run(chain.arun(*given, **named))
    assert asked(chain) == []


def test_only_the_outputs_on_request(library: Library) -> None:
    chain = library.chain("hello", "again")
    assert chain("hi", return_only_outputs=True) == {"response": "hello"}
    assert chain("hi", True) == {"response": "again"}


# Memories around memories, which take LangChain's kind alone

LANGCHAINS_KIND = pytest.mark.parametrize("library", ["theirs", "adapter"], indirect=True)


@LANGCHAINS_KIND
def test_read_only(library: Library) -> None:
    memory = library.memory()
    shared = langchains_memory.ReadOnlySharedMemory(memory=memory)
    memory.save_context({"said": "tea?"}, {"answer": "at once"})
    shared.save_context({"said": "never"}, {"answer": "said"})
    shared.clear()
    assert shared.memory_variables == ["history"]
    assert shared.load_memory_variables({}) == {"history": "Human: tea?\nAI: at once"}
    assert shared.load_memory_variables({}) == memory.load_memory_variables({})


@LANGCHAINS_KIND
def test_two_memories_as_one(library: Library) -> None:
    first, second = (library.memory(memory_key=key, input_key="said") for key in ("past", "other"))
    combined = langchains_memory.CombinedMemory(memories=[first, second])
    assert combined.memory_variables == ["past", "other"]
    first.save_context({"said": "tea?"}, {"answer": "at once"})
    assert combined.load_memory_variables({}) == {"past": "Human: tea?\nAI: at once", "other": ""}
    combined.clear()
    assert combined.load_memory_variables({}) == {"past": "", "other": ""}
    with pytest.raises(ValueError, match=r"repeated|more than once|same"):
        langchains_memory.CombinedMemory(memories=[first, first])


# Copies


def pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_copy_knows_what_was_said(library: Library, copied: Callable[[Any], Any]) -> None:
    """A pickle has a store of its own, which is closed here as the one that it was made of is."""
    chain = library.chain("hello", "fine")
    assert chain.predict(input="hi") == "hello"
    memory = copied(chain.memory)
    assert memory.buffer == "Human: hi\nAI: hello"
    again = copied(chain)
    assert again.predict(input="how are you?") == "fine"
    assert again.memory.buffer == "Human: hi\nAI: hello\nHuman: how are you?\nAI: fine"
    if copied is pickled and library.place:
        memory.store.close()
        again.memory.store.close()
