"""`tokenmem demo`: a conversation grows in a database while the window on it moves."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Annotated

import typer

from tokenmem.cli.demo import journey
from tokenmem.cli.demo.stage import Stage
from tokenmem.cli.options import Schema, opened
from tokenmem.messages.text import readable_text

if TYPE_CHECKING:
    from tokenmem.cli.options import Database
    from tokenmem.messages.message import Message

FILE = "tokenmem-demo.db"
CONVERSATION = "night-train"
TOKEN_LIMIT = 160
LONGEST_EXCERPT = 44


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: tokenmem demo")(demo)


def demo(
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Another database than a new SQLite file.")
    ] = None,
    schema: Schema = None,
) -> None:
    """See a conversation grow and its window move.

    A scripted model talks: offline, in a few seconds. The demo creates tokenmem-demo.db in the working
    directory, or the next free name, and leaves it there.
    """
    if url is None:  # TOKENMEM_URL and its schema are for the user's own conversations
        url, schema = f"sqlite:///{new_file()}", None
    with opened(url, schema, create=True) as database:
        database.store.upgrade()
        conversation_id = free_id(database)
        stage = Stage()
        play(database, conversation_id, stage)
        _show_edges(database, conversation_id, stage)
        _show_rows(database, conversation_id, stage)


def new_file() -> str:
    """Create an empty file under the first free name, and return the name."""
    base, suffix = os.path.splitext(FILE)
    for number in count(1):
        name = FILE if number == 1 else f"{base}-{number}{suffix}"
        try:
            # Exclusively: two demos at once get two files, and nobody's file is ever written to.
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return name
    raise AssertionError  # count does not end


def free_id(database: Database) -> str:
    """The first id of the demo's that no conversation has."""
    from tokenmem.errors import ConversationNotFound

    for number in count(1):
        conversation_id = CONVERSATION if number == 1 else f"{CONVERSATION}-{number}"
        try:
            database.store.conversation(conversation_id)
        except ConversationNotFound:
            return conversation_id
    raise AssertionError  # count does not end


def play(database: Database, conversation_id: str, stage: Stage) -> None:
    """Replay the whole conversation, turn by turn."""
    from tokenmem.database.urls import redacted
    from tokenmem.langchain.chain import ConversationChain
    from tokenmem.langchain.memory import ConversationTokenBufferMemory
    from tokenmem.messages.message import Message

    store = database.store
    store.append(conversation_id, [Message.system(journey.INSTRUCTIONS, pinned=True)], title=journey.TITLE)
    stage.heading(journey.TITLE, f"conversation {conversation_id} in {redacted(database.engine.url)}")
    stage.line("", f"Each turn may send {TOKEN_LIMIT} tokens of it: {stage.legend()}")
    memory = ConversationTokenBufferMemory(
        llm=journey.scripted_model, max_token_limit=TOKEN_LIMIT, store=store, conversation_id=conversation_id
    )
    chain = ConversationChain(llm=journey.scripted_model, memory=memory)
    turns = _Turns(database, conversation_id, stage)
    for question, _ in journey.OPENING:
        turns.begin()
        turns.sent(memory.buffer_as_messages)
        turns.said(question, chain.predict(input=question))
    turns.begin("a tool is called")
    _ask_timetable(turns)
    for question in [*(question for question, _ in journey.ONWARD), journey.TOWN_QUESTION]:
        turns.begin()
        turns.sent(memory.buffer_as_messages)
        turns.said(question, chain.predict(input=question))


@dataclass(slots=True)
class _Turns:
    """Shows the turns, and remembers what has fallen out of the window so far."""

    database: Database
    conversation_id: str
    stage: Stage
    number: int = 0
    gone: set[int] = field(default_factory=set)

    def begin(self, note: str = "") -> None:
        """Show the turn's number."""
        self.number += 1
        self.stage.heading(f"Turn {self.number}", note)

    def sent(self, window: Sequence[Message]) -> None:
        """Show which messages the model is sent, and which of those before are no longer among them."""
        stored = self.database.store.messages(self.conversation_id, limit=None)
        places = {message.position for message in window}
        cells = [
            ("pinned" if message.pinned else "in") if message.position in places else "out"
            for message in stored
        ]
        tokens = sum(message.token_count for message in window)
        self.stage.strip("sent", cells, f"{tokens} of {TOKEN_LIMIT} tokens: {_spans(sorted(places))}")
        fallen = [
            message
            for message in stored
            if message.position not in places and message.position not in self.gone
        ]
        for message in fallen:
            self.stage.line("fell out", f"{message.position} {message.role}: {_excerpt(message)}")
        self.gone.update(message.position for message in fallen)

    def said(self, question: str, answer: str) -> None:
        """Show what was said."""
        self.stage.line("Human", question)
        self.stage.line("AI", answer)


