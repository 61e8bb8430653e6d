"""The long form's own parts: results that are kept, runs that hang, and the page."""

from pathlib import Path
from typing import Any

import pytest

from tests.torture import __main__ as command
from tests.torture import page
from tests.torture.classes import BY_NAME, CLASSES
from tests.torture.results import Results, Run

WRITERS = BY_NAME["killed_writers"]
RUN = Run("killed_writers", "sqlite", "sync", WRITERS.long)
HELD: dict[str, Any] = {
    "operations": 1234,
    "faults": 500,
    "acknowledged": 1200,
    "lost": 0,
    "doubled": 0,
    "problems": 0,
    "figures": {"kills in the middle of an append": 77},
    "wrong": [],
    "seconds": 12.3,
}


def test_results_are_kept_and_the_newest_of_a_run_counts(tmp_path: Path) -> None:
    Results("abc", tmp_path).add(RUN, HELD | {"faults": 1})
    Results("abc", tmp_path).add(RUN, HELD)
    Results("other", tmp_path).add(RUN, HELD | {"faults": 2})
    (found,) = Results("abc", tmp_path).all().items()
    assert found[0] == RUN
    assert {name: found[1][name] for name in HELD} == HELD


def test_a_run_that_hangs_has_failed() -> None:
    outcome = command.perform(RUN, seconds=0)
    assert outcome["wrong"] == ["it has not ended within 0 s"]
    assert not command.holds(RUN, outcome)


def test_a_planted_fault_must_be_found() -> None:
    planted = Run("killed_writers", "sqlite", "sync", 60, "an append in two transactions")
    assert command.holds(planted, HELD | {"wrong": ["1 appends are stored in half"]})
    assert not command.holds(planted, HELD)


@pytest.mark.parametrize("long", [True, False])
def test_planted_faults_are_among_the_runs(long: bool) -> None:
    runs = [run for each in CLASSES for run in command.runs_of(each, long=long)]
    assert len(set(runs)) == len(runs)
    planted = {run.planted for run in runs if run.planted}
    expected = {fault.name for each in CLASSES for fault in each.planted if long or fault.quick}
    assert planted == expected


def test_the_page_is_made_of_the_results(tmp_path: Path) -> None:
    results = Results("abc", tmp_path)
    results.add(RUN, HELD)
    results.add(Run("killed_writers", "sqlite", "async", WRITERS.long), HELD | {"wrong": ["2 are lost"]})
    fault = WRITERS.planted[0]
    results.add(
        Run("killed_writers", fault.engine, fault.mode, fault.size, fault.name), HELD | {"wrong": ["x"]}
    )
    text = page.rendered(results)
    assert "| [killed_writers](#killed_writers) | 2,468 | 1,000 | 2,400 | 0 | 0 | 0 | 1 of 2 |" in text
    assert "- sqlite, sync: 500 kills in 12 s, holds; kills in the middle of an append: 77" in text
    assert "**fails: 2 are lost**" in text
    assert f"- planted, {fault.name}: x" in text
    assert "commit `abc`" in text


def test_the_page_in_the_docs_has_every_class() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert [each.name for each in CLASSES if f"\n### {each.name}\n" not in text] == []
