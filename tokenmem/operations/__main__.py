"""Prints every statement as psql or sqlite3 takes it: `python -m tokenmem.operations [postgresql | sqlite]`.

Parameters stay as `:name`; `\\set name value` in psql and `.parameter set :name value` in sqlite3 set them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from tokenmem import operations
from tokenmem.database.schema import DEFAULT_SCHEMA
from tokenmem.database.statements import Statement, as_sql
from tokenmem.operations import append, end_call, record_call, snapshot, start_call, together

DIALECTS = ("postgresql", "sqlite")


def statements(dialect: str) -> Iterator[tuple[str, str]]:
    """Each statement's place in the code, `module.name`, and its text as this engine takes it."""
    schema = DEFAULT_SCHEMA if dialect == "postgresql" else None
    for found in iter_modules(operations.__path__):
        if found.name == "__main__":
            continue
        module = import_module(f"{operations.__name__}.{found.name}")
        for name, value in vars(module).items():
            for label, statement in _named(name, value, dialect):
                text = as_sql(statement.text, dialect, schema).strip()
                if "?" not in text and not text.startswith("COPY"):  # those only a driver can be given
                    yield f"{found.name}.{label}", text
    for place, statement in _built(dialect):
        yield place, as_sql(statement.text, dialect, schema).strip()


def _built(dialect: str) -> Iterator[tuple[str, Statement]]:
    """Statements that are put together when they are needed, as they are for one message with a key."""
    yield "snapshot.take", snapshot.statement_up_to(key=False)
    yield "snapshot.take, with a key", snapshot.statement_up_to(key=True)
    if dialect == "postgresql":
        yield "append.append", together.as_one(append.TAKE_ANY, 1, (append.STORE_KEY,), "")
        yield "start_call.start", together.as_one(start_call.TAKE_UNCHANGED, 1, start_call.CHANGES, "")
        yield "end_call.end", together.as_one(end_call.TAKE_IF_OPEN, 1, end_call.CHANGES, end_call.OPEN)
        recorded = (start_call.KEEP_PROMPT, record_call.RECORD[dialect])
        yield "record_call.record_call", together.as_one(record_call.TAKE, 0, recorded, "")
        return
    for name, take in (
        ("append.append", append.TAKE_ANY),
        ("start_call.start", start_call.TAKE_UNCHANGED),
        ("record_call.record_call", record_call.TAKE),
    ):
        yield f"{name}, the conversation", Statement(take)
    changes = (*start_call.CHANGES, *end_call.CHANGES, record_call.RECORD[dialect])
    for change in (append.STORE_KEY, *changes):
        yield f"{change.name}, where the conversation has been taken", together.with_taken_given(change.text)


def _named(name: str, value: object, dialect: str) -> Iterator[tuple[str, Statement]]:
    if isinstance(value, Statement):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, Statement) and (key == dialect or key not in DIALECTS):
                yield f"{name}[{key!r:.40}]", inner
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if isinstance(inner, Statement):
                yield f"{name}[{number}]", inner


def main() -> None:
    """Print them."""
    dialect = sys.argv[1] if len(sys.argv) > 1 else "postgresql"
    if dialect not in DIALECTS:
        raise SystemExit(f"{dialect!r} is no engine; name postgresql or sqlite")
    for place, text in statements(dialect):
        print(f"-- {place}\n{text};\n")


if __name__ == "__main__":
    main()
