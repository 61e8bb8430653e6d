"""Memories and stores for models of the time of LangChain's memory, without a network."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tokenmem import ConversationTokenBufferMemory, Message, Store
from tokenmem.counting import encodings

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module", autouse=True)
def nothing_loaded() -> Iterator[None]:
    """No encoding is in memory when the first test asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "_loaded", {})
        yield


NAMES = [
    ("text-davinci-003", "p50k_base", [8, 4]),
    ("code-davinci-002", "p50k_base", [8, 4]),
    ("text-davinci-edit-001", "p50k_edit", [8, 4]),
    ("text-curie-001", "r50k_base", [14, 4]),
    ("gpt-2", "gpt2", [14, 4]),
    ("gpt2", "gpt2", [14, 4]),
    ("p50k_base", "p50k_base", [8, 4]),
    ("r50k_base", "r50k_base", [14, 4]),
    ("text-embedding-ada-002", "cl100k_base", [7, 4]),
    ("gpt-3.5-turbo-instruct", "cl100k_base", [7, 4]),
]


@pytest.mark.parametrize(("name", "encoding", "counts"), NAMES)
@pytest.mark.parametrize("options", ["model", "model_name", "counter"])
def test_a_memory_counts_by_the_models_own_encoding(
    ready_sqlite_url: str, name: str, encoding: str, counts: list[int], options: str
) -> None:
    given: dict[str, Any] = {"counter": name}
    if options != "counter":
        given = {"llm": SimpleNamespace(**{options: name}, invoke=str)}
    with Store(ready_sqlite_url) as store:
        memory = ConversationTokenBufferMemory(store=store, conversation_id="c", **given)
        memory.save_context({"input": "def f():\n        return"}, {"output": "whats up"})
        assert store.conversation("c").token_counter == f"transcript:{encoding}:Human:AI"
        assert [message.token_count for message in store.messages("c")] == counts
    with Store(ready_sqlite_url) as again:  # any store finds that counter by its name
        again.append("c", [Message.assistant("whats up")])
        assert again.messages("c")[-1].token_count == 4


def test_a_store_counts_by_the_models_own_encoding(ready_url: str) -> None:
    for name, encoding, _ in NAMES:
        with Store(ready_url, counter=name) as store:
            store.append(name, [Message.user("whats up")])
            assert store.conversation(name).token_counter == encoding
            assert store.messages(name)[0].token_count == 7  # 3 for a message, 1 for the role, 3 for the text
