"""Running the `tokenmem` command in tests: in this process, or as one of its own."""

import os
import pty
from pathlib import Path

from typer.testing import CliRunner

from tests.support import programs
from tests.support.programs import Answer
from tokenmem.cli import app


def run(*arguments: str, stdin: bytes | None = None, url: str | None = None) -> Answer:
    """Run it in this process."""
    environment = {"TOKENMEM_URL": url, "TOKENMEM_SCHEMA": None}
    result = CliRunner().invoke(app, list(arguments), input=stdin, env=environment)
    return Answer(result.exit_code, result.stdout, result.stderr)


def done(*arguments: str, stdin: bytes | None = None, url: str | None = None) -> Answer:
    """Run it in this process, where it must succeed."""
    answer = run(*arguments, stdin=stdin, url=url)
    assert answer.code == 0, answer.err
    return answer


def environment(url: str | None = None) -> dict[str, str]:
    """The environment of a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENMEM_")}
    return kept | ({"TOKENMEM_URL": url} if url else {})


def process(*arguments: str, url: str | None = None, cwd: Path | None = None) -> Answer:
    """Run it as a process of its own."""
    return programs.run("-m", "tokenmem", *arguments, env=environment(url), cwd=cwd)


def only_line(answer: Answer) -> str:
    """The one line that a failed command leaves on stderr."""
    lines = answer.err.splitlines()
    assert len(lines) == 1, answer.err
    assert lines[0].startswith("tokenmem: ")
    assert "Traceback" not in answer.err
    return lines[0]


def on_terminal(arguments: list[str], url: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    variables = environment(url) | {"TERM": "xterm-256color", "COLUMNS": "100"}
    shown = programs.Program(["-m", "tokenmem", *arguments], (theirs, theirs, theirs), env=variables)
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # Linux answers so where nobody holds the other end any more
        pass
    os.close(ours)
    assert shown.wait(60) == 0
    return written.decode()
