"""ConversationTokenBufferMemory: LangChain's documented behaviour, from the database."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenmem import (
    AsyncStore,
    ConversationTokenBufferMemory,
    Message,
    Store,
    TiktokenCounter,
    TranscriptCounter,
)
from tokenmem.errors import ConversationNotFound, InvalidArgument, InvalidMessage, UnknownTokenCounter

DOCUMENTED = [("hi", "whats up"), ("not much you", "not much")]
NEWEST = "Human: not much you\nAI: not much"
EVERYTHING = "Human: hi\nAI: whats up\n" + NEWEST


@pytest.fixture
def store(ready_url: str) -> Iterator[Store]:
    with Store(ready_url) as store:
        yield store


def llm(prompt: str) -> str:
    raise AssertionError("a memory never calls the model")


def remember(store: Store, exchanges: list[tuple[str, str]] = DOCUMENTED, **options: Any) -> Any:
    memory = ConversationTokenBufferMemory(llm=llm, store=store, **options)
    for said, answered in exchanges:
        memory.save_context({"input": said}, {"output": answered})
    return memory


def pairs(messages: list[Message]) -> list[tuple[str, str | None]]:
    return [(message.role, message.content) for message in messages]


def test_the_documented_example(store: Store) -> None:
    memory = ConversationTokenBufferMemory(llm=llm, max_token_limit=10, store=store)
    memory.save_context({"input": "hi"}, {"output": "whats up"})
    memory.save_context({"input": "not much you"}, {"output": "not much"})
    assert memory.load_memory_variables({}) == {"history": NEWEST}


def test_the_documented_example_as_messages(store: Store) -> None:
    memory = remember(store, max_token_limit=10, return_messages=True)
    history = memory.load_memory_variables({})["history"]
    assert pairs(history) == [("user", "not much you"), ("assistant", "not much")]
    assert history == memory.buffer == memory.buffer_as_messages


def test_lines_are_counted_with_their_prefixes_and_kept_exactly_at_the_limit(store: Store) -> None:
    remember(store, conversation_id="c")
    assert [message.token_count for message in store.messages("c")] == [3, 4, 5, 4]
    assert store.conversation("c").token_counter == "transcript:cl100k_base:Human:AI"
    lines = EVERYTHING.split("\n")
    for limit in range(18):
        memory = ConversationTokenBufferMemory(max_token_limit=limit, store=store, conversation_id="c")
        kept = sum(limit >= enough for enough in (4, 9, 13, 16))
        assert memory.load_memory_variables({}) == {"history": "\n".join(lines[4 - kept :])}
        assert len(memory.buffer_as_messages) == kept


def test_nothing_is_ever_pruned_from_the_database(store: Store) -> None:
    memory = remember(store, conversation_id="c", max_token_limit=0)
    assert memory.load_memory_variables({}) == {"history": ""}
    assert len(store.messages("c")) == 4
    memory.max_token_limit = 16
    assert memory.buffer == EVERYTHING


def test_a_message_bigger_than_the_limit_empties_the_history(store: Store) -> None:
    for return_messages, empty in ((False, ""), (True, [])):
        memory = remember(store, [("hi", "word " * 50)], max_token_limit=10, return_messages=return_messages)
        assert memory.load_memory_variables({}) == {"history": empty}
        memory.save_context({"input": "hi"}, {"output": "short"})
        assert memory.buffer_as_str == "Human: hi\nAI: short"


def test_a_conversation_that_is_not_there_yet_is_empty(store: Store) -> None:
    memory = ConversationTokenBufferMemory(store=store, conversation_id="c")
    assert memory.load_memory_variables() == {"history": ""}
    assert memory.buffer_as_messages == []
    memory.clear()
    with pytest.raises(ConversationNotFound):
        store.conversation("c")


def test_clear_begins_anew_under_the_same_id(store: Store) -> None:
    memory = remember(store, conversation_id="c")
    other = remember(store)
    memory.clear()
    assert memory.buffer == ""
    memory.save_context({"input": "again"}, {"output": "hello"})
    assert memory.buffer == "Human: again\nAI: hello"
    assert store.messages("c")[0].position == 1
    assert other.buffer == EVERYTHING


def test_without_an_id_every_memory_has_a_conversation_of_its_own(store: Store) -> None:
    first, second = remember(store), ConversationTokenBufferMemory(store=store)
    assert first.conversation_id != second.conversation_id
    assert second.buffer == ""
    assert [conversation.id for conversation in store.conversations()] == [first.conversation_id]


def test_two_memories_on_one_id_are_one_conversation(store: Store) -> None:
    first = ConversationTokenBufferMemory(store=store, conversation_id="c")
    second = ConversationTokenBufferMemory(store=store, conversation_id="c")
    for memory, (said, answered) in zip((first, second), DOCUMENTED, strict=True):
        memory.save_context({"input": said}, {"output": answered})
    assert first.buffer == second.buffer == EVERYTHING


def test_reopened_in_another_process(ready_url: str, store: Store) -> None:
    remember(store, conversation_id="c")
    code = (
        "import sys; from tokenmem import ConversationTokenBufferMemory, Store\n"
        "with Store(sys.argv[1]) as store:\n"
        "    memory = ConversationTokenBufferMemory(max_token_limit=10, store=store, conversation_id='c')\n"
        "    print(memory.load_memory_variables({}))"
    )
    run = subprocess.run([sys.executable, "-c", code, ready_url], check=True, capture_output=True, text=True)
    assert run.stdout == f"{ {'history': NEWEST} }\n"


def test_other_prefixes_are_rendered_and_counted_as_rendered(store: Store) -> None:
    memory = remember(store, [("你好", "{您好}")], human_prefix="人类", ai_prefix="机器", conversation_id="c")
    assert memory.buffer == "人类: 你好\n机器: {您好}"
    assert (memory.human_prefix, memory.ai_prefix) == ("人类", "机器")
    counter = TiktokenCounter("cl100k_base")
    counted = [counter.count_text(line) for line in memory.buffer.split("\n")]
    assert [message.token_count for message in store.messages("c")] == counted


def test_keys_and_names(store: Store) -> None:
    memory = remember(store, memory_key="past")
    assert memory.memory_variables == ["past"]
    assert memory.load_memory_variables({"input": "ignored"}) == {"past": EVERYTHING}
    assert memory.conversation_id in repr(memory)


def test_the_message_among_several_keys(store: Store) -> None:
    memory = ConversationTokenBufferMemory(store=store)
    memory.save_context({"history": "x", "stop": ["."], "question": "a"}, {"answer": "b"})
    memory.save_context({"question": "c"}, {"output": "d", "sources": "x"})
    memory.input_key, memory.output_key = "question", "answer"
    memory.save_context({"question": "e", "context": "x"}, {"answer": "f", "output": "x"})
    assert memory.buffer == "Human: a\nAI: b\nHuman: c\nAI: d\nHuman: e\nAI: f"


@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "named"),
    [
        ({}, {"output": "b"}, {}, r"One input key expected got \[\]: exactly one"),
        (
            {"history": "x", "stop": "x"},
            {"output": "b"},
            {},
            r"got \[\]: exactly one is needed beside 'history', 'stop'",
        ),
        ({"one": "a", "two": "a"}, {"output": "b"}, {}, r"One input key expected got \['one', 'two'\]"),
        ({"one": "a"}, {"output": "b"}, {"input_key": "two"}, "keys 'one', and not 'two', the input_key"),
        ({"one": "a"}, {}, {}, "Got multiple output keys: none"),
        ({"one": "a"}, {"x": "b", "y": "b"}, {}, "Got multiple output keys: 'x', 'y'"),
        ({"one": "a"}, {"output": "b"}, {"output_key": "x"}, "keys 'output', and not 'x', the output_key"),
        ("secret", {"output": "b"}, {}, "inputs is a str"),
        ({"one": "a"}, ["b"], {}, "outputs is a list"),
        ({"one": None}, {"output": "b"}, {}, r"inputs\['one'\] is a NoneType"),
        ({"one": "a"}, {"output": None}, {}, r"outputs\['output'\] is None"),
        ({"one": "a\0"}, {"output": "b"}, {}, r"inputs\['one'\] has a NUL character at position 1"),
        ({"one": "a"}, {"output": "\ud800"}, {}, r"outputs\['output'\] has half of a surrogate pair"),
    ],
)
def test_what_cannot_be_saved(store: Store, inputs: Any, outputs: Any, options: Any, named: str) -> None:
    memory = ConversationTokenBufferMemory(store=store, **options)
    for save in (memory.save_context, lambda *both: asyncio.run(memory.asave_context(*both))):
        with pytest.raises(ValueError, match=named):
            save(inputs, outputs)
    assert store.conversations() == []


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"max_token_limit": -1}, InvalidArgument, "max_token_limit is -1"),
        ({"max_token_limit": 1.5}, InvalidArgument, "max_token_limit is 1.5"),
        ({"conversation_id": ""}, InvalidArgument, "conversation_id has 0 characters"),
        ({"conversation_id": "x" * 300}, InvalidArgument, "300 characters"),
        ({"store": "sqlite:///x.db"}, InvalidArgument, "store is a str; pass a Store"),
        ({"counter": 7}, InvalidArgument, "counter is a int"),
        ({"counter": "o300k"}, UnknownTokenCounter, "o300k"),
        ({"human_prefix": None}, InvalidArgument, "prefix must be text"),
        ({"counter": TranscriptCounter("gpt-4", "User", "AI")}, InvalidArgument, "'User'.*'Human'"),
        ({"counter": "transcript:cl100k_base:User:AI"}, InvalidArgument, "give both the same"),
    ],
)
def test_what_no_memory_can_be(options: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        ConversationTokenBufferMemory(**options)


class Characters:
    """A counter of the application's own."""

    name = "characters"

    def count(self, message: Message) -> int:
        return len(message.content or "")


