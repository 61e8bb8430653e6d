"""Python programs as processes of their own that need no second for their imports (see `processes`).

They are given what `python` takes: `-m` and a module's name, `-c` and code, or a file, and then arguments.
"""

import atexit
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import types
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

from tests.support.processes import NEW


@dataclass(frozen=True)
class Answer:
    """What a program answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Program:
    """A program that runs.

    Args:
        arguments: as `python` takes them.
        files: its stdin, stdout and stderr, which stay the caller's to close.
        env: its environment.
        cwd: where it runs; here unless said.
        leads: whether it leads a session of its own, on the terminal that its stdin is.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        files: tuple[int, int, int],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        leads: bool = False,
    ) -> None:
        handed = [_Handed(file) for file in files]
        where = str(cwd or os.getcwd())
        self._process = NEW.Process(target=_run, args=(list(arguments), handed, dict(env), where, leads))
        self._process.start()

    def poll(self) -> int | None:
        """The exit code, as subprocess tells it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 120) -> int:
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"it still runs after {seconds} s"
        return code

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        if self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()


def start(*arguments: str, env: Mapping[str, str], cwd: Path | None = None) -> "Piped":
    """Start a program with pipes."""
    ends = [os.pipe() for _ in range(3)]
    (stdin, ours_in), (ours_out, stdout), (ours_err, stderr) = ends
    program = Piped(arguments, (stdin, stdout, stderr), env=env, cwd=cwd)
    for end in (stdin, stdout, stderr):
        os.close(end)
    # Unbuffered: what is read here and there adds up.
    program.stdin = os.fdopen(ours_in, "wb", buffering=0)
    program.stdout = os.fdopen(ours_out, "rb", buffering=0)
    program.stderr = os.fdopen(ours_err, "rb", buffering=0)
    return program


class Piped(Program):
    """A program that runs, with pipes; it is killed where it has not ended with the block."""

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def communicate(self, text: bytes = b"") -> Answer:
        """Write this to its stdin, and read what else it writes, to its end; for less than a pipe holds."""
        self.stdin.write(text)
        self.stdin.close()
        out, err = self.stdout.read(), self.stderr.read()
        return Answer(self.wait(), out.decode(), err.decode())

    def __enter__(self) -> "Piped":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


def run(*arguments: str, env: Mapping[str, str], cwd: Path | None = None) -> Answer:
    """Run a program to its end, with nothing on its stdin."""
    return run_at_once([arguments], env=env, cwd=cwd)[0]


def run_at_once(
    programs: Sequence[Sequence[str]], *, env: Mapping[str, str], cwd: Path | None = None
) -> list[Answer]:
    """Run programs at once, each to its end, with nothing on their stdin."""
    with ExitStack() as stack:
        nothing = stack.enter_context(open(os.devnull))
        started = []
        for arguments in programs:
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            files = (nothing.fileno(), out.fileno(), err.fileno())
            started.append((Program(arguments, files, env=env, cwd=cwd), out, err))
        return [Answer(program.wait(), _written(out), _written(err)) for program, out, err in started]


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class _Handed:
    """A file of this process, which is the other's too."""

    def __init__(self, file: int) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (DupFd(self.file),)


def _received(handed: Any) -> int:
    file: int = handed.detach()
    return file


def _run(arguments: list[str], files: list[int], env: dict[str, str], where: str, leads: bool) -> None:
    """In the new process: be that program."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    if leads:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first that it opens is its terminal
    os.chdir(where)
    os.environ.clear()
    os.environ.update(env)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if name == "stderr" else "strict"
        is_by_line = name == "stderr" or os.isatty(number)
        stream = os.fdopen(number, mode, buffering=1 if is_by_line else -1, encoding="utf-8", errors=errors)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.path.insert(0, where)
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        elif arguments[0] == "-c":
            sys.argv = ["-c", *arguments[2:]]
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(arguments[1], "<string>", "exec"), sys.modules["__main__"].__dict__)
        else:
            sys.argv = arguments
            runpy.run_path(arguments[0], run_name="__main__")
    finally:  # multiprocessing's processes end without what an interpreter does at its end
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
