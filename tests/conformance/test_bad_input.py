"""Bad input is refused whole, by an error that says what and why; odd input is stored whole."""

import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

import pytest

from tests.support.stores import Stores, same_json
from tokenmem import Message, Store, errors

VARIANTS = ["sqlite-sync", "postgresql-sync"]  # checks lie above sync and async; conformance has all four
ENGINES = pytest.mark.parametrize("stores", VARIANTS, indirect=True)

LOOP: list[Any] = []
LOOP.append(LOOP)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def user(content: Any = "x", **extra: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **extra}


# id: (messages, what the error must say)
BAD_MESSAGES: dict[str, tuple[Any, str]] = {
    "unknown role": (
        [user(), {"role": "robot", "content": "x"}],
        r"messages\[1\]: the role is a string of 5 characters that is none; use one of system",
    ),
    "a role that is nearly one": (
        [{"role": "assitant", "content": "x"}],
        r"a string of 8 characters that is none, much like 'assistant'",
    ),
    "no role": ([{"content": "x"}], r"messages\[0\].*role is missing"),
    "null role": ([{"role": None}], r"role is None"),
    "role of a wrong type": ([{"role": 5, "content": "x"}], r"role is a int"),
    "role a list": ([{"role": ["user"], "content": "x"}], r"role is a list"),
    "role in capitals": (
        [{"role": "User", "content": "x"}],
        r"role is a string of 4 characters that is none, much like 'user'",
    ),
    "content a number": ([user(5)], r"messages\[0\].*content is a int; use text, a list of parts, or None"),
    "content a dict": ([user({"type": "text"})], r"content is a dict"),
    "content bytes": ([user(b"x")], r"messages\[0\].content is a bytes"),
    "content true": ([user(True)], r"content is a bool"),
    "part a number": ([user(["x", 5])], r"content\[1\] is a int"),
    "part null": ([user([None])], r"content\[0\] is a NoneType"),
    "tuple of parts": ([user(("x",))], r"messages\[0\].content is a tuple; use only dict, list"),
    "tool_calls a dict": ([{"role": "assistant", "tool_calls": {"id": "x"}}], r"tool_calls is not a list"),
    "tool_calls of text": ([{"role": "assistant", "tool_calls": ["x"]}], r"tool_calls is not a list"),
    "NUL": ([user("ab\0c")], r"messages\[0\].content has a NUL character at position 2.*remove it"),
    "NUL in a part": ([user([{"type": "text", "text": "\0"}])], r"content\[0\].text has a NUL.*position 0"),
    "NUL in a payload": ([user(extra={"deep": ["a", "b\0"]})], r"extra.deep\[1\] has a NUL.*position 1"),
    "NUL in a key": ([user(**{"a\0": 1})], r"a key of messages\[0\] has a NUL character at position 1"),
    "high surrogate": ([user("a\ud83d b")], r"surrogate pair \(U\+D83D\) at position 1.*repair it"),
    "low surrogate": ([user("é\udc00")], r"U\+DC00\) at position 1"),
    "surrogate in a key": ([user(x={"\ud800": 1})], r"a key of messages\[0\].x has half"),
    "surrogate in a payload": ([user(x=["\udfff"])], r"messages\[0\].x\[0\] has half"),
    "not a number": ([user(x=float("nan"))], r"messages\[0\].x is nan, which JSON cannot carry"),
    "infinity": ([user(x=[float("-inf")])], r"x\[0\] is -inf"),
    "huge int": (
        [user(x=10**5000)],
        r"messages\[0\].x is an integer of 16610 bits; write it as a string",
    ),
    "set": ([user(x={1, 2})], r"messages\[0\].x is a set; use only"),
    "bytes": ([user(x=b"1")], r"messages\[0\].x is a bytes"),
    "object": ([user(x=threading.Lock())], r"messages\[0\].x is a lock"),
    "complex": ([user(x=1j)], r"messages\[0\].x is a complex"),
    "key a number": ([user(x={1: 2})], r"messages\[0\].x has a key of type int; JSON keys are text"),
    "key of the message": ([{"role": "user", "content": "x", 5: 1}], r"messages\[0\] has a key of type int"),
    "deep": ([user(x=nested(201))], r"messages\[0\] nests deeper than 200 levels"),
    "very deep": ([user(x=nested(100_000))], r"nests deeper than 200"),
    "endless": ([user(x=LOOP)], r"nests deeper than 200"),
    "deep in a Message": (
        [Message("user", "x", payload={"role": "user", "x": nested(900)})],
        "deeper than 200",
    ),
    "object in a Message": (
        [Message("user", "x", payload={"role": "user", "x": threading.Lock()})],
        "is a lock",
    ),
    "payload of text": ([Message("user", "x", payload="x")], r"messages\[0\]: the payload is a str"),  # type: ignore[arg-type]
    "payload a list": ([Message("user", "x", payload=[1])], r"the payload is a list; use a dict or None"),  # type: ignore[arg-type]
    "payload without role": ([Message("user", None, payload={"x": 1})], r"role is missing"),
    "content of a Message": ([Message("user", 5)], r"content is a int"),  # type: ignore[arg-type]
    "pinned of text": ([Message("user", "x", pinned="no")], r"messages\[0\]: pinned is a str; use True"),  # type: ignore[arg-type]
    "no messages": ([], r"messages is empty; pass at least one"),
    "an empty generator": (iter(()), r"messages is empty"),
    "a dict": (user(), r"messages is a single dict; pass a list of messages"),
    "a Message": (Message.user("x"), r"messages is a single Message; pass a list"),
    "a text": ("hello", r"messages is a single str; pass a list"),
    "bytes alone": (b"hello", r"messages is a single bytes"),
    "null": (None, r"messages is a NoneType; pass a list"),
    "a number": (5, r"messages is a int; pass a list"),
    "texts": (["hello"], r"messages\[0\] is a str; pass a Message or a dict with a role"),
    "nulls": ([user(), None], r"messages\[1\] is a NoneType"),
    "a list of lists": ([[user()]], r"messages\[0\] is a list"),
}


