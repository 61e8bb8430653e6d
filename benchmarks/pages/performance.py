"""The page docs/performance.md, made from what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from benchmarks.pages.acceptance import BARS, cells, counterpart, lengths_of, slower_cells
from benchmarks.pages.performance_method import HOW, METHOD, REASONS
from benchmarks.peers import KEYS, OURS, peer_class
from benchmarks.peers.comparison import WORKS
from benchmarks.support.databases import ENGINES, NAMES
from benchmarks.support.results import Results, documents
from benchmarks.support.texts import SIZES

PARTS = ("overhead", "peers", "processes", "bulk", "storage", "imports", "chat", "listing")

QUICK = (
    "**From a quick run, with few repetitions and 100 other conversations.** Its milliseconds, and ratios "
    "near a bar, are not to be relied on."
)


def write_page(*, quick: bool) -> None:
    """Write the page; what has not been measured is left out or said to be missing."""
    results = {engine: Results(engine, quick=quick) for engine in ENGINES}
    sections = [
        "# Performance",
        "Figures are ratios from one run, both sides measured in turn; milliseconds say what machine it was, "
        "nothing more. `scripts/benchmark` measures all of it again and writes this page.",
        *([QUICK] if quick else []),
        *_acceptance(results),
        *_peers(results),
        *_overhead(results),
        *_rest(results),
        *METHOD,
        *_what_each_does(),
        *_machine(results),
        *HOW,
    ]
    page = documents(quick=quick) / "performance.md"
    page.write_text("\n\n".join(map(_wrapped, sections)) + "\n", encoding="utf-8")


def _wrapped(section: str) -> str:
    """Prose in lines of the repository's length; tables, lists, headings and code as they are."""
    return section if section[0] in "|#-!`" or "\n" in section else "\n".join(textwrap.wrap(section, 108))


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _acceptance(results: dict[str, Results]) -> Iterator[str]:
    yield "## What tokenmem promises itself"
    heads = ["what", "bar", *(f"measured, {NAMES[engine]}" for engine in results)]
    rows = [[bar.what, bar.bar, *(str(bar.measured(each)) for each in results.values())] for bar in BARS]
    yield _table(heads, rows)
    for engine, each in results.items():
        if slower := slower_cells(each):
            yield f"Where a peer is faster on {NAMES[engine]}:"
            yield "\n".join(f"- {line}" for line in slower)
    yield from REASONS


def _peers(results: dict[str, Results]) -> Iterator[str]:
    measured = [engine for engine, each in results.items() if cells(each, "peers")]
    if not measured:
        return
    yield "## Against its peers"
    yield (
        "Milliseconds, and in brackets how many times longer than tokenmem: sync libraries than `Store`, "
        "async ones than `AsyncStore`. What each does is told below."
    )
    for engine in measured:
        yield f"### {NAMES[engine]}"
        yield (
            f"![Cost of loading a window of 4,000 tokens against the length of the conversation, "
            f"{NAMES[engine]}](performance-{engine}.svg)"
        )
        known = cells(results[engine], "peers")
        for size in SIZES:
            for work in WORKS:
                lengths = sorted(int(key.split("/")[2]) for key in known if key.startswith(f"{work}/{size}/"))
                if lengths:
                    yield f"**{WORKS[work][0].upper()}{WORKS[work][1:]}**, messages of {SIZES[size]}:"
                    yield _work_table(known, work, size, lengths)


def _work_table(known: dict[str, Any], work: str, size: str, lengths: list[int]) -> str:
    rows = []
    for key in KEYS:
        found = [known[f"{work}/{size}/{length}"].get(key) for length in lengths]
        if any(found):
            name = peer_class(key).name
            rows.append([f"**{name}**" if key in OURS else name, *(_peer_cell(key, each) for each in found)])
    return _table(["", *(f"{length:,} messages" for length in lengths)], rows)


def _peer_cell(key: str, summary: dict[str, Any] | None) -> str:
    if summary is None:
        return ""
    if "failed" in summary:
        return str(summary["failed"])
    taken = _milliseconds(summary["seconds"])
    if key in OURS or not summary.get("slower_than"):
        return taken
    return f"{taken} ({_times(summary['slower_than'][counterpart(key)])})"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _overhead(results: dict[str, Results]) -> Iterator[str]:
    if not any(cells(each, "overhead") for each in results.values()):
        return
    yield "## Against the floor"
    yield (
        "The same SQL on the bare driver, fetched as tuples; tokens counted by a counter of next to no cost. "
        "`Store` and `AsyncStore` are a window with `to_openai()`; a Window makes messages only when they "
        "are asked for, so there is also one with its Message objects and one that nobody looks at. "
        "Milliseconds (10 % to 90 %)."
    )
    for engine, each in results.items():
        for key, cell in cells(each, "overhead").items():
            work, _, size = key.partition("/")
            if size:
                yield f"**{NAMES[engine]}, {WORKS[work]}**, messages of {SIZES[size]}:"
                yield _window_table(cell)
        appends = {key: cell for key, cell in cells(each, "overhead").items() if key.startswith("append")}
        if appends:
            yield f"**{NAMES[engine]}, {WORKS['append']}**, to 1,000 messages of {SIZES['250']}:"
            yield _append_table(engine, appends)


