"""The short form: every class of faults, a little of each; and planted faults that are found at once."""

from pathlib import Path

import pytest

from tests.support.stores import Databases
from tests.torture.classes import CLASSES
from tests.torture.support.outcome import Case, FaultClass, PlantedFault

RUNS = [
    pytest.param(each, engine, mode, id=f"{each.name}-{engine}-{mode}")
    for each in CLASSES
    for engine, mode in each.cases
]
QUICK = [
    pytest.param(each, fault, id=f"{each.name}-{fault.name.replace(' ', '_')}")
    for each in CLASSES
    for fault in each.planted
    if fault.quick
]


@pytest.mark.parametrize(("fault_class", "engine", "mode"), RUNS)
def test_class(fault_class: FaultClass, engine: str, mode: str, databases: Databases, tmp_path: Path) -> None:
    runnable(fault_class, engine, mode)
    case = Case(engine, mode, fault_class.short, databases.of(engine, tmp_path), directory(tmp_path))
    assert fault_class.run(case).wrong == []


@pytest.mark.parametrize(("fault_class", "fault"), QUICK)
def test_planted_fault_is_found(
    fault_class: FaultClass, fault: PlantedFault, databases: Databases, tmp_path: Path
) -> None:
    runnable(fault_class, fault.engine, fault.mode)
    url = databases.of(fault.engine, tmp_path)
    case = Case(fault.engine, fault.mode, fault.size, url, directory(tmp_path), fault.patch)
    assert fault_class.run(case).wrong != []


def directory(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


def runnable(fault_class: FaultClass, engine: str, mode: str) -> None:
    if reason := fault_class.pending.get((engine, mode)) or fault_class.unavailable():
        pytest.skip(reason)


def test_names_are_unique_and_every_class_has_a_planted_fault() -> None:
    names = [each.name for each in CLASSES]
    assert len(set(names)) == len(names)
    assert [each.name for each in CLASSES if not each.planted] == []
