"""The plots of the page: what a window costs as the conversation grows, a plot an engine."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages.acceptance import cells
from benchmarks.peers import KEYS, OURS, peer_class
from benchmarks.support.databases import ENGINES, NAMES
from benchmarks.support.results import Results, documents

WORK, SIZE = "window_4000", "250"


def write_plots(*, quick: bool) -> None:
    """One file an engine of which there is something to show."""
    for engine in ENGINES:
        if points := _points(Results(engine, quick=quick)):
            _write(documents(quick=quick) / f"performance-{engine}.svg", engine, points)


def _points(results: Results) -> dict[str, list[tuple[int, float]]]:
    found: dict[str, list[tuple[int, float]]] = {}
    for key, cell in cells(results, "peers").items():
        work, size, length = key.split("/")
        if (work, size) == (WORK, SIZE):
            for peer, summary in cell.items():
                if "seconds" in summary:
                    found.setdefault(peer, []).append((int(length), summary["seconds"] * 1000))
    return {peer: sorted(found[peer]) for peer in KEYS if peer in found}


def _write(path: Path, engine: str, points: dict[str, list[tuple[int, float]]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tokenmem"  # the same figures make the same file
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6.5), layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for number, (peer, measured) in enumerate(points.items()):
        kind = peer_class(peer)
        ours = peer in OURS
        axes.plot(
            *zip(*measured, strict=True),
            label=kind.name,
            color="black" if ours else colours[number % len(colours)],
            linewidth=2.5 if ours else 1.3,
            linestyle="--" if kind.asynchronous else "-",
            marker="o",
            markersize=4,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="messages in the conversation",
        ylabel="milliseconds",
        title=f"Loading a window of 4,000 tokens, {NAMES[engine]} (dashed: async)",
    )
    axes.grid(visible=True, which="major", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
