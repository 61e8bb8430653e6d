"""Procedures for conversations as a whole: look at, copy and remove them."""

from __future__ import annotations

from tokenmem.arguments import (
    KEEP,
    ORDERS,
    Keep,
    checked_choice,
    checked_flag,
    checked_metadata,
    checked_name,
    optional_flag,
    optional_name,
    optional_number,
)
from tokenmem.cursors import Cursor
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Procedure
from tokenmem.messages.values import JSONObject
from tokenmem.models import Conversation, Problem
from tokenmem.operations import change, lists, verify
from tokenmem.operations.rows import read_conversation
from tokenmem.procedures.base import BaseProcedures


class ConversationProcedures(BaseProcedures):
    """Procedures for conversations as a whole."""

    __slots__ = ()

    def conversation(self, conversation_id: str) -> Procedure[Conversation]:
        """Read the conversation's own row."""
        return self.read(read_conversation, checked_name(conversation_id, "conversation_id"))

    def conversations(
        self,
        owner: str | None,
        order: str,
        after: str | None,
        before: Conversation | str | None,
        prefix: str | None,
        archived: bool | None,
        limit: int | None,
    ) -> Procedure[list[Conversation]]:
        """Read a page of conversations."""
        scoped = self if owner is None else self.for_owner(owner)
        selection = lists.Selection(
            optional_name(prefix or None, "prefix") or "",
            optional_flag(archived, "archived"),
            optional_number(limit, "limit", least=1),
        )
        if checked_choice(order, "order", ORDERS) == "recent":
            return scoped.read(lists.newest_first, selection, _cursor_of(before, selection, after))
        if before is not None:
            raise InvalidArgument("before is for order='recent'; page by ids with after")
        return scoped.read(lists.by_id, selection, optional_name(after, "after"))

    def update(
        self,
        conversation_id: str,
        title: str | Keep | None,
        metadata: JSONObject | Keep | None,
        merge: bool,
        keep: bool | None,
    ) -> Procedure[Conversation]:
        """Set the conversation's title, its metadata, whether purges pass it by, or several of these."""
        if checked_flag(merge, "merge") and (metadata is KEEP or metadata is None):
            raise InvalidArgument("merge=True without metadata; pass the keys to set as metadata")
        return self.write(
            change.update,
            checked_name(conversation_id, "conversation_id"),
            KEEP if title is KEEP else optional_name(title, "title"),
            KEEP if metadata is KEEP else checked_metadata(metadata) or {},
            merge,
            optional_flag(keep, "keep"),
        )

    def fork(self, conversation_id: str, new_id: str, at: int | None) -> Procedure[Conversation]:
        """Copy a conversation up to a position under a new id."""
        return self.write(
            change.fork,
            checked_name(conversation_id, "conversation_id"),
            checked_name(new_id, "new_id"),
            optional_number(at, "at"),
        )

    def delete(self, conversation_id: str) -> Procedure[None]:
        """Remove a conversation and all that belongs to it."""
        return self.write(change.delete, checked_name(conversation_id, "conversation_id"))

    def verify(self) -> Procedure[list[Problem]]:
        """Find every place where stored totals, counts and positions do not agree."""
        return self.read_long(verify.verify)


def _cursor_of(
    before: Conversation | str | None, selection: lists.Selection, after: str | None
) -> Cursor | None:
    """Where a page by recency begins; the arguments that go with that order are checked.

    Raises:
        InvalidArgument: an argument is for the order by ids, or the cursor is of another list.
    """
    if after is not None:
        raise InvalidArgument("after is for order='id'; page by recency with before, a conversation's cursor")
    if selection.archived is None:
        raise InvalidArgument(
            "archived=None has no order by recency, since the archive is ordered by when each was put there; "
            "list archived=False and archived=True apart, or both with order='id'"
        )
    if before is None:
        return None
    text = before.cursor if isinstance(before, Conversation) else before
    if not isinstance(text, str):
        raise InvalidArgument(f"before is a {type(text).__name__}; pass a Conversation or its cursor")
    cursor = Cursor.parse(text)
    if cursor.archived != selection.archived:
        raise InvalidArgument(
            f"before is a cursor of the list with archived={cursor.archived}; "
            f"pass one of the list with archived={selection.archived}"
        )
    return cursor
