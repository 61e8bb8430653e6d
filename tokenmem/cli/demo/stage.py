"""How the demo is shown: in colour on a terminal, in plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tokenmem.cli.output import is_terminal

LABEL_WIDTH = 9

_COLORS = {
    "Human": "cyan",
    "AI": "green",
    "call": "magenta",
    "tool": "magenta",
    "sent": "bold",
    "fell out": "yellow",
}
_CELL_COLORS = {"in": "green", "out": "bright_black", "pinned": "yellow"}
_CELLS = {"in": "■", "out": "·", "pinned": "◆"}
_PLAIN_CELLS = {"in": "#", "out": ".", "pinned": "P"}


class Stage:
    """Prints the demo's lines."""

    def __init__(self) -> None:
        self._colored = is_terminal()
        self._cells = _CELLS if _can_print("".join(_CELLS.values())) else _PLAIN_CELLS
        if self._colored:
            from rich.console import Console

            self._console = Console(highlight=False)

    def heading(self, text: str, note: str = "") -> None:
        """A line that begins something new, with an empty one before it."""
        if not self._colored:
            print(f"\n{text}: {note}" if note else f"\n{text}")
            return
        from rich.text import Text

        self._console.print(
            Text.assemble("\n", (text, "bold"), (f": {note}" if note else "", "bright_black"))
        )

    def line(self, label: str, text: str) -> None:
        """A label and what belongs to it."""
        if not self._colored:
            print(f"  {label:<{LABEL_WIDTH}} {text}")
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=LABEL_WIDTH + 2)
        grid.add_column()
        color = _COLORS.get(label, "")
        grid.add_row(Text(f"  {label}", color), Text(text, "" if label in ("Human", "AI") else color))
        self._console.print(grid)

    def strip(self, label: str, cells: Sequence[str], text: str) -> None:
        """A drawing of the conversation, one cell a message, and what is to say of it."""
        drawn = "".join(self._cells[cell] for cell in cells)
        if not self._colored:
            print(f"  {label:<{LABEL_WIDTH}} {drawn}  {text}")
            return
        from rich.text import Text

        shown = Text(f"  {label:<{LABEL_WIDTH}} ", _COLORS.get(label, ""))
        for cell in cells:
            shown.append(self._cells[cell], _CELL_COLORS[cell])
        self._console.print(shown.append(f"  {text}"))

    def legend(self) -> str:
        """What the cells mean."""
        return f"{self._cells['in']} sent  {self._cells['out']} left out  {self._cells['pinned']} pinned"

    def command(self, text: str) -> None:
        """A command to copy: never broken into lines, whatever the terminal's width."""
        if not self._colored:
            print(f"  {text}")
            return
        from rich.text import Text

        self._console.print(Text(f"  {text}", "bold cyan"), soft_wrap=True)

    def rows(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A query's rows, aligned."""
        table = [list(header), *([_cell(value) for value in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for number, row in enumerate(table):
            padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            text = "  ".join(padded).rstrip()
            if not self._colored:
                print(f"    {text}")
                continue
            from rich.text import Text

            style = "bold" if number == 0 else "bright_black"
            self._console.print(Text(f"    {text}", style), no_wrap=True, overflow="ellipsis", crop=True)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