def _ask_timetable(turns: _Turns) -> None:
    """An agent's loop on the store itself: append, load the window, ask; until no tool is called."""
    import json

    store, conversation_id = turns.database.store, turns.conversation_id
    store.append(conversation_id, [{"role": "user", "content": journey.DATE_QUESTION}])
    turns.stage.line("Human", journey.DATE_QUESTION)
    while True:
        window = store.window(conversation_id, TOKEN_LIMIT)
        turns.sent(window.messages)
        reply = journey.scripted_tool_model(window.to_openai())
        store.append(conversation_id, [reply])
        if not reply.get("tool_calls"):
            turns.stage.line("AI", reply["content"])
            return
        for call in reply["tool_calls"]:
            arguments = call["function"]["arguments"]
            result = journey.timetable(**json.loads(arguments))
            store.append(conversation_id, [{"role": "tool", "tool_call_id": call["id"], "content": result}])
            turns.stage.line("call", f"timetable({arguments})")
            turns.stage.line("tool", result)


def _show_edges(database: Database, conversation_id: str, stage: Stage) -> None:
    """A limit at which the oldest message that fits is the tool's result, which no model accepts first."""
    store = database.store
    stored = store.messages(conversation_id, limit=None)
    result = next(message for message in stored if message.kind == "tool_result")
    limit = sum(
        message.token_count for message in stored if message.pinned or message.position >= result.position
    )
    stage.heading("Never on a tool result", f"limit {limit}, where the result at {result.position} would fit")
    for start_on, note in (
        ("message", "a result without its call: an API answers with an error"),
        ("step", "the default: the next message that may come first"),
        ("turn", "at what a user said"),
    ):
        window = store.window(conversation_id, limit, start_on)  # type: ignore[arg-type]
        first = next(message for message in window.messages if message.position == window.first_position)
        shown = f"{start_on!r} begins at {window.first_position}, {first.role}"
        stage.line("start_on", f"{shown}: {note}")


def _show_rows(database: Database, conversation_id: str, stage: Stage) -> None:
    """What to run next, and the first of it done."""
    from tokenmem.database.driver_errors import translated_errors
    from tokenmem.database.urls import redacted

    prefix = f"{database.schema}." if database.schema else ""
    whose = f"WHERE conversation_id = '{conversation_id}'"
    found = f"SELECT position, role, content, token_count FROM {prefix}messages {whose}"
    found += f" AND content LIKE '%{journey.TOWN}%'"
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        # %% because psycopg takes a single one for a parameter.
        text = found.replace("%", "%%") if connection.dialect.name == "postgresql" else found
        result = connection.exec_driver_sql(text)
        header, rows = list(result.keys()), [list(row) for row in result]
    total = len(database.store.messages(conversation_id, limit=None))
    stage.heading(f"All {total} messages are still rows", "the first question is where the town was said")
    stage.command(_sql_command(database, found))
    stage.rows(header, rows)
    stage.heading("Look around", "views that the migration made, then tokenmem's own commands")
    log = f"SELECT position, role, text, running_total FROM {prefix}message_log {whose} ORDER BY position"
    stage.command(_sql_command(database, log))
    stage.command(_sql_command(database, f"SELECT name, arguments, result FROM {prefix}tool_calls {whose}"))
    options = f"--url {shlex.quote(redacted(database.engine.url))}"
    if database.schema not in (None, "tokenmem"):
        options += f" --schema {database.schema}"
    stage.command(f"tokenmem show {conversation_id} {options}")
    stage.command(f"tokenmem window {conversation_id} --limit {TOKEN_LIMIT} {options}")


def _sql_command(database: Database, statement: str) -> str:
    url = database.engine.url
    if url.get_backend_name() == "sqlite":
        return f'sqlite3 -header -column {shlex.quote(url.database or "")} "{statement}"'
    shown = url.set(drivername="postgresql").render_as_string(hide_password=True)
    return f'psql {shlex.quote(shown)} -c "{statement}"'


def _spans(positions: Sequence[int]) -> str:
    """Positions in words: messages 1 and 5 to 9."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][-1] == position - 1:
            runs[-1] = [runs[-1][0], position]
        else:
            runs.append([position, position])
    words = [f"{first}" if first == last else f"{first} to {last}" for first, last in runs]
    return f"message{'s' if len(positions) > 1 else ''} {' and '.join(words)}"


def _excerpt(message: Message) -> str:
    text = " ".join((readable_text(message) or "").split())
    return text if len(text) <= LONGEST_EXCERPT else f"{text[:LONGEST_EXCERPT].rstrip()}…"
