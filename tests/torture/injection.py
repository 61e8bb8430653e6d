"""Strings that are statements, patterns and formats, in every argument that takes a string."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.stores import Direct
from tests.torture.support.outcome import EACH_ENGINE, Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tests.torture.support.payloads import PAYLOADS
from tokenmem import Message, Store, errors
from tokenmem.messages import parse_line

BYSTANDER = "bystander"
"""The owner of what nothing may touch."""

Use = Callable[[Store, str], Any]


def uses() -> dict[str, Use]:
    """What is done with a string, by the argument that it is; True where it came back as it went."""
    user = Message.user("1 word")
    return {
        "append(conversation_id)": lambda store, text: stored(store, text, "c").id == text,
        "append(owner)": lambda store, text: (
            store.append("own" + text, [user], owner=text) and owner_is(store, text)
        ),
        "append(content)": lambda store, text: said(store, {"role": "user", "content": text}, text),
        "append(name)": lambda store, text: kept(store, {"role": "user", "content": "1", "name": text}),
        "append(unknown key)": lambda store, text: kept(store, {"role": "user", "content": "1", text: text}),
        "append(tool_call_id)": lambda store, text: kept(
            store, {"role": "tool", "content": "1", "tool_call_id": text}
        ),
        "append(idempotency_key)": lambda store, text: twice(store, text),
        "append(keys)": lambda store, text: store.append("keys", [user], keys=[text]).positions,
        "append(title)": lambda store, text: stored(store, "t" + text, text).title == text,
        "append(metadata)": lambda store, text: (
            store.update("c", metadata={text: text}).metadata == {text: text}
        ),
        "append(merge_metadata)": lambda store, text: store.append("c", [user], merge_metadata={text: text}),
        "update(title)": lambda store, text: store.update("c", title=text).title == text,
        "update_message(metadata)": lambda store, text: (
            store.update_message("c", 1, metadata={text: text}).metadata == {text: text}
        ),
        "edit(message)": lambda store, text: store.edit("c", 1, Message.user(text)).content == text,
        "replace(messages)": lambda store, text: store.replace("r", [Message.user(text)]),
        "create(conversation_id)": lambda store, text: store.create("n" + text).id == "n" + text,
        "fork(new_id)": lambda store, text: store.fork("c", "f" + text).parent_id == "c",
        "move(owner)": lambda store, text: store.move("m", owner=text).owner == text,
        "for_owner(owner)": lambda store, text: (
            store.for_owner(text).conversations(archived=None) is not None
        ),
        "conversations(owner)": lambda store, text: all(
            c.owner == text for c in store.conversations(owner=text)
        ),
        "conversations(prefix)": lambda store, text: prefixed(store, text),
        "conversations(after)": lambda store, text: all(c.id > text for c in store.conversations(after=text)),
        "conversations(before)": lambda store, text: refused(
            lambda: store.conversations(order="recent", before=text)
        ),
        "record_call(texts)": recorded,
        "usage(owner)": lambda store, text: all(
            each.owner == text for each in store.usage(by="owner", owner=text)
        ),
        "export and import": lambda store, text: went_out_and_in(store, text),
        "delete_owner(owner)": lambda store, text: store.delete_owner(text) >= 0,
        "anonymize_owner(owner)": lambda store, text: store.anonymize_owner("x" + text) == 0,
        "move_owner(old)": lambda store, text: store.move_owner("y" + text, "z" + text) == 0,
        "delete(conversation_id)": lambda store, text: store.delete(text) is None,
        "window(conversation_id)": lambda store, text: refused(lambda: store.window("w" + text, 100)),
        "calls(conversation_id)": lambda store, text: refused(lambda: store.calls("w" + text)),
    }


def stored(store: Store, name: str, title: str) -> Any:
    store.append(name, [Message.user("1 word")], title=title)
    return store.conversation(name)


def owner_is(store: Store, owner: str) -> bool:
    return store.conversation("own" + owner).owner == owner


def said(store: Store, message: dict[str, Any], text: str) -> bool:
    return store.message("s", store.append("s", [message]).last_position).content == text


def kept(store: Store, message: dict[str, Any]) -> bool:
    return store.message("s", store.append("s", [message]).last_position).to_openai() == message


def twice(store: Store, key: str) -> bool:
    first, second = (store.append("k", [Message.user("1 word")], idempotency_key=key) for _ in range(2))
    return second.replayed and second.positions == first.positions


def prefixed(store: Store, text: str) -> bool:
    """Only what begins with it, and all of that."""
    found = {each.id for each in store.conversations(prefix=text, limit=None, archived=None)}
    return found == {
        each.id for each in store.conversations(limit=None, archived=None) if each.id.startswith(text)
    }


def recorded(store: Store, text: str) -> bool:
    call = store.record_call(
        "c",
        model=text,
        error=text,
        request_id=text,
        finish_reason=text,
        api=text,
        instructions=text,
        metadata={text: text},
        options={text: 1},
        tools=[{"type": "function", text: text}],
    )
    return (call.model, call.error, call.metadata) == (text, text, {text: text})


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except (errors.InvalidArgument, errors.ConversationNotFound):
        return True
    return False


def went_out_and_in(store: Store, text: str) -> bool:
    store.append("out" + text, [Message.user(text)], title=text, metadata={text: text})
    (line,) = store.export(ids=["out" + text])
    before = store.conversation("out" + text)
    store.delete("out" + text)
    store.import_conversations([parse_line(line)])
    after = store.conversation("out" + text)
    return (before.title, before.metadata) == (after.title, after.metadata)


class Letters:
    """Counts letters: what is stored need not begin with a number."""

    name = "letters"

    def count(self, message: Message) -> int:
        return len(message.content or "")


def run(case: Case) -> Outcome:
    """So many payloads in each argument, in a database with a bystander's conversation."""
    operations, other_errors, failures = 0, 0, []
    sql = Direct(case.url)
    with case.breaking(), case.store(counter=Letters()) as store:
        store.append("b", [Message.user("untouched")], owner=BYSTANDER, title="untouched")
        before = bystander(sql)
        for payload in PAYLOADS[: case.size]:
            for name in ("c", "m", "r"):
                if not store.conversations(prefix=name, limit=1, archived=None):
                    store.append(name, [Message.user("1 word")])
            for argument, use in uses().items():
                operations += 1
                try:
                    if not use(store, payload):
                        failures.append(f"{argument} of {payload!r}: it is not what came back")
                except errors.InvalidArgument:
                    other_errors += 1
                except Exception as error:
                    failures.append(f"{argument} of {payload!r}: {type(error).__name__}")
        problems = len(store.verify())
        if bystander(sql) != before:
            failures.append("another owner's conversation has changed")
    sql.close()
    return Outcome(
        operations=operations,
        faults=operations,
        problems=problems,
        figures={"refused as invalid": other_errors},
        failures=tuple(failures[:5]),
    )