def _spread(summary: dict[str, Any] | None) -> str:
    if not summary:
        return ""
    if "failed" in summary:
        return str(summary["failed"])
    low, middle, high = (_milliseconds(summary[key]) for key in ("low", "seconds", "high"))
    return f"{middle} ({low} to {high})"


def _window_table(cell: dict[str, Any]) -> str:
    lengths = lengths_of(cell)
    names = dict.fromkeys(name.partition("@")[0] for name in cell)
    rows = [[name, *(_spread(cell.get(f"{name}@{length}")) for length in lengths)] for name in names]
    return _table(["", *(f"{length:,} messages" for length in lengths)], rows)


def _append_table(engine: str, appends: dict[str, Any]) -> str:
    without = "synchronous_commit = off" if engine == "postgresql" else "file in memory"
    heads = {"append": "durable on disk", "append, no waiting": without}
    names = dict.fromkeys(name for cell in appends.values() for name in cell)
    rows = [[name, *(_spread(cell.get(name)) for cell in appends.values())] for name in names]
    return _table(["", *(heads[key] for key in appends)], rows)


def _rest(results: dict[str, Results]) -> Iterator[str]:
    parts = {engine: {part: each.part(part) for part in PARTS} for engine, each in results.items()}
    yield "## Many processes, bulk import, bytes on disk, import time"
    rows = []
    for engine, known in parts.items():
        for name, more in (("throughput", ""), ("throughput, no waiting", ", synchronous_commit = off")):
            if found := known["processes"].get(name):
                what = f"{found['processes']} processes, appends a second: one conversation / separate{more}"
                rows.append(
                    [NAMES[engine], what, f"{found['hot']:,.0f} / {found['separate']:,.0f}", _range(found)]
                )
        if found := known["bulk"].get("import"):
            floor = "COPY" if engine == "postgresql" else "executemany"
            what = f"messages imported a second: `import_conversations` / {floor}"
            rows.append(
                [NAMES[engine], what, f"{found['tokenmem']:,.0f} / {found['floor']:,.0f}", _range(found)]
            )
    if rows:
        yield _table(["", "what", "measured", "ratio (least to most)"], rows)
    sizes = {engine: known["storage"].get("cells", {}).get("sizes", {}) for engine, known in parts.items()}
    if any(sizes.values()):
        yield _storage(sizes)
    yield from _imports(parts)


def _range(found: dict[str, Any]) -> str:
    return f"{found['ratio']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})"


def _storage(sizes: dict[str, dict[str, Any]]) -> str:
    rows = []
    for key in KEYS:
        if any(key in found for found in sizes.values()):
            figures = [f"{found[key]['bytes']:,.0f}" if key in found else "" for found in sizes.values()]
            rows.append([peer_class(key).name, *figures])
    counts = next(value for found in sizes.values() for value in found.values())
    intro = (
        f"Bytes on disk for a message of 250 characters above its text, {counts['messages']:,} messages in "
        f"{counts['conversations']:,} conversations, appended exchange by exchange through each library:"
    )
    return intro + "\n\n" + _table(["", *(NAMES[engine] for engine in sizes)], rows)


def _imports(parts: dict[str, Any]) -> Iterator[str]:
    known = next((part["imports"] for part in parts.values() if part["imports"]), None)
    if not known:
        return
    statements = {name: value for name, value in known.items() if name != "machine"}
    rows = [
        [f"`{name}`", f"{value['seconds'] * 1000:.0f} ms", ", ".join(value["also_imported"]) or "none"]
        for name, value in statements.items()
    ]
    yield _table(["", "above the bare interpreter", "of openai, alembic, tiktoken imported with it"], rows)


def _what_each_does() -> Iterator[str]:
    yield "## What each library does"
    classes = {key: peer_class(key) for key in KEYS}
    yield _table(
        ["", "for a window it does", "sync or async"],
        [[kind.name, kind.does, "async" if kind.asynchronous else "sync"] for kind in classes.values()],
    )


def _machine(results: dict[str, Results]) -> Iterator[str]:
    found = {
        (engine, part): each.part(part)["machine"]
        for engine, each in results.items()
        for part in PARTS
        if each.part(part)
    }
    if not found:
        return
    yield "## Machine and versions"
    newest = max(found.values(), key=lambda machine: str(machine["measured"]))
    versions = {NAMES[engine]: machine["engine_version"] for (engine, _), machine in found.items()}
    engines = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    packages = ", ".join(f"{name} {version}" for name, version in newest["packages"].items())
    yield (
        f"{newest['measured']}: {newest['processors']} cores ({newest['processor']}), "
        f"{newest['memory_gigabytes']} GB of memory, a disk that makes 8 kB durable in "
        f"{newest['sync_milliseconds']} ms, {newest['system']}, Python {newest['python']}, "
        f"{engines}. Packages: {packages}."
    )
