"""A million messages: each measurement in a process of its own, with a limit of memory and of time.

Run as a program it makes one measurement and prints it as JSON: `python -m benchmarks.peers.large '{…}'`.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import warnings
from typing import Any

from benchmarks.peers import OURS, peer_class, peers_of
from benchmarks.peers.comparison import Cell, measure
from benchmarks.peers.filling import fill
from benchmarks.support.databases import Database, Workshop
from benchmarks.support.results import Results
from benchmarks.support.timing import Effort

MESSAGES = 1_000_000
MEMORY = 12 * 2**30
OUT_OF_MEMORY = f"out of memory ({MEMORY >> 30} GB)"
SECONDS = 300
FILL_SECONDS = 1_200


async def run(
    workshop: Workshop, results: Results, *, chosen: list[str], works: list[str], effort: Effort
) -> None:
    """Measure every peer beside tokenmem, one peer's database at a time."""
    peers = peers_of(workshop.engine, chosen)
    storages = dict.fromkeys(peer.storage for key, peer in peers.items() if key not in OURS)
    with workshop.database() as ours:
        _filled(results, ours, OURS[0])
        for storage in storages:
            keys = [key for key, peer in peers.items() if peer.storage == storage]
            with workshop.database() as theirs:
                filled = _filled(results, theirs, keys[0])
                for key in keys:
                    for work in works:
                        cell = Cell(work, "250", MESSAGES)
                        results.progress(f"measuring {cell.key} of {key}")
                        known = filled or _measured(ours, theirs, key, work, effort)
                        if "failed" in known:
                            known = {key: known}
                        results.record_cell("peers", cell.key, known)


def _filled(results: Results, database: Database, key: str) -> dict[str, Any] | None:
    """Fill the database; what went wrong, or None."""
    results.progress(f"filling {key} with {MESSAGES:,} messages")
    order = {"fill": key, "engine": database.engine, "databases": {key: database.address}}
    answer = _in_process(order, FILL_SECONDS)
    return answer if "failed" in answer else None


def _measured(ours: Database, theirs: Database, key: str, work: str, effort: Effort) -> dict[str, Any]:
    addresses = dict.fromkeys(OURS, ours.address) | {key: theirs.address}
    order = {
        "work": work,
        "engine": ours.engine,
        "databases": addresses,
        "effort": [effort.seconds, effort.least, effort.most],
    }
    return _in_process(order, SECONDS)


def _in_process(order: dict[str, Any], seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.peers.large", json.dumps(order)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"gave up after {seconds:,.0f} s"}
    if done.returncode:
        last = (done.stderr.strip() or f"ended by signal {-done.returncode}").splitlines()[-1]
        return {"failed": OUT_OF_MEMORY if "memory" in last.lower() else last[:120]}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def carry_out(order: dict[str, Any]) -> dict[str, Any]:
    """What one process does: fill one peer's database, or measure one work."""
    peers = {key: peer_class(key)() for key in order["databases"]}
    databases = {key: Database(order["engine"], address) for key, address in order["databases"].items()}
    for key, peer in peers.items():
        await peer.open(databases[key])
    answer: dict[str, Any] = {}
    if "fill" in order:
        key = order["fill"]
        await fill(peers[key], databases[key], {"250": [MESSAGES]})
    else:
        cell = Cell(order["work"], "250", MESSAGES)
        answer = await measure(peers, cell, Effort(*order["effort"]))
    for peer in peers.values():
        await peer.close()
    return answer


def main() -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        answer = asyncio.run(carry_out(json.loads(sys.argv[1])))
    except MemoryError:
        answer = {"failed": OUT_OF_MEMORY}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