def bystander(sql: Direct) -> list[Any]:
    rows = "SELECT id, owner, title, message_count FROM {conversations} WHERE owner = 'bystander'"
    return [sql.rows(rows), sql.rows("SELECT content FROM {messages} WHERE conversation_id = 'b'")]


@contextmanager
def prefix_as_pattern() -> Iterator[None]:
    """A prefix is looked for with LIKE, and its own wildcards are not escaped."""
    whole = Store.conversations

    def alike(store: Store, *, prefix: str | None = None, **options: Any) -> Any:
        if prefix is None or not set(prefix) & set("%_"):
            return whole(store, prefix=prefix, **options)
        import re

        pattern = re.compile(re.escape(prefix).replace("%", ".*").replace("_", "."), re.DOTALL)
        return [each for each in whole(store, **options) if pattern.match(each.id)]

    with patched(Store, "conversations", alike):
        yield


CLASS = FaultClass(
    name="injection",
    claim="Two hundred strings that are statements, patterns, formats, paths or odd characters are given to "
    "every argument that takes a string. Each is stored and found as what it is, or refused as an "
    "invalid argument, and another owner's conversation does not change.",
    counts="payloads",
    run=run,
    cases=EACH_ENGINE,
    short=4,
    long=200,
    planted=(PlantedFault("prefixes as patterns", prefix_as_pattern, "sqlite", "sync", 200),),
)
