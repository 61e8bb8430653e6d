"""What people say, and passwords, looked for where they must not be: in logs, errors, and output."""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import make_url

from tests.support import commands
from tests.torture.support.outcome import EACH_ENGINE, Case, FaultClass, Outcome, PlantedFault
from tests.torture.support.patching import patched
from tokenmem import Message, Store
from tokenmem.database import driver_errors, engine
from tokenmem.messages.json_lines import ConversationLine

CANARY = "c4n4ry-in-a-coal-mine"
PASSWORD = "p4ssw0rd-of-the-mine"


class Letters:
    """Counts letters."""

    name = "letters"

    def count(self, message: Message) -> int:
        return len(message.content or "")


Use = Callable[[Store], Any]


def uses() -> list[Use]:
    """Calls that store the canary, read it, and fail on it in every way there is."""
    said = Message.user(CANARY, metadata={"note": CANARY})
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": f'{{"a": "{CANARY}"}}'}}
    return [
        lambda store: store.append("c", [said, Message.assistant(CANARY, tool_calls=[call])], title=CANARY),
        lambda store: store.append("c", [said], idempotency_key="k"),
        lambda store: store.append("c", [Message.user("other " + CANARY)], idempotency_key="k"),
        lambda store: store.append("c", [said], expected_position=99),
        lambda store: store.append("c", [{"role": CANARY, "content": CANARY}]),
        lambda store: store.append("c", [{"role": "user", "content": {"x": CANARY}}]),
        lambda store: store.append("c", [{"role": "user", "content": CANARY, "x": {1: CANARY}}]),
        lambda store: store.append("c", [{"role": "user", "content": CANARY + "\0"}]),
        lambda store: store.append("c", [{"role": "user", "content": CANARY + "\ud800"}]),
        lambda store: store.append("c", [{"role": "user", "content": CANARY, "n": float("nan")}]),
        lambda store: store.append("c", [CANARY]),
        lambda store: store.append("c", CANARY),
        lambda store: store.append("c", [{"parts": [CANARY], "role": "model"}]),
        lambda store: store.append("c", [said], metadata={"a": {CANARY}}),
        lambda store: store.append("c", [said], unstorable="maybe"),
        lambda store: store.append("c", [said], counter=object()),
        lambda store: store.edit("c", 1, {"role": CANARY, "content": CANARY}),
        lambda store: store.edit("c", 99, said),
        lambda store: store.edit("c", 2, Message.user(CANARY), pinned=True),
        lambda store: store.replace("c", [said, {"content": CANARY}]),
        lambda store: store.update("c", metadata={"a": b"" + CANARY.encode()}),
        lambda store: store.update_message("c", 1, metadata={"a": object(), "b": CANARY}),
        lambda store: store.record_call("c", model="m", instructions=CANARY, last_position=99),
        lambda store: store.record_call("c", model="m", changes=[{"position": CANARY}]),
        lambda store: store.import_conversations(
            [ConversationLine("i", [{"role": CANARY, "content": CANARY}])]
        ),
        lambda store: store.import_conversations([CANARY]),
        lambda store: store.window("c", 1),
        lambda store: store.window("c", 10_000).messages,
        lambda store: store.messages("c", limit=None),
        lambda store: list(store.export()),
        lambda store: store.recount("c", "nothing"),
        lambda store: store.verify(),
    ]


def run(case: Case) -> Outcome:
    """Each use some times: what was logged, raised and shown is looked through."""
    heard = Heard()
    url = with_password(case)
    texts: list[tuple[str, str]] = []
    calls = 0
    with case.breaking(), heard.listening():
        for _ in range(case.size):
            with Store(url, counter=Letters()) as store:
                texts += [("repr(store)", repr(store)), ("repr(bound)", repr(copy.copy(store)))]
                for number, use in enumerate(uses()):
                    calls += 1
                    try:
                        use(store)
                    except Exception as error:
                        texts += told_by(number, error)
                texts += [(f"after {number}", text) for number, text in enumerate(broken(case, store))]
            texts += [("command", text) for text in command_errors(url)]
    found = [where for where, text in texts if CANARY in text or PASSWORD in text]
    found += [f"log: {name}" for name, text in heard.lines if CANARY in text or PASSWORD in text]
    return Outcome(
        operations=calls,
        faults=len(texts),
        figures={"texts looked through": len(texts), "log lines looked through": len(heard.lines)},
        failures=tuple(f"found in {where}" for where in dict.fromkeys(found))[:8],
    )


