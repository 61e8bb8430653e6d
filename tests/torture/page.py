"""docs/reliability.md, made of one template and the results. No figure in it is written by hand."""

from __future__ import annotations

from typing import Any

from tests.torture.classes import CLASSES
from tests.torture.results import ROOT, Results, Run
from tests.torture.support.outcome import FaultClass

PAGE = ROOT / "docs" / "reliability.md"
TEMPLATE = ROOT / "tests" / "torture" / "page.template.md"

Outcomes = dict[Run, dict[str, Any]]


def write(results: Results) -> None:
    PAGE.write_text(rendered(results), encoding="utf-8")


def rendered(results: Results) -> str:
    outcomes = results.all()
    machines = sorted({outcome["machine"] for outcome in outcomes.values()})
    minutes = sum(outcome["seconds"] for outcome in outcomes.values()) / 60
    return TEMPLATE.read_text(encoding="utf-8").format(
        commit=results.commit,
        machine=" and ".join(machines) or "no machine yet",
        minutes=f"{minutes:.0f}",
        runs=sum(run.planted is None for run in outcomes),
        planted=sum(run.planted is not None for run in outcomes),
        table=table(outcomes),
        classes="\n\n".join(section(each, outcomes) for each in CLASSES),
    )


def long_runs(fault_class: FaultClass, outcomes: Outcomes) -> Outcomes:
    """The runs of the long form alone."""
    return {
        run: outcome
        for run, outcome in outcomes.items()
        if run.name == fault_class.name and run.planted is None and run.size == fault_class.long
    }


def table(outcomes: Outcomes) -> str:
    """One line a class: the sums of its runs."""
    lines = [
        "| class | operations | faults | acknowledged | lost | doubled | `verify` | planted faults found |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in CLASSES:
        runs = long_runs(each, outcomes)
        if not runs:
            lines.append(f"| [{each.name}](#{each.name}) | {reason(each)} | | | | | | |")
            continue
        names = ("operations", "faults", "acknowledged", "lost", "doubled", "problems")
        sums = [sum(outcome.get(name, 0) for outcome in runs.values()) for name in names]
        cells = " | ".join(f"{count:,}" for count in sums)
        lines.append(f"| [{each.name}](#{each.name}) | {cells} | {found(each, outcomes)} |")
    return "\n".join(lines)


def reason(fault_class: FaultClass) -> str:
    reasons = [fault_class.unavailable(), *fault_class.pending.values(), "there is no result yet"]
    return f"not run: {next(filter(None, reasons))}"


def found(fault_class: FaultClass, outcomes: Outcomes) -> str:
    planted = [outcome for run, outcome in outcomes.items() if run.name == fault_class.name and run.planted]
    return f"{sum(bool(outcome['wrong']) for outcome in planted)} of {len(fault_class.planted)}"


def section(fault_class: FaultClass, outcomes: Outcomes) -> str:
    """What was done and what came of it, run by run."""
    lines = [f"### {fault_class.name}", "", fault_class.claim, ""]
    runs = long_runs(fault_class, outcomes)
    if not runs:
        return "\n".join([*lines, f"Not in this table's runs: {reason(fault_class)[9:]}."])
    for run, outcome in runs.items():
        where = run.mode if run.engine == "none" else f"{run.engine}, {run.mode}"
        figures = "".join(f"; {name}: {value:,}" for name, value in outcome["figures"].items())
        held = "holds" if not outcome["wrong"] else "**fails: " + "; ".join(outcome["wrong"]) + "**"
        lines.append(
            f"- {where}: {run.size:,} {fault_class.counts} in {outcome['seconds']:.0f} s, {held}{figures}"
        )
    for (engine, mode), why in fault_class.pending.items():
        lines.append(f"- {engine}, {mode}: not run, {why}")
    for run, outcome in outcomes.items():
        if run.name == fault_class.name and run.planted:
            told = outcome["wrong"][0].strip().splitlines()[-1] if outcome["wrong"] else "**not found**"
            lines.append(f"- planted, {run.planted}: {told}")
    return "\n".join(lines)
