"""Random conversations with LangChain's chain and with tokenmem's: nobody who changes the import can tell."""

import os
from uuid import uuid4

import pytest

from tests.support.stores import VARIANTS, Stores
from tokenmem import ConversationChain, ConversationTokenBufferMemory

pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")

from langchain_classic.chains import ConversationChain as LangChainsChain

from tests.langchain.beside import Plan, ReferenceMemory, Side, play, smallest
from tests.langchain.beside_plans import Plans
from tokenmem.adapters.langchain import ConversationTokenBufferMemory as Adapter

CONVERSATIONS = int(os.environ.get("TOKENMEM_LANGCHAIN_CONVERSATIONS", "40"))  # 600 is what is promised
"""With tokenmem's chain, on all stores together; half as many with LangChain's."""

OURS = {
    "chain and memory": (ConversationTokenBufferMemory, ConversationChain),
    "memory in LangChain's chain": (Adapter, LangChainsChain),
}
EXPECTED = {"ok", "Overloaded", "ValueError", "KeyError", "TypeError"}

# That its classes and their older methods are deprecated is what LangChain says to everyone who calls them.
LANGCHAINS_WARNINGS = (
    r"ignore:The (class|method) .\w*(Chain|Memory|History)\b.* was deprecated in"
    ":langchain_core._api.LangChainDeprecationWarning",
    r"ignore:'ReferenceMemory' got multiple output keys:UserWarning",
)


@pytest.mark.timeout(120 + CONVERSATIONS * 3)
@pytest.mark.filterwarnings(*LANGCHAINS_WARNINGS)
@pytest.mark.parametrize("kind", ["chain and memory", "memory in LangChain's chain"])
def test_random_conversations(stores: Stores, kind: str) -> None:
    ours_are = OURS[kind]
    opened = [stores.open() for _ in range(2)]
    places = [getattr(store, "store", store) for store in opened]

    seen: set[tuple[str, str]] = set()

    def held(plan: Plan) -> str:
        conversation_id = uuid4().hex
        at = [{"store": store, "conversation_id": conversation_id, **plan.setup.counting} for store in places]
        wait, is_async = stores.loop.run, stores.is_async
        theirs = Side(plan.setup, ReferenceMemory, LangChainsChain, [{}], wait, is_async)
        try:
            ours = Side(plan.setup, *ours_are, at, wait, is_async)
        except Exception as error:
            return f"ours cannot be made: {error!r}"
        found = play(plan, theirs, ours)
        seen.update(theirs.seen)
        return found

    count = CONVERSATIONS // len(VARIANTS)
    for number in range(count if ours_are[1] is ConversationChain else count // 2):
        seed = f"{stores.variant}/{kind}/{number}"
        plan = Plans(seed, stores.is_async).plan()
        if found := held(plan):
            shortest, found = smallest(plan, found, held)
            pytest.fail(f"conversation {seed}, without what it does not need:\n{shortest}\n\n{found}")
    assert opened[0].verify() == []
    if count >= 100:
        missing = EXPECTED - {outcome for _, outcome in seen}
        assert not missing, f"never happened: {missing}"
