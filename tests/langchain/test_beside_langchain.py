"""Random conversations with LangChain's chain and with tokenmem's: nobody who changes the import can tell."""

import os
from uuid import uuid4

import pytest

from tests.support.stores import Stores
from tokenmem import ConversationChain, ConversationTokenBufferMemory

pytest.importorskip("langchain_classic", reason="langchain-classic is not installed")

from langchain_classic.chains import ConversationChain as LangChainsChain
from langchain_classic.memory import ConversationTokenBufferMemory as LangChainsMemory

from tests.langchain.beside import Plan, Side, play, smallest
from tests.langchain.beside_plans import Plans

CONVERSATIONS = int(os.environ.get("TOKENMEM_LANGCHAIN_CONVERSATIONS", "40"))  # 600 is what is promised

# That its classes and their older methods are deprecated is what LangChain says to everyone who calls them.
LANGCHAINS_WARNINGS = (
    r"ignore:The (class|method) .\w*(Chain|Memory|History)\b.* was deprecated in"
    ":langchain_core._api.LangChainDeprecationWarning",
    r"ignore:'ConversationTokenBufferMemory' got multiple output keys:UserWarning",
)


@pytest.mark.timeout(120 + CONVERSATIONS * 3)
@pytest.mark.filterwarnings(*LANGCHAINS_WARNINGS)
def test_random_conversations(stores: Stores) -> None:
    opened = [stores.open() for _ in range(2)]
    places = [getattr(store, "store", store) for store in opened]

    def held(plan: Plan) -> str:
        conversation_id = uuid4().hex
        theirs = Side(plan.setup, LangChainsMemory, LangChainsChain, [{}], stores.loop.run, stores.is_async)
        ours = Side(
            plan.setup,
            ConversationTokenBufferMemory,
            ConversationChain,
            [{"store": store, "conversation_id": conversation_id} for store in places],
            stores.loop.run,
            stores.is_async,
        )
        return play(plan, theirs, ours)

    for number in range(CONVERSATIONS):
        seed = f"{stores.variant}/{number}"
        plan = Plans(seed, stores.is_async).plan()
        if held(plan):
            shortest, found = smallest(plan, held)
            pytest.fail(f"conversation {seed}, without what it does not need:\n{shortest}\n\n{found}")
    assert opened[0].verify() == []
