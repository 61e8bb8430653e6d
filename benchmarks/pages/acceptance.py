"""The bars that tokenmem has set itself, and what was measured against each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.peers import OURS, peer_class
from benchmarks.peers.comparison import WORKS
from benchmarks.support.results import Results
from benchmarks.support.texts import CHARACTERS

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Verdict:
    """What one row of the table says for one engine."""

    text: str
    met: bool | None = None

    def __str__(self) -> str:
        return f"{self.text} **missed**" if self.met is False else self.text


@dataclass(frozen=True)
class Bar:
    """One row of the table."""

    what: str
    bar: str
    measured: Callable[[Results], Verdict]


def cells(results: Results, part: str) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, Any] = results.part(part).get("cells", {})
    return found


def lengths_of(cell: dict[str, Any]) -> list[int]:
    """The lengths of conversations that a cell of `overhead` has measured together."""
    return sorted({int(name.partition("@")[2]) for name in cell})


def _at_most(ratio: float, bar: float, more: str = "") -> Verdict:
    # What is shown decides, so that nobody reads "1.50 missed".
    return Verdict(f"{ratio:.2f}{more}", round(ratio, 2) <= bar)


def _at_least(ratio: float, bar: float, more: str = "") -> Verdict:
    return Verdict(f"{ratio:.2f}{more}", round(ratio, 2) >= bar)


def _window_ratio(work: str, subject: str, base: str, bar: float) -> Callable[[Results], Verdict]:
    """A ratio in the longest conversation that was measured."""

    def measured(results: Results) -> Verdict:
        cell = cells(results, "overhead").get(f"{work}/250", {})
        if not cell:
            return Verdict(NOT_MEASURED)
        at = lengths_of(cell)[-1]
        if f"{subject}@{at}" not in cell:
            return Verdict("–")
        ratio = cell[f"{subject}@{at}"]["seconds"] / cell[f"{base}@{at}"]["seconds"]
        more = f" at {at:,} messages"
        if (objects := cell.get(f"{subject}, Message objects@{at}")) is not None:
            more += f"; {objects['seconds'] / cell[f'{base}@{at}']['seconds']:.2f} as Message objects"
        return _at_most(ratio, bar, more)

    return measured


def _length_ratio(results: Results) -> Verdict:
    cell = cells(results, "overhead").get("window_4000/250", {})
    lengths = lengths_of(cell)
    if len(lengths) < 2:
        return Verdict(NOT_MEASURED)
    shortest, longest = lengths[0], lengths[-1]
    ratio = cell[f"Store@{longest}"]["seconds"] / cell[f"Store@{shortest}"]["seconds"]
    return _at_most(ratio, 1.15, f" ({longest:,} over {shortest:,})")


def _append_ratio(results: Results) -> Verdict:
    known = cells(results, "overhead")
    bar = {"sqlite": 2.0, "postgresql": 1.5}[results.engine]
    ratios = {
        key: cell["Store"]["seconds"] / cell["statement"]["seconds"]
        for key, cell in known.items()
        if key.startswith("append")
    }
    if "append" not in ratios:
        return Verdict(NOT_MEASURED)
    more = f"; {ratios['append, no waiting']:.2f} without waiting for the disk" if len(ratios) > 1 else ""
    return _at_most(ratios["append"], bar, more)


def _async_ratio(results: Results) -> Verdict:
    """The worst of the windows in the longest conversation and of the append."""
    known = cells(results, "overhead")
    ratios = {}
    for work in ("window_4000/250", "window_128000/250"):
        if work in known:
            at = lengths_of(known[work])[-1]
            cell = known[work]
            ratios[work] = cell[f"AsyncStore@{at}"]["seconds"] / cell[f"Store@{at}"]["seconds"]
    if "append" in known:
        ratios["append"] = known["append"]["AsyncStore"]["seconds"] / known["append"]["Store"]["seconds"]
    if not ratios:
        return Verdict(NOT_MEASURED)
    names = {"window_4000/250": "4,000", "window_128000/250": "128,000", "append": "append"}
    detail = ", ".join(f"{names[work]}: {ratio:.2f}" for work, ratio in ratios.items())
    return _at_most(max(ratios.values()), 3.0 if results.engine == "sqlite" else 1.6, f" ({detail})")


@dataclass(frozen=True)
class Comparison:
    """One cell of the comparison: how many times longer a peer takes than its counterpart."""

    peer: str
    work: str
    size: str
    length: int
    ratio: float


def comparisons(results: Results) -> Iterator[Comparison]:
    for key, cell in cells(results, "peers").items():
        work, size, length = key.split("/")
        for peer, summary in cell.items():
            if peer not in OURS and summary.get("slower_than"):
                yield Comparison(peer, work, size, int(length), summary["slower_than"][counterpart(peer)])


def counterpart(peer: str) -> str:
    """tokenmem's `Store` for a sync peer, its `AsyncStore` for an async one."""
    return OURS[peer_class(peer).asynchronous]


