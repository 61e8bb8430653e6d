"""A question whose call failed: asked again it is the same one, and before another it is not there."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.langchain.test_chain import INSTRUCTIONS, Scripted, chain_on, documented_prompt, store
from tokenmem import AsyncStore, Message, Store
from tokenmem.errors import IdempotencyConflict, InvalidArgument, PositionConflict
from tokenmem.operations.failed_questions import of_calls

assert store  # the fixture
DOWN = RuntimeError("down")


def stored(store: Store) -> list[tuple[int, str, str | None]]:
    return [(message.position, message.role, message.content) for message in store.messages("c")]


def ask(chain: Any, said: str, *, awaited: bool = False, **options: Any) -> Any:
    try:
        if awaited:
            return asyncio.run(chain.apredict(input=said, **options))
        return chain.predict(input=said, **options)
    except RuntimeError as error:
        return error


@pytest.mark.parametrize("awaited", [False, True])
def test_a_retry_is_the_same_question(store: Store, awaited: bool) -> None:
    chain = chain_on(store, Scripted("hello", DOWN, DOWN, "Paris."))
    ask(chain, "hi")
    assert [ask(chain, "Capital of France?", awaited=awaited) for _ in range(3)] == [DOWN, DOWN, "Paris."]
    assert chain.llm.prompts[1:] == [documented_prompt(["Human: hi", "AI: hello"], "Capital of France?")] * 3
    assert stored(store) == [
        (1, "user", "hi"),
        (2, "assistant", "hello"),
        (3, "user", "Capital of France?"),
        (4, "assistant", "Paris."),
    ]
    assert [call.status for call in store.calls("c")] == ["ok", "error", "error", "ok"]
    assert [call.last_position for call in store.calls("c")] == [1, 3, 3, 3]
    assert chain.memory.buffer.endswith("Human: Capital of France?\nAI: Paris.")
    assert store.verify() == []


def test_a_retry_costs_what_the_first_call_did(store: Store) -> None:
    chain = chain_on(store, Scripted("hello", DOWN, "fine"), {"max_token_limit": 7})
    ask(chain, "hi")
    ask(chain, "a question of many more tokens than the limit of the memory allows for")
    ask(chain, "a question of many more tokens than the limit of the memory allows for")
    assert chain.llm.prompts[1] == chain.llm.prompts[2]
    first, second, third = store.calls("c")
    assert first.window_tokens < second.window_tokens == third.window_tokens


@pytest.mark.parametrize("limit", range(0, 40, 3))
def test_before_another_question_the_failed_one_is_not_there(store: Store, limit: int) -> None:
    script = ("one", DOWN, DOWN, "two", DOWN, "three", "four")
    chain = chain_on(store, Scripted(*script), {"max_token_limit": limit})
    peer = chain_on(store, Scripted("one", "two", "three", "four"))
    peer.memory.conversation_id, peer.memory.max_token_limit = "peer", limit
    for said in ("a", "failed at length", "failed too", "b", "failed again", "c", "d"):
        answer = ask(chain, said)
        if answer is not DOWN:
            assert ask(peer, said) == answer
            assert chain.llm.prompts[-1] == peer.llm.prompts[-1]
        assert chain.memory.buffer == peer.memory.buffer
    assert [text for _, role, text in stored(store) if role == "user"] == [
        *("a", "failed at length", "failed too", "b", "failed again", "c", "d")
    ]
    sent = [(call.status, call.changes) for call in store.calls("c")]
    assert [status for status, _ in sent] == ["ok", "error", "error", "ok", "error", "ok", "ok"]
    if limit > 30:  # the record tells what the model did not see
        assert sent[3][1] == [{"position": 3, "change": "left_out"}, {"position": 4, "change": "left_out"}]
    assert store.verify() == []


def test_the_same_words_after_an_answer_are_another_question(store: Store) -> None:
    chain = chain_on(store, Scripted("one", "two"))
    assert [ask(chain, "again"), ask(chain, "again")] == ["one", "two"]
    assert [role for _, role, _ in stored(store)] == ["user", "assistant", "user", "assistant"]


def test_words_of_somebody_else_are_no_failed_question(store: Store) -> None:
    store.append("c", [Message.user("hi")])  # no call of it has failed
    chain = chain_on(store, Scripted("hello"))
    ask(chain, "hi")
    assert chain.llm.prompts == [documented_prompt(["Human: hi"], "hi")]


def streamed(chain: Any, said: str) -> Any:
    try:
        return "".join(chain.stream(said))
    except RuntimeError as error:
        return error


class InPieces:
    """A model that yields its text in pieces, and an error where one is."""

    def __init__(self, *answers: list[Any]) -> None:
        self.answers, self.prompts = list(answers), list[str]()

    def __call__(self, prompt: str) -> Iterator[str]:
        self.prompts.append(prompt)
        for piece in self.answers.pop(0):
            if isinstance(piece, Exception):
                raise piece
            yield piece


def test_a_part_of_a_stream_that_failed_is_not_there_either(store: Store) -> None:
    chain = chain_on(store, InPieces(["Par", DOWN], ["P", DOWN], ["Paris", "."], ["Lo", DOWN], ["fine"]))
    assert [streamed(chain, "Capital?") for _ in range(3)] == [DOWN, DOWN, "Paris."]
    assert chain.llm.prompts == [documented_prompt([], "Capital?")] * 3
    assert chain.memory.buffer == "Human: Capital?\nAI: Paris."
    assert [streamed(chain, said) for said in ("Lost?", "Other?")] == [DOWN, "fine"]
    assert chain.llm.prompts[-1] == documented_prompt(["Human: Capital?", "AI: Paris."], "Other?")
    texts = [text for _, _, text in stored(store)]
    assert texts == ["Capital?", "Par", "P", "Paris.", "Lost?", "Lo", "Other?", "fine"]


def test_who_leaves_a_stream_keeps_its_part(store: Store) -> None:
    chain = chain_on(store, InPieces(["Once ", "upon ", "a time"], ["fine"]))
    for piece in chain.stream("A story"):
        if piece == "upon ":
            break
    assert chain.memory.buffer == "Human: A story\nAI: Once upon "
    assert [call.status for call in store.calls("c")] == ["cancelled"]
    assert streamed(chain, "A story") == "fine"
    assert chain.llm.prompts[1] == documented_prompt(["Human: A story", "AI: Once upon "], "A story")


def test_a_cancelled_call_is_a_failed_one(ready_url: str) -> None:
    async def main() -> None:
        begun = asyncio.Event()

        async def llm(prompt: str) -> str:
            prompts.append(prompt)
            if len(prompts) == 1:
                begun.set()
                await asyncio.sleep(60)
            return "hello"

        prompts: list[str] = []
        async with AsyncStore(ready_url) as store:
            chain = chain_on(store, llm)
            task = asyncio.create_task(chain.apredict(input="hi"))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await chain.memory.aload_memory_variables({}) == {"history": ""}
            assert await chain.apredict(input="hi") == "hello"
            assert [message.content for message in await store.messages("c")] == ["hi", "hello"]
            assert prompts == [documented_prompt([], "hi")] * 2

    asyncio.run(main())


def test_with_an_idempotency_key(store: Store) -> None:
    chain = chain_on(store, Scripted(DOWN, "one", "two"))
    assert ask(chain, "hi", idempotency_key="k") is DOWN
    assert ask(chain, "hi", idempotency_key="k") == "one"
    assert ask(chain, "hi", idempotency_key="k", awaited=True) == "one"
    assert chain.invoke("hi", idempotency_key="k") == {"input": "hi", "history": "", "response": "one"}
    assert stored(store) == [(1, "user", "hi"), (2, "assistant", "one")]
    with pytest.raises(IdempotencyConflict):
        chain.predict(input="ho", idempotency_key="k")
    assert ask(chain, "hi", idempotency_key="other") == "two"
    assert len(chain.llm.prompts) == 3
    with pytest.raises(InvalidArgument, match="idempotency_key has 0 characters"):
        chain.predict(input="hi", idempotency_key="")


def test_a_failed_question_asked_again_with_a_key(store: Store) -> None:
    chain = chain_on(store, Scripted(DOWN, DOWN, "one", DOWN, "two"))
    ask(chain, "hi")
    assert [ask(chain, "hi", idempotency_key="k") for _ in range(3)] == [DOWN, "one", "one"]
    assert stored(store) == [(1, "user", "hi"), (2, "assistant", "one")]
    ask(chain, "lost", idempotency_key="lost")
    ask(chain, "found")
    with pytest.raises(PositionConflict):
        chain.predict(input="lost", idempotency_key="lost")
    assert chain.llm.prompts[-1] == documented_prompt(["Human: hi", "AI: one"], "found")


@pytest.mark.parametrize(
    ("calls", "questions", "parts"),
    [
        ([], set(), set()),
        ([(5, "ok", 6, 1, False)], set(), set()),
        ([(5, "error", None, 1, False)], {5}, set()),
        ([(5, "error", 6, 2, False)], {5}, {6, 7}),
        ([(5, "refused", None, 1, False)], {5}, set()),
        ([(5, "refused", 6, 2, False)], {5}, {6, 7}),
        ([(5, "ok", 6, 1, False), (5, "refused", None, 1, False)], set(), set()),  # asked once more since
        ([(5, "cancelled", None, 1, False)], {5}, set()),
        ([(5, "cancelled", 6, 1, False)], set(), set()),
        ([(5, "cancelled", None, 1, True)], set(), set()),  # it is running
        ([(5, "ok", 8, 1, False), (5, "error", 6, 2, False), (3, "error", None, 1, False)], {3}, {6, 7}),
        ([(5, "error", None, 1, False), (5, "ok", 6, 1, False)], {5}, set()),  # asked once more since
        ([(None, "error", None, 1, False)], set(), set()),
    ],
)
def test_what_calls_tell(calls: Any, questions: set[int], parts: set[int]) -> None:
    failed = of_calls(calls)
    assert (failed.questions, failed.parts) == (questions, parts)


def test_many_retries_and_a_long_conversation(store: Store) -> None:
    chain = chain_on(store, Scripted("first", *[DOWN] * 150, "found"), {"max_token_limit": 50})
    ask(chain, "hi")
    assert {ask(chain, "lost") for _ in range(149)} == {DOWN}
    ask(chain, "lost too")
    assert ask(chain, "other") == "found"
    assert chain.llm.prompts[-1] == documented_prompt(["Human: hi", "AI: first"], "other")
    assert INSTRUCTIONS in chain.llm.prompts[0]
    assert len(stored(store)) == 6


def test_two_retries_at_once_never_answer_one_question_twice(store: Store) -> None:
    chain = chain_on(store, Scripted(DOWN))
    ask(chain, "lost")
    together = threading.Barrier(2, timeout=60)

    def answer(_: str) -> str:
        time.sleep(0.2)
        return "found"

    def retry() -> str:
        together.wait()
        answered: str = chain_on(store, answer).predict(input="lost")
        return answered

    with ThreadPoolExecutor(2) as pool:
        assert [each.result() for each in [pool.submit(retry) for _ in range(2)]] == ["found"] * 2
    roles = [role for _, role, _ in stored(store)]
    assert roles.count("user") == roles.count("assistant") == 2
    assert store.verify() == []


def test_an_answer_by_hand_does_not_bring_a_failed_question_back(store: Store) -> None:
    for limit in (2000, 12):
        chain = chain_on(store, Scripted("one", DOWN), {"max_token_limit": limit})
        ask(chain, "first")
        ask(chain, "failed")
        chain.memory.chat_memory.add_ai_message("by hand")
        assert chain.memory.buffer.splitlines()[-2:] == ["AI: one", "AI: by hand"]
        chain.memory.clear()
