"""Procedures for where conversations stand: make, put away, move, and look at what was forked."""

from __future__ import annotations

from tokenmem.arguments import checked_flag, checked_metadata, checked_name, optional_name
from tokenmem.counting.counters import TokenCounter
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Procedure
from tokenmem.messages.values import JSONObject
from tokenmem.models import Conversation
from tokenmem.operations import lists, organize
from tokenmem.procedures.base import BaseProcedures, resolve_counter


class OrganizingProcedures(BaseProcedures):
    """Procedures for where conversations stand."""

    __slots__ = ()

    def create(
        self,
        conversation_id: str,
        *,
        owner: str | None,
        counter: str | TokenCounter | None,
        title: str | None,
        metadata: JSONObject | None,
        keep: bool,
    ) -> Procedure[Conversation]:
        """Make a conversation without messages."""
        counting = self.counter if counter is None else resolve_counter(counter)
        pending = organize.PendingConversation(
            checked_name(conversation_id, "conversation_id"),
            self.owner_of(owner),
            optional_name(title, "title"),
            checked_metadata(metadata),
            counting.name,
            checked_flag(keep, "keep"),
        )
        return self.write(organize.create, pending)

    def archive(self, conversation_id: str) -> Procedure[Conversation]:
        """Put a conversation away from the lists."""
        return self.write(organize.archive, checked_name(conversation_id, "conversation_id"))

    def restore(self, conversation_id: str) -> Procedure[Conversation]:
        """Put a conversation back into the lists."""
        return self.write(organize.restore, checked_name(conversation_id, "conversation_id"))

    def move(self, conversation_id: str, owner: str | None) -> Procedure[Conversation]:
        """Give a conversation to another owner, or to nobody."""
        checked_name(conversation_id, "conversation_id")
        mine = self.scope.owner
        if mine is not None and owner is None:
            raise InvalidArgument(f"this store is for owner {mine!r}; it cannot act for nobody")
        return self.write(organize.move, conversation_id, self.owner_of(owner))

    def move_owner(self, old: str, new: str) -> Procedure[int]:
        """Give all of an owner's conversations to another, some a transaction; the result is how many."""
        old_owner = self.owner_of(checked_name(old, "old"))
        new_owner = self.owner_of(checked_name(new, "new"))
        if old_owner is None or new_owner is None or old_owner == new_owner:
            return 0
        moved, after, moved_in_pass = 0, "", 0
        while True:
            step = yield from self.write_long(organize.move_owner, old_owner, new_owner, after)
            moved, moved_in_pass = moved + step.moved, moved_in_pass + step.moved
            if step.last_id is not None:
                after = step.last_id
            elif moved_in_pass:  # another process may have made some meanwhile, before where this one was
                after, moved_in_pass = "", 0
            else:
                return moved

    def branches(self, conversation_id: str) -> Procedure[list[Conversation]]:
        """Read the conversations that were forked from one."""
        return self.read(lists.branches, checked_name(conversation_id, "conversation_id"))