@pytest.fixture
def store(stores: Stores) -> Store:
    store = stores.open()
    store.append("c1", [Message.user("there before")])
    return store


def refused(stores: Stores, operation: Callable[[], Any], kind: type[Exception], match: str) -> None:
    """The operation raises this, and leaves every row as it was."""
    tables = ("conversations", "messages", "append_keys")
    before = [stores.sql.rows(f"SELECT * FROM {{{table}}}") for table in tables]
    with pytest.raises(kind, match=re.compile(match, re.DOTALL)) as caught:
        operation()
    assert len(str(caught.value)) < 400
    assert [stores.sql.rows(f"SELECT * FROM {{{table}}}") for table in tables] == before


@ENGINES
def test_bad_messages(stores: Stores, store: Store) -> None:
    for case, (messages, match) in BAD_MESSAGES.items():
        for name in ("c1", "new"):
            refused(stores, lambda m=messages, n=name: store.append(n, m), errors.InvalidMessage, match)
        if isinstance(messages, list) and len(messages) == 1:
            text = match.replace(r"messages\[0\]", "message")
            edit = lambda m=messages: store.edit("c1", 1, m[0])  # noqa: E731
            refused(stores, edit, errors.InvalidMessage, text)
        assert store.verify() == [], case


@ENGINES
def test_the_last_of_many_messages_may_be_the_bad_one(stores: Stores, store: Store) -> None:
    many = [user()] * 500 + [user("\0")]
    refused(stores, lambda: store.append("c1", many), errors.InvalidMessage, r"messages\[500\].content")


def failing() -> Iterator[dict[str, Any]]:
    yield user()
    raise OSError("the caller's own")


@ENGINES
def test_a_generator_that_fails_stores_nothing(stores: Stores, store: Store) -> None:
    refused(stores, lambda: store.append("c1", failing()), OSError, "the caller's own")


NAMES: dict[str, tuple[Any, str]] = {
    "empty": ("", "has 0 characters; pass 1 to 255"),
    "long": ("x" * 256, "has 256 characters .*pass 1 to 255"),
    "very long": ("é" * 300, "has 300 characters"),
    "number": (5, "is a int; pass a string of 1 to 255 characters"),
    "bytes": (b"c1", "is a bytes"),
    "NUL": ("a\0b", "NUL character at position 1"),
    "surrogate": ("a\ud800", "surrogate pair .* at position 1"),
}