def with_password(case: Case) -> str:
    """The URL, with a password of ours where the engine takes any."""
    url = make_url(case.url)
    return url.render_as_string(hide_password=False)


def told_by(number: int, error: BaseException) -> list[tuple[str, str]]:
    if type(error).__module__.startswith("sqlalchemy"):  # of the test's own statement
        return []
    return [
        (f"str of use {number}, {type(error).__name__}", str(error)),
        (f"repr of use {number}, {type(error).__name__}", repr(error)),
        (
            f"traceback of use {number}, {type(error).__name__}",
            "".join(traceback.format_exception_only(error)),
        ),
        (f"what is chained in use {number}", chained(error)),
    ]


def chained(error: BaseException) -> str:
    """The texts of errors that a traceback would show besides."""
    texts = []
    while (
        following := error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    ) is not None:
        texts.append(str(following))
        error = following
    return "\n".join(texts)


def broken(case: Case, store: Store) -> Iterator[str]:
    """Errors of the database itself, on rows that hold the canary."""
    prefix = "" if case.engine == "sqlite" else "tokenmem."
    with suppress(Exception), store.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {prefix}messages RENAME COLUMN content TO contents")
    yield from said_by(store)
    with suppress(Exception), store.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {prefix}messages RENAME COLUMN contents TO content")
    if case.engine == "postgresql":  # its server quotes the whole row that a constraint refuses
        with store.engine.begin() as connection:
            connection.exec_driver_sql(
                f"ALTER TABLE {prefix}messages ADD CONSTRAINT x CHECK (role = '') NOT VALID"
            )
        yield from said_by(store)
        with store.engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {prefix}messages DROP CONSTRAINT x")


def said_by(store: Store) -> Iterator[str]:
    """What two uses say that fail."""
    for use in uses()[:2]:
        try:
            use(store)
        except Exception as error:
            yield str(error) + chained(error)


def command_errors(url: str) -> Iterator[str]:
    """What commands say that fail; what they show when they do not is what was asked for."""
    wrong = (
        make_url(url).set(password=PASSWORD)
        if url.startswith("postgresql")
        else make_url("sqlite:////no/x.db")
    )
    text = wrong.render_as_string(hide_password=False)
    for arguments in (["ls"], ["show", "c"], ["verify"], ["window", "c", "--limit", "1"], ["db", "current"]):
        for used in (url, text):
            answer = commands.run(*arguments, url=used)
            if answer.code:
                yield answer.err + answer.out
    yield commands.run("import", "-", url=url, stdin=f'{{"id": "x", "messages": ["{CANARY}"]}}'.encode()).err
    yield commands.run("ls", "--url", text).err


class Heard(logging.Handler):
    """Every log line of every logger, at DEBUG."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.getMessage() + str(record.exc_info or "")))

    @contextmanager
    def listening(self) -> Iterator[None]:
        names = (None, "sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "alembic", "psycopg", "tokenmem")
        loggers = [logging.getLogger(name) for name in names]
        before = [logger.level for logger in loggers]
        loggers[0].addHandler(self)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            loggers[0].removeHandler(self)
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


@contextmanager
def parameters_shown() -> Iterator[None]:
    """SQLAlchemy's log lines and errors show the parameters, as they do unless told otherwise."""
    shown = engine._EVERY_ENGINE | {"hide_parameters": False}
    with patched(engine, "_EVERY_ENGINE", shown):
        yield


@contextmanager
def driver_quoted() -> Iterator[None]:
    """An error of ours keeps the driver's as its cause."""
    whole = driver_errors.translated_errors.__exit__

    def exit_(self: Any, kind: Any, error: Any, trace: Any) -> None:
        ours = driver_errors._translated(error, self._url) if isinstance(error, Exception) else None
        if ours is not None:
            raise ours from error
        whole(self, kind, error, trace)

    with patched(driver_errors.translated_errors, "__exit__", exit_):
        yield


CLASS = FaultClass(
    name="kept_secrets",
    claim="Conversations that hold a canary are stored, read, and used wrongly in every way, with all "
    "loggers at DEBUG. Neither the canary nor a password is in any log line, error, chained error, "
    "representation, or output of a command that fails.",
    counts="rounds",
    run=run,
    cases=EACH_ENGINE,
    short=1,
    long=20,
    planted=(
        PlantedFault(
            "parameters in SQLAlchemy's log lines", parameters_shown, "sqlite", "sync", 1, quick=True
        ),
        PlantedFault("the driver's error as the cause", driver_quoted, "postgresql", "sync", 1),
    ),
)
