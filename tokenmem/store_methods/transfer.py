"""Store's methods that move whole conversations: as lines of JSON, out and in."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

from tokenmem.arguments import checked_name
from tokenmem.counting.counters import TokenCounter
from tokenmem.errors import ConversationNotFound, InvalidArgument
from tokenmem.execution.effects import Work
from tokenmem.execution.moments import at_one_moment
from tokenmem.execution.runners import Execution, advance
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.models import Appended
from tokenmem.procedures import Procedures
from tokenmem.store_methods.base import BaseMethods


@dataclass(slots=True)
class Tally:
    """What an export has written so far: whole conversations, and their messages."""

    conversations: int = 0
    messages: int = 0


class TransferMethods(BaseMethods):
    """Store's methods for conversations that come from elsewhere, or go there."""

    def export(
        self, *, owner: str | None = None, ids: Iterable[str] | None = None, pieces: bool = False
    ) -> Iterator[str]:
        """Conversations as JSON Lines, one a line, its newline included: whatever is stored of each.

        Archived conversations and those without messages too. `tokenmem.messages.parse_line` reads a line,
        and `import_conversations` stores it. Each line shows its conversation as it is at one moment; what
        is made or removed meanwhile is in the export or not.

        Args:
            owner: only this owner's conversations.
            ids: these conversations, in place of all, in this order.
            pieces: give long lines in pieces, so that no more than a page of messages is in memory, and only
                the text of all of them together is JSON Lines. While a line's pieces are taken, a connection
                is held.

        Raises:
            ConversationNotFound: one of the ids is of no conversation, or of another owner's.
            InvalidArgument: an argument is wrong.
        """
        procedures = scoped(self._procedures, owner)
        names = checked_ids(ids)
        return self._export(procedures, names, Tally()) if pieces else self._lines(procedures, names)

    def _export(
        self, procedures: Procedures, ids: list[str] | None, tally: Tally
    ) -> Generator[str, None, None]:
        """The pieces of all lines."""
        for conversation_id in self._ids(procedures) if ids is None else ids:
            try:
                yield from self._line(procedures, conversation_id, tally)
            except ConversationNotFound:
                if ids is not None:
                    raise  # else it has been removed meanwhile

    def _lines(self, procedures: Procedures, ids: list[str] | None) -> Iterator[str]:
        """All lines, each whole; no connection is held while somebody looks at one."""
        for conversation_id in self._ids(procedures) if ids is None else ids:
            try:
                line = "".join(self._line(procedures, conversation_id, Tally()))
            except ConversationNotFound:
                if ids is not None:
                    raise
                continue
            yield line

    def _line(self, procedures: Procedures, conversation_id: str, tally: Tally) -> Iterator[str]:
        with at_one_moment(self._runner) as runner:
            execution: Execution[Work, int] = Execution(procedures.export_line(conversation_id))
            while (piece := advance(execution, runner)) is not None:
                yield piece.text
        tally.conversations += 1
        tally.messages += execution.result

    def _ids(self, procedures: Procedures) -> Iterator[str]:
        after = ""
        while found := self._run(procedures.exported_ids(after)):
            yield from found
            after = found[-1]

    def import_conversations(
        self,
        conversations: Iterable[ConversationLine],
        *,
        owner: str | None = None,
        counter: str | TokenCounter | None = None,
        idempotency_key: str | None = None,
    ) -> list[Appended | None]:
        """Store whole conversations whose ids are new, all of them or, after an error, none.

        In one transaction, and several times as fast a message as `append`; some thousand messages at a time
        are a good measure. `tokenmem.messages.parse_line` makes conversations of lines of JSON. What `export`
        has written comes back with its positions, times, archive, versions and calls; only token counts are
        made anew.

        Args:
            conversations: what to store.
            owner: of those that name none.
            counter: of all of them, in place of what each names, or the store's.
            idempotency_key: the key of each: an `append` of the same messages with it stores nothing again.

        Returns:
            For each what was stored, or None where the id is taken.

        Raises:
            InvalidMessage: a message cannot be stored; nothing was written.
            InvalidArgument: another argument is wrong; nothing was written.
            UnknownTokenCounter: no counter has a name that one of them gives.
        """
        return self._run(
            self._procedures.import_conversations(conversations, owner, counter, idempotency_key)
        )


def export_pieces(store: TransferMethods, ids: list[str] | None, tally: Tally) -> Generator[str, None, None]:
    """What `export(pieces=True)` gives, with a tally that is kept meanwhile."""
    return store._export(store._procedures, ids, tally)


def scoped(procedures: Procedures, owner: str | None) -> Procedures:
    """The procedures of one owner's conversations; as they are without one."""
    return procedures if owner is None else procedures.for_owner(owner)


def checked_ids(ids: Iterable[str] | None) -> list[str] | None:
    """Ids of conversations.

    Raises:
        InvalidArgument: they are none.
    """
    if ids is None:
        return None
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidArgument(f"ids is a {type(ids).__name__}; pass a list of conversations' ids")
    return [checked_name(each, f"ids[{index}]") for index, each in enumerate(ids)]
