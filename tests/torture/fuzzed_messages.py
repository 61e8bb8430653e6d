"""Messages of every form there is, and of some that there should not be: both engines do the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from tests.support.chat_histories import some_history
from tests.support.stores import same_json
from tests.torture.support.outcome import Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import Store, errors
from tokenmem.messages import message as messages

BATCH = 50
ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\ud800",
    "\udfff\ud800",
    "\ufeff\u202e\u200d",
    "👩‍👩‍👧‍👦 é é ﷽",
    "\x1b[31m\r\n\t\x7f",
    "<|endoftext|>",
    "'; DROP TABLE messages; --",
    "{payload} %s %(x)s :id \\u0000 \\",
    "𝕳" * 300,
)
NUMBERS = (0, -0.0, 1e308, -(2**63), 2**63, 10**30, 0.1, float("nan"), float("inf"))
ODD_VALUES = (*NUMBERS, None, True, False, b"bytes", (1, 2))
ROLES = ("user", "assistant", "system", "developer", "tool", "function", "User", "", None, 7)
KEYS = (
    "role",
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "type",
    "id",
    "refusal",
    "audio",
    "x",
    "\0",
    "ü",
)


def run(case: Case) -> Outcome:
    """So many messages, each stored and read back on both engines, or refused by both in the same words."""
    random = case.random
    stored = refused = 0
    failures: list[str] = []
    file = case.directory / "beside.db"
    with (
        case.breaking(),
        Store(f"sqlite:///{file}", counter="o200k_base") as beside,
        case.store(counter="o200k_base") as store,
    ):
        beside.upgrade()
        for number in range(case.size):
            given = some_message(random)
            name = f"c{number // BATCH}"
            escape = {"unstorable": "escape"} if random.random() < 0.2 else {}
            here, there = (outcome_of(each, name, given, escape) for each in (store, beside))
            if not same(here, there):
                failures.append(f"message {number}: the engines differ, {kind(here)} and {kind(there)}")
            elif isinstance(here, str):
                refused += 1
            else:
                stored += 1
                if not same_json(here[0], as_sent(given)):
                    failures.append(f"message {number}: what came back is not what went in")
        problems = len(store.verify()) + len(beside.verify())
    return Outcome(
        operations=4 * stored + 2 * refused,
        faults=refused,
        acknowledged=stored,
        problems=problems,
        figures={"stored": stored, "refused": refused},
        failures=tuple(failures[:5]),
    )


Result = tuple[Any, Any] | str
"""What came back, and its kind and text; or the error."""


def outcome_of(store: Store, name: str, given: Any, options: Any) -> Result:
    try:
        position = store.append(name, [given], **options).last_position
    except (errors.InvalidMessage, errors.InvalidArgument) as error:
        return f"{type(error).__name__}: {error}"
    message = store.message(name, position)
    provider = message.to_openai()
    return provider, [message.role, message.kind, message.content, message.token_count]


def same(left: Result, right: Result) -> bool:
    if isinstance(left, str) or isinstance(right, str):
        return left == right
    return same_json(left[0], right[0]) and same_json(left[1], right[1])


def kind(result: Result) -> str:
    return result if isinstance(result, str) else f"stored as {result[1][:2]}"


def as_sent(message: dict[str, Any]) -> Any:
    """As it is sent to a provider: without the mark of a reply that was cut off."""
    sent: dict[str, Any] = as_json(message)
    return {key: value for key, value in sent.items() if key != "tokenmem_partial"}


def as_json(value: Any) -> Any:
    """As JSON would give it back: tuples are lists."""
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, (list, tuple)) else value


def some_message(random: Random) -> Any:
    """A message as applications send it, one of them with something odd in it, or no message at all."""
    choice = random.random()
    if choice < 0.35:
        history = some_history(random)
        return random.choice(history) if history else {"role": "user", "content": "x"}
    if choice < 0.65:
        return {"role": random.choice(ROLES[:4]), "content": some_content(random)} | some_keys(random)
    if choice < 0.9:
        history = some_history(random) or [{"role": "user", "content": "x"}]
        return mutated(random, dict(random.choice(history)))
    return random.choice([some_value(random, 3), {}, [], "text", None, {"role": random.choice(ROLES)}])


def some_content(random: Random) -> Any:
    if random.random() < 0.6:
        return some_text(random)
    return [{"type": "text", "text": some_text(random)} for _ in range(random.randint(0, 3))]


def some_text(random: Random) -> str:
    if random.random() < 0.4:
        return random.choice(ODD_TEXTS)
    planes = ((0x20, 0x7E), (0, 0x2FF), (0, 0xFFFF), (0x10000, 0x10FFFF))
    first, last = random.choice(planes)
    return "".join(chr(random.randint(first, last)) for _ in range(random.randint(0, 40)))


def some_keys(random: Random) -> dict[str, Any]:
    return {random.choice(KEYS[2:]): some_value(random, 3) for _ in range(random.randint(0, 2))}


def some_value(random: Random, depth: int) -> Any:
    choice = random.random()
    if depth and choice < 0.25:
        return {some_text(random): some_value(random, depth - 1) for _ in range(random.randint(0, 3))}
    if depth and choice < 0.5:
        return [some_value(random, depth - 1) for _ in range(random.randint(0, 3))]
    return random.choice(ODD_VALUES) if choice < 0.75 else some_text(random)


def mutated(random: Random, message: dict[str, Any]) -> dict[str, Any]:
    key = random.choice([*message, *KEYS])
    if random.random() < 0.3:
        message.pop(key, None)
    else:
        message[key] = random.choice(ROLES) if key == "role" else some_value(random, 3)
    return message


@contextmanager
def unknown_keys_dropped() -> Iterator[None]:
    """What comes back has only the keys that OpenAI documents."""
    whole = messages.provider_message

    def documented(*arguments: Any) -> Any:
        made = whole(*arguments)
        return {key: value for key, value in made.items() if key in KEYS[:7]}

    with patched(messages, "provider_message", documented):
        yield


CLASS = FaultClass(
    name="fuzzed_messages",
    claim="Random messages in the forms of both of OpenAI's APIs, a third of them with something in them "
    "that does not belong there, are appended on both engines. Each is stored and comes back equal, "
    "key by key, or is refused with the same words on both.",
    counts="messages",
    run=run,
    cases=(("postgresql", "sync"), ("postgresql", "async")),
    short=150,
    long=25000,
    planted=(
        PlantedFault("unknown keys dropped", unknown_keys_dropped, "postgresql", "sync", 100, quick=True),
    ),
)
