"""The plot of docs/prompt-cache.md: what is repeated, and how full windows are, against the stride."""

from __future__ import annotations

from benchmarks.cache.tally import BAR_FULLNESS, BAR_REPEATED, LIMITS, PARTS_OF_LIMIT, Figures, Tally
from benchmarks.support.results import Results, documents

PLOT = "prompt-cache.svg"
PANELS = {
    "sent_before": ("prompt tokens that the call before had sent", BAR_REPEATED),
    "full": ("how full the window is", BAR_FULLNESS),
}


def write_plot(results: Results) -> None:
    """One panel a figure, one line a limit; the black mark is the bar."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tokenmem"  # the same figures make the same file
    import matplotlib.pyplot as plt

    curves = _curves(Figures(results))
    figure, both = plt.subplots(1, len(PANELS), figsize=(9, 4.6), layout="constrained", sharey=True)
    figure.suptitle("Agents' logs, once the conversation exceeds the limit")
    strides = ["slides", *(f"1/{part}" for part in PARTS_OF_LIMIT if part)]
    for axes, (share, (title, bar)) in zip(both, PANELS.items(), strict=True):
        for limit, tallies in curves.items():
            shares = [100 * getattr(tally, share) for tally in tallies]
            axes.plot(strides, shares, label=f"{limit:,} tokens", marker="o", markersize=4)
        axes.plot(
            strides.index("1/8"), 100 * bar, "k_", markersize=22, markeredgewidth=2, label="bar for 16,000"
        )
        axes.set(title=title, xlabel="stride, as a part of the limit", ylim=(0, 102))
        axes.grid(visible=True, alpha=0.3)
    both[0].set_ylabel("%")
    handles, labels = both[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(documents(quick=False) / PLOT, metadata={"Date": None})
    plt.close(figure)


def _curves(figures: Figures) -> dict[int, list[Tally]]:
    return {
        limit: [figures.tally(figures.agents, limit, part) for part in PARTS_OF_LIMIT] for limit in LIMITS
    }
