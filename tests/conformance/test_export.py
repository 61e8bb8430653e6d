"""Export and import: all that is stored of a conversation comes back, on the other engine too."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.stores import Databases, Direct, Stores, Unit, positions, texts
from tokenmem import Message, Store, errors
from tokenmem.messages import parse_line, render_line
from tokenmem.operations import export

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
OLD = datetime(1, 1, 1, tzinfo=UTC)


def filled(store: Store, sql: Direct) -> None:
    """Conversations with everything that there is to export."""
    store.append(
        "c1",
        [
            Message.system("be brief", pinned=True),
            Message("user", "old", created_at=OLD, metadata={"rating": [1, -0.0, "é"]}),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            Message.tool("7", tool_call_id="call_1"),
            Message.opaque({"event": [None, "\0", "\u241b"]}, "shown \ud800"),
            Message.opaque(None),
            {"role": "user", "content": "\u2028 \0 \ud83d\ude00 \ud83d", "\ud800key": {"a": "\0"}},
            Message.user("gone"),
            Message.user("last"),
        ],
        owner="ann",
        title="T",
        metadata={"m": {"n": 1.0}},
    )
    store.delete_message("c1", 8)
    store.truncate("c1", after=8)
    store.append("c2", [Message.user("x")])
    store.delete_message("c2", 1)
    store.append("c3", [Message.user("x")], owner="bob")
    store.fork("c1", "c4")
    sql.run("UPDATE {conversations} SET keep = true, archived_at = updated_at WHERE id = 'c3'")
    kind = "text" if sql.engine.dialect.name == "sqlite" else "json"
    sql.run(
        "INSERT INTO {message_versions} (conversation_id, position, version, part, since_revision, "
        "replaced_at_revision, replaced_at, token_count, role, kind, content, payload) "
        "SELECT 'c1', 2, 1, 1, 0, revision - 1, updated_at, 4, 'user', 'message', 'older', "
        f"CAST(:payload AS {kind}) FROM {{conversations}} WHERE id = 'c1'",
        payload='{"role":"user","name":"a"}',
    )
    sql.run(
        "INSERT INTO {call_prompts} (conversation_id, digest, instructions, tools, created_at) "
        f"SELECT 'c1', 'd', 'be brief', CAST(:tools AS {kind}), updated_at FROM {{conversations}} "
        "WHERE id = 'c1'",
        tools='[{"type":"function"}]',
    )
    refused = '[{"position":2,"change":"refused","digest":"0f"},{"change":"too_long","token_limit":9}]'
    for number, status, changes in ((1, "ok", None), (2, "refused", refused), (3, "error", "[]")):
        sql.run(
            "INSERT INTO {llm_calls} (conversation_id, number, model, first_position, last_position, "
            "window_tokens, status, prompt_digest, created_at, revision, api, options, metadata, "
            f"cache_write_tokens, pinned, changes) SELECT 'c1', {number}, 'm', 2, 7, 55, :status, 'd', "
            f"updated_at, revision, 'chat', CAST(:options AS {kind}), CAST(:metadata AS {kind}), 3, "
            f"CAST('[1]' AS {kind}), CAST(:changes AS {kind}) FROM {{conversations}} WHERE id = 'c1'",
            status=status,
            changes=changes,
            options='{"temperature":0.5}',
            metadata='{"trace":"t"}',
        )
    sql.run("UPDATE {conversations} SET last_call = 5 WHERE id = 'c1'")


@pytest.fixture
def store(stores: Stores) -> Store:
    opened = stores.open(unstorable="escape")
    filled(opened, stores.sql)
    return opened


@pytest.fixture
def other(stores: Stores, databases: Databases, tmp_path: Path) -> Iterator[Stores]:
    """Stores on a new database of the other engine."""
    kind = "sqlite" if stores.dialect == "postgresql" else "postgresql"
    directory = tmp_path / "other"
    directory.mkdir()
    opened = Stores(stores.variant.replace(stores.dialect, kind), databases.of(kind, directory))
    yield opened
    opened.close()


def test_the_other_engine_exports_the_same_text(store: Store, other: Stores) -> None:
    lines = list(store.export())
    assert [json.loads(line)["id"] for line in lines] == ["c1", "c2", "c3", "c4"]
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    "".join(lines).encode()  # UTF-8, whatever the messages held
    there = other.open()
    stored = there.import_conversations(map(parse_line, lines), idempotency_key="import")
    assert [each.positions for each in stored if each] == [
        (1, 2, 3, 4, 5, 6, 7),
        (),
        (1,),
        (1, 2, 3, 4, 5, 6, 7),
    ]
    assert list(there.export()) == lines
    assert there.verify() == []
    assert [m.to_openai() for m in there.messages("c1")] == [m.to_openai() for m in store.messages("c1")]
    assert [m.data for m in there.messages("c1")] == [m.data for m in store.messages("c1")]
    assert [m.metadata for m in there.messages("c1")] == [m.metadata for m in store.messages("c1")]
    assert [m.token_count for m in there.messages("c1")] == [m.token_count for m in store.messages("c1")]
    assert there.calls("c1") == store.calls("c1")
    assert there.conversation("c4") == store.conversation("c4")
    assert there.append("c1", [Message.user("x")]).first_position == 10
    assert [render_line(parse_line(line)) + "\n" for line in lines] == lines


def test_what_a_line_tells(store: Store) -> None:
    line = json.loads(next(iter(store.export(ids=["c1"]))))
    assert (line["owner"], line["title"], line["metadata"]) == ("ann", "T", {"m": {"n": 1.0}})
    assert (line["pinned"], line["escaped"], line["last_position"], line["last_call"]) == ([1], [5, 7], 9, 5)
    assert line["message_metadata"] == {"2": {"rating": [1, -0.0, "é"]}}
    assert line["times"][1] == "0001-01-01T00:00:00.000Z"
    assert line["versions"][0]["content"] == "older"
    assert [call["options"] for call in line["calls"]] == [{"temperature": 0.5}] * 3
    assert [call["status"] for call in line["calls"]] == ["ok", "refused", "error"]
    assert line["calls"][1]["changes"][1] == {"change": "too_long", "token_limit": 9}
    assert line["call_prompts"][0]["tools"] == [{"type": "function"}]
    archived = json.loads(next(iter(store.export(ids=["c3"]))))
    assert archived["keep"] is True
    assert archived["archived_at"] == archived["updated_at"]
    forked = json.loads(next(iter(store.export(ids=["c4"]))))
    assert (forked["parent_id"], forked["forked_at"]) == ("c1", 9)


def test_pieces_are_the_same_text_with_a_page_in_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = "".join(store.export())
    monkeypatch.setattr(export, "PAGE", 2)
    assert "".join(store.export()) == whole
    pieces = list(store.export(pieces=True))
    assert "".join(pieces) == whole
    assert max(map(len, pieces)) < len(whole) / 4


def test_positions_with_gaps_stay_where_calls_have_seen_them(store: Store, stores: Stores) -> None:
    store.delete_message("c1", 3)
    store.delete_message("c1", 4)
    text = next(iter(store.export(ids=["c1"])))
    store.delete("c1")
    (stored,) = store.import_conversations([parse_line(text)], idempotency_key="k")
    assert stored is not None
    assert stored.positions == tuple(positions(store.messages("c1"))) == (1, 2, 5, 6, 7)
    assert store.append("c1", parse_line(text).messages, idempotency_key="k").last_position == 7
    assert next(iter(store.export(ids=["c1"]))) == text
    assert store.verify() == []
    revisions = (
        "SELECT count(*) FROM {conversations} c JOIN {message_versions} v ON v.conversation_id = c.id "
    )
    assert stores.sql.value(revisions + "WHERE c.revision > v.replaced_at_revision") == 1


def test_only_an_owners(store: Store) -> None:
    assert [json.loads(line)["id"] for line in store.export(owner="bob")] == ["c3"]
    bobs = store.for_owner("bob")
    assert [json.loads(line)["id"] for line in bobs.export()] == ["c3"]
    with pytest.raises(errors.ConversationNotFound):
        list(bobs.export(ids=["c1"]))
    with pytest.raises(errors.InvalidArgument):
        bobs.export(owner="ann")
    with pytest.raises(errors.InvalidArgument, match="ids"):
        store.export(ids="c1")
    with pytest.raises(errors.ConversationNotFound):
        list(store.export(ids=["none"]))


def test_who_stops_reading_leaves_no_connection(store: Store) -> None:
    text: Any = store.export(pieces=True)
    with closing(text):
        assert next(text).startswith('{"id":"c1"')
    lines: Any = store.export()
    with closing(lines):
        next(lines)
        store.append("c1", [Message.user("in the midst of it")])


def test_a_line_is_as_it_was_when_it_began(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = next(iter(store.export(ids=["c1"])))
    monkeypatch.setattr(export, "PAGE", 2)
    pieces = []
    for number, piece in enumerate(store.export(ids=["c1"], pieces=True)):
        if number == 1:
            store.append("c1", [Message.user("later")])
            store.edit("c1", 7, Message.user("edited"))
        pieces.append(piece)
    assert "".join(pieces) == whole


def test_in_the_callers_transaction(store: Store, stores: Stores) -> None:
    with stores.transaction(store) as mine:
        mine.store.append("c9", [Message.user("not committed")])
        assert [json.loads(line)["id"] for line in mine.store.export()] == ["c1", "c2", "c3", "c4", "c9"]
        mine.rollback()
    assert len(list(store.export())) == 4


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tokenmem_export": 2}, "newer tokenmem"),
    ({"tokenmem_export": 1, "created_at": "2024-01-01"}, "created_at"),
    ({"tokenmem_export": 1, "created_at": 5}, "created_at"),
    ({"tokenmem_export": 1, "positions": [1]}, "positions"),
    ({"tokenmem_export": 1, "positions": [2, 2]}, "positions"),
    ({"tokenmem_export": 1, "positions": [0, 2]}, "positions"),
    ({"tokenmem_export": 1, "last_position": 1}, "last_position"),
    ({"tokenmem_export": 1, "keep": "yes"}, "keep"),
    ({"tokenmem_export": 1, "parent_id": ""}, "parent_id"),
    ({"tokenmem_export": 1, "escaped": [3]}, "escaped"),
    ({"tokenmem_export": 1, "opaque": {"3": 1}}, "opaque"),
    ({"tokenmem_export": 1, "partial": {"1": "x"}}, "partial"),
    ({"tokenmem_export": 1, "calls": [{}]}, r"calls\[0\] has no number"),
    ({"tokenmem_export": 1, "calls": 5}, "calls is a int"),
    ({"tokenmem_export": 1, "call_prompts": [{"digest": "d"}]}, "created_at"),
    ({"tokenmem_export": 1, "versions": [{"position": 1, "odd": 1}]}, "odd"),
    ({"times": ["2024-01-01T00:00:00Z"]}, "times"),
    ({"times": ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00"]}, r"times\[1\]"),
    ({"times": [1, None]}, r"times\[0\]"),
    ({"message_metadata": {"1": 5}}, r"message_metadata\[1\]"),
    ({"message_metadata": {"0": {}}}, "message_metadata"),
    ({"message_metadata": {"1": {"a": "\0"}}}, "NUL"),
]


@pytest.mark.parametrize(("fields", "words"), BAD, ids=str)
def test_a_line_that_export_would_not_write_is_refused(fields: dict[str, Any], words: str) -> None:
    line = {"id": "c1", "messages": [{"role": "user", "content": "hi"}] * 2, **fields}
    with pytest.raises(errors.InvalidArgument, match=words):
        parse_line(json.dumps(line))


def test_lines_of_others_keep_their_keys_as_metadata(stores: Stores) -> None:
    others = {"created_at": "yesterday", "calls": 5, "versions": ["a"], "positions": "x", "keep": 1}
    line = parse_line(json.dumps({"id": "c1", "messages": [{"role": "user", "content": "hi"}], **others}))
    assert line.metadata == others
    assert json.loads(render_line(line))["metadata"] == others


def test_times_and_metadata_come_in_beside_the_messages(stores: Stores) -> None:
    store = stores.open()
    given = {
        "id": "c1",
        "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
        "times": ["2024-02-29T23:30:00.123456+05:30", None],
        "message_metadata": {"2": {"front_end": "id-7"}},
    }
    store.import_conversations([parse_line(json.dumps(given))])
    first, second = store.messages("c1")
    assert first.created_at == datetime(2024, 2, 29, 18, 0, 0, 123456, tzinfo=UTC)
    assert second.created_at is not None
    assert second.created_at.year > 2024
    assert (first.metadata, second.metadata) == (None, {"front_end": "id-7"})
    kept = "SELECT position FROM {messages} WHERE stored_at IS NOT NULL"
    assert stores.sql.rows(kept) == [(1,)]


def test_what_was_stored_once_comes_back_as_it_is(stores: Stores) -> None:
    """An item that another framework's message looks like, a deep version, a limit above an integer's."""
    store, deep = stores.open(counter=Unit()), {}
    for _ in range(198):
        deep = {"a": deep}
    store.append("item", texts(1))
    payload = json.dumps({"type": "human", "data": {"content": "hi"}})
    stores.sql.run(
        "UPDATE {messages} SET role = 'assistant', kind = 'other', content = NULL, payload = "
        + ("CAST(:payload AS json)" if "postgresql" in stores.url else ":payload"),
        payload=payload,
    )
    store.append("deep", [{"role": "user", "content": "1", "x": deep}])
    store.edit("deep", 1, texts(2)[0])
    store.record_call("deep", model="m", token_limit=2**40)
    for line in "".join(store.export()).splitlines():
        parsed = parse_line(line)
        store.delete(parsed.id)
        store.import_conversations([parsed], counter=Unit())
    assert json.loads(payload) == store.message("item", 1).payload
    assert store.versions("deep", 1)[0].messages[0].to_openai() == {"role": "user", "content": "1", "x": deep}
    assert store.calls("deep")[0].token_limit == 2**40
    assert store.verify() == []
