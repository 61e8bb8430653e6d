"""Groups of commands in which every mistake ends with one line on stderr, never with a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from tokenmem.cli.output import complain
from tokenmem.errors import TokenmemError

ClickContext = Any
"""Where its class is to be imported from depends on Typer's version."""

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
"""What a shell reports of a program that Ctrl-C ended."""


class Failure(Exception):
    """A command cannot go on; the text names the value and the remedy."""


class CommandGroup(TyperGroup):
    """Typer's group, with our own exit codes and error lines."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: ARG002 - we are always the whole program
        windows_expand_args: bool = True,
        **extra: object,
    ) -> NoReturn:
        """Run and exit."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, ValueError):  # replaced by something simpler, or closed
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            status = super().main(
                args, prog_name, complete_var, False, windows_expand_args=windows_expand_args, **extra
            )
            sys.stdout.flush()
        except Exception as error:
            status = _report(error)
        sys.exit(status or 0)

    def invoke(self, ctx: ClickContext) -> object:
        """Run the command; what Typer would treat in its own way is treated here first."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            complain(str(error) or "interrupted; what was stored before stays stored")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            _discard_output()
            raise typer.Exit(FAILED) from None


def _report(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        _discard_output()
    elif isinstance(error, (TokenmemError, Failure)):
        complain(str(error))
    elif isinstance(error, OSError):
        complain(describe_os_error(error))
    elif isinstance(error, typer.Abort):
        complain("stopped: nothing was changed")
    elif (render := getattr(error, "format_message", None)) is not None:
        # Click's usage errors; where Click's classes are to be imported from depends on Typer's version.
        command = getattr(getattr(error, "ctx", None), "command_path", "tokenmem")
        complain(f"{render().rstrip('.')}; see {command} --help")
        return WRONG_USAGE
    else:
        _report_bug(error)
    return FAILED


def describe_os_error(error: OSError) -> str:
    """The file and what is wrong with it."""
    reason = error.strerror or type(error).__name__
    return f"{error.filename}: {reason}; name another file" if error.filename else f"{reason}; try again"


def _report_bug(error: Exception) -> None:
    """Say where, not what: the text of an unexpected error may quote a message's content."""
    if os.environ.get("TOKENMEM_TRACEBACK"):
        traceback.print_exception(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    complain(
        f"unexpected {type(error).__name__} at {os.path.basename(place.filename)}:{place.lineno}; "
        f"please report it with what TOKENMEM_TRACEBACK=1 prints (it may contain message content)"
    )


def _discard_output() -> None:
    """Whoever read our output has gone: Python's last flush must not fail once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def new_group(text: str, *, epilog: str | None = None) -> typer.Typer:
    """An empty group of commands."""
    return typer.Typer(
        cls=CommandGroup,
        help=text,
        epilog=epilog,
        add_completion=False,
        rich_markup_mode=None,  # help in plain text: it starts twice as fast
        pretty_exceptions_enable=False,
    )


def help_without_command(context: typer.Context) -> None:
    """A group alone shows its help; as an answer to a missing command it goes to stderr."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(WRONG_USAGE)
