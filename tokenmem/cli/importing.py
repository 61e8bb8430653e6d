"""From files of JSON Lines into a store, line by line: memory does not grow with the file."""

from __future__ import annotations

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import repeat
from typing import Any

from tokenmem.arguments import LONGEST_ID
from tokenmem.cli.group import Failure, describe_os_error
from tokenmem.cli.output import complain, plural
from tokenmem.cli.progress import progress
from tokenmem.errors import (
    ConversationNotFound,
    DatabaseError,
    DatabaseUnavailable,
    IdempotencyConflict,
    InvalidArgument,
    PositionConflict,
    UnknownTokenCounter,
)
from tokenmem.messages.json_lines import ConversationLine, parse_line
from tokenmem.messages.parsing import digest
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended
from tokenmem.store import Store

KEY = "import"
"""The idempotency key of every imported conversation."""

BATCH = 500
"""Lines that are stored together, at most."""

BATCH_MESSAGES = 5_000
"""Messages with which a batch is full: some tens of milliseconds, for which nobody else waits long."""

LONGEST_LIST = 10_000
"""Lines that a result in JSON names; all are counted, and all are named on stderr."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be stored; where a whole file could not be read, the line is None."""

    file: str
    line: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A line whose id other messages had already."""

    file: str
    line: int
    id: str
    new_id: str


@dataclass(slots=True)
class Tally:
    """What an import has done so far.

    Attributes:
        imported: conversations stored, the renamed ones included.
        already_there: conversations that were stored before.
        renamed: conversations stored under a second id.
        bad_lines: lines, or whole files, that could not be stored.
        messages: messages stored.
        tokens: what these cost together.
        renamed_list: the first of them.
        bad_list: the first of them.
    """

    imported: int = 0
    already_there: int = 0
    renamed: int = 0
    bad_lines: int = 0
    messages: int = 0
    tokens: int = 0
    renamed_list: list[Renamed] = field(default_factory=list)
    bad_list: list[BadLine] = field(default_factory=list)

    def add(self, appended: Appended | None) -> None:
        """Count a conversation that is stored; None and a replay were there before."""
        if appended is None or appended.replayed:
            self.already_there += 1
            return
        self.imported += 1
        self.messages += len(appended.positions)
        self.tokens += appended.token_count

    def record(self) -> JSONObject:
        """All of it as JSON."""
        return {
            "imported": self.imported,
            "already_there": self.already_there,
            "renamed": self.renamed,
            "bad_lines": self.bad_lines,
            "messages": self.messages,
            "tokens": self.tokens,
            "renamed_list": [asdict(each) for each in self.renamed_list],
            "bad_list": [asdict(each) for each in self.bad_list],
        }

    def summary(self) -> str:
        """All of it for people."""
        stored = plural(self.imported, "conversation")
        renamed = f" ({self.renamed:,} under a second id)" if self.renamed else ""
        return (
            f"imported {stored}{renamed}: {plural(self.messages, 'message')}, "
            f"{plural(self.tokens, 'token')}\n"
            f"{self.already_there:,} already there, {plural(self.bad_lines, 'bad line')}"
        )


class Importer:
    """Imports files into a store and keeps the tally.

    Args:
        store: where to.
        owner: of lines that name none.
        counter: of all lines; None leaves it to each line, and to the store where a line names none.
    """

    def __init__(self, store: Store, owner: str | None, counter: str | None) -> None:
        self.store = store
        self.owner = owner
        self.counter = counter
        self.tally = Tally()
        self._batch: list[tuple[int, ConversationLine | InvalidArgument]] = []
        self._messages = 0

    def import_file(self, name: str) -> None:
        """Import all lines of a file that can be; a file that cannot be read is told like a bad line."""
        number = 0
        try:
            with _opened(name) as source, progress(source.name, source.size, in_bytes=True) as report:
                if (kind := source.kind_of_no_text()) is not None:
                    self._bad(name, None, f"{kind}; give the file of JSON Lines that is in it, or made of it")
                    return
                for number, line in source.lines():
                    self._import_line(source.name, number, line)
                    report(source.position(), plural(self.tally.imported, "conversation"))
                self._store_batch(source.name)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self._store_batch(name)
            self._bad(name, number + 1, "the compressed file is damaged from here on; get it anew")
        except OSError as error:
            self._store_batch(name)
            self._bad(name, None, describe_os_error(error).removeprefix(f"{name}: "))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted at {name} line {number}; run the same command again to go on"
            ) from None

    def _import_line(self, name: str, number: int, text: bytes) -> None:
        try:
            line = parse_line(text)
            self._messages += len(line.messages)
            self._batch.append((number, line))
        except InvalidArgument as error:
            self._batch.append((number, error))  # told when its turn comes: in the order of the lines
        if self._messages >= BATCH_MESSAGES or len(self._batch) >= BATCH:
            self._store_batch(name)

    def _store_batch(self, name: str) -> None:
        """Store lines together where their ids are new, and one by one what cannot be stored so."""
        batch, self._batch, self._messages = self._batch, [], 0
        good = [line for _, line in batch if isinstance(line, ConversationLine)]
        outcomes: Iterable[Appended | None] = repeat(None)
        with suppress(InvalidArgument, UnknownTokenCounter, DatabaseError):  # told again, and of which line
            outcomes = self.store.import_conversations(
                good, owner=self.owner, counter=self.counter, idempotency_key=KEY
            )
        stored = iter(outcomes)
        for number, line in batch:
            if isinstance(line, InvalidArgument):
                self._bad(name, number, str(line))
            elif appended := next(stored):
                self.tally.add(appended)
            else:
                self._store_line(name, number, line)

    def _store_line(self, name: str, number: int, line: ConversationLine) -> None:
        try:
            stored_id, appended = self._store(line)
        except DatabaseUnavailable as error:
            raise Failure(f"{name} line {number}: {error}; run the same command again to go on") from None
        except (InvalidArgument, UnknownTokenCounter, DatabaseError) as error:
            self._bad(name, number, str(error))
            return
        self.tally.add(appended)
        if stored_id != line.id and appended is not None and not appended.replayed:
            self._renamed(Renamed(name, number, line.id, stored_id))

    def _store(self, line: ConversationLine) -> tuple[str, Appended | None]:
        """Store a line under its id or, where that is taken, its second; None where it is there already."""
        for conversation_id in _ids(line):
            if line.is_export:
                (stored,) = self.store.import_conversations(
                    [replace(line, id=conversation_id)],
                    owner=self.owner,
                    counter=self.counter,
                    idempotency_key=KEY,
                )
                if stored is not None or not line.messages:
                    return conversation_id, stored
            try:
                return conversation_id, self.store.append(
                    conversation_id,
                    line.messages,
                    owner=self.owner if line.owner is None else line.owner,
                    idempotency_key=KEY,
                    expected_position=0,
                    counter=self.counter or line.token_counter,
                    title=line.title,
                    metadata=line.metadata or None,
                )
            except ConversationNotFound:  # it is another owner's
                continue
            except (IdempotencyConflict, PositionConflict):
                if self._holds(conversation_id, line):
                    return conversation_id, None
        raise InvalidArgument(f"the id {line.id!r} is taken, and its second id too; give it another")

    def _holds(self, conversation_id: str, line: ConversationLine) -> bool:
        """Whether the conversation has the line's messages, however they came there."""
        try:
            stored = self.store.messages(conversation_id, limit=len(line.messages) + 1)
        except ConversationNotFound:  # removed meanwhile
            return False
        return digest(stored) == digest(line.messages)

    def _bad(self, name: str, number: int | None, reason: str) -> None:
        self.tally.bad_lines += 1
        if len(self.tally.bad_list) < LONGEST_LIST:
            self.tally.bad_list.append(BadLine(name, number, reason))
        complain(f"{name} line {number}: {reason}" if number else f"{name}: {reason}")

    def _renamed(self, renamed: Renamed) -> None:
        self.tally.renamed += 1
        if len(self.tally.renamed_list) < LONGEST_LIST:
            self.tally.renamed_list.append(renamed)
        complain(
            f"{renamed.file} line {renamed.line}: the id {renamed.id!r} is taken by other messages; "
            f"stored as {renamed.new_id!r}"
        )


