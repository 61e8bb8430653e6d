"""Prompts that want messages: LangChain's templates, its chat models, and OpenAI's dicts."""

import asyncio
import copy
import json
import pickle
from typing import Any

import openai
import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed")
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    get_buffer_string,
    messages_to_dict,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from tests.langchain.test_chain import Scripted, chain_on, store
from tokenmem import ConversationChain, ConversationTokenBufferMemory, Message, OpenAIChat, Store
from tokenmem.errors import InvalidArgument
from tokenmem.testing import Answer, ModelServer

assert store  # the fixture
PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Be brief."), MessagesPlaceholder("history"), ("human", "{input}")]
)
CALL = {"id": "call_1", "type": "function", "function": {"name": "trains", "arguments": '{"to": "Rome"}'}}


class ChatModel(FakeListChatModel):
    """A model that keeps what it was asked."""

    asked: list[list[BaseMessage]] = []  # noqa: RUF012 - pydantic copies it

    def _call(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> str:
        self.asked.append(list(messages))
        return super()._call(messages, *rest, **options)

    def _stream(self, messages: list[BaseMessage], *rest: Any, **options: Any) -> Any:
        self.asked.append(list(messages))
        return super()._stream(messages, *rest, **options)


def chat_chain(store: Store, *answers: str, prompt: Any = PROMPT, **options: Any) -> Any:
    llm = ChatModel(responses=list(answers))
    return chain_on(store, llm, {"return_messages": True}, prompt=prompt, **options)


def test_a_chat_prompt_with_a_chat_model(store: Store) -> None:
    chain = chat_chain(store, "Hello Bob", "You are Bob", "yes", "no")
    assert chain.predict(input="I am Bob") == "Hello Bob"
    assert asyncio.run(chain.apredict(input="Who am I?")) == "You are Bob"
    assert "".join(chain.stream("Sure?")) == "yes"
    history = [HumanMessage("I am Bob"), AIMessage("Hello Bob"), HumanMessage("Who am I?")]
    assert chain.llm.asked == [
        [SystemMessage("Be brief."), *history[:1]],
        [SystemMessage("Be brief."), *history],
        [SystemMessage("Be brief."), *history, AIMessage("You are Bob"), HumanMessage("Sure?")],
    ]
    answer = chain.invoke("Again?")
    assert answer["history"][:3] == history
    assert all(isinstance(message, BaseMessage) for message in answer["history"])


def test_the_same_prompt_in_a_pipeline(store: Store) -> None:
    memory = ConversationTokenBufferMemory(return_messages=True, store=store, conversation_id="c")
    memory.save_context({"input": "I am Bob"}, {"output": "Hello Bob"})
    chain: Any = (
        RunnablePassthrough.assign(
            history=RunnableLambda(memory.load_memory_variables) | (lambda loaded: loaded["history"])
        )
        | PROMPT
        | RunnableLambda(lambda value: AIMessage(value.to_messages()[-2].content.upper()))
        | StrOutputParser()
    )
    assert chain.invoke({"input": "Who am I?"}) == "HELLO BOB"
    assert PROMPT.invoke({**memory.load_memory_variables({}), "input": "Hi"}).to_messages()[1:3] == [
        HumanMessage("I am Bob"),
        AIMessage("Hello Bob"),
    ]


def test_a_text_model_gets_the_messages_as_text(store: Store) -> None:
    llm = Scripted("Hello", "Bob")
    chain = chain_on(store, llm, {"return_messages": True}, prompt=PROMPT)
    chain.predict(input="I am Bob")
    chain.predict(input="Who am I?")
    assert llm.prompts[1] == "System: Be brief.\nHuman: I am Bob\nAI: Hello\nHuman: Who am I?"


def test_a_chat_prompt_with_the_history_as_text(store: Store) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "So far:\n{history}"), ("human", "{input}")])
    for return_messages in (False, True):
        llm = ChatModel(responses=["one", "two"])
        memory = ConversationTokenBufferMemory(store=store, return_messages=return_messages)
        chain = ConversationChain(llm=llm, memory=memory, prompt=prompt)
        chain.predict(input="a")
        chain.predict(input="b")
        assert llm.asked[1] == [SystemMessage("So far:\nHuman: a\nAI: one"), HumanMessage("b")]