@pytest.mark.parametrize(
    ("options", "counter"),
    [
        ({}, "transcript:cl100k_base:Human:AI"),
        ({"llm": llm}, "transcript:cl100k_base:Human:AI"),
        ({"llm": SimpleNamespace(model="gpt-4o")}, "transcript:o200k_base:Human:AI"),
        ({"llm": SimpleNamespace(model=object(), model_name="gpt-4o")}, "transcript:o200k_base:Human:AI"),
        ({"llm": SimpleNamespace(model="gpt-3.5-turbo-instruct")}, "transcript:cl100k_base:Human:AI"),
        ({"llm": SimpleNamespace(model="llama-9")}, "transcript:cl100k_base:Human:AI"),
        ({"llm": llm, "counter": "gpt-4o", "ai_prefix": "B"}, "transcript:o200k_base:Human:B"),
        ({"counter": "transcript:o200k_base:Human:AI"}, "transcript:o200k_base:Human:AI"),
        ({"counter": TiktokenCounter("o200k_base")}, "o200k_base"),
        ({"counter": Characters()}, "characters"),
    ],
)
def test_which_counter_a_conversation_begins_with(ready_sqlite_url: str, options: Any, counter: str) -> None:
    with Store(ready_sqlite_url) as store:
        memory = ConversationTokenBufferMemory(store=store, conversation_id="c", **options)
        memory.save_context({"input": "hi"}, {"output": "whats up"})
        assert store.conversation("c").token_counter == counter


