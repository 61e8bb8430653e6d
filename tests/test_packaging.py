"""The wheel and the sdist, built for real, and what an environment with nothing but the wheel can do."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from tokenmem import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("tokenmem", "migrations", "tests", "scripts", "docs", "examples", "benchmarks")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command to its end and return what it prints."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TOKENMEM_", "PYTHON", "VIRTUAL_ENV", "PIP_"))
    }
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Distributions:
    source: Path
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Built from a copy, so that the repository stays as it is: the sdist, and from that the wheel."""
    directory = tmp_path_factory.mktemp("packaging")
    source, built = directory / "source", directory / "dist"
    source.mkdir()
    for path in ROOT.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy2(path, source)
        elif path.name in SOURCES:
            shutil.copytree(path, source / path.name)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", built, cwd=source)
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    return Distributions(source, sdist, wheel)


@pytest.fixture(scope="module")
def environment(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with the wheel in it; its dependencies are lent by the tests' own."""
    directory = tmp_path_factory.mktemp("environment")
    venv.create(directory, with_pip=False, symlinks=True)
    scripts = directory / ("Scripts" if os.name == "nt" else "bin")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(
        *(sys.executable, "-m", "pip", "--python", scripts / "python", "install", *options),
        distributions.wheel,
        cwd=directory,
    )
    (packages,) = directory.glob("lib/python*/site-packages")
    lent = Path(pytest.__file__).parents[1]
    # Named in a .pth file, that directory's own .pth files are not read: the repository stays out of sight.
    (packages / "lent.pth").write_text(f"{lent}\n")
    return scripts


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_and_the_migrations(distributions: Distributions) -> None:
    names = contents(distributions.wheel)
    migrations = {
        f"tokenmem/{path.relative_to(ROOT).as_posix()}"
        for ending in ("py", "mako", "sql")
        for path in ROOT.glob(f"migrations/**/*.{ending}")
    }
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tokenmem/**/*.py")}
    ranks = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tokenmem/counting/ranks/*")}
    assert len(migrations) >= 10
    assert len(ranks) == 4
    information = f"tokenmem-{__version__}.dist-info"
    licences = {f"{information}/licenses/{name}" for name in ("LICENSE", "tokenmem/counting/ranks/NOTICE")}
    assert names >= migrations | modules | ranks | licences | {"tokenmem/py.typed"}


def test_the_wheel_holds_nothing_else(distributions: Distributions) -> None:
    names = contents(distributions.wheel)
    assert {PurePosixPath(name).parts[0] for name in names} == {
        "tokenmem",
        f"tokenmem-{__version__}.dist-info",
    }
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db"))] == []
    assert distributions.wheel.stat().st_size < 5_000_000


def test_the_wheel_is_the_same_straight_from_the_repository(
    distributions: Distributions, tmp_path: Path
) -> None:
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path)
    run(*build, cwd=distributions.source)
    (wheel,) = tmp_path.glob("*.whl")
    assert contents(wheel) == contents(distributions.wheel)


def test_the_sdist_holds_what_its_tests_need(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"alembic.ini", "pyproject.toml", "README.md", "LICENSE", "scripts/setup", "docker-compose.yml"}
    wanted |= {"migrations/env.py", "migrations/script.py.mako", "tests/conftest.py", "tokenmem/py.typed"}
    assert wanted - names == set()
    assert [name for name in names if "__pycache__" in name] == []


def test_from_the_wheel_a_store_migrates(environment: Path, tmp_path: Path) -> None:
    program = (
        "import tokenmem\n"
        "from tokenmem import Store\n"
        "with Store('sqlite:///x.db') as store:\n"
        "    store.upgrade()\n"
        "    store.append('c1', [{'role': 'user', 'content': 'hi'}])\n"
        "    print(store.verify(), store.conversation('c1').total_tokens > 0, tokenmem.__file__)\n"
    )
    answer = run(environment / "python", "-W", "error", "-c", program, cwd=tmp_path)
    assert answer.startswith("[] True ")
    assert Path(answer.split()[-1]).is_relative_to(environment.parent)
    assert (tmp_path / "x.db").exists()


def test_from_the_wheel_the_command_migrates(environment: Path, database_url: str, tmp_path: Path) -> None:
    for command in ("upgrade", "current", "check"):
        run(environment / "tokenmem", "db", command, cwd=tmp_path, TOKENMEM_URL=database_url)
    assert "CREATE VIEW" in run(environment / "tokenmem", "db", "sql", "--url", database_url, cwd=tmp_path)


def test_from_the_wheel_the_demo_runs(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    shown = run(environment / "tokenmem", "demo", cwd=tmp_path, HOME=str(tmp_path / "home"))
    assert "SELECT" in shown
    assert list((tmp_path / "home").iterdir()) == []


def test_importing_tokenmem_imports_nothing_heavy(environment: Path, tmp_path: Path) -> None:
    program = "import sys, tokenmem; print(*sorted(sys.modules))"
    loaded = set(run(environment / "python", "-c", program, cwd=tmp_path).split())
    heavy = {"openai", "alembic", "tiktoken", "sqlalchemy", "psycopg", "typer", "rich", "asyncio"}
    assert loaded & heavy == set()


def test_the_version_is_the_distributions(environment: Path, tmp_path: Path) -> None:
    program = "from importlib.metadata import version; print(version('tokenmem'))"
    assert run(environment / "python", "-c", program, cwd=tmp_path).strip() == __version__
