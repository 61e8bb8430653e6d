"""What each public method does, written once for sync and async.

A procedure is a generator. It yields what has to be waited for, gets the answer sent in, and returns the
result; it does no I/O. Store and AsyncStore run the same procedures, each in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenmem.database import migrate
from tokenmem.database.engine import use_write_ahead_log
from tokenmem.execution.effects import Procedure, Read, Write, perform, with_retries
from tokenmem.procedures.base import checked_unstorable, resolve_counter
from tokenmem.procedures.calls import CallProcedures
from tokenmem.procedures.changing import ChangingProcedures
from tokenmem.procedures.conversations import ConversationProcedures
from tokenmem.procedures.messages import MessageProcedures
from tokenmem.procedures.organizing import OrganizingProcedures
from tokenmem.procedures.reading import ReadingProcedures
from tokenmem.procedures.retention import RetentionProcedures
from tokenmem.procedures.transfer import TransferProcedures
from tokenmem.procedures.versions import VersionProcedures

__all__ = ["Procedures", "checked_unstorable", "resolve_counter"]


@dataclass(frozen=True, slots=True)
class Procedures(
    ConversationProcedures,
    OrganizingProcedures,
    MessageProcedures,
    ReadingProcedures,
    ChangingProcedures,
    VersionProcedures,
    CallProcedures,
    RetentionProcedures,
    TransferProcedures,
):
    """The procedures of one store, on every subject.

    Attributes:
        counter: the counter of new conversations.
        scope: the schema and the owner that every statement carries.
        keep_versions: whether edits keep what they replace.
        unstorable: what becomes of messages with characters that databases cannot hold.
    """

    def upgrade(self, revision: str, own_file: bool) -> Procedure[None]:
        """Create or migrate the tables. `own_file`: whether a SQLite file's journal is ours to choose."""
        if own_file:
            yield from perform(Read(use_write_ahead_log))
        yield from with_retries(
            Write(
                lambda connection: migrate.upgrade(connection, self.scope.schema, revision), takes_long=True
            )
        )