def test_an_existing_conversation_keeps_its_counter(store: Store) -> None:
    store.append("c", [{"role": "system", "content": "Be kind."}])
    memory = remember(store, conversation_id="c")
    assert store.conversation("c").token_counter == "o200k_base"
    assert memory.buffer == "System: Be kind.\n" + EVERYTHING
    newest_two = sum(message.token_count for message in store.messages("c")[-2:])
    memory.max_token_limit = newest_two
    assert memory.buffer == NEWEST


def test_one_owners_conversations(store: Store) -> None:
    remember(store.for_owner("ann"), conversation_id="c")
    stranger = ConversationTokenBufferMemory(store=store.for_owner("bob"), conversation_id="c")
    assert stranger.buffer == ""
    stranger.clear()
    with pytest.raises(ConversationNotFound):
        stranger.save_context({"input": "a"}, {"output": "b"})
    assert len(store.messages("c")) == 4


def test_awaited_on_a_store_it_does_the_same(store: Store) -> None:
    asyncio.run(use_awaited(store))


def test_awaited_on_an_async_store_it_does_the_same(ready_url: str) -> None:
    async def run() -> None:
        async with AsyncStore(ready_url) as store:
            await use_awaited(store)

    asyncio.run(run())


async def use_awaited(store: Store | AsyncStore) -> None:
    memory = ConversationTokenBufferMemory(llm=llm, max_token_limit=10, store=store, conversation_id="c")
    assert await memory.aload_memory_variables() == {"history": ""}
    for said, answered in DOCUMENTED:
        await memory.asave_context({"input": said}, {"output": answered})
    assert await memory.aload_memory_variables({}) == {"history": NEWEST}
    memory.return_messages = True
    history = (await memory.aload_memory_variables({}))["history"]
    assert pairs(history) == [("user", "not much you"), ("assistant", "not much")]
    with pytest.raises(InvalidArgument, match="exactly one"):
        await memory.asave_context({}, {"output": "b"})
    with pytest.raises(InvalidMessage):
        await memory.asave_context({"input": "a\0"}, {"output": "b"})
    await memory.aclear()
    await memory.aclear()
    assert await memory.aload_memory_variables({}) == {"history": []}


