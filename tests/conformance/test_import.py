"""Many new conversations at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.stores import Direct, One, Stores, Unit, texts
from tokenmem import Appended, Message, Store, errors
from tokenmem.messages import parse_line
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.parsing import parse_messages

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": "\\\\n\\t"}'}}
ODD: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": "back\\slash\ttab\nline\rreturn \\N \\. 'quote' \"double\" %s :id $1 {messages}",
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": ""},
    {"role": "user", "content": [{"type": "text", "text": "数字 😀 \u2028"}], "name": "ann"},
]


def line(name: str, *numbers: int, **others: Any) -> ConversationLine:
    return ConversationLine(name, texts(*numbers), **others)


@pytest.fixture
def counted(stores: Stores) -> Store:
    return stores.open(counter=Unit())


def test_what_is_stored_is_what_append_stores(stores: Stores, sql: Direct) -> None:
    store = stores.open(counter=One())
    odd = ODD * 100  # more than travel in one statement
    told = line("c1", 7, owner="ann", title="It's", metadata={"a": [1, "é"]})
    stored = store.import_conversations(
        [told, ConversationLine("c2", parse_messages(odd)), ConversationLine("c3", parse_messages(ODD))],
        idempotency_key="k",
    )
    assert stored == [Appended(1, 1, 1, 1), Appended(1, 400, 400, 400), Appended(1, 4, 4, 4)]
    for name, sent in (("c2", odd), ("c3", ODD)):
        store.append(f"{name} too", sent)
        assert [m.to_openai() for m in store.messages(name, limit=None)] == sent
        columns = "position, role, kind, content, CAST(payload AS text), token_count, tokens_before, pinned"
        query = f"SELECT {columns} FROM {{messages}} WHERE conversation_id = '%s' ORDER BY position"
        assert sql.rows(query % name) == sql.rows(query % f"{name} too")
        assert store.append(name, sent, idempotency_key="k") == Appended(
            1, len(sent), len(sent), len(sent), replayed=True
        )
    conversation = store.conversation("c1")
    assert (conversation.owner, conversation.title, conversation.metadata) == ("ann", "It's", {"a": [1, "é"]})
    assert store.verify() == []


def test_an_id_that_is_taken_is_left_alone(counted: Store) -> None:
    counted.append("c2", texts(9), owner="bob")
    stored = counted.import_conversations([line("c1", 1), line("c2", 2), line("c1", 3), line("c3", 4)])
    assert stored == [Appended(1, 1, 1, 1), None, None, Appended(1, 1, 4, 4)]
    assert [(c.id, c.total_tokens, c.owner) for c in counted.conversations()] == [
        ("c1", 1, None),
        ("c2", 9, "bob"),
        ("c3", 4, None),
    ]
    assert counted.verify() == []


def test_all_or_nothing(counted: Store, sql: Direct) -> None:
    good = line("c1", 1)
    bad: list[tuple[Any, type[errors.TokenmemError]]] = [
        (ConversationLine("", texts(1)), errors.InvalidArgument),
        (ConversationLine("c2", []), errors.InvalidMessage),
        (ConversationLine("c2", [Message("nobody", "x")]), errors.InvalidMessage),
        (ConversationLine("c2", [Message.user("nul \x00")]), errors.InvalidMessage),
        (line("c2", 1, token_counter="nonsense"), errors.UnknownTokenCounter),
        (line("c2", 1, metadata={"a": float("nan")}), errors.InvalidArgument),
        (line("c2", -1), errors.InvalidArgument),
        ({"id": "c2", "messages": []}, errors.InvalidArgument),
    ]
    for each, error in bad:
        with pytest.raises(error):
            counted.import_conversations([good, each])
    assert sql.counts()["conversations"] == 0
    assert counted.import_conversations([]) == []
    with pytest.raises(errors.InvalidArgument):
        counted.import_conversations(None)  # type: ignore[arg-type]


def test_owner_and_counter(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    lines = [line("a", 1), line("b", 1, owner="bob"), line("c", 1, token_counter="o200k_base")]
    store.import_conversations(lines, owner="ann")
    assert [(c.owner, c.token_counter) for c in store.conversations()] == [
        ("ann", "unit"),
        ("bob", "unit"),
        ("ann", "o200k_base"),
    ]
    with pytest.raises(errors.InvalidArgument, match="ann"):
        store.for_owner("ann").import_conversations([line("d", 1, owner="bob")])
    store.for_owner("ann").import_conversations([line("d", 1)], counter=Unit("ten", factor=10))
    conversation = store.conversation("d")
    assert (conversation.owner, conversation.total_tokens) == ("ann", 10)


def test_in_the_callers_transaction(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    with stores.transaction(store) as mine:
        bound = mine.store
        assert bound.import_conversations([line("c1", *[1] * 300)]) == [Appended(1, 300, 300, 300)]
        with pytest.raises(errors.InvalidMessage):
            bound.import_conversations([line("c2", 1), ConversationLine("c3", [])])
        assert [c.id for c in bound.conversations()] == ["c1"]
        mine.commit()
    assert [c.id for c in store.conversations()] == ["c1"]


@pytest.mark.parametrize("stores", ["sqlite-sync", "postgresql-sync"], indirect=True)
def test_several_that_import_the_same(stores: Stores) -> None:
    store = stores.open(counter=Unit())
    names = [f"c{number}" for number in range(60)]
    ready = threading.Barrier(4)

    def work(number: int) -> int:
        ready.wait()
        mine = names if number % 2 else names[::-1]
        return sum(stored is not None for stored in store.import_conversations(line(n, 1, 2) for n in mine))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == len(names)
    assert store.verify() == []


def test_a_line_that_names_the_stores_own_counter_is_counted_by_it(counted: Store) -> None:
    """No name finds that object; an export from this very store names it."""
    counted.append("c1", texts(3))
    (exported,) = counted.export(ids=["c1"])
    counted.delete("c1")
    counted.import_conversations([parse_line(exported)])
    assert counted.message("c1", 1).token_count == 3
    assert counted.append("c1", texts(4)).total_tokens == 7
