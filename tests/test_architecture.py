"""Rules of the code's shape that import-linter does not say; its own are in pyproject.toml."""

import ast
import graphlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tokenmem"
LONGEST = 400
"""Lines of a file."""

LONG_FILES = {
    "tests/cli/test_cli.py",
    "tests/cli/test_cli_chat.py",
    "tests/conformance/test_chat.py",
    "tests/counting/test_model_rules.py",
    "tests/database/test_query_plans.py",
    "tests/database/test_views.py",
    "tests/support/chat_player.py",
}
"""Those of the tests and benchmarks that are longer all the same: one table or one story each."""

INTERNALS = {
    f"tokenmem/database/{name}.py"
    for name in ("sqlalchemy_internals", "driver_internals", "pool")  # a pool of ours is one of SQLAlchemy's
}
FORKS = "tokenmem/forks.py"

DOCUMENTED = re.compile(r"sqlalchemy(\.(exc|event|pool|ext\.asyncio))?")
"""Modules of SQLAlchemy whose names are public and documented."""

UNDOCUMENTED = {"dispatch", "instance", "is_disconnect", "logger"}
"""Names of SQLAlchemy's objects that have no underscore and that it does not document."""


@cache
def sources(*folders: str) -> dict[str, ast.Module]:
    """The syntax tree of every file of ours below these folders, by its path."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


# --- the map in CONTRIBUTING.md

PACKAGE_LINE = re.compile(r"^#+ `(tokenmem/(?:\w+/)*)`", re.MULTILINE)
MODULE_LINE = re.compile(r"^- `(\w+)`: \S", re.MULTILINE)


def mapped() -> list[str]:
    """The modules on the map, as paths below the root."""
    _, *packages = PACKAGE_LINE.split((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    pairs = zip(packages[::2], packages[1::2], strict=True)
    return [f"{package}{module}.py" for package, text in pairs for module in MODULE_LINE.findall(text)]


def test_every_module_is_on_the_map_once() -> None:
    there = [path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")]
    assert sorted(mapped()) == sorted(path for path in there if not path.endswith("/__init__.py"))


# --- docs/architecture.md

QUOTED = re.compile(r"`([^`\n]+)`")


def test_what_the_architecture_page_names_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")}
    words = set(re.findall(r"\w+", " ".join((ROOT / file).read_text(encoding="utf-8") for file in files)))
    missing = []
    for name in QUOTED.findall(page):
        if name.endswith(".py"):
            is_there = any(f"/{file}".endswith(f"/{name}") for file in files)
        elif name.endswith("/"):
            is_there = (ROOT / name).is_dir() or (PACKAGE / name).is_dir()
        else:
            is_there = set(re.findall(r"\w+", name)) <= words or (ROOT / name).exists()
        missing += [] if is_there else [name]
    assert missing == []


# --- imports


def imports() -> dict[str, set[str]]:
    """The modules of ours that each module of ours imports, at whatever place: in a function, for types."""
    files = sources("tokenmem")
    paths = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in files}
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        named: set[str] = set()
        for node in ast.walk(files[path]):
            if isinstance(node, ast.Import):
                named.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                submodules = {f"{node.module}.{alias.name}" for alias in node.names} & paths.keys()
                named |= submodules
                if len(submodules) < len(node.names):  # some of the names are the module's own
                    named.add(node.module)
        found[module] = named & paths.keys()
    return found


def test_imports_go_in_no_circle() -> None:
    found = imports()
    assert "tokenmem.operations.append" in found["tokenmem.procedures.messages"], "submodules are seen"
    assert "tokenmem.errors" in found["tokenmem.procedures.base"], "modules are seen"
    graphlib.TopologicalSorter(found).prepare()  # raises CycleError, which names the circle


# --- what one file alone may use


def attributes(tree: ast.Module) -> Iterator[ast.Attribute]:
    """All but what is asked of `sqlalchemy_internals`, which has names of its own."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            asked = node.value.id if isinstance(node.value, ast.Name) else ""
            if asked != "sqlalchemy_internals":
                yield node


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


@cache
def own_private_names() -> set[str]:
    """The private names of our own code: of its functions, classes, attributes and values."""
    names: set[str] = set()
    for tree in sources("tokenmem").values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Store):
                names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return names


def used_internals(tree: ast.Module) -> list[str]:
    """The names of SQLAlchemy's that are used and that it does not document."""
    own = own_private_names()
    used = [
        node.attr
        for node in attributes(tree)
        if isinstance(node.ctx, ast.Load)
        and ((private(node.attr) and node.attr not in own) or node.attr in UNDOCUMENTED)
    ]
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        used += [
            module
            for module in modules
            if module.partition(".")[0] == "sqlalchemy" and not DOCUMENTED.fullmatch(module)
        ]
    return used


def test_names_that_drivers_and_sqlalchemy_do_not_document_are_in_their_files() -> None:
    found = {path: used_internals(tree) for path, tree in sources("tokenmem", "migrations").items()}
    assert all(found[path] for path in INTERNALS), "the search finds those that are there"
    assert {path: names for path, names in found.items() if names and path not in INTERNALS} == {}


@pytest.mark.parametrize(
    "source",
    ["pool._invalidate(record)", "from sqlalchemy.util import await_only", "connection.dispatch"],
)
def test_an_undocumented_name_is_found(source: str) -> None:
    assert used_internals(ast.parse(source))


def test_forks_are_handled_in_one_file() -> None:
    named = {
        path
        for path, tree in sources("tokenmem", "migrations").items()
        for node in attributes(tree)
        if node.attr == "register_at_fork"
    }
    assert named == {FORKS}


# --- the size of files


def long_files(*folders: str) -> set[str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {
        path.relative_to(ROOT).as_posix()
        for path in paths
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    }


def test_no_file_is_too_long_to_be_read_at_once() -> None:
    assert long_files("tokenmem", "migrations") == set()


def test_the_long_files_of_tests_and_benchmarks_are_known() -> None:
    assert long_files("tests", "benchmarks") == LONG_FILES