@ENGINES
@pytest.mark.parametrize("case", NAMES)
def test_ids_owners_keys_and_titles_are_short_texts(stores: Stores, store: Store, case: str) -> None:
    bad, match = NAMES[case]
    calls: dict[str, list[Callable[[], Any]]] = {
        "conversation_id": [
            lambda: store.append(bad, [user()]),
            lambda: store.window(bad, 10),
            lambda: store.messages(bad),
            lambda: store.conversation(bad),
            lambda: store.update(bad),
            lambda: store.edit(bad, 1, user()),
            lambda: store.delete_message(bad, 1),
            lambda: store.truncate(bad, after=0),
            lambda: store.fork(bad, "new"),
            lambda: store.delete(bad),
            lambda: store.recount(bad, "cl100k_base"),
        ],
        "new_id": [lambda: store.fork("c1", bad)],
        "idempotency_key": [lambda: store.append("c1", [user()], idempotency_key=bad)],
        "owner": [
            lambda: store.append("c2", [user()], owner=bad),
            lambda: store.conversations(owner=bad),
            lambda: store.delete_owner(bad),
            lambda: store.for_owner(bad),
        ],
        "title": [lambda: store.append("c2", [user()], title=bad), lambda: store.update("c1", title=bad)],
        "after": [lambda: store.conversations(after=bad)],
    }
    for what, operations in calls.items():
        for operation in operations:
            refused(stores, operation, errors.InvalidArgument, f"{what}.*{match}")


BAD_NUMBERS: list[tuple[Any, str]] = [
    (-1, "is -1; pass"),
    (2**53 + 1, "is of 54 bits; pass"),
    (10**5000, "is of 16610 bits; pass"),
    (True, "is True; pass an integer"),
    (1.0, r"is 1.0; pass an integer"),
    (float("nan"), "is nan"),
    ("5", "is '5'; pass an integer"),
    ([], r"is \[\]"),
]


@ENGINES
def test_numbers_are_whole_and_in_range(stores: Stores, store: Store) -> None:
    for bad, match in BAD_NUMBERS:
        calls: dict[str, Callable[[], Any]] = {
            "token_limit": lambda bad=bad: store.window("c1", bad),
            "stride": lambda bad=bad: store.window("c1", 10, stride=bad),
            "expected_position": lambda bad=bad: store.append("c1", [user()], expected_position=bad),
            "position": lambda bad=bad: store.edit("c1", bad, user()),
            "after": lambda bad=bad: store.truncate("c1", after=bad),
            "at": lambda bad=bad: store.fork("c1", "new", at=bad),
            "before": lambda bad=bad: store.messages("c1", before=bad),
            "limit": lambda bad=bad: store.messages("c1", limit=bad),
        }
        for what, operation in calls.items():
            refused(stores, operation, errors.InvalidArgument, f"{what} {match}")
        refused(stores, lambda bad=bad: store.delete_message("c1", bad), errors.InvalidArgument, "position")
        refused(stores, lambda bad=bad: store.conversations(limit=bad), errors.InvalidArgument, "limit")
    for zero in (
        lambda: store.window("c1", 10, stride=0),
        lambda: store.conversations(limit=0),
        lambda: store.edit("c1", 0, user()),
        lambda: store.delete_message("c1", 0),
    ):
        refused(stores, zero, errors.InvalidArgument, "is 0; pass 1 to")
    for nothing in (lambda: store.window("c1", None), lambda: store.truncate("c1", after=None)):  # type: ignore[arg-type]
        refused(stores, nothing, errors.InvalidArgument, "is None; pass an integer")


@ENGINES
def test_other_arguments(stores: Stores, store: Store) -> None:
    anything: Any = store
    for start_on in ("", "Step", None, 5, [], {}):
        refused(
            stores,
            lambda s=start_on: anything.window("c1", 10, s),
            errors.InvalidArgument,
            "start_on is .*use one of message, step, turn",
        )
    for metadata, match in [
        ([], "metadata is a list; pass a dict"),
        ("{}", "metadata is a str"),
        ({"a": "\0"}, "metadata.a has a NUL"),
        ({"a": {1}}, "metadata.a is a set"),
        ({"a": float("inf")}, "metadata.a is inf"),
        ({5: 1}, "metadata has a key of type int"),
        (nested(201), "metadata nests deeper"),
    ]:
        for operation in (
            lambda m=metadata: anything.append("c2", [user()], metadata=m),
            lambda m=metadata: anything.update("c1", metadata=m),
        ):
            refused(stores, operation, errors.InvalidArgument, match)
    for age in (5, None, "90d", timedelta(days=-1), timedelta.max, timedelta(days=365_001)):
        refused(
            stores,
            lambda a=age: anything.purge(older_than=a),
            errors.InvalidArgument,
            r"older_than is .*pass a timedelta",
        )
    assert store.purge(older_than=timedelta(days=365_000)).messages == 0
    for counter in (5, None, object(), [], b"o200k_base"):
        refused(
            stores,
            lambda c=counter: anything.recount("c1", c),
            errors.InvalidArgument,
            "counter is a .*pass a name or a TokenCounter",
        )
    refused(
        stores, lambda: anything.edit("c1", 1, user(), pinned="no"), errors.InvalidArgument, "pinned is a str"
    )


