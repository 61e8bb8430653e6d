"""A chain among LangChain's runnables: pipes, parsers, callbacks, and what its models are given and tell."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any
from unittest.mock import ANY

import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed")
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import (
    AIMessage,
)
from langchain_core.output_parsers import CommaSeparatedListOutputParser, StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough

from tests.langchain.test_chain import Scripted, chain_on, documented_prompt, store
from tokenmem import ConversationChain, Store
from tokenmem.errors import InvalidArgument

assert store  # the fixture


def test_a_chain_is_a_runnable(store: Store) -> None:
    chain = chain_on(store, FakeListLLM(responses=["one", "two", "three", "four", "five"]))
    assert isinstance(chain, Runnable)
    assert isinstance(chain, ConversationChain)
    assert type(chain).__name__ == chain.get_name() == "ConversationChain"
    piped = {"input": RunnablePassthrough()} | chain | (lambda out: out["response"]) | StrOutputParser()
    assert piped.invoke("a") == "one"
    assert asyncio.run(piped.ainvoke("b")) == "two"
    assert chain.with_retry().with_config(tags=["t"]).invoke("c")["response"] == "three"
    assert chain.pick("response").invoke("d") == "four"
    assert "".join((chain | StrOutputParser()).stream("e")) == "five"
    assert set(chain.input_schema.model_json_schema()["properties"]) == {"input"}


def test_a_parsers_answer_is_stored_as_its_str(store: Store) -> None:
    llm = FakeListLLM(responses=["red, green", "blue"])
    chain = chain_on(store, llm, output_parser=CommaSeparatedListOutputParser())
    assert chain.predict(input="colours?") == ["red", "green"]
    assert chain.invoke("more?")["response"] == ["blue"]
    assert chain.memory.buffer.splitlines()[1] == "AI: ['red', 'green']"


class Refuses:
    def parse(self, _: str) -> Any:
        raise ValueError("no parse")


def test_what_a_parser_refuses_is_a_failed_call(store: Store) -> None:
    chain = chain_on(store, Scripted("one", "two"), output_parser=Refuses())
    with pytest.raises(ValueError, match="no parse"):
        chain.predict(input="hi")
    chain.output_parser = None
    assert chain.predict(input="hi") == "two"
    assert chain.llm.prompts == [documented_prompt([], "hi")] * 2
    assert [message.content for message in store.messages("c")] == ["hi", "two"]


def test_what_langchains_models_tell_of_the_bill_is_on_record(store: Store) -> None:
    usage = {
        "input_tokens": 9,
        "output_tokens": 4,
        "total_tokens": 13,
        "input_token_details": {"cache_read": 5},
    }

    def answer(_: Any) -> AIMessage:
        return AIMessage("yes", usage_metadata=usage, response_metadata={"finish_reason": "stop"})  # type: ignore[arg-type]

    chain_on(store, RunnableLambda(answer)).predict(input="hi")
    (call,) = store.calls("c")
    assert (call.input_tokens, call.output_tokens, call.cached_tokens) == (9, 4, 5)
    assert (call.finish_reason, call.status) == ("stop", "ok")


def test_llm_arguments(store: Store) -> None:
    def llm(prompt: str, stop: Any = None, top: int = 0) -> Iterator[str]:
        yield from (f"{top}", f"{stop}")

    chain = chain_on(store, llm, llm_kwargs={"top": 3})
    assert chain.predict(input="hi", stop=["."]) == "3['.']"
    assert list(chain.stream("hi")) == ["3", "None"]
    assert chain.bind(stop=["!"]).invoke("hi") == {**chain.invoke("hi", stop=["!"]), "history": ANY}
    assert "".join(chain.pick("response").stream("hi")) == "3None"
    assert chain.pick(["response"]).invoke("hi") == {"response": "3None"}
    with pytest.raises(InvalidArgument, match="a call takes no 'stopp'; it takes return_only_outputs"):
        chain.invoke("hi", stopp=1)


def test_the_prompts_text_may_be_set(store: Store) -> None:
    chain = chain_on(store, Scripted("one", "two"))
    assert chain.prompt.input_variables == ["history", "input"]
    chain.prompt.template = "{history}|{input}"
    chain.predict(input="a")
    chain.prompt = "{input}, after {history}"
    chain.predict(input="b")
    assert chain.llm.prompts == ["|a", "b, after Human: a\nAI: one"]
    assert chain_on(store, Scripted()).prompt.template.startswith("The following is a friendly")


class Told(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_chain_start(self, *_: Any, **__: Any) -> None:
        self.events.append("start")

    def on_chain_end(self, *_: Any, **__: Any) -> None:
        self.events.append("end")

    def on_chain_error(self, *_: Any, **__: Any) -> None:
        self.events.append("error")


def test_each_call_is_told_of_once(store: Store) -> None:
    told = Told()
    chain = chain_on(store, Scripted("ok", "", "late"), callbacks=[told])

    async def astream(said: str, **options: Any) -> str:
        return "".join([piece async for piece in chain.astream(said, **options)])

    async def left(said: str) -> None:
        async with aclosing(chain.astream(said)) as pieces:
            await anext(pieces)

    assert "".join(chain.stream("q", idempotency_key="1")) == "ok"
    assert "".join(chain.stream("q", idempotency_key="1")) == "ok"
    assert asyncio.run(astream("q", idempotency_key="1")) == "ok"
    assert told.events == ["start", "end"] * 3
    asyncio.run(left("an empty answer"))
    assert told.events[6:] == ["start", "error"]
    chain.prompt.template = "{history} {input} {other}"
    with pytest.raises(KeyError):
        chain.predict(input="no prompt")
    assert told.events[8:] == ["start", "error"]