def test_openais_chat_model_gets_the_messages(store: Store) -> None:
    with ModelServer([Answer("Hello Bob"), Answer("You are Bob")]) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="key", max_retries=0)
        chain = chain_on(store, OpenAIChat(client=client), {"return_messages": True}, prompt=PROMPT)
        chain.predict(input="I am Bob")
        assert "".join(chain.stream("Who am I?")) == "You are Bob"
        assert server.requests[1].body["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "I am Bob"},
            {"role": "assistant", "content": "Hello Bob"},
            {"role": "user", "content": "Who am I?"},
        ]
        history = chain.memory.load_memory_variables({})["history"]
        server.reply_with([Answer("yes")])
        client.chat.completions.create(model="gpt-4o", messages=[*history, {"role": "user", "content": "?"}])
        assert server.requests[2].body["messages"][0] == {"role": "user", "content": "I am Bob"}
        client.close()


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (ChatPromptTemplate.from_messages([("human", "{input}")]), "Got unexpected prompt input variables"),
        (ChatPromptTemplate.from_messages([MessagesPlaceholder("history")]), "Got unexpected prompt"),
        (PromptTemplate.from_template("{history} {input} {other}"), "'history', 'input', 'other'"),
        (
            ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), MessagesPlaceholder("input")]),
            "cannot be made of 'history', 'input'",
        ),
        (PromptTemplate.from_template("{history} {input:%d}"), "cannot be made of"),
    ],
)
def test_what_cannot_work_is_refused_when_the_chain_is_built(store: Store, prompt: Any, named: str) -> None:
    with pytest.raises(InvalidArgument, match=named):
        chat_chain(store, prompt=prompt)
    with pytest.raises(InvalidArgument, match="give the memory return_messages=True"):
        chain_on(store, Scripted(), prompt=PROMPT)
    assert store.conversations() == []


def test_what_cannot_work_any_more_is_refused_before_anything_is_stored(store: Store) -> None:
    chain = chat_chain(store, "never")
    chain.memory.return_messages = False
    with pytest.raises(InvalidArgument, match="set the memory's return_messages"):
        chain.predict(input="hi")
    chain.memory.return_messages = True
    chain.prompt = PromptTemplate.from_template("{history} {other}")
    with pytest.raises(KeyError, match="other"):
        asyncio.run(chain.apredict(input="hi"))
    assert store.conversations() == []


def test_a_placeholder_that_may_be_missing(store: Store) -> None:
    prompt = ChatPromptTemplate.from_messages([("placeholder", "{history}"), ("human", "{input}")])
    chain = chat_chain(store, "one", "two", prompt=prompt)
    chain.predict(input="a")
    chain.predict(input="b")
    assert chain.llm.asked[1] == [HumanMessage("a"), AIMessage("one"), HumanMessage("b")]


def test_messages_are_langchains_and_openais_at_once(store: Store) -> None:
    store.append(
        "c",
        [
            Message.system("Be kind."),
            Message.user("When?"),
            Message.assistant(None, tool_calls=[CALL]),
            Message.tool("22:10", tool_call_id="call_1"),
            Message.assistant("At 22:10."),
        ],
    )
    memory = ConversationTokenBufferMemory(return_messages=True, store=store, conversation_id="c")
    history = memory.load_memory_variables({})["history"]
    calls = [{"name": "trains", "args": {"to": "Rome"}, "id": "call_1", "type": "tool_call"}]
    assert history == [
        SystemMessage("Be kind."),
        HumanMessage("When?"),
        AIMessage("", tool_calls=calls),
        ToolMessage("22:10", tool_call_id="call_1"),
        AIMessage("At 22:10."),
    ]
    assert [dict(message) for message in history] == store.window("c", 10_000).to_openai()
    assert [*map(repr, history)][1] == repr(HumanMessage("When?"))
    assert json.loads(dumps(history[1])) == json.loads(dumps(HumanMessage("When?")))
    assert messages_to_dict(history[1:2]) == messages_to_dict([HumanMessage("When?")])
    assert get_buffer_string(history[:2]) == "System: Be kind.\nHuman: When?"
    assert (history[1]["role"], history[1].role, history[1].position) == ("user", "user", 2)
    assert "content" in history[1]
    assert history[1] != HumanMessage("other")
    for copied in (pickle.loads(pickle.dumps(history)), copy.deepcopy(history)):
        assert copied == history
        assert copied[1].token_count == history[1].token_count
    memory.chat_memory.add_messages(history)  # and they come back as they went in
    assert [*map(dict, memory.chat_memory.messages[5:])] == [*map(dict, history)]


