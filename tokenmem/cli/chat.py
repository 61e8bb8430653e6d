"""`tokenmem chat`: talk with a model in the terminal, on the path of every other chat."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast
from uuid import uuid4

import typer

from tokenmem.cli.calls import call_record
from tokenmem.cli.group import FAILED, INTERRUPTED, Failure
from tokenmem.cli.options import DEFAULT_URL, ConversationId, Json, Schema, Url, opened
from tokenmem.cli.output import complain, escape, is_terminal, print_json
from tokenmem.errors import TokenmemError
from tokenmem.messages.text import readable_text

if TYPE_CHECKING:
    from openai import OpenAI

    from tokenmem.chat import Chat
    from tokenmem.chat.settings import API
    from tokenmem.models import Reply

PROMPT = "> "
EXIT = "/exit"
AGAIN = "/again"
CANCELLED = "cancelled; what had come of the answer is stored"

_CLIENT_PACKAGES = frozenset({"openai", "httpx", "httpx2", "httpcore", "httpcore2"})
"""Whose errors a client raises: until its version 3, openai let its HTTP library's through from streams."""

_REMEDIES = {
    400: "check --model, --limit and --api",
    401: "check OPENAI_API_KEY",
    403: "check OPENAI_API_KEY",
    404: "check --model and --base-url",
    429: "wait, or check the account's limits",
    None: "check the network and --base-url",
}
"""By the provider's status; None where no answer came at all."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command(epilog="Example: tokenmem chat c1 'When does the night train leave?'")(chat)


def chat(
    conversation_id: ConversationId,
    message: Annotated[
        str | None, typer.Argument(metavar="MESSAGE", help="What to say; without it, lines are read.")
    ] = None,
    url: Url = DEFAULT_URL,
    schema: Schema = None,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model.")] = "gpt-4o-mini",
    limit: Annotated[
        int, typer.Option("--limit", metavar="TOKENS", help="What a prompt may cost, all together.")
    ] = 8000,
    instructions: Annotated[
        str | None,
        typer.Option("--instructions", metavar="TEXT|@FILE", help="What the model is told first."),
    ] = None,
    api: Annotated[str, typer.Option("--api", metavar="chat|responses", help="OpenAI's API.")] = "chat",
    reserve: Annotated[
        int, typer.Option("--reserve", metavar="TOKENS", help="How much of the limit to leave for the reply.")
    ] = 0,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="Another server of OpenAI's protocol.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="NAME", help="The conversation's owner.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Ask with what is there, as after a call that failed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Talk with a model.

    One turn with MESSAGE; without it a turn for each line of stdin, until an empty one, /exit or the end;
    /again asks with what is there. A new id makes a new conversation. OPENAI_API_KEY and OPENAI_BASE_URL are
    read from the environment. Ctrl-C cancels an answer, and ends at the prompt. Exit code 1 if a turn failed.
    """
    if again and message is not None:
        raise typer.BadParameter("a message and --again exclude each other", param_hint="MESSAGE")
    if message is not None and not message.strip():
        raise typer.BadParameter("there is nothing in it", param_hint="MESSAGE")
    chosen = checked_api(api)
    told = None if instructions is None else text_or_file(instructions)
    with opened(url, schema) as database, new_client(base_url) as client:
        from tokenmem.chat import Chat

        store = database.store if owner is None else database.store.for_owner(owner)
        asked = Chat(store, client, model, limit, instructions=told, api=chosen, reserve=reserve)
        conversation = _Conversation(asked, conversation_id, as_json)
        if message is not None or again:
            conversation.only_turn(message)
        else:
            store.conversations(limit=1)  # a database without tables is told before anyone types
            conversation.talk()


def checked_api(value: str) -> API:
    """One of OpenAI's APIs.

    Raises:
        BadParameter: it is none of them.
    """
    from typing import get_args

    from tokenmem.chat.settings import API

    if value not in (names := get_args(API)):
        raise typer.BadParameter(f"{value!r} is none of {', '.join(names)}", param_hint="--api")
    return cast("API", value)


