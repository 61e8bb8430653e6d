"""Procedures that move whole conversations: exported as lines of JSON, imported from such."""

from __future__ import annotations

from collections.abc import Iterable

from tokenmem.arguments import checked_metadata, checked_name, optional_name
from tokenmem.counting.counters import TokenCounter
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Deliver, Procedure, count
from tokenmem.messages.json_lines import ConversationLine, check_line, head_of
from tokenmem.messages.line_records import RECORDS
from tokenmem.messages.line_writing import LineWriter
from tokenmem.messages.parsing import digest, parse_messages
from tokenmem.messages.values import dump_json
from tokenmem.models import Appended
from tokenmem.operations import append, bulk_create, export
from tokenmem.procedures.base import BaseProcedures, resolve_counter


class TransferProcedures(BaseProcedures):
    """Procedures for conversations that come from elsewhere, or go there."""

    __slots__ = ()

    def exported_ids(self, after: str) -> Procedure[list[str]]:
        """The ids of the next conversations to export."""
        return self.read(export.next_ids, after)

    def export_line(self, conversation_id: str) -> Procedure[int]:
        """Deliver a conversation's line in pieces, its newline too; the result is how many messages."""
        found = yield from self.read(export.conversation, conversation_id)
        writer = LineWriter(numbered=True)
        yield Deliver(writer.head(head_of(found.line)))
        last = 0
        while page := (yield from self.read(export.messages, conversation_id, last, found.last_position)):
            yield Deliver(writer.page(page))
            last = page[-1].position
        yield Deliver("]")
        for name in writer.beside():
            yield from self._export_beside(conversation_id, name, writer, last)
        for piece in writer.lists():
            yield Deliver(piece)
        if last < found.last_position:
            yield Deliver(f',"last_position":{found.last_position}')
        last_call = 0
        for name in RECORDS:
            newest = yield from self._export_records(conversation_id, name)
            last_call = newest if name == "calls" else last_call
        if last_call < found.last_call:
            yield Deliver(f',"last_call":{found.last_call}')
        yield Deliver(writer.end(is_export=True) + "\n")
        return writer.count

    def _export_beside(
        self, conversation_id: str, name: str, writer: LineWriter, last: int
    ) -> Procedure[None]:
        """One of the objects beside the messages, by one more walk through these."""
        yield Deliver(f',"{name}":{{')
        after, held = 0, ""
        while page := (yield from self.read(export.messages, conversation_id, after, last)):
            if entries := writer.entries(name, page):
                yield Deliver(held + entries[:-1])
                held = ","
            after = page[-1].position
        yield Deliver("}")

    def _export_records(self, conversation_id: str, name: str) -> Procedure[int]:
        """One of the lists; the result is the number of its last row, where rows are numbered."""
        newest = None
        while page := (
            yield from self.read(export.records, conversation_id, name, export.key_of(name, newest))
        ):
            opening = "," if newest else f',"{name}":['
            yield Deliver(opening + ",".join(map(dump_json, page)))
            newest = page[-1]
        if newest is None:
            return 0
        yield Deliver("]")
        return int(newest.get("number", 0))

    def import_conversations(
        self,
        conversations: Iterable[ConversationLine],
        owner: str | None,
        counter: str | TokenCounter | None,
        idempotency_key: str | None,
    ) -> Procedure[list[Appended | None]]:
        """Check, count and store whole conversations whose ids are new."""
        key = optional_name(idempotency_key, "idempotency_key")
        new = []
        if not isinstance(conversations, Iterable):
            raise InvalidArgument(f"conversations is a {type(conversations).__name__}; pass a list of them")
        for each in conversations:
            if not isinstance(each, ConversationLine):
                raise InvalidArgument(
                    f"a conversation is a {type(each).__name__}; "
                    f"pass what tokenmem.messages.parse_line returns"
                )
            check_line(each)
            parsed = parse_messages(each.messages, self.unstorable) if each.messages else []
            named = counter or each.token_counter
            if named is None or named == self.counter.name:  # which may be an object that no name finds
                counting = self.counter
            else:
                counting = resolve_counter(named)
            counts = yield from count(counting, parsed)
            new.append(
                append.PendingAppend(
                    checked_name(each.id, "id"),
                    parsed,
                    counts,
                    counting.name,
                    owner=self.owner_of(owner if each.owner is None else each.owner),
                    title=optional_name(each.title, "title"),
                    metadata=checked_metadata(each.metadata or None),
                    key=key,
                    digest=digest(parsed) if key else "",
                    line=each if each.is_export else None,
                )
            )
        return (yield from self.write_long(bulk_create.bulk_create, new))