def test_a_window_of_messages_never_begins_with_a_result(store: Store) -> None:
    store.append(
        "c",
        [
            Message.user("When?"),
            Message.assistant(None, tool_calls=[CALL]),
            Message.tool("22:10", tool_call_id="call_1"),
            Message.assistant("At 22:10."),
        ],
    )
    last_two = sum(message.token_count for message in store.messages("c", after=2))
    memory = ConversationTokenBufferMemory(
        return_messages=True, store=store, conversation_id="c", max_token_limit=last_two
    )
    assert memory.buffer == [AIMessage("At 22:10.")]
    memory.return_messages = False
    assert memory.buffer.splitlines() == ["Tool: 22:10", "AI: At 22:10."]


def test_chat_memory(store: Store) -> None:
    memory = ConversationTokenBufferMemory(store=store, conversation_id="c")
    history = memory.chat_memory
    assert history.messages == []
    history.add_user_message("hi")
    history.add_ai_message(AIMessage("hello"))
    history.add_message(HumanMessage("how are you?"))
    history.add_messages([])
    assert history.messages == [HumanMessage("hi"), AIMessage("hello"), HumanMessage("how are you?")]
    assert memory.buffer == "Human: hi\nAI: hello\nHuman: how are you?"

    async def awaited() -> None:
        await history.aadd_messages([AIMessage("fine")])
        assert (await history.aget_messages())[-1] == AIMessage("fine")

    asyncio.run(awaited())
    history.messages = [HumanMessage("anew")]
    assert memory.buffer == "Human: anew"
    history.clear()
    assert store.conversations() == []
    asyncio.run(history.aclear())


def test_a_memory_of_two_chains(store: Store) -> None:
    memory = ConversationTokenBufferMemory(store=store, conversation_id="c")
    first = ConversationChain(llm=Scripted("one", "three"), memory=memory)
    second = ConversationChain(
        llm=Scripted("two"), memory=memory, prompt="{history}|{question}", input_key="question"
    )
    assert [first.predict(input="a"), second.predict(question="b"), first.predict(input="c")] == [
        *("one", "two", "three")
    ]
    assert second.llm.prompts == ["Human: a\nAI: one|b"]  # type: ignore[union-attr]
    assert memory.buffer.endswith("Human: b\nAI: two\nHuman: c\nAI: three")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "call",
    [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{cut"}},
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": "[1]"}},
        {"id": "c", "type": "custom", "custom": {"name": "f", "input": "free text"}},
    ],
    ids=["empty", "cut", "list", "custom"],
)
def test_whatever_is_stored_can_be_loaded_as_messages(store: Store, call: Any) -> None:
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "r"}
    store.append("c", [{"role": "user", "content": "x"}, asked, result])
    store.append("c", [{"role": "developer", "content": "d"}, Message.opaque({"event": 1}, "seen")])
    store.append("c", [{"role": "user", "content": [{"type": "text", "text": "a"}]}])
    memory = ConversationTokenBufferMemory(return_messages=True, store=store, conversation_id="c")
    history = memory.load_memory_variables({})["history"]
    roles = [dict(message)["role"] for message in history]
    assert roles == ["user", "assistant", "tool", "developer", "assistant", "user"]
    calls = history[1].tool_calls or history[1].invalid_tool_calls
    assert [(each["name"], each["id"]) for each in calls] == [("f", "c")]
    assert dict(history[1]) == asked


def test_a_message_that_was_changed_reads_as_it_is(store: Store) -> None:
    memory = ConversationTokenBufferMemory(return_messages=True, store=store, conversation_id="c")
    memory.save_context({"input": "my number is 7"}, {"output": "fine"})
    message, reply = memory.buffer_as_messages
    copied = reply.model_copy(update={"content": "redacted"})
    message.content = "my number is X"
    assert (dict(message)["content"], dict(copied)["content"]) == ("my number is X", "redacted")
    assert (message.position, reply.position) == (0, 2)
    assert dict(type(reply)(content="new")) == {"role": "assistant", "content": "new"}


def test_items_of_the_responses_api_become_chat_messages(store: Store) -> None:
    calls = [
        {"type": "function_call", "call_id": id_, "name": "f", "arguments": text}
        for id_, text in (("c1", '{"a": 1}'), ("c2", ""))
    ]
    results = [{"type": "function_call_output", "call_id": id_, "output": id_} for id_ in ("c2", "c1")]
    store.append("c", [{"role": "user", "content": "x"}, *calls, *results])
    memory = ConversationTokenBufferMemory(return_messages=True, store=store, conversation_id="c")
    user, asked, *answered = memory.buffer_as_messages
    assert (user["content"], asked.position, asked["role"]) == ("x", 2, "assistant")
    assert [call["id"] for call in asked.tool_calls] == ["c1", "c2"]
    assert [(message["role"], message["tool_call_id"]) for message in answered] == [
        ("tool", "c2"),
        ("tool", "c1"),
    ]
