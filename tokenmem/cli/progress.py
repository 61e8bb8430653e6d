"""A progress bar on stderr, where a terminal is there to show it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[int, str], None]
"""Takes how far the work is, and a few words beside the bar."""


@contextmanager
def progress(label: str, total: int | None, *, in_bytes: bool = False) -> Iterator[Report]:
    """A bar that goes when the block ends.

    Args:
        label: what is being done.
        total: where it ends, None where nobody knows.
        in_bytes: whether that is a number of bytes.
    """
    if not sys.stderr.isatty():
        yield lambda _done, _note: None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    counted = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        counted,
        Remaining(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(label), total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=escape(note))
