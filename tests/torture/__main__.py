"""The command `scripts/torture`: every class of faults in the long form, one run after the other.

What is done is not done again: it can be interrupted, and goes on where it was. A run that hangs is ended and
has failed. At the end `docs/reliability.md` is written from the results.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tests.torture import page
from tests.torture.classes import BY_NAME, CLASSES
from tests.torture.results import ROOT, Results, Run
from tests.torture.support.outcome import FaultClass


def main() -> int:
    arguments = parsed()
    chosen = [BY_NAME[name] for name in arguments.names] if arguments.names else list(CLASSES)
    results, failed = Results(), 0
    done = {} if arguments.again else results.all()
    for fault_class in chosen:
        if reason := fault_class.unavailable():
            print(f"{fault_class.name}: skipped, {reason}", flush=True)
            continue
        for run in runs_of(fault_class, long=arguments.long):
            reason = fault_class.pending.get((run.engine, run.mode))
            if reason and not arguments.pending:
                print(f"{run}: skipped, {reason}", flush=True)
                continue
            outcome = done.get(run)
            if outcome is None:
                print(f"{run} …", end=" ", flush=True)
                outcome = perform(run, fault_class.seconds)
                results.add(run, outcome)
                print(f"{outcome['seconds']:.0f} s: {verdict(run, outcome)}", flush=True)
            failed += not holds(run, outcome)
    if arguments.long:
        page.write(results)
        print(f"wrote {page.PAGE.relative_to(ROOT)}")
    print("every class holds" if not failed else f"{failed} runs failed")
    return 1 if failed else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--long", action="store_true", help="all of it, and the page; else a little of each")
    parser.add_argument(
        "--class", dest="names", action="append", choices=sorted(BY_NAME), help="only this class; repeatable"
    )
    parser.add_argument("--pending", action="store_true", help="try what is switched off, too")
    parser.add_argument("--again", action="store_true", help="do again what is done")
    return parser.parse_args()


def runs_of(fault_class: FaultClass, *, long: bool) -> Iterator[Run]:
    """The runs of a class, and then those with planted faults."""
    size = fault_class.long if long else fault_class.short
    for engine, mode in (*fault_class.cases, *(fault_class.only_long if long else ())):
        yield Run(fault_class.name, engine, mode, size)
    for fault in fault_class.planted:
        if long or fault.quick:
            yield Run(fault_class.name, fault.engine, fault.mode, fault.size, fault.name)


def perform(run: Run, seconds: int) -> dict[str, Any]:
    """Do a run in a process of its own, and end it with all that it has started where it hangs."""
    command = [sys.executable, "-m", "tests.torture.one_run", json.dumps(run.told)]
    options: dict[str, Any] = {
        "cwd": ROOT,
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "text": True,
    }
    with subprocess.Popen(command, start_new_session=True, **options) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
            reason = f"its process ended with {process.returncode}"
        except subprocess.TimeoutExpired:
            printed, reason = "", f"it has not ended within {seconds} s"
        finally:
            with suppress(ProcessLookupError):  # also those that it has left behind, as when it was killed
                os.killpg(process.pid, signal.SIGKILL)
    lines = printed.splitlines()
    if not lines:
        return {"seconds": float(seconds), "wrong": [reason], "figures": {}}
    outcome: dict[str, Any] = json.loads(lines[-1])
    return outcome


def holds(run: Run, outcome: dict[str, Any]) -> bool:
    """A run must find nothing wrong, one with a planted fault something."""
    return bool(outcome["wrong"]) == (run.planted is not None)


def verdict(run: Run, outcome: dict[str, Any]) -> str:
    if not holds(run, outcome):
        return "FAILED, the planted fault was not found" if run.planted else f"FAILED, {outcome['wrong']}"
    return f"found: {outcome['wrong'][0].strip().splitlines()[-1]}" if run.planted else "holds"


if __name__ == "__main__":
    sys.exit(main())
