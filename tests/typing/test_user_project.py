"""What type checkers tell a user: nothing about a correct program, and every mistake where it stands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent / "project"
FILES = {"good.py", "bad.py"}
MYPY_ERROR = re.compile(r"^(?P<file>\w+\.py):(?P<line>\d+): error: ", re.MULTILINE)

pytestmark = pytest.mark.timeout(900)  # a slow machine reads the types of SQLAlchemy and the openai package


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The user's project, outside of the repository: tokenmem is what is installed."""
    copy = tmp_path / "project"
    shutil.copytree(PROJECT, copy)
    return copy


def run(project: Path, *command: str) -> str:
    """What a checker says; that it finds errors is no error here."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "MYPY", "BASEDPYRIGHT", "PYRIGHT"))
    }
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def marked() -> set[tuple[str, int]]:
    """The lines that must be errors."""
    lines = (PROJECT / "bad.py").read_text(encoding="utf-8").splitlines()
    return {("bad.py", number) for number, line in enumerate(lines, 1) if line.endswith("  # error")}


def check(found: set[tuple[str, int]], output: str) -> None:
    expected = marked()
    assert len(expected) > 20
    assert found - expected == set(), output
    assert expected - found == set(), "these lines are mistakes, and pass"


def test_mypy(project: Path) -> None:
    # What others' packages say is read once a clone, which takes most of the time.
    cache = Path(__file__).parents[2] / "build" / "mypy-cache"
    output = run(project, "mypy", "--strict", "--no-error-summary", ".", "--cache-dir", str(cache))
    found = {(each["file"], int(each["line"])) for each in MYPY_ERROR.finditer(output)}
    check(found, output)


def test_basedpyright(project: Path) -> None:
    settings = {"typeCheckingMode": "strict", "include": ["."]}
    (project / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    output = run(project, "basedpyright", "--outputjson", "--pythonpath", sys.executable)
    told = json.loads(output)
    assert told["summary"]["filesAnalyzed"] == len(FILES)
    errors = [each for each in told["generalDiagnostics"] if each["severity"] == "error"]
    strict = (
        "reportUnknown",
        "reportUnused",
        "reportMissing",
    )  # what follows from a mistake on the same line
    found = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in errors
        if Path(each["file"]).name == "good.py" or not each.get("rule", "").startswith(strict)
    }
    check(found, output)


def test_the_files_are_those_that_are_checked() -> None:
    assert {path.name for path in PROJECT.glob("*.py")} == FILES
