"""The `tokenmem` command. Results go to stdout, everything else to stderr.

Exit codes: 0 fine, 1 failed or found problems, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from tokenmem import __version__
from tokenmem.cli import calls, chat, conversations, db, erase, transfer, upkeep
from tokenmem.cli.demo import command as demo
from tokenmem.cli.group import help_without_command, new_group

app = new_group(
    "Conversation history for LLM applications, in your own SQL database.",
    epilog="Begin with: tokenmem demo",
)
app.add_typer(db.group, name="db")
for _commands in (demo, transfer, conversations, calls, chat, upkeep, erase):
    _commands.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tokenmem {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _begin(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback has done the work
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    help_without_command(context)


def main() -> None:
    """Run the command line, and exit."""
    # Ctrl-C may meet the pool as it takes a connection back, and SQLAlchemy would log that with a traceback.
    logging.getLogger("sqlalchemy").addHandler(logging.NullHandler())
    app(prog_name="tokenmem")