def _every_peer(results: Results) -> Verdict:
    found = list(comparisons(results))
    if not found:
        return Verdict(NOT_MEASURED)
    faster = [each for each in found if each.ratio <= 1]
    text = f"faster in {len(found) - len(faster)} of {len(found)}"
    return Verdict(f"{text}; slower ones below" if faster else text, not faster)


def slower_cells(results: Results) -> list[str]:
    """Where a peer is faster, in words."""
    return [
        f"{peer_class(each.peer).name}, {WORKS[each.work]}, {each.length:,} messages"
        f"{'' if each.size == '250' else ' of mixed lengths'}: {each.ratio:.2f} of tokenmem's time"
        for each in comparisons(results)
        if each.ratio <= 1
    ]


def _langchain(results: Results) -> Verdict:
    ratios = [
        each.ratio
        for each in comparisons(results)
        if (each.peer, each.work, each.size, each.length) == ("LangChainSQL", "window_4000", "250", 10_000)
    ]
    return Verdict(f"{ratios[0]:,.0f}", ratios[0] >= 500) if ratios else Verdict(NOT_MEASURED)


def _processes(results: Results) -> Verdict:
    known = results.part("processes")
    if "throughput" not in known:
        return Verdict(NOT_MEASURED)
    idle = known.get("throughput, no waiting")
    more = f"; {idle['ratio']:.2f} without waiting for the disk" if idle else ""
    return _at_least(known["throughput"]["ratio"], 0.85, more)


def _bulk(results: Results) -> Verdict:
    known = results.part("bulk").get("import")
    if not known:
        return Verdict(NOT_MEASURED)
    return _at_least(known["ratio"], 0.7, f" ({known['messages']:,} messages)")


def _storage(results: Results) -> Verdict:
    sizes = {key: value["bytes"] for key, value in cells(results, "storage").get("sizes", {}).items()}
    if OURS[0] not in sizes:
        return Verdict(NOT_MEASURED)
    ours = sizes.pop(OURS[0])
    if not sizes:
        return Verdict(f"{ours:.0f} bytes")
    least = min(sizes, key=sizes.__getitem__)
    return Verdict(f"{ours:.0f} bytes; the least of the others {sizes[least]:.0f}", ours < sizes[least])


def _imports(results: Results) -> Verdict:
    known = results.part("imports")
    if "from tokenmem import Store" not in known:
        return Verdict(NOT_MEASURED)
    bare, used = known["import tokenmem"], known["from tokenmem import Store"]
    text = f"{bare['seconds'] * 1000:.0f} ms; {used['seconds'] * 1000:.0f} ms when `Store` is first used"
    return Verdict(text, bare["seconds"] <= 0.15)


def _chat(results: Results) -> Verdict:
    known = results.part("chat")
    if "durable" not in known:
        return Verdict(NOT_MEASURED)
    ratios = {name: known[name]["ratios"] for name in ("durable", "quick") if name in known}
    text = "{Chat:.2f}, async {AsyncChat:.2f}".format(**ratios["durable"])
    if "quick" in ratios:
        text += "; {Chat:.2f} and {AsyncChat:.2f} without waiting for the disk".format(**ratios["quick"])
    return Verdict(text, max(ratios["durable"].values()) <= 1.5)


STATEMENT, SCAN = "window statement", "range scan"
BARS = (
    Bar(
        "a window of 4,000 tokens (64 rows) with `to_openai()` over the same statement on the bare driver",
        "≤ 1.5",
        _window_ratio("window_4000", "Store", STATEMENT, 1.5),
    ),
    Bar(
        "a window of 128,000 tokens (2,064 rows) over the same",
        "≤ 1.3",
        _window_ratio("window_128000", "Store", STATEMENT, 1.3),
    ),
    *(
        Bar(
            f"that statement for {tokens} tokens over a range scan whose start is known{unprepared}",
            "≤ 1.3",
            _window_ratio(work, STATEMENT + unprepared, SCAN + unprepared, 1.3),
        )
        for work, tokens in (("window_4000", "4,000"), ("window_128000", "128,000"))
        for unprepared in ("", ", unprepared")
    ),
    Bar("a window in a long conversation over one in a short", "≤ 1.15", _length_ratio),
    Bar(
        "an appended exchange over the bare driver's statement, counting excluded",
        "SQLite ≤ 2.0, PostgreSQL ≤ 1.5",
        _append_ratio,
    ),
    Bar("AsyncStore over Store, the worst of three works", "SQLite ≤ 3, PostgreSQL ≤ 1.6", _async_ratio),
    Bar("every peer, every work, every length", "faster than all", _every_peer),
    Bar("times faster than LangChain's load and trim at 10,000 messages", "≥ 500", _langchain),
    Bar("one hot conversation, 8 processes, over 8 separate ones, by throughput", "≥ 0.85", _processes),
    Bar("bulk import, counting excluded, over COPY or executemany, by throughput", "≥ 0.7", _bulk),
    Bar(
        f"bytes on disk for a message of {CHARACTERS} characters above its text",
        "smaller than every peer",
        _storage,
    ),
    Bar("a turn of Chat around a model that answers at once, over append, window, append", "≤ 1.5", _chat),
    Bar("import of the package", "≤ 150 ms", _imports),
)