def text_or_file(value: str) -> str:
    """A text as it is written; behind an @, a file's.

    Raises:
        Failure: the file holds no text.
    """
    if not value.startswith("@"):
        return value
    try:
        with open(value[1:], encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise Failure(f"{value[1:]}: this is no UTF-8 text; name another file in --instructions") from None


def new_client(base_url: str | None) -> OpenAI:
    """The openai package's client, set up by the environment as that package does it.

    Raises:
        Failure: it cannot be made.
    """
    from openai import OpenAI, OpenAIError  # half a second: no other command pays for it

    if not os.environ.get("OPENAI_API_KEY", "").isascii():
        raise Failure("OPENAI_API_KEY has letters that no key has; copy it again")
    try:
        return OpenAI(base_url=base_url)
    except OpenAIError:
        raise Failure(
            "there is no API key; set OPENAI_API_KEY (to any text for a server that needs none)"
        ) from None
    except Exception as error:
        if not _is_of_client(error):
            raise
        raise Failure(f"{type(error).__name__}: check --base-url and OPENAI_BASE_URL") from None


def _is_of_client(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in _CLIENT_PACKAGES


@contextmanager
def provider_errors(how: str) -> Iterator[None]:
    """What the client raises in one line, without its text, which may quote the prompt.

    Args:
        how: what asks again.
    """
    from tokenmem.chat.turn import described

    try:
        yield
    except Exception as error:
        if not _is_of_client(error):
            raise
        remedy = _REMEDIES.get(_status_of(error))
        advice = f"{remedy}, then ask again" if remedy else "ask again"
        raise Failure(
            f"no answer: {described(error)}; what was said is stored: {advice} with {how}"
        ) from None


def _status_of(error: Exception) -> int | None:
    """The provider's status; 0 where it has answered without one, as within a stream."""
    from openai import APIConnectionError, APIError

    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status
    return 0 if isinstance(error, APIError) and not isinstance(error, APIConnectionError) else None


@dataclass(slots=True)
class _Conversation:
    """Turns of one conversation, and what is shown of them."""

    chat: Chat
    conversation_id: str
    as_json: bool

    def only_turn(self, message: str | None) -> None:
        """One turn; what fails ends the command."""
        try:
            with provider_errors("--again"):
                self._turn(message)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(CANCELLED) from None

    def talk(self) -> None:
        """A turn a line; one that fails or is cancelled is told, and the next may come."""
        failed = False
        if _is_dialogue():
            print(f"An empty line or {EXIT} ends; Ctrl-C cancels an answer.", file=sys.stderr)
        for line in _lines():
            try:
                with provider_errors(AGAIN):
                    self._turn(None if line.strip() == AGAIN else line)
            except KeyboardInterrupt:
                complain(CANCELLED)
            except (TokenmemError, Failure) as error:
                failed = True
                complain(str(error))
        if failed:
            raise typer.Exit(FAILED)

    def _turn(self, message: str | None) -> None:
        # With a key the call says that it runs for as long as it does, so that `tokenmem calls` elsewhere
        # tells a long answer from a process that died.
        key = uuid4().hex
        if self.as_json:
            reply = self.chat.send(self.conversation_id, message, idempotency_key=key)
            print_json({"text": reply.text, "call": call_record(reply.call)})
            return
        pieces = self.chat.stream(self.conversation_id, message, idempotency_key=key)
        # Closed at once where showing a piece fails: the call is recorded as cancelled before anything else.
        with closing(pieces) as pieces:
            _show(pieces)


def _show(pieces: Iterator[str | Reply]) -> None:
    """Print an answer as it comes, and end its last line whatever happens."""
    printed = ""
    try:
        for piece in pieces:
            # Without text a reply may still say something: a refusal, or a call of a tool that is not here.
            text = piece if isinstance(piece, str) else ("" if printed else readable_text(piece.message))
            if text:
                print(escape(text, keep="\n\t"), end="", flush=True)
                printed = text
    finally:
        if printed and not printed.endswith("\n"):
            with suppress(BrokenPipeError):  # whoever read has gone, and that is being told already
                print(flush=True)


def _is_dialogue() -> bool:
    """Whether a person both types and reads."""
    return sys.stdin.isatty() and is_terminal()


def _lines() -> Iterator[str]:
    """What is typed, line by line, until something ends it; Ctrl-C at the prompt ends the command."""
    with suppress(AttributeError, ValueError):  # stdin is replaced by something simpler, or closed
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    if _is_dialogue():
        with suppress(ImportError):  # lines can be edited where Python has it
            import readline  # noqa: F401
    while True:
        try:
            line = input(PROMPT) if _is_dialogue() else _read_line()
        except EOFError:
            if _is_dialogue():
                print()  # the shell's prompt is to stand on a line of its own
            return
        except KeyboardInterrupt:
            print(file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        if line.strip() in ("", EXIT):
            return
        yield line


def _read_line() -> str:
    """A line of stdin; where only its answers go elsewhere, the prompt is shown on stderr."""
    if sys.stdin.isatty():
        print(PROMPT, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")
