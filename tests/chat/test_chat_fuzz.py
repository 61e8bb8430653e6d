"""Random conversations with a scripted server: no prompt is refused, and nothing is lost or stored twice."""

import asyncio
import os
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI, OpenAIError

from tests.support.chat_plans import FOREIGN_GENERATORS, Plans
from tests.support.chat_player import Player, Table
from tests.support.stores import Stores
from tokenmem import Chat, Store, errors
from tokenmem.testing import Answer, ModelServer, StreamError

CONVERSATIONS = int(os.environ.get("TOKENMEM_TEST_CHAT_CONVERSATIONS", "60"))  # 1000 is what is promised
AT_ONCE = 8


@FOREIGN_GENERATORS
@pytest.mark.timeout(120 + CONVERSATIONS * 3)
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_random_conversations(stores: Stores, api: str) -> None:
    opened: Any = stores.open()
    plans = Plans()
    seeds = [f"{stores.variant}/{api}/{number}" for number in range(CONVERSATIONS)]
    with ModelServer(plans) as server:
        if stores.is_async:
            table = stores.loop.run(play_async(opened.store, server, plans, api, seeds))
        else:
            table = play_sync(opened, server, plans, api, seeds)
        assert server.problems == []
    assert opened.verify() == []
    missing = {"ok", "error", "cancelled", "parts", "WindowTooSmall", "replayed"} - set(table.seen)
    assert not missing, f"never happened: {missing}"


def play_sync(store: Any, server: ModelServer, plans: Plans, api: str, seeds: list[str]) -> Table:
    """Each conversation in a thread, of which a few run at once."""

    def play(seed: str) -> str | None:
        return asyncio.run(played(table, seed))

    first = OpenAI(base_url=server.base_url, api_key="test", max_retries=0, timeout=60)
    with first:
        clients = {0: first, 1: first.with_options(max_retries=1)}
        table = Table(store, clients, plans, api, is_async=False)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            check_played(list(pool.map(play, seeds)))
    return table


async def play_async(store: Any, server: ModelServer, plans: Plans, api: str, seeds: list[str]) -> Table:
    """A few conversations at once as tasks, which leave no other task behind."""
    first = AsyncOpenAI(base_url=server.base_url, api_key="test", max_retries=0, timeout=60)
    async with first:
        clients = {0: first, 1: first.with_options(max_retries=1)}
        table = Table(store, clients, plans, api, is_async=True)
        places = asyncio.Semaphore(AT_ONCE)

        async def play(seed: str) -> str | None:
            async with places:
                return await played(table, seed)

        check_played(await asyncio.gather(*map(play, seeds)))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not others, f"tasks are left over: {others}"
    return table


async def played(table: Table, seed: str) -> str | None:
    """Play one conversation; what went wrong in it, after which steps."""
    player = Player(table, seed)
    try:
        await player.play()
    except Exception as error:
        where = "".join(traceback.format_tb(error.__traceback__)[-2:])
        return "\n".join([f"conversation {seed!r}: {error!r}", where, *player.log])
    return None


def check_played(results: Sequence[str | None]) -> None:
    failures = [each for each in results if each is not None]
    assert not failures, f"{len(failures)} of {len(results)} failed:\n" + "\n\n".join(failures[:5])


# What random conversations have found, each in few words


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer([]) as running:
        yield running
        assert running.problems == []


@pytest.fixture
def client(server: ModelServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="test", max_retries=0, timeout=60) as opened:
        yield opened


@pytest.fixture
def short_store(ready_url: str) -> Iterator[Store]:
    with Store(ready_url) as opened:
        yield opened
        assert opened.verify() == []


APIS = pytest.mark.parametrize("api", ["chat", "responses"])
CALLS = Answer(tool_calls=[("weather", {"city": "Oslo"}, "call_a")])


@APIS
def test_results_are_sent_again_behind_a_broken_reply(
    server: ModelServer, client: OpenAI, short_store: Store, api: Any
) -> None:
    """They have been checked, and their calls are answered: by themselves."""
    server.reply_with(
        [CALLS, StreamError(after=5, answer=Answer("It is cold there, by what I hear.")), Answer("Cold.")]
    )
    chat = Chat(short_store, client, api=api)
    chat.send("c1", "What is the weather in Oslo?")
    with pytest.raises((OpenAIError, errors.ModelError)):
        list(chat.stream_tool_results("c1", {"call_a": "-5"}, idempotency_key="k"))
    assert short_store.messages("c1")[-1].partial
    assert chat.send_tool_results("c1", {"call_a": "-5"}, idempotency_key="k").text == "Cold."
    assert chat.send_tool_results("c1", {"call_a": "-5"}, idempotency_key="k").replayed
    assert len(server.requests) == 3


@APIS
def test_calls_of_an_earlier_reply_need_no_results(
    server: ModelServer, client: OpenAI, short_store: Store, api: Any
) -> None:
    """With the Responses API the two replies look like one."""
    later = Answer(tool_calls=[("weather", {"city": "Rome"}, "call_b")])
    server.reply_with([CALLS, later, Answer("Warm.")])
    chat = Chat(short_store, client, api=api)
    chat.send("c1", "What is the weather in Oslo?")
    assert [call.id for call in chat.send("c1").tool_calls] == ["call_b"]
    assert chat.send_tool_results("c1", {"call_b": "30"}).text == "Warm."


def test_a_key_is_kept_where_no_message_is_stored(
    server: ModelServer, client: OpenAI, short_store: Store
) -> None:
    server.reply_with([Answer("Hello.")])
    chat = Chat(short_store, client)
    short_store.append("c1", [{"role": "user", "content": "Hello?"}])
    assert not chat.send("c1", idempotency_key="k").replayed
    assert chat.send("c1", idempotency_key="k").replayed
    assert [message.content for message in short_store.messages("c1")] == ["Hello?", "Hello."]
    with pytest.raises(errors.IdempotencyConflict):
        chat.send("c1", "Another message.", idempotency_key="k")


@APIS
def test_a_conversation_of_which_nothing_can_be_sent(
    server: ModelServer, client: OpenAI, short_store: Store, api: Any
) -> None:
    chat = Chat(short_store, client, api=api, instructions="Be brief.")
    short_store.append("c1", [{"role": "assistant", "content": "I", "tokenmem_partial": True}])
    with pytest.raises(errors.InvalidArgument, match="pass a message"):
        chat.send("c1")
    short_store.delete_message("c1", 1)
    with pytest.raises(errors.InvalidArgument, match="pass a message"):
        chat.send("c1")
    assert short_store.calls("c1") == []
    assert server.requests == []


def test_reasoning_is_left_out_with_what_it_led_to(
    server: ModelServer, client: OpenAI, short_store: Store
) -> None:
    """A call that had only begun when the stream was cut."""
    thought = Answer(reasoning="Let me see.", tool_calls=[("weather", {"city": "Oslo"}, "call_a")])
    server.reply_with([StreamError(after=11, answer=thought), Answer("Cold.")])
    chat = Chat(short_store, client, "gpt-5-mini", api="responses")
    with pytest.raises((OpenAIError, errors.ModelError)):
        list(chat.stream("c1", "What is the weather in Oslo?"))
    assert [message.kind for message in short_store.messages("c1")][:2] == ["message", "reasoning"]
    assert chat.send("c1", "And?").text == "Cold."
