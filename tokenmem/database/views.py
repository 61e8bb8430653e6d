"""The texts of the views, by revision and engine, from `migrations/views`.

`message_log/0001.sql` is the view `message_log` as the revision `tokenmem_0001` leaves it, and it stays so
until a later revision has a file of its own beside it; an empty file ends the view. `shared/` holds in the
same way the pieces that several views include. A view reads tables only, no other view.

A file is SQL with names in braces. `{messages}` is that table (or view) in its schema; `{calls_of_message}`
is the piece of that name; the others are what the engines write differently, see `POSTGRESQL` and `SQLITE`.
Its first line is the view's comment.

Revisions that databases have been made with rely on these words: add some, never change one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_WORD = re.compile(r"\{([a-z_]+)(?:\(([^{}]*)\))?\}")
_VIEW = re.compile(r"CREATE VIEW \S+ \(([^()]*)\) AS\n")
_COMMENT_LINES = re.compile(r"\A(?:--.*\n)+")


def _postgresql_json(document: str, path: str) -> str:
    return " -> ".join([document, *(f"'{key}'" for key in path.split("."))])


def _postgresql_text(document: str, path: str) -> str:
    *parents, last = (f"'{key}'" for key in path.split("."))
    return f"({' -> '.join([document, *parents])} ->> {last})"


def _sqlite_text(document: str, path: str) -> str:
    place = f"'$.{path}'"
    return (
        f"CASE json_type({document}, {place}) WHEN 'text' THEN {document} ->> {place} "
        f"WHEN 'null' THEN NULL ELSE {document} -> {place} END"
    )


def _first_of(text_at: Callable[[str, str], str]) -> Callable[..., str]:
    def first(document: str, *paths: str) -> str:
        texts = [text_at(document, path) for path in paths]
        return texts[0] if len(texts) == 1 else f"COALESCE({', '.join(texts)})"

    return first


Words = Mapping[str, str | Callable[..., str]]

POSTGRESQL: Words = {
    # What stands at a path of a JSON document: as JSON, its type, and as text: a string's own, else its JSON,
    # null as NULL; of several paths the first at which something stands.
    "json_at": _postgresql_json,
    "json_type_at": lambda document, path: f"json_typeof({_postgresql_json(document, path)})",
    "text_at": _first_of(_postgresql_text),
    # JSON made of JSON.
    "as_json": "",
    "json_array": "json_build_array",
    "json_object": "json_build_object",
    # `{json_elements}(array) {as_listed}` in FROM: a row an element, with its number from 1.
    "json_elements": "json_array_elements",
    "as_listed": "WITH ORDINALITY AS listed (item, number)",
    "item": "listed.item",
    "number": "listed.number",
    # `{json_numbers}(array)` in FROM: a row for each number in it, none where it is NULL.
    "json_numbers": lambda array: f"json_array_elements_text({array}) AS listed (value)",
    "listed_number": "CAST(listed.value AS bigint)",
    # The lines of a group; on SQLite as the query below has them, so in the same order.
    "join_lines": lambda line, *order: f"string_agg({line}, E'\\n' ORDER BY {', '.join(order)})",
    "true": "true",
    "day": lambda time: f"CAST({time} AT TIME ZONE 'UTC' AS date)",
    "seconds_ago": lambda seconds: f"statement_timestamp() - interval '{seconds} seconds'",
}

SQLITE: Words = {
    "json_at": lambda document, path: f"{document} -> '$.{path}'",
    "json_type_at": lambda document, path: f"json_type({document}, '$.{path}')",
    "text_at": _first_of(_sqlite_text),
    "as_json": "json",  # tells the functions around it that a text is JSON
    "json_array": "json_array",
    "json_object": "json_object",
    "json_elements": "json_each",
    "as_listed": "AS listed",
    # An element that is plain text stands in `value` without its quotes, so it is no JSON there.
    "item": "(CASE listed.type WHEN 'object' THEN listed.value END)",
    "number": "(listed.key + 1)",
    "json_numbers": lambda array: f"json_each({array}) AS listed",
    "listed_number": "listed.value",
    "join_lines": lambda line, *_order: f"group_concat({line}, char(10))",
    "true": "1",
    "day": lambda time: f"substr({time}, 1, 10)",
    "seconds_ago": lambda seconds: f"strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{seconds} seconds')",
}


@dataclass(frozen=True, slots=True)
class View:
    """A view as one engine creates it.

    Attributes:
        comment: what its rows are.
        columns: their names, in order.
        statement: its CREATE VIEW.
    """

    comment: str
    columns: tuple[str, ...]
    statement: str


def views_at(directory: Path, number: int, dialect: str, schema: str | None) -> dict[str, View]:
    """Every view that is there at the revision of this number, by name; none at 0.

    Args:
        directory: where the views' files are, `migrations/views`.
    """
    pieces = {name: _COMMENT_LINES.sub("", text) for name, text in _texts(directory / "shared", number)}
    prefix = f"{schema}." if schema else ""
    words = pieces | dict(POSTGRESQL if dialect == "postgresql" else SQLITE)
    return {
        name: _view(_render(text, words, prefix))
        for name, text in _texts(directory, number)
        if name != "shared"
    }


def _texts(directory: Path, number: int) -> list[tuple[str, str]]:
    """The newest text of each name up to a revision, without those that have ended."""
    texts = []
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        files = {int(file.stem): file for file in folder.glob("*.sql") if int(file.stem) <= number}
        if files and (text := files[max(files)].read_text(encoding="utf-8").strip()):
            texts.append((folder.name, text))
    return texts


def _render(text: str, words: Words, prefix: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        name, arguments = match[1], match[2]
        word = words.get(name, prefix + name)
        if isinstance(word, str):
            return word
        return word(*(argument.strip() for argument in arguments.split(",")))

    while _WORD.search(text):  # from the inside out: a word may be another's argument, or come with a piece
        text = _WORD.sub(replaced, text)
    return text


def _view(text: str) -> View:
    comment, _, statement = text.partition("\n")
    declared = _VIEW.match(statement)
    if not comment.startswith("-- ") or declared is None:
        raise ValueError(f"a view begins with its comment and CREATE VIEW name (columns) AS, not {text:.80}")
    columns = tuple(column.strip() for column in declared[1].split(","))
    return View(comment.removeprefix("-- "), columns, statement)