def _ids(line: ConversationLine) -> Iterator[str]:
    """The line's own id, and the one for where that is taken: the same for the same messages, always."""
    yield line.id
    mark = f"#{digest(line.messages)[:8]}"
    yield line.id[: LONGEST_ID - len(mark)] + mark


_NO_TEXT = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x1f\x8b": "compressed twice",
    b"SQLite format 3\x00": "a SQLite database",
    b"PAR1": "a Parquet file",
    b"%PDF-": "a PDF",
    b"\xff\xfe": "text in UTF-16, not UTF-8",
    b"\xfe\xff": "text in UTF-16, not UTF-8",
}
"""Files that are taken for exports, by how they begin."""
_LONGEST_MARK = max(map(len, _NO_TEXT))


@dataclass(frozen=True, slots=True)
class _Source:
    """An open file: `outer` as it lies there, `inner` decompressed."""

    name: str
    outer: io.BufferedReader
    inner: io.BufferedIOBase
    size: int | None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Lines that are not blank, with their numbers."""
        for number, line in enumerate(self.inner, 1):
            text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
            if text.strip():
                yield number, text

    def kind_of_no_text(self) -> str | None:
        """What it is, by its first bytes, where it is no text."""
        readable: Any = self.inner  # of two kinds, which both can peek, though their common type cannot
        beginning = readable.peek(_LONGEST_MARK)
        return next((kind for mark, kind in _NO_TEXT.items() if beginning.startswith(mark)), None)

    def position(self) -> int:
        """How many of `size` bytes are read."""
        return 0 if self.size is None else self.outer.tell()


@contextmanager
def _opened(name: str) -> Iterator[_Source]:
    if name == _STANDARD_INPUT:
        standard: Any = sys.stdin.buffer  # which reads bytes, but is declared to be of no type that does
        outer = io.BufferedReader(standard)
        try:
            yield _Source("<stdin>", outer, _decompressed(outer), None)
        finally:
            outer.detach()
        return
    with open(name, "rb") as file:
        status = os.fstat(file.fileno())
        yield _Source(name, file, _decompressed(file), status.st_size or None)


def _decompressed(file: io.BufferedReader) -> io.BufferedIOBase:
    if file.peek(2)[:2] == _GZIP:
        return gzip.GzipFile(fileobj=file)
    return file