def test_on_an_async_store_the_sync_methods_say_so(tmp_path: Path) -> None:
    memory = ConversationTokenBufferMemory(store=AsyncStore(f"sqlite:///{tmp_path}/x.db"))
    for use in (
        memory.load_memory_variables,
        memory.clear,
        lambda: memory.buffer,
        lambda: memory.save_context({"a": "b"}, {"c": "d"}),
    ):
        with pytest.raises(InvalidArgument, match="on an AsyncStore; await asave_context"):
            use()


def test_without_a_store_the_environment_names_the_database(
    ready_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENMEM_URL", ready_url)
    memory = ConversationTokenBufferMemory(llm=llm, max_token_limit=10, conversation_id="c")
    for said, answered in DOCUMENTED:
        memory.save_context({"input": said}, {"output": answered})
    del memory
    gc.collect()
    again = ConversationTokenBufferMemory(llm=llm, max_token_limit=10, conversation_id="c")
    assert again.load_memory_variables({}) == {"history": NEWEST}
    asyncio.run(again.aclear())
    assert again.buffer == ""


def test_without_a_store_and_an_environment_it_is_a_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENMEM_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    memory = ConversationTokenBufferMemory(llm=llm)
    assert not list(tmp_path.iterdir())
    assert asyncio.run(memory.aload_memory_variables({})) == {"history": ""}
    memory.save_context({"input": "hi"}, {"output": "whats up"})
    assert memory.buffer == "Human: hi\nAI: whats up"
    assert (tmp_path / "tokenmem.db").is_file()


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(exchanges=st.lists(st.tuples(WORDS, WORDS), max_size=8), limit=st.integers(0, 120))
def test_the_history_is_the_longest_suffix_of_lines_that_fits(
    ready_sqlite_url: str, exchanges: list[tuple[str, str]], limit: int
) -> None:
    counter = TiktokenCounter("cl100k_base")
    lines = [line for said, answered in exchanges for line in (f"Human: {said}", f"AI: {answered}")]
    while sum(map(counter.count_text, lines)) > limit:
        lines.pop(0)
    with Store(ready_sqlite_url) as store:
        memory = remember(store, exchanges, max_token_limit=limit)
        assert memory.load_memory_variables({}) == {"history": "\n".join(lines)}