@ENGINES
@pytest.mark.parametrize("count", [-1, True, 1.5, None, "3", 2**31, 2**70])
def test_a_counter_of_the_callers_own_must_count(stores: Stores, store: Store, count: Any) -> None:
    class Odd:
        name = "odd"

        def count(self, _: Message) -> int:
            return count  # type: ignore[no-any-return]

    message = "odd's count"
    refused(stores, lambda: store.append("c2", [user()], counter=Odd()), errors.InvalidArgument, message)
    refused(stores, lambda: store.recount("c1", Odd()), errors.InvalidArgument, message)
    Odd.name = ""
    refused(stores, lambda: store.append("c2", [user()], counter=Odd()), errors.InvalidArgument, "name")


# --- what is odd, and stored whole


class Role(str, Enum):  # noqa: UP042 - unlike a StrEnum's, its str() is 'Role.USER'
    USER = "user"


class Text(str):
    __slots__ = ()


@ENGINES
@pytest.mark.parametrize(
    "text",
    ["x" * 10_000_000, " " * 1_000_000, "<|endoftext|>" * 1000, "\n" * 100_000, "🙂" * 100_000, "\u2028"],
    ids=["10 MB", "a million spaces", "special tokens", "newlines", "emoji", "line separator"],
)
def test_odd_texts_are_stored_whole(stores: Stores, store: Store, text: str) -> None:
    store.append("c2", [user(text, name="ann", x=[text[:1000]])])
    (stored,) = store.messages("c2")
    assert stored.content == text
    assert stored.to_openai() == user(text, name="ann", x=[text[:1000]])
    assert stored.token_count > 0
    assert store.window("c2", 10**8).to_openai()[0]["content"] == text
    assert store.verify() == []


@ENGINES
def test_the_longest_of_everything(stores: Stores, store: Store) -> None:
    longest = "é" * 255
    store.append(longest, [user()], owner=longest, idempotency_key=longest, title=longest)
    assert store.append(longest, [user()], owner=longest, idempotency_key=longest).replayed
    assert store.conversation(longest).title == longest
    store.append("deep", [user(x=nested(199))], idempotency_key="k", metadata=nested(200))
    assert same_json(store.messages("deep")[0].to_openai(), user(x=nested(199)))
    assert store.append("deep", [user(x=nested(199))], idempotency_key="k").replayed
    assert store.fork("deep", "copy").metadata == nested(200)
    store.append("big", [user(x=[2**4096 - 1, -(2**4095)])])
    assert store.messages("big")[0].to_openai()["x"] == [2**4096 - 1, -(2**4095)]


@ENGINES
def test_texts_of_the_callers_own_types_are_stored_as_texts(stores: Stores, store: Store) -> None:
    store.append(
        "c2", [{"role": Role.USER, "content": Text("x")}, {"role": "user", "content": "y", "x": Text()}]
    )
    assert [(m.role, m.content) for m in store.messages("c2")] == [("user", "x"), ("user", "y")]
    assert stores.sql.rows("SELECT role FROM {messages} WHERE conversation_id = 'c2'") == [("user",)] * 2
    assert store.append("c2", (message for message in [user()])).last_position == 3
    assert store.append("c2", {"a": user()}.values()).last_position == 4


@ENGINES
@pytest.mark.parametrize(
    "name", ["%s", "a'b", 'a"b', "../x", " ", "\n", "{now}", ":id", "🙂", "NULL", "\u2028"]
)
def test_ids_may_be_any_text(stores: Stores, store: Store, name: str) -> None:
    store.append(name, [user()], owner=name, idempotency_key=name)
    assert store.conversation(name).id == name
    assert store.for_owner(name).messages(name)[0].content == "x"
    assert store.fork(name, f"{name}+").id == f"{name}+"
    assert store.delete_owner(name) == 2


@ENGINES
@pytest.mark.parametrize("said", ["marker-7f3a9", "marker-7f3a9 and more of it", "user marker-7f3a9"])
def test_a_text_in_the_place_of_a_role_is_not_repeated(stores: Stores, said: str) -> None:
    store = stores.open()
    store.append("c1", [user()])
    for message in ({"role": said, "content": "user"}, Message(said, "user"), Message.opaque(1, role=said)):
        for refused in (
            lambda message=message: store.append("c1", [message]),
            lambda message=message: store.edit("c1", 1, message),
        ):
            with pytest.raises(errors.InvalidMessage) as caught:
                refused()
            assert "marker" not in f"{caught.value} {caught.value!r}"
