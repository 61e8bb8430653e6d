"""What people see: tables on a terminal, tab-separated lines in a pipe, JSON where it is asked for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

T = TypeVar("T")

# Control characters, line separators and the marks that reverse the direction of text: a terminal obeys
# them, and stored messages are other people's.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # the others JSON escapes by itself
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

LONGEST_SHOWN = 2_000
"""Characters of a cell on a terminal; pipes and JSON get it all."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        number: whether it holds numbers, which stand on the right.
        wide: whether it takes the room that is left and breaks into lines.
    """

    name: str
    number: bool = False
    wide: bool = False


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"tokenmem: {escape(text)}", file=sys.stderr)


def is_terminal() -> bool:
    """Whether a person reads our results as they come."""
    return sys.stdout.isatty()


def escape(text: str, *, keep: str = "") -> str:
    """The text with everything visible that a terminal would obey, except the characters in `keep`."""

    def visible(match: re.Match[str]) -> str:
        character = match[0]
        if character in keep:
            return character
        code = ord(character)
        return _NAMED.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return _UNSAFE.sub(visible, text)


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    text = json.dumps(value, ensure_ascii=False, indent=2, default=_plain)
    print(safe_json(text))


def safe_json(text: str) -> str:
    """JSON text of the same value, without characters that a terminal would obey."""
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} in a result")


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    """Rows under a line of headings."""
    if is_terminal():
        _print_rich_table(columns, rows)
        return
    print(*(column.name for column in columns), sep="\t")
    for row in rows:
        print(*(escape(cell_text(cell, separators=False)) for cell in row), sep="\t")


def _print_rich_table(columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.name,
            justify="right" if column.number else "left",
            overflow="fold",
            no_wrap=column.number,
            ratio=1 if column.wide else None,
        )
    for row in rows:
        # Text, not str: what people wrote is no markup.
        table.add_row(*(Text(_shortened(escape(cell_text(cell), keep="\n\t"))) for cell in row))
    Console(highlight=False).print(table)


def cell_text(cell: object, *, separators: bool = True) -> str:
    """A cell as text: thousands with commas for people, moments to the second, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, datetime):
        return f"{cell:%Y-%m-%d %H:%M:%S}"
    if isinstance(cell, int) and separators:
        return f"{cell:,}"
    return str(cell)


def _shortened(text: str) -> str:
    more = len(text) - LONGEST_SHOWN
    return text if more <= 0 else f"{text[:LONGEST_SHOWN]}… ({more:,} characters more; --json shows them)"


def plural(number: int, noun: str) -> str:
    """A number and its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say_more(options: str) -> None:
    """Tell, beside the result, that there is more, and which options show it."""
    print(f"There are more: {escape(options)}", file=sys.stderr)


def page_of(found: Sequence[T], limit: int, *, newest: bool) -> tuple[list[T], bool]:
    """A page, the oldest first, and whether there is more, of one more than was asked for."""
    page = list(found[:limit])
    if newest:
        page.reverse()
    return page, len(found) > limit
