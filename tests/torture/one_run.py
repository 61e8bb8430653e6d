"""One run of one class in a process of its own, told which as JSON.

It prints what came of it as one line of JSON. The process that started it ends it where it hangs.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.support.postgres import PostgresServer, running_server
from tests.support.stores import Databases
from tests.torture.classes import BY_NAME
from tests.torture.support.outcome import Case, FaultClass, Outcome


def main() -> None:
    told: dict[str, Any] = json.loads(sys.argv[1])
    fault_class = BY_NAME[told["class"]]
    began = time.monotonic()
    try:
        outcome = run(fault_class, told["engine"], told["mode"], told["size"], told["planted"])
    except Exception:
        outcome = Outcome(failures=(traceback.format_exc(limit=-6),))
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps(asdict(outcome) | {"wrong": outcome.wrong, "seconds": seconds}), flush=True)


def run(fault_class: FaultClass, engine: str, mode: str, size: int, planted: str | None) -> Outcome:
    patches = {each.name: each.patch for each in fault_class.planted}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokenmem-torture-")))

        def server() -> PostgresServer:
            opened = PostgresServer(stack.enter_context(running_server()))
            stack.callback(opened.close)
            return opened

        url = Databases(directory, server).of(engine, directory)
        work = directory / "work"
        work.mkdir()
        case = Case(engine, mode, size, url, work, patches[planted] if planted else None)
        return fault_class.run(case)


if __name__ == "__main__":
    main()
