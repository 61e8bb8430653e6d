"""The documentation: its examples run as printed, its queries too, and its links lead somewhere."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import programs
from tokenmem import errors
from tokenmem.database.engine import open_engine
from tokenmem.testing import Answer, ModelServer, Request

ROOT = Path(__file__).parents[1]
PAGES = sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md"))
BLOCK = re.compile(r"^```(?P<kind>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, kind: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each block that is marked as this kind and nothing more."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["kind"].strip() == kind:
            yield text.count("\n", 0, block.start("code")), block["code"]


def answered(request: Request) -> Answer:
    """A model that calls the first tool that it is offered, and then says something; as JSON if it has to."""
    tools = request.body.get("tools")
    if tools and request.body["messages"][-1]["role"] == "user":
        return Answer(tool_calls=[(tools[0]["function"]["name"], {"city": "Turin"})])
    if request.body.get("response_format"):
        return Answer('{"time": "21:58", "platform": 4}')
    return Answer("At 21:58, from platform 4.")


@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks(page, "python"))], ids=name)
def test_examples_run_as_printed(page: Path, tmp_path: Path) -> None:
    """One page after the other as one program, in an empty directory; `python no-run` is not run."""
    # Each block where it stands in the page, so that a traceback names the page's own lines.
    program = ""
    for line, code in blocks(page, "python"):
        program += "\n" * (line - program.count("\n")) + code
    (tmp_path / "example.py").write_text(program, encoding="utf-8")
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TOKENMEM_", "OPENAI_")) and key != "PYTHONPATH"
    }
    with ModelServer(answered) as server:
        given = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "test"}
        finished = programs.run(str(tmp_path / "example.py"), env=environment | given, cwd=work)
    assert server.problems == []
    assert finished.code == 0, f"{name(page)}\n{finished.out}{finished.err}"


@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks(page, "sql"))], ids=name)
def test_queries_run_as_printed(page: Path, ready_url: str) -> None:
    engine = open_engine(ready_url)
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET search_path = tokenmem")
        for _, code in blocks(page, "sql"):
            for query in filter(str.strip, re.split(r";\s*$", code, flags=re.MULTILINE)):
                connection.exec_driver_sql(query)
    engine.dispose()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    missing = []
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and heading not in headings(file)):
            missing.append(target)
    assert missing == []


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_error_is_in_the_table_of_errors() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    table = set(re.findall(r"^\| `(\w+)` \| [45]\d\d \|", text, re.MULTILINE))
    ours = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.TokenmemError)
    }
    assert table == ours - {"TokenmemError"}
