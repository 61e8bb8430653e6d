"""What windows and appends cost the server, told by the server itself: `python -m benchmarks.server_cost`.

Pages, bytes of the log, steps of SQLite's virtual machine: counts, not times. docs/size-and-server-cost.md
is made of them.
"""

from __future__ import annotations

import argparse

from benchmarks.pages.size_and_server_cost import write_page
from benchmarks.server_cost import postgresql, sqlite
from benchmarks.server_cost.workload import FULL, QUICK
from benchmarks.support.databases import ENGINES, workshop
from benchmarks.support.results import Results

RUNS = {"sqlite": sqlite.run, "postgresql": postgresql.run}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server_cost")
    parser.add_argument("--quick", action="store_true", help="small numbers, a page of its own")
    parser.add_argument("--engine", action="append", choices=ENGINES, help="may be repeated")
    options = parser.parse_args()
    for engine in options.engine or ENGINES:
        with workshop(engine) as made:
            results = Results(engine, made.version, quick=options.quick)
            RUNS[engine](made, results, QUICK if options.quick else FULL)
    write_page(quick=options.quick)


if __name__ == "__main__":
    main()
